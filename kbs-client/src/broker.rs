use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use attestation::{AttestationRequest, Attester, Binding, BootId, Evidence, Sha256Digest, Subject};
use identity::{Accept, BundleHandle, Clock, SpiffeId, Svid, TrustBundles};
use rustls::ClientConfig;
use transport::Endpoint;
use zeroize::Zeroizing;

use crate::error::{Error, Failure};
use crate::http::{ALPN, Connection};
use crate::rcar::{self, NitroEvidence};
use crate::tee_key::TeeKey;
use crate::{retry, svid};

/// Where the broker is, and who it must be.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// What is dialled; behind it the host passes bytes on.
    pub endpoint: Endpoint,
    /// The exact ID in the broker's X.509-SVID.
    pub spiffe_id: SpiffeId,
}

/// A secret that the broker released. Believe it only when the sealed model's authentication tags open under it.
pub struct KeyBytes(Zeroizing<Vec<u8>>);

impl KeyBytes {
    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Boxed, so that [`KeyBroker`] can stand behind `dyn`.
pub type BrokerFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Whoever releases keys and identities to attested software.
pub trait KeyBroker: Send + Sync {
    /// An X.509-SVID for `id` over a key that never left this process.
    fn issue_svid<'a>(&'a self, id: &'a SpiffeId) -> BrokerFuture<'a, Svid>;

    /// The secret stored under `key_id`, for instance `models/<name>/epoch-<n>`.
    fn data_key<'a>(&'a self, key_id: &'a str) -> BrokerFuture<'a, KeyBytes>;
}

/// The key broker behind one endpoint.
pub struct Broker {
    config: BrokerConfig,
    bundles: BundleHandle,
    tls: Arc<ClientConfig>,
    clock: Clock,
    attester: Arc<dyn Attester>,
    config_digest: Sha256Digest,
    boot_id: BootId,
}

impl Broker {
    /// `bundles` come from measured configuration: they decide who the broker is, and whose SVIDs we take.
    ///
    /// # Errors
    /// The TLS library refused its own settings.
    pub fn new(
        config: BrokerConfig,
        bundles: TrustBundles,
        attester: Arc<dyn Attester>,
        config_digest: Sha256Digest,
        boot_id: BootId,
    ) -> Result<Self, identity::Error> {
        let bundles = bundles.into_handle();
        let clock = Clock::system();
        let tls = tls(&config, &bundles, &clock)?;
        Ok(Self {
            config,
            bundles,
            tls,
            clock,
            attester,
            config_digest,
            boot_id,
        })
    }

    /// Checks certificates against `clock` instead of the system's.
    ///
    /// # Errors
    /// As [`Broker::new`].
    pub fn with_clock(self, clock: Clock) -> Result<Self, identity::Error> {
        let tls = tls(&self.config, &self.bundles, &clock)?;
        Ok(Self { tls, clock, ..self })
    }

    /// Makes a P-256 key and gets an X.509-SVID for `id` over it: by fresh evidence, checked as a stranger's would be.
    ///
    /// # Errors
    /// See [`Error`]. [`Error::Malformed`] also when the chain is not what was asked for.
    pub async fn issue_svid(&self, id: &SpiffeId) -> Result<Svid, Error> {
        retry::with_backoff(|| self.try_issue_svid(id)).await
    }

    /// Makes a recipient key and has the secret under `key_id` released to it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn data_key(&self, key_id: &str) -> Result<KeyBytes, Error> {
        rcar::check_key_id(key_id)?;
        retry::with_backoff(|| self.try_data_key(key_id)).await
    }

    async fn try_data_key(&self, key_id: &str) -> Result<KeyBytes, Failure> {
        let mut connection = self.connect().await?;
        let session = rcar::authenticate(&mut connection).await?;
        let Ok(key) = TeeKey::generate_p256() else {
            return Err(Error::Request("no recipient key could be made").into());
        };
        let subject = Subject::KeyRelease {
            runtime_data_sha384: rcar::runtime_data_digest(&session.nonce, key.jwk()),
        };
        let nonce = session.nonce.as_bytes().to_vec();
        let evidence = self
            .evidence(nonce, key.spki_der().to_vec(), subject)
            .await?;
        rcar::attest(&mut connection, &session, &key, self.wire(&evidence)).await?;
        let secret = rcar::resource(&mut connection, &session, &key, key_id).await?;
        Ok(KeyBytes(secret))
    }

    async fn try_issue_svid(&self, id: &SpiffeId) -> Result<Svid, Failure> {
        let mut connection = self.connect().await?;
        let nonce = svid::challenge(&mut connection).await?;
        let own = |_detail| Error::Request("no request for this spiffe id could be made");
        let (pkcs8, csr) = identity::issue::key_and_csr(id).map_err(own)?;
        let spki = identity::issue::csr(&csr).map_err(own)?.spki_der;
        let subject = Subject::SvidIssuance {
            csr_sha256: Sha256Digest::of(&csr),
            spki_sha256: Sha256Digest::of(&spki),
        };
        let evidence = self
            .evidence(nonce.as_bytes().to_vec(), spki.clone(), subject)
            .await?;
        let chain = svid::issue(&mut connection, &nonce, &csr, self.wire(&evidence)).await?;

        let refuse = |error: identity::Error| {
            tracing::warn!(%error, "the issued chain was not taken");
            Failure::malformed("issued chain")
        };
        let now = self.clock.now().map_err(refuse)?;
        let leaf = self.bundles.load().verify(&chain, now).map_err(refuse)?;
        if leaf.id != *id {
            return Err(Failure::malformed("spiffe id of the issued chain"));
        }
        if leaf.spki_der != spki {
            return Err(Failure::malformed("key of the issued chain"));
        }
        Svid::from_der(chain, pkcs8).map_err(refuse)
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        Connection::open(&self.config.endpoint, Arc::clone(&self.tls)).await
    }

    /// The secure module's calls block, so they run where blocking is allowed.
    async fn evidence(
        &self,
        nonce: Vec<u8>,
        public_key: Vec<u8>,
        subject: Subject,
    ) -> Result<Evidence, Failure> {
        let binding = Binding {
            config_digest: self.config_digest,
            boot_id: self.boot_id,
            subject,
        };
        let attester = Arc::clone(&self.attester);
        let attest = tokio::task::spawn_blocking(move || {
            attester.attest(&AttestationRequest {
                user_data: &binding.user_data(),
                nonce: &nonce,
                public_key: &public_key,
            })
        });
        match attest.await {
            Ok(evidence) => evidence.map_err(|error| Failure::Final(error.into())),
            Err(_) => Err(Error::Request("the attester stopped").into()),
        }
    }

    fn wire(&self, evidence: &Evidence) -> NitroEvidence {
        NitroEvidence::new(evidence, self.config_digest, self.boot_id)
    }
}

impl KeyBroker for Broker {
    fn issue_svid<'a>(&'a self, id: &'a SpiffeId) -> BrokerFuture<'a, Svid> {
        Box::pin(Self::issue_svid(self, id))
    }

    fn data_key<'a>(&'a self, key_id: &'a str) -> BrokerFuture<'a, KeyBytes> {
        Box::pin(Self::data_key(self, key_id))
    }
}

/// No certificate of ours: what we are is in the evidence.
fn tls(
    config: &BrokerConfig,
    bundles: &BundleHandle,
    clock: &Clock,
) -> Result<Arc<ClientConfig>, identity::Error> {
    identity::client_config_at(
        clock.clone(),
        None,
        Arc::clone(bundles),
        Accept::Ids(vec![config.spiffe_id.clone()]),
        ALPN,
    )
}
