//! Registers in the words of those who decide on them.

use image::Pcr;
use serde_json::{Map, Value, json};

/// To be merged into a statement that allows `kms:Decrypt`. Several values of one key would be alternatives, so one image per statement.
pub(crate) fn kms(registers: &[(u8, Pcr)]) -> String {
    let conditions: Map<String, Value> = registers
        .iter()
        .map(|(index, pcr)| {
            (
                format!("kms:RecipientAttestation:PCR{index}"),
                pcr.to_string().into(),
            )
        })
        .collect();
    let block = json!({"Condition": {"StringEqualsIgnoreCase": conditions}});
    format!("{block:#}\n")
}

/// A whole policy for kbs; `keys` have nothing in them that a Rego string would have to escape.
pub(crate) fn rego(registers: &[(u8, Pcr)], keys: &[String]) -> String {
    let mut image = String::new();
    for (index, pcr) in registers {
        image += &format!("\t\t\"{index}\": \"{pcr}\",\n");
    }
    let keys: String = keys.iter().map(|key| format!("\t\"{key}\",\n")).collect();
    format!(
        "\
package policy

import rego.v1

default allow := false

# Every register of one of them has to match.
images := [
\t{{
{image}\t}},
]

keys := {{
{keys}}}

allow if {{
\tdata.plugin == \"resource\"
\tconcat(\"/\", data[\"resource-path\"]) in keys
\tsome image in images
\tevery index, value in image {{
\t\tinput.nitro.pcrs[index] == value
\t}}
}}
"
    )
}

/// A line of TOML, for `[policy]` of a gateway and for `[[issuer.map]]` of kbs.
pub(crate) fn gateway(registers: &[(u8, Pcr)]) -> String {
    let image: Vec<String> = registers
        .iter()
        .map(|(index, pcr)| format!("\"{index}\" = \"{pcr}\""))
        .collect();
    format!("images = [{{ {} }}]\n", image.join(", "))
}
