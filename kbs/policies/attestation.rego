# Attestation policy (`kbs attestation-policy set`): the trust claims of AR4SI that a token carries, by reference values
# that are set apart from it. For relying parties that judge by `ear.status`; our own broker's resource policies see the
# registers themselves and need none of this.
#
# Reference values, each a list:
#   nitro_images   {"0": PCR0, "1": PCR1, "2": PCR2} of each accepted image
#   nitro_signers  PCR8 of each accepted signer. Without this value signatures are not judged
package policy

import rego.v1

trust_claims := object.union({"executables": executables, "hardware": 2}, signer)

# A value that was never set is null, through which nothing can be looped.
default images := []

images := query_reference_value("nitro_images") if is_array(query_reference_value("nitro_images"))

# 3: a recognized, genuine set of executables was loaded. 33: they are not recognized.
default executables := 33

executables := 3 if {
	some image in images
	input["aws-nitro"].pcrs["0"] == image["0"]
	input["aws-nitro"].pcrs["1"] == image["1"]
	input["aws-nitro"].pcrs["2"] == image["2"]
}

# `hardware` 2: the broker accepts evidence under its trust anchor only, and none of an enclave in debug mode.

# 2: a recognized identity. 97: it is not trusted.
signer := {} if query_reference_value("nitro_signers") == null

signer := {"instance-identity": 2} if {
	input["aws-nitro"].pcrs["8"] in query_reference_value("nitro_signers")
}

signer := {"instance-identity": 97} if {
	signers := query_reference_value("nitro_signers")
	signers != null
	not input["aws-nitro"].pcrs["8"] in signers
}
