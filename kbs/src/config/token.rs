//! `[token]`: the key that signs attestation tokens, and what is published beside it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Config, ConfigError};
use crate::token::TokenSigner;

/// More are no rotation.
const MAX_PUBLISHED: usize = 8;

/// `[token]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Signs tokens: P-256, PKCS#8 PEM, mode 0600.
    pub key: PathBuf,
    /// Public keys (PEM) in the published set besides: the next one, and the previous one. Their tokens are taken here.
    #[serde(default)]
    pub publish: Vec<PathBuf>,
}

impl Token {
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        std::iter::once(&mut self.key).chain(&mut self.publish)
    }
}

impl Config {
    /// With the configured key, else with one that ends with the process.
    pub(crate) fn token_signer(&self) -> Result<TokenSigner, ConfigError> {
        let Some(token) = &self.token else {
            return TokenSigner::generate()
                .ok_or_else(|| self.error("token", "no key can be made: no randomness"));
        };
        if token.publish.len() > MAX_PUBLISHED {
            let problem = format!("names more than {MAX_PUBLISHED} keys");
            return Err(self.error("token.publish", problem));
        }
        self.private("token.key", &token.key)?;
        let pem = self.pem("token.key", &token.key)?;
        let mut signer = TokenSigner::from_pem(&pem).map_err(|problem| {
            self.error("token.key", format!("{}: {problem}", token.key.display()))
        })?;
        for path in &token.publish {
            let pem = self.pem("token.publish", path)?;
            signer.publish(&pem).map_err(|problem| {
                self.error("token.publish", format!("{}: {problem}", path.display()))
            })?;
        }
        Ok(signer)
    }

    /// Nobody but its owner may read the file.
    fn private(&self, field: &str, path: &Path) -> Result<(), ConfigError> {
        let at = |problem: String| self.error(field, format!("{}: {problem}", path.display()));
        let metadata =
            std::fs::metadata(path).map_err(|error| at(format!("cannot be read: {error}")))?;
        let mode = metadata.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(at(format!(
                "mode is {:o}, others can read it; set it to 600",
                mode & 0o777
            )));
        }
        Ok(())
    }
}
