use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::Trusted;
use crate::failure::Failure;
use crate::measure::key_id;
use crate::{output, policy_text};

/// Print a policy that accepts the images which are published and not revoked
///
/// An image that is none of them any more drops out; a list with nothing active is refused, for an empty policy is a mistake.
#[derive(Args)]
pub(super) struct Policy {
    #[command(flatten)]
    trusted: Trusted,
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Format,
    /// Only images of this name.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Key that a policy for kbs gives to these images. May be given several times.
    #[arg(long, value_name = "ID", value_parser = key_id)]
    key_id: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Line of a gateway's configuration, and of [[issuer.map]] of kbs.
    Gateway,
    /// Rego policy for kbs.
    Kbs,
    Json,
}

impl Policy {
    pub(super) fn run(&self) -> Result<(), Failure> {
        if (self.format == Format::Kbs) == self.key_id.is_empty() {
            return Err(Failure::usage(anyhow::anyhow!(
                "--format kbs and --key-id go together: name the keys, as models/<name>/epoch-<n>"
            )));
        }
        let log = self.trusted.read()?;
        let images: Vec<Vec<_>> = log
            .active(self.name.as_deref())
            .map(|publication| publication.image.pcrs.iter().collect())
            .collect();
        if images.is_empty() {
            return Err(Failure::refused(anyhow::anyhow!(
                "{}: no image{} is active: a policy without any would accept nothing",
                self.trusted.log.display(),
                self.name
                    .as_deref()
                    .map_or_else(String::new, |name| format!(" of the name {name:?}"))
            )));
        }
        output::print(&match self.format {
            Format::Gateway => policy_text::gateway(&images),
            Format::Kbs => policy_text::rego(&images, &self.key_id),
            Format::Json => {
                let images: Vec<Value> = images
                    .iter()
                    .map(|image| {
                        image
                            .iter()
                            .map(|(index, pcr)| (index.to_string(), json!(pcr)))
                            .collect::<serde_json::Map<_, _>>()
                            .into()
                    })
                    .collect();
                format!("{:#}\n", Value::from(images))
            }
        })
    }
}
