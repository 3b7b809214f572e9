//! `--kms-key`: the data key under a key of AWS KMS, in a file beside the manifest. Only `Encrypt` is asked for, so the key's policy
//! need not let the publisher see any plaintext of it.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::anyhow;
use clap::Args;
use kms_client::{
    CredentialSource, Credentials, EncryptionContext, Error, KeyArn, Kms, KmsConfig, Roots,
    WRAPPED_KEY, WrappedKey,
};
use sealed_model::{DataKey, Manifest, Sha256Digest};
use transport::Endpoint;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// A file of credentials holds a few profiles.
const MAX_CREDENTIALS: u64 = 256 * 1024;

#[derive(Args)]
pub(crate) struct KmsArguments {
    /// Also wrap the data key under this key of AWS KMS, as key.kms.json in the package: arn:aws:kms:REGION:ACCOUNT:key/ID.
    /// Credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN), else AWS_PROFILE in ~/.aws/credentials.
    #[arg(long = "kms-key", value_name = "ARN")]
    key: Option<KeyArn>,
    /// Reach KMS here instead of at its public address, such as tcp://127.0.0.1:8443; its certificate must name it all the same.
    #[arg(long = "kms-endpoint", value_name = "ENDPOINT", requires = "key")]
    endpoint: Option<Endpoint>,
    /// Root certificates for KMS instead of Amazon's, PEM.
    #[arg(long = "kms-roots", value_name = "PEM", requires = "key")]
    roots: Option<PathBuf>,
}

/// All that is needed to wrap, gathered before a long run of sealing.
pub(crate) struct Wrapper {
    key: KeyArn,
    kms: Kms,
}

impl KmsArguments {
    pub(crate) fn wrapper(&self, now: SystemTime) -> Result<Option<Wrapper>, Failure> {
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let roots = match &self.roots {
            None => Roots::amazon(),
            Some(path) => Roots::from_pem(
                &std::fs::read_to_string(path).map_err(|error| Failure::io("read", path, error))?,
            ),
        };
        let config = KmsConfig {
            endpoint: match &self.endpoint {
                Some(endpoint) => endpoint.clone(),
                None => Endpoint::Tcp(format!("{}:443", key.host())),
            },
            roots: roots.map_err(|error| Failure::usage(anyhow!("--kms-roots {error}")))?,
            credentials: CredentialSource::Fixed(Arc::new(credentials()?)),
        };
        // The time this program was given, moved on by what has passed since.
        let started = tokio::time::Instant::now();
        let now = Arc::new(move || now + started.elapsed());
        Ok(Some(Wrapper {
            key: key.clone(),
            kms: Kms::new(config, now).map_err(Failure::bug)?,
        }))
    }
}

impl Wrapper {
    /// Wraps `key` for the package `dir`, bound to its name, epoch and manifest. Gives the file's path.
    pub(crate) fn wrap(
        &self,
        dir: &Path,
        manifest: &Manifest,
        key: &DataKey,
    ) -> Result<PathBuf, Failure> {
        let path = dir.join(sealed_model::MANIFEST);
        let bytes = std::fs::read(&path).map_err(|error| Failure::io("read", &path, error))?;
        let digest = Sha256Digest::of(&bytes);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::bug)?;
        let context = EncryptionContext::model(&manifest.name, manifest.epoch, &digest.to_string());
        let ciphertext = runtime
            .block_on(self.kms.encrypt(&self.key, key.expose(), &context))
            .map_err(|error| {
                let text = anyhow!(
                    "{}: sealed, but its key is not wrapped: {error} (remove it and seal again)",
                    dir.display()
                );
                match error {
                    Error::Refused { .. } => Failure::refused(text),
                    Error::Unavailable { .. } => Failure::unavailable(text),
                    _ => Failure::bug(text),
                }
            })?;
        let wrapped = WrappedKey {
            key_arn: self.key.clone(),
            ciphertext,
        };
        let path = dir.join(WRAPPED_KEY);
        let write = || {
            let mut file = File::create_new(&path)?;
            file.write_all(wrapped.to_json().as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error| Failure::io("write", &path, error))?;
        Ok(path)
    }
}

/// As the AWS tools find them, as far as a file or the environment holds them: single sign-on, roles and the like are theirs, and
/// `aws configure export-credentials --format env` brings what they find here.
fn credentials() -> Result<Credentials, Failure> {
    let from_env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let made = |id: String, secret: String, token: Option<String>| {
        Credentials::new(id, Zeroizing::new(secret), token.map(Zeroizing::new), None)
    };
    let (id, secret) = (
        from_env("AWS_ACCESS_KEY_ID"),
        from_env("AWS_SECRET_ACCESS_KEY"),
    );
    if let (Some(id), Some(secret)) = (id, secret) {
        return made(id, secret, from_env("AWS_SESSION_TOKEN"))
            .map_err(|error| Failure::usage(anyhow!("AWS_ACCESS_KEY_ID …: {error}")));
    }
    let profile = from_env("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
    let file = from_env("AWS_SHARED_CREDENTIALS_FILE")
        .map(PathBuf::from)
        .or_else(|| from_env("HOME").map(|home| Path::new(&home).join(".aws/credentials")));
    let wanted = || {
        Failure::usage(anyhow!(
            "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY \
             (eval \"$(aws configure export-credentials --format env)\"), or name a profile of ~/.aws/credentials in AWS_PROFILE"
        ))
    };
    let file = file.ok_or_else(wanted)?;
    let mut text = Zeroizing::new(String::new());
    let read =
        File::open(&file).and_then(|file| file.take(MAX_CREDENTIALS).read_to_string(&mut text));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(wanted()),
        Err(error) => return Err(Failure::io("read", &file, error)),
    }
    let part = |name: &str| member(&text, &profile, name);
    match (part("aws_access_key_id"), part("aws_secret_access_key")) {
        (Some(id), Some(secret)) => made(id, secret, part("aws_session_token"))
            .map_err(|error| Failure::usage(anyhow!("{}: {error}", file.display()))),
        _ => Err(Failure::usage(anyhow!(
            "{}: profile {profile} holds no access key; name another in AWS_PROFILE",
            file.display()
        ))),
    }
}

/// `name = value` below `[section]` (AWS CLI, "Configuration and credential file settings").
fn member(text: &str, section: &str, name: &str) -> Option<String> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            inside = header.trim() == section;
        } else if inside
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == name
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_and_no_other() {
        let text = "# c\n[default]\naws_access_key_id = A\n\n[ work ]\naws_access_key_id=B\n aws_secret_access_key = s=t \n[other]\naws_session_token = x\n";
        assert_eq!(
            member(text, "default", "aws_access_key_id").as_deref(),
            Some("A")
        );
        assert_eq!(
            member(text, "work", "aws_access_key_id").as_deref(),
            Some("B")
        );
        assert_eq!(
            member(text, "work", "aws_secret_access_key").as_deref(),
            Some("s=t")
        );
        assert_eq!(member(text, "work", "aws_session_token"), None);
        assert_eq!(member(text, "absent", "aws_access_key_id"), None);
    }
}
