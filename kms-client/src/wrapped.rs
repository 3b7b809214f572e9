//! The wrapped key as it travels: one small file beside the manifest, believed by nobody. What it opens to is checked against the
//! key check value in the signed manifest.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::arn::KeyArn;

/// The file's name in a package.
pub const WRAPPED_KEY: &str = "key.kms.json";
/// The limit of the file, bytes.
pub const MAX_WRAPPED_KEY: usize = 16 * 1024;
/// The only format.
pub const FORMAT: &str = "cloister-kms-key/1";
/// The limit of `CiphertextBlob` in the service's model.
pub(crate) const MAX_CIPHERTEXT: usize = 6144;

/// What KMS binds a wrapped key to and shows in CloudTrail, in the clear. Rebuilt by the enclave from what it verified itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionContext(BTreeMap<String, String>);

impl EncryptionContext {
    /// The version of one model: its name, its epoch, and the SHA-256 of its signed manifest in hex.
    #[must_use]
    pub fn model(name: &str, epoch: u64, manifest_sha256: &str) -> Self {
        let pairs = [
            ("cloister:model", name.to_owned()),
            ("cloister:epoch", epoch.to_string()),
            ("cloister:manifest-sha256", manifest_sha256.to_owned()),
        ];
        Self(
            pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        )
    }

    pub(crate) fn pairs(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// A data key under a KMS key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The KMS key that wrapped it; an enclave asks only the one in its own configuration.
    pub key_arn: KeyArn,
    /// `CiphertextBlob`.
    pub ciphertext: Vec<u8>,
}

/// The file is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WrappedKeyError {
    /// Another version of it.
    #[error("is of format {found:?}, this program reads {FORMAT}")]
    Format {
        /// As found, shortened.
        found: String,
    },
    /// Something else, or altered.
    #[error("is not a wrapped key; make it with cloister seal --kms-key")]
    Malformed,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    key_arn: KeyArn,
    ciphertext: String,
}

impl WrappedKey {
    /// # Errors
    /// See [`WrappedKeyError`].
    pub fn parse(json: &[u8]) -> Result<Self, WrappedKeyError> {
        #[derive(Deserialize)]
        struct Format {
            format: String,
        }
        if json.len() > MAX_WRAPPED_KEY {
            return Err(WrappedKeyError::Malformed);
        }
        let Ok(Format { format }) = serde_json::from_slice(json) else {
            return Err(WrappedKeyError::Malformed);
        };
        if format != FORMAT {
            let plain = format.chars().filter(|c| c.is_ascii_graphic());
            return Err(WrappedKeyError::Format {
                found: plain.take(64).collect(),
            });
        }
        let Ok(file) = serde_json::from_slice::<File>(json) else {
            return Err(WrappedKeyError::Malformed);
        };
        match STANDARD.decode(file.ciphertext) {
            Ok(ciphertext) if (1..=MAX_CIPHERTEXT).contains(&ciphertext.len()) => Ok(Self {
                key_arn: file.key_arn,
                ciphertext,
            }),
            _ => Err(WrappedKeyError::Malformed),
        }
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let file = serde_json::json!({
            "format": FORMAT,
            "key_arn": self.key_arn,
            "ciphertext": STANDARD.encode(&self.ciphertext),
        });
        format!("{file:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped() -> WrappedKey {
        WrappedKey {
            key_arn: "arn:aws:kms:eu-central-1:111122223333:key/a"
                .parse()
                .unwrap(),
            ciphertext: vec![7; 200],
        }
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        assert_eq!(
            WrappedKey::parse(wrapped().to_json().as_bytes()),
            Ok(wrapped())
        );
    }

    #[test]
    fn another_format_is_named_and_everything_else_refused() {
        let text = wrapped().to_json();
        let later = text.replace(FORMAT, "cloister-kms-key/2");
        assert_eq!(
            WrappedKey::parse(later.as_bytes()),
            Err(WrappedKeyError::Format {
                found: "cloister-kms-key/2".to_owned()
            })
        );
        for bad in [
            String::new(),
            "{}".to_owned(),
            text.replace("key/a", "alias/a"),
            text.replace("\"format\"", "\"more\": 1, \"format\""),
            text.replace("BwcH", "B cH"),
            WrappedKey {
                ciphertext: vec![],
                ..wrapped()
            }
            .to_json(),
            WrappedKey {
                ciphertext: vec![0; MAX_CIPHERTEXT + 1],
                ..wrapped()
            }
            .to_json(),
            " ".repeat(MAX_WRAPPED_KEY) + &text,
        ] {
            assert_eq!(
                WrappedKey::parse(bad.as_bytes()),
                Err(WrappedKeyError::Malformed),
                "{bad}"
            );
        }
    }
}
