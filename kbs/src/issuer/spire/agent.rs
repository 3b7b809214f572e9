//! This broker as an agent of the server: attested once, renewed at half the life of its certificate, and given what its entries
//! say and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use identity::issue::key_and_nameless_csr;
use identity::{
    BundleHandle, Clock, Credentials, SpiffeId, Svid, TrustBundles, TrustDomain, federation,
};
use rustls_pki_types::CertificateDer;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;
use transport::Endpoint;
use zeroize::Zeroizing;

use super::call::{self, LIMIT, Link, MAX_ANSWER, refused};
use super::pb::spire::api::server::agent::v1::agent_client::AgentClient;
use super::pb::spire::api::server::agent::v1::{
    AgentX509svidParams, AttestAgentRequest, RenewAgentRequest, attest_agent_request,
    attest_agent_response,
};
use super::pb::spire::api::server::entry::v1::GetAuthorizedEntriesRequest;
use super::pb::spire::api::server::entry::v1::entry_client::EntryClient;
use super::pb::spire::api::server::svid::v1::svid_client::SvidClient;
use super::pb::spire::api::server::svid::v1::{BatchNewX509svidRequest, NewX509svidParams};
use super::{Attestor, Preflight, SpireError, joined, types};
use crate::desk::Now;
use crate::issuer::{IssuerBackend, IssuerError, Order};

/// SPIFFE IDs of agents begin with it.
const AGENT_PATH: &str = "/spire/agent/";
/// Requests that may wait for the server, so that a server that hangs leaves the broker's other decisions their place.
const CALLS: usize = 4;
/// SPIRE's agents look this often too. The clock may jump, so the age of certificates is looked at as often.
const LOOK: Duration = Duration::from_secs(5);
/// Between two looks at the trust bundle (SPIFFE Trust Domain and Bundle §4.1.4: five minutes where nothing is said).
const BUNDLE: Duration = Duration::from_secs(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

pub(crate) struct AgentSettings {
    pub(crate) server: Endpoint,
    /// Of the trust domain. The first handshake with the server is checked against it, so it is never learned from the network.
    pub(crate) bundles: TrustBundles,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) attestor: Attestor,
    pub(crate) preflight: Preflight,
    /// Every ID that the map gives out.
    pub(crate) ids: Vec<SpiffeId>,
    pub(crate) now: Now,
}

/// An attested agent; its renewals end when it is dropped.
pub(crate) struct Agent {
    inner: Arc<Inner>,
    renewal: AbortHandle,
}

struct Inner {
    link: Link,
    bundles: BundleHandle,
    trust_domain: TrustDomain,
    attestor: Attestor,
    credentials: Arc<Credentials>,
    preflight: Preflight,
    ids: Vec<SpiffeId>,
    /// Somebody else holds an ID of ours. For readiness; each signature looks by itself.
    exposed: AtomicBool,
    /// The server knows this agent no more: evicted, or restored from an older backup.
    unknown: AtomicBool,
    calls: Semaphore,
    runtime: Handle,
    now: Now,
}

impl Agent {
    /// Attests, or takes up what an earlier run kept; then looks for entries that give an ID of ours to somebody else.
    ///
    /// # Errors
    /// See [`SpireError`].
    pub(crate) async fn start(settings: AgentSettings) -> Result<Self, SpireError> {
        let now = Arc::clone(&settings.now);
        let clock = Clock::from_fn(Arc::clone(&now));
        let bundles = settings.bundles.into_handle();
        let link = Link::tcp(
            settings.server,
            &settings.trust_domain,
            Arc::clone(&bundles),
            clock.clone(),
        )?;
        let inner = Arc::new(Inner {
            link,
            bundles,
            trust_domain: settings.trust_domain,
            attestor: settings.attestor,
            credentials: Arc::new(Credentials::with_clock(clock)),
            preflight: settings.preflight,
            ids: settings.ids,
            exposed: AtomicBool::new(false),
            unknown: AtomicBool::new(false),
            calls: Semaphore::new(CALLS),
            runtime: Handle::current(),
            now,
        });
        match inner.attestor.kept()? {
            Some(svid) if svid.leaf().valid_at((inner.now)()).is_ok() => {
                inner.credentials.install(svid);
            }
            _ => limited(inner.attest()).await?,
        }
        limited(inner.follow_bundle()).await?;
        limited(inner.look_for_holders()).await?;
        let agent = inner.agent()?;
        tracing::info!(server = %inner.link.endpoint, %agent, "spire issues the identities; this broker is its agent");
        let renewal = tokio::spawn(keep(Arc::downgrade(&inner))).abort_handle();
        Ok(Self { inner, renewal })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl IssuerBackend for Agent {
    fn sign(&self, order: &Order<'_>) -> Result<Vec<CertificateDer<'static>>, IssuerError> {
        let inner = &self.inner;
        let _call = inner
            .calls
            .try_acquire()
            .map_err(|_none| SpireError::Busy)?;
        let signed = inner.runtime.block_on(limited(inner.sign(order)));
        if signed.as_ref().is_err_and(is_unknown) {
            inner.unknown.store(true, Ordering::Relaxed);
        }
        Ok(signed?)
    }

    fn ready(&self, now: SystemTime) -> Result<(), &'static str> {
        if self.inner.exposed.load(Ordering::Relaxed) {
            return Err("a spire entry gives an enclave's identity to another agent");
        }
        let leaf = self.inner.credentials.leaf();
        match leaf.is_some_and(|leaf| leaf.valid_at(now).is_ok()) {
            true => Ok(()),
            false => Err("this broker's spire agent has no valid certificate"),
        }
    }
}

/// The server says that it does not know who asks.
fn is_unknown(error: &SpireError) -> bool {
    const CODES: [Code; 2] = [Code::PermissionDenied, Code::Unauthenticated];
    matches!(error, SpireError::Call { code, .. } if CODES.contains(code))
}

async fn limited<T>(work: impl Future<Output = Result<T, SpireError>>) -> Result<T, SpireError> {
    timeout(LIMIT, work)
        .await
        .map_err(|_elapsed| SpireError::Timeout)?
}

impl Inner {
    /// This broker's agent ID, while its certificate lasts.
    fn agent(&self) -> Result<SpiffeId, SpireError> {
        let leaf = self.credentials.leaf().ok_or(SpireError::NoAgent)?;
        match leaf.valid_at((self.now)()) {
            Ok(()) => Ok(leaf.id.clone()),
            Err(_) => Err(SpireError::NoAgent),
        }
    }

    async fn open(&self) -> Result<Channel, SpireError> {
        self.agent()?;
        // A snapshot: this connection is this certificate's, whatever is installed meanwhile.
        let credentials = Arc::new(self.credentials.snapshot());
        self.link.open(Some(credentials)).await
    }

    async fn attest(&self) -> Result<(), SpireError> {
        const WHAT: SpireError = SpireError::Malformed("attestation");
        let (pkcs8, csr) = key_and_nameless_csr().map_err(|_detail| SpireError::Key)?;
        let first = attest_agent_request::Step::Params(attest_agent_request::Params {
            data: Some(self.attestor.data()?),
            params: Some(AgentX509svidParams { csr }),
        });
        let (send, steps) = mpsc::channel(1);
        let message = |step| AttestAgentRequest { step: Some(step) };
        send.send(message(first)).await.map_err(|_closed| WHAT)?;
        let channel = self.link.open(None).await?;
        let mut answers = AgentClient::new(channel)
            .attest_agent(ReceiverStream::new(steps))
            .await
            .map_err(refused("AttestAgent"))?
            .into_inner();
        let mut challenged = false;
        loop {
            let answer = answers.message().await.map_err(refused("AttestAgent"))?;
            match answer.and_then(|answer| answer.step) {
                Some(attest_agent_response::Step::Challenge(challenge)) if !challenged => {
                    challenged = true;
                    let answer = self.attestor.answer(&challenge)?;
                    let step = attest_agent_request::Step::ChallengeResponse(answer);
                    send.send(message(step)).await.map_err(|_closed| WHAT)?;
                }
                Some(attest_agent_response::Step::Result(result)) => {
                    return self.install(call::chain(result.svid)?, pkcs8);
                }
                _ => return Err(WHAT),
            }
        }
    }

    async fn renew(&self) -> Result<(), SpireError> {
        let (pkcs8, csr) = key_and_nameless_csr().map_err(|_detail| SpireError::Key)?;
        let request = RenewAgentRequest {
            params: Some(AgentX509svidParams { csr }),
        };
        let answer = AgentClient::new(self.open().await?)
            .renew_agent(request)
            .await
            .map_err(refused("RenewAgent"))?;
        self.install(call::chain(answer.into_inner().svid)?, pkcs8)
    }

    /// Takes an agent's certificate: of this trust domain, an agent's ID, over our key, valid.
    fn install(
        &self,
        chain: Vec<CertificateDer<'static>>,
        pkcs8: Zeroizing<Vec<u8>>,
    ) -> Result<(), SpireError> {
        let chain = call::verified(&self.bundles.load(), chain, (self.now)())?;
        let kept = (chain.clone(), pkcs8.clone());
        let svid = Svid::from_der(chain, pkcs8).map_err(|source| SpireError::Certificate {
            what: "agent certificate",
            source,
        })?;
        let id = &svid.leaf().id;
        if id.trust_domain() != &self.trust_domain || !id.path().starts_with(AGENT_PATH) {
            return Err(SpireError::Malformed("agent ID"));
        }
        self.attestor.keep(&kept.0, &kept.1)?;
        tracing::info!(agent = %id, serial = svid.leaf().serial, "agent certificate");
        self.credentials.install(svid);
        self.unknown.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn follow_bundle(&self) -> Result<(), SpireError> {
        let document = call::bundle(self.open().await?, &self.trust_domain).await?;
        federation::apply(&self.bundles, &self.trust_domain, &document)
            .map_err(call::bundle_refused)?;
        Ok(())
    }

    async fn look_for_holders(&self) -> Result<(), SpireError> {
        let agent = self.agent()?;
        let found = self
            .preflight
            .check(&self.ids, Some(&agent), (self.now)())
            .await;
        match &found {
            Ok(()) => self.exposed.store(false, Ordering::Relaxed),
            Err(SpireError::OtherHolder { .. }) => self.exposed.store(true, Ordering::Relaxed),
            // Not seen: what was seen last stands. No signature is made without a look.
            Err(_) => {}
        }
        found
    }

    async fn sign(&self, order: &Order<'_>) -> Result<Vec<CertificateDer<'static>>, SpireError> {
        let agent = self.agent()?;
        let id = std::slice::from_ref(order.id);
        self.preflight.check(id, Some(&agent), order.now).await?;
        let channel = self.open().await?;
        let entry = entry(channel.clone(), order.id, agent).await?;
        let request = BatchNewX509svidRequest {
            params: vec![NewX509svidParams {
                entry_id: entry,
                csr: order.csr.to_vec(),
            }],
        };
        let answer = SvidClient::new(channel)
            .max_decoding_message_size(MAX_ANSWER)
            .batch_new_x509svid(request)
            .await
            .map_err(refused("BatchNewX509SVID"))?;
        let mut results = answer.into_inner().results.into_iter();
        let (Some(result), None) = (results.next(), results.next()) else {
            return Err(SpireError::Malformed("number of results"));
        };
        if let Some(status) = result.status.filter(|status| status.code != 0) {
            let status = tonic::Status::new(Code::from(status.code), status.message);
            return Err(refused("BatchNewX509SVID")(status));
        }
        call::verified(&self.bundles.load(), call::chain(result.svid)?, order.now)
    }
}

/// The one entry that lets `agent` have certificates for `id`. Name and life of what is signed come from it, so it must say no more
/// than that.
async fn entry(channel: Channel, id: &SpiffeId, agent: SpiffeId) -> Result<String, SpireError> {
    // No mask: with one, SPIRE (1.13.3) fills `downstream` from `admin`, and a downstream entry would look like any other.
    let request = GetAuthorizedEntriesRequest { output_mask: None };
    let answer = EntryClient::new(channel)
        .max_decoding_message_size(MAX_ANSWER)
        .get_authorized_entries(request)
        .await
        .map_err(refused("GetAuthorizedEntries"))?;
    let mut found = None;
    for entry in answer.into_inner().entries {
        if joined(entry.spiffe_id.as_ref()).as_ref() != Some(id) {
            continue;
        }
        let problem = match &entry {
            types::Entry { admin: true, .. } => Some("is an administrator's"),
            types::Entry {
                downstream: true, ..
            } => Some("is a downstream authority's"),
            entry if !entry.dns_names.is_empty() => Some("has DNS names"),
            entry if entry.id.is_empty() => return Err(SpireError::Malformed("entry")),
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(SpireError::Entry {
                entry: entry.id,
                id: id.clone(),
                problem,
            });
        }
        // Several entries with one ID differ in selectors, which say nothing here.
        found.get_or_insert(entry.id);
    }
    found.ok_or(SpireError::NoEntry {
        id: id.clone(),
        agent,
    })
}

/// Keeps the agent's certificate and the bundle fresh for as long as there is an agent.
async fn keep(agent: Weak<Inner>) {
    let mut pause = LOOK;
    let mut looked = Instant::now();
    loop {
        sleep(pause).await;
        let Some(inner) = agent.upgrade() else { return };
        match inner.renew_if_due().await {
            Ok(()) => pause = LOOK,
            Err(error) => {
                tracing::warn!(%error, "the agent's certificate was not renewed");
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
        if looked.elapsed() >= BUNDLE {
            looked = Instant::now();
            if let Err(error) = limited(inner.follow_bundle()).await {
                tracing::warn!(%error, "the trust bundle was not looked at");
            }
            if let Err(error) = limited(inner.look_for_holders()).await {
                tracing::error!(%error, "entries with an enclave's identity");
            }
        }
    }
}

impl Inner {
    async fn renew_if_due(&self) -> Result<(), SpireError> {
        let leaf = self.credentials.leaf().ok_or(SpireError::NoAgent)?;
        let now = (self.now)();
        let life = leaf.not_after.duration_since(leaf.not_before);
        let half = leaf.not_before.checked_add(life.unwrap_or_default() / 2);
        let young = half.is_some_and(|half| now < half);
        if young && !self.unknown.load(Ordering::Relaxed) {
            return Ok(());
        }
        let renewed = limited(self.renew()).await;
        match renewed {
            // Evicted, or too late: the machine proves itself anew. A banned one is told no again.
            Err(error)
                if self.attestor.again()
                    && (matches!(error, SpireError::NoAgent) || is_unknown(&error)) =>
            {
                tracing::warn!(%error, "the agent's certificate is not renewed; attesting anew");
                limited(self.attest()).await
            }
            renewed => renewed,
        }
    }
}
