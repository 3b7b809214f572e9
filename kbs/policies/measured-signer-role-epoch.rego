# As measured-images, and besides: the image is signed by a certificate of yours (PCR8), it runs on an instance with a
# role of yours (PCR3), and no epoch below a model's floor is released any more.
#
#   kbs policy test --policy measured-signer-role-epoch.rego --document evidence.bin --resource models/demo/epoch-3
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

# PCR8 of the certificates that sign your images. An unsigned image has zeros there: never list those.
signers := {"<PCR8: 96 hex digits>"}

# PCR3 of the IAM roles your enclaves' parents run with (`cloister measure --role ARN`).
roles := {"<PCR3: 96 hex digits>"}

# The lowest epoch of each model that is still released. A model without a floor is not released at all.
floors := {"demo": 1}

default allow := false

allow if {
	measured
	signed
	placed
	current
}

default measured := false

measured if {
	some image in images
	input.nitro.pcrs["0"] == image["0"]
	input.nitro.pcrs["1"] == image["1"]
	input.nitro.pcrs["2"] == image["2"]
}

default signed := false

signed if {
	input.nitro.pcrs["8"] in signers
	input.nitro.pcrs["8"] != zero
}

default placed := false

placed if {
	input.nitro.pcrs["3"] in roles
	input.nitro.pcrs["3"] != zero
}

# models/<name>/epoch-<n>, n in decimal digits without a leading zero.
default current := false

current if {
	data.plugin == "resource"
	["models", name, tag] = data["resource-path"]
	regex.match(`^epoch-[1-9][0-9]{0,9}$`, tag)
	to_number(trim_prefix(tag, "epoch-")) >= floors[name]
}

# What a register holds that nothing was extended into.
zero := "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"

# For the release log and `kbs policy test`; a peer is not told.
reasons contains "PCR0, PCR1 and PCR2 are those of no listed image" if not measured

reasons contains "PCR8 is that of no listed signer" if not signed

reasons contains "PCR3 is that of no listed role" if not placed

reasons contains "the path is not models/<name>/epoch-<n>, the model has no floor, or the epoch is below it" if not current
