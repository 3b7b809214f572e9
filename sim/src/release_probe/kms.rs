//! `--mode kms`: a package's wrapped key, decrypted by AWS KMS, or by what stands in for it, to an attested key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestation::{AttestError, AttestationRequest, Attester, Evidence, Pcr, Pcrs, Sha256Digest};
use kms_client::{
    CredentialSource, Credentials, EncryptionContext, Error, KeyArn, Kms, KmsConfig,
    MAX_WRAPPED_KEY, Roots, Secret, WRAPPED_KEY, WrappedKey,
};
use sealed_model::{MANIFEST, MAX_MANIFEST_BYTES, Manifest};
use transport::Endpoint;
use zeroize::Zeroizing;

use super::{Failure, module, server};
use crate::stack::Clock;

#[derive(clap::Args)]
pub(super) struct KmsArgs {
    /// kms: the sealed model whose key.kms.json is to be decrypted; nothing else of it is read but manifest.json
    #[arg(long, value_name = "DIR", required_if_eq("mode", "kms"))]
    package: Option<PathBuf>,
    /// kms: the key that has to answer, arn:aws:kms:REGION:ACCOUNT:key/ID; by default the one that key.kms.json names
    #[arg(long, value_name = "ARN")]
    key: Option<KeyArn>,
}

/// Calls back once evidence was made.
struct Watched<A, F> {
    inner: A,
    made: F,
}

impl<A: Attester, F: Fn() + Send + Sync> Attester for Watched<A, F> {
    fn attest(&self, request: &AttestationRequest<'_>) -> Result<Evidence, AttestError> {
        let evidence = self.inner.attest(request)?;
        (self.made)();
        Ok(evidence)
    }

    fn measurements(&self) -> Result<Pcrs, AttestError> {
        self.inner.measurements()
    }

    fn extend_and_lock(&self, index: u8, data: &[u8]) -> Result<Pcr, AttestError> {
        self.inner.extend_and_lock(index, data)
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), AttestError> {
        self.inner.random(bytes)
    }
}

impl KmsArgs {
    /// Asks the service at `url`, or the public one of the key's region, under `ca` or Amazon's roots.
    pub(super) async fn obtain(
        &self,
        url: Option<&str>,
        ca: Option<&Path>,
        attester: impl Attester + 'static,
        now: Clock,
        made: impl Fn() + Send + Sync + 'static,
    ) -> Result<Secret, Failure> {
        let Some(package) = &self.package else {
            return Err(Failure::usage("--mode kms needs --package DIR"));
        };
        let named = |name: &str, error: &dyn std::fmt::Display| {
            Failure::usage(format!("{}: {error}", package.join(name).display()))
        };
        let manifest_bytes = module::read(&package.join(MANIFEST), MAX_MANIFEST_BYTES)?;
        let manifest = Manifest::parse(&manifest_bytes).map_err(|error| named(MANIFEST, &error))?;
        let wrapped = module::read(&package.join(WRAPPED_KEY), MAX_WRAPPED_KEY as u64)?;
        let wrapped = WrappedKey::parse(&wrapped).map_err(|error| named(WRAPPED_KEY, &error))?;
        let arn = self.key.as_ref().unwrap_or(&wrapped.key_arn);

        let roots = match ca {
            None => Roots::amazon(),
            Some(path) => Roots::from_pem(&server::read(path)?),
        };
        let endpoint = match url {
            None => Endpoint::Tcp(format!("{}:443", arn.host())),
            Some(url) => server::endpoint(url)?,
        };
        let config = KmsConfig {
            endpoint,
            roots: roots.map_err(|error| Failure::usage(error.to_string()))?,
            credentials: CredentialSource::Fixed(Arc::new(credentials()?)),
        };
        let digest = Sha256Digest::of(&manifest_bytes).to_string();
        let context = EncryptionContext::model(&manifest.name, manifest.epoch, &digest);
        let attester: Arc<dyn Attester> = Arc::new(Watched {
            inner: attester,
            made,
        });
        let kms = Kms::new(config, now).map_err(explained)?;
        kms.decrypt(&attester, arn, &wrapped.ciphertext, &context)
            .await
            .map_err(explained)
    }
}

/// As AWS's own tools take them from the environment; they authorise nothing that the key's policy does not.
fn credentials() -> Result<Credentials, Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(id), Some(secret)) = (
        variable("AWS_ACCESS_KEY_ID"),
        variable("AWS_SECRET_ACCESS_KEY"),
    ) else {
        return Err(Failure::usage(
            "--mode kms needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN for a role's",
        ));
    };
    let token = variable("AWS_SESSION_TOKEN").map(Zeroizing::new);
    Credentials::new(id, Zeroizing::new(secret), token, None)
        .map_err(|error| Failure::usage(format!("AWS_ACCESS_KEY_ID …: {error}")))
}

fn explained(error: Error) -> Failure {
    let code = match &error {
        Error::Refused { .. } => 77,
        Error::Setup(_) => 64,
        Error::Attester(_) => 70,
        _ => 69,
    };
    let hint = match &error {
        Error::Refused { kind, .. } if kind == "AccessDeniedException" => {
            "; the key's policy does not let this caller, these registers or this context"
        }
        _ => "",
    };
    Failure(format!("{error}{hint}"), code)
}
