use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use attestation::{AttestationRequest, Attester, Binding, BootId, Evidence, Sha256Digest, Subject};
use identity::{BundleHandle, Clock, SpiffeId, Svid, TrustBundles};
use zeroize::Zeroizing;

use crate::error::{Error, Failure};
use crate::http::{Connection, Proof};
use crate::rcar::{self, NitroEvidence};
use crate::server::{Link, Server};
use crate::step::{Observer, Step};
use crate::tee_key::TeeKey;
use crate::{retry, svid};

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

/// Key brokers of one owner, any of which will do; keys may come from another server on their word.
pub struct Broker {
    brokers: Vec<Link>,
    /// Which of them answered last.
    preferred: AtomicUsize,
    trustee: Option<Link>,
    bundles: BundleHandle,
    clock: Clock,
    attester: Arc<dyn Attester>,
    config_digest: Sha256Digest,
    boot_id: BootId,
    observer: Option<Observer>,
}

impl Broker {
    /// `bundles` come from measured configuration: they decide who the brokers are, and whose SVIDs we take.
    ///
    /// # Errors
    /// The TLS library refused its own settings, or a server's roots.
    pub fn new(
        brokers: Vec<Server>,
        bundles: TrustBundles,
        attester: Arc<dyn Attester>,
        config_digest: Sha256Digest,
        boot_id: BootId,
    ) -> Result<Self, identity::Error> {
        let bundles = bundles.into_handle();
        let clock = Clock::system();
        let link = |server| Link::new(server, &bundles, &clock);
        Ok(Self {
            brokers: brokers.into_iter().map(link).collect::<Result<_, _>>()?,
            preferred: AtomicUsize::new(0),
            trustee: None,
            bundles,
            clock,
            attester,
            config_digest,
            boot_id,
            observer: None,
        })
    }

    /// Keys come from `trustee`, which never sees our evidence: it gets the broker's token about us (RATS passport model,
    /// RFC 9334 §5.1). It has to trust the broker's signing key. Identities come from the broker as before.
    ///
    /// # Errors
    /// As [`Broker::new`].
    pub fn with_trustee(mut self, trustee: Server) -> Result<Self, identity::Error> {
        self.trustee = Some(Link::new(trustee, &self.bundles, &self.clock)?);
        Ok(self)
    }

    /// Checks certificates against `clock` instead of the system's.
    ///
    /// # Errors
    /// As [`Broker::new`].
    pub fn with_clock(mut self, clock: Clock) -> Result<Self, identity::Error> {
        let links = self.brokers.iter_mut().chain(&mut self.trustee);
        for link in links {
            *link = Link::new(link.server.clone(), &self.bundles, &clock)?;
        }
        self.clock = clock;
        Ok(self)
    }

    /// Tells `observer` of each step once it is behind us.
    #[must_use]
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Makes a P-256 key and gets an X.509-SVID for `id` over it: by fresh evidence, checked as a stranger's would be.
    ///
    /// # Errors
    /// See [`Error`]. [`Error::Malformed`] also when the chain is not what was asked for.
    pub async fn issue_svid(&self, id: &SpiffeId) -> Result<Svid, Error> {
        let attempt = |broker| self.try_issue_svid(broker, id);
        retry::with_backoff(&self.brokers, &self.preferred, attempt).await
    }

    /// Makes a recipient key and has the secret under `key_id` released to it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn data_key(&self, key_id: &str) -> Result<KeyBytes, Error> {
        rcar::check_key_id(key_id)?;
        let attempt = |broker| self.try_data_key(broker, key_id);
        retry::with_backoff(&self.brokers, &self.preferred, attempt).await
    }

    async fn try_data_key(&self, broker: &Link, key_id: &str) -> Result<KeyBytes, Failure> {
        let mut connection = self.connect(broker).await?;
        let session = rcar::authenticate(&mut connection).await?;
        self.done(Step::Challenge);
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
        let evidence = self.wire(&evidence);
        self.done(Step::Evidence);
        let secret = match &self.trustee {
            None => {
                rcar::attest(&mut connection, &session, &key, evidence).await?;
                self.done(Step::Attested);
                let proof = Proof::Cookie(&session.cookie);
                rcar::resource(&mut connection, proof, &key, key_id).await?
            }
            Some(trustee) => {
                let token = rcar::token(&mut connection, &session, &key, evidence).await?;
                self.done(Step::Token);
                let mut connection = self.connect(trustee).await?;
                let proof = Proof::Bearer(&token);
                rcar::resource(&mut connection, proof, &key, key_id).await?
            }
        };
        self.done(Step::Resource);
        Ok(KeyBytes(secret))
    }

    async fn try_issue_svid(&self, broker: &Link, id: &SpiffeId) -> Result<Svid, Failure> {
        let mut connection = self.connect(broker).await?;
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

    async fn connect(&self, server: &Link) -> Result<Connection, Failure> {
        let connection = Connection::open(server).await?;
        self.done(Step::Connection);
        Ok(connection)
    }

    fn done(&self, step: Step) {
        if let Some(observer) = &self.observer {
            observer(step);
        }
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
