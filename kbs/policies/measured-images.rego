# Releases models' keys to the images listed below, and to nothing else.
#
#   kbs policy test --policy measured-images.rego --document evidence.bin --resource models/demo/epoch-1
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

default allow := false

allow if {
	measured
	model_key
}

default measured := false

measured if {
	some image in images
	input.nitro.pcrs["0"] == image["0"]
	input.nitro.pcrs["1"] == image["1"]
	input.nitro.pcrs["2"] == image["2"]
}

# A model's key: models/<name>/epoch-<n>.
default model_key := false

model_key if {
	data.plugin == "resource"
	["models", _, tag] = data["resource-path"]
	startswith(tag, "epoch-")
}

# For the release log and `kbs policy test`; a peer is not told.
reasons contains "PCR0, PCR1 and PCR2 are those of no listed image" if not measured

reasons contains "the path is not models/<name>/epoch-<n>" if not model_key
