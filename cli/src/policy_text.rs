//! Registers in the words of those who decide on them.

use std::fmt::Display;

use attestation::RUNTIME_PCR;
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

/// A whole policy for kbs that accepts any of `images`; `keys` have nothing in them that a Rego string would have to escape.
pub(crate) fn rego<P: Display>(images: &[Vec<(u8, P)>], keys: &[String]) -> String {
    let images: String = images
        .iter()
        .map(|registers| {
            let lines: String = registers
                .iter()
                .map(|(index, pcr)| format!("\t\t\"{index}\": \"{pcr}\",\n"))
                .collect();
            format!("\t{{\n{lines}\t}},\n")
        })
        .collect();
    let keys: String = keys.iter().map(|key| format!("\t\"{key}\",\n")).collect();
    format!(
        "\
package policy

import rego.v1

default allow := false

# Every register of one of them has to match.
images := [
{images}]

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

/// A line of TOML that accepts any of `images`, for the policy of a gateway and, without PCR16, for `[[issuer.map]]` of kbs: an
/// identity is issued before that register is extended.
pub(crate) fn gateway<P: Display>(images: &[Vec<(u8, P)>]) -> String {
    let mut registers = images.iter().flatten();
    let only = match registers.any(|(index, _)| *index == RUNTIME_PCR) {
        true => "# PCR16: for the policy of a gateway only\n",
        false => "",
    };
    let images: Vec<String> = images
        .iter()
        .map(|registers| {
            let registers: Vec<String> = registers
                .iter()
                .map(|(index, pcr)| format!("\"{index}\" = \"{pcr}\""))
                .collect();
            format!("{{ {} }}", registers.join(", "))
        })
        .collect();
    format!("{only}images = [{}]\n", images.join(", "))
}
