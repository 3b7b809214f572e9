//! Step 6: a model's data key, from the broker or from AWS KMS as the measured configuration says. There is no second choice:
//! where one does not give it, the other is not asked.

use std::io;
use std::sync::Arc;

use attestation::{Attester, ModelIdentity};
use kbs_client::KeyBroker;
use kms_client::{
    CredentialSource, EncryptionContext, KeyArn, Kms, KmsConfig, MAX_WRAPPED_KEY, WRAPPED_KEY,
    WrappedKey,
};
use sealed_model::{DataKey, Source};
use tokio::task::spawn_blocking;

use crate::config::{KeySource, KmsAddress};
use crate::{Error, Platform};

/// Whom keys are asked from.
pub(crate) struct Keys {
    pub(crate) broker: Arc<dyn KeyBroker>,
    /// Present where a model's key comes from there.
    pub(crate) kms: Option<KmsKeys>,
}

/// AWS KMS, and who proves to it what we are.
pub(crate) struct KmsKeys {
    kms: Kms,
    attester: Arc<dyn Attester>,
}

impl KmsKeys {
    pub(crate) fn new(address: &KmsAddress, platform: &Platform) -> Result<Self, Error> {
        let config = KmsConfig {
            endpoint: address.endpoint.clone(),
            roots: address.roots.clone(),
            credentials: CredentialSource::host(address.credentials.clone()),
        };
        let kms = Kms::new(config, Arc::clone(&platform.now))
            .map_err(|_constants| Error::Internal("TLS to KMS cannot be set up"))?;
        Ok(Self {
            kms,
            attester: Arc::clone(&platform.attester),
        })
    }

    async fn data_key(
        &self,
        arn: &KeyArn,
        model: &ModelIdentity,
        files: impl Source + 'static,
    ) -> Result<DataKey, Error> {
        let wrapped = wrapped_key(files).await.and_then(|wrapped| {
            // Told apart from what KMS would say: this one the owner mends, by wrapping again.
            match wrapped.key_arn == *arn {
                true => Ok(wrapped),
                false => Err(invalid(format!(
                    "was wrapped by {}, and kms_key_arn is {arn}",
                    wrapped.key_arn
                ))),
            }
        });
        let wrapped = wrapped.map_err(|source| Error::WrappedKey {
            model: model.name.clone(),
            source,
        })?;
        let manifest = model.manifest_sha256.to_string();
        let context = EncryptionContext::model(&model.name, model.epoch, &manifest);
        let secret = self
            .kms
            .decrypt(&self.attester, arn, &wrapped.ciphertext, &context)
            .await
            .map_err(|source| Error::Kms {
                model: model.name.clone(),
                source,
            })?;
        DataKey::from_bytes(secret.expose()).map_err(|source| Error::Package {
            model: model.name.clone(),
            source,
        })
    }
}

impl Keys {
    /// The key of `model`; `files` are its package's. What it is worth shows when the package is unlocked with it.
    pub(crate) async fn data_key(
        &self,
        source: &KeySource,
        model: &ModelIdentity,
        files: impl Source + 'static,
    ) -> Result<DataKey, Error> {
        match (source, &self.kms) {
            (KeySource::Kms(arn), Some(kms)) => kms.data_key(arn, model, files).await,
            (KeySource::Kms(_), None) => Err(Error::Internal("no way to KMS was configured")),
            (KeySource::Broker, _) => {
                let key_id = sealed_model::key_id(&model.name, model.epoch);
                let key = self
                    .broker
                    .data_key(&key_id)
                    .await
                    .map_err(|source| Error::Key {
                        model: model.name.clone(),
                        source,
                    })?;
                DataKey::from_bytes(key.expose()).map_err(|source| Error::Package {
                    model: model.name.clone(),
                    source,
                })
            }
        }
    }
}

/// Reads the small file beside the manifest, through the hostile host.
async fn wrapped_key(files: impl Source + 'static) -> io::Result<WrappedKey> {
    let read = spawn_blocking(move || {
        let size = files.size(WRAPPED_KEY)?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > MAX_WRAPPED_KEY {
            return Err(invalid(format!(
                "has {size} bytes, more than {MAX_WRAPPED_KEY}"
            )));
        }
        let mut bytes = vec![0; size];
        files.read_at(WRAPPED_KEY, 0, &mut bytes)?;
        WrappedKey::parse(&bytes).map_err(invalid)
    });
    read.await
        .unwrap_or_else(|_panic| Err(io::Error::other("reading it panicked")))
}

fn invalid(problem: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
