# Resource policy of a stock Trustee for passports of a Cloister broker. Install it before any resource:
# Trustee's own default lets every token through that is not of the `sample` platform, with whatever measurements.
package policy

import rego.v1

# PCR0, PCR1 and PCR2 of each accepted image, as `cloister measure` prints them. All three are compared.
images := [
	{
		"0": "<PCR0: 96 hex digits>",
		"1": "<PCR1: 96 hex digits>",
		"2": "<PCR2: 96 hex digits>",
	},
]

# The root that the Cloister broker has to have verified against: AWS Nitro Enclaves Root-G1. A broker that was set up with
# a simulator's root signs passports just as well, under another fingerprint.
root := "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"

default allow := false

allow if {
	data.plugin == "resource"
	["models", _, _] = data["resource-path"]
	input.iss == "cloister-kbs"
	input.nitro.root_sha256 == root
	some image in images
	input.nitro.pcrs["0"] == image["0"]
	input.nitro.pcrs["1"] == image["1"]
	input.nitro.pcrs["2"] == image["2"]
}
