//! Step 1: a connection to a peer with the right SVID and no verdict yet, and the only thing it can do about that.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use identity::Accept;
use rustls_pki_types::CertificateDer;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::state::{Kill, Shared, limit};
use super::watched::Watched;
use super::{AttestedSession, ConnectOptions, renewal};
use crate::Error;
use crate::body::SessionBody;
use crate::verify::Channel;

/// TLS with a post-quantum exchange takes two round trips and milliseconds of work.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A relay or enclave that vanished without a word is noticed after twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A connection whose peer has an SVID and no verdict. The only thing that can be done with it is [`Self::attest`].
pub(super) struct Unverified {
    shared: Shared,
    sender: http2::SendRequest<SessionBody>,
}

impl Unverified {
    /// Step 1: TLS 1.3, the server's SVID with the exact ID, a full handshake, HTTP/2.
    pub(super) async fn open(options: &ConnectOptions) -> Result<Self, Error> {
        let credentials = Arc::new(options.credentials.snapshot());
        let own = credentials.leaf().ok_or(Error::NoIdentity)?;
        own.valid_at((options.now)())
            .map_err(|_outside| Error::NoIdentity)?;
        let accept = Accept::Ids(options.policy.server_ids.as_slice().to_vec());
        let bundles = Arc::clone(&options.bundles);
        let config = identity::client_config(Some(credentials), bundles, accept, &[b"h2"])
            .map_err(Error::TlsConfig)?;

        let stream = options.endpoint.connect().await.map_err(Error::Connect)?;
        let handshake = TlsConnector::from(config).connect(identity::server_name(), stream);
        let stream = limit("the tls handshake", HANDSHAKE_LIMIT, handshake)
            .await?
            .map_err(Error::handshake)?;

        let connection = stream.get_ref().1;
        let facts = identity::client_facts(connection).map_err(Error::Session)?;
        facts.require_alpn(b"h2").map_err(Error::Session)?;
        let chain = connection
            .peer_certificates()
            .map(<[CertificateDer<'_>]>::to_vec);
        let (Some(server), Some(chain)) = (facts.peer, chain) else {
            return Err(Error::Session(identity::Error::NoCertificate));
        };
        let channel = Channel {
            exporter: facts.exporter,
            server,
            own_leaf_sha256: own.sha256,
            own_not_after: own.not_after,
        };

        let (stream, certificate_alert) = Watched::new(stream);
        let (kill, ended) = (CancellationToken::new(), CancellationToken::new());
        let handshake = http2::Builder::new(Tasks(kill.clone()))
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream));
        let (sender, driver) = limit("the http/2 handshake", HANDSHAKE_LIMIT, handshake)
            .await?
            .map_err(Error::Connection)?;
        let (stop, done) = (kill.clone(), ended.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                // The reason of an end reaches whoever has a request in flight; there is nobody else to tell.
                _end = driver => {}
            }
            done.cancel();
        });
        let shared = Shared {
            options: options.clone(),
            channel,
            chain,
            group: facts.group,
            kill: Kill(kill),
            ended,
            certificate_alert,
            reason: OnceLock::new(),
        };
        Ok(Self { shared, sender })
    }

    /// Steps 2 to 6.
    pub(super) async fn attest(self) -> Result<AttestedSession, Error> {
        let Self { shared, sender } = self;
        let verdict = shared.attest(&sender).await?;
        let verdict = Arc::new(ArcSwap::from_pointee(verdict));
        let shared = Arc::new(shared);
        let kill = Kill(shared.kill.0.clone());
        let reattest = renewal::run(Arc::clone(&shared), sender.clone(), Arc::clone(&verdict));
        let stop = shared.kill.0.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = reattest => {}
            }
        });
        Ok(AttestedSession {
            shared,
            sender,
            verdict,
            _kill: kill,
        })
    }
}

/// Runs hyper's tasks so that cutting the session drops them, and the TLS stream with them, at once.
#[derive(Clone)]
struct Tasks(CancellationToken);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let stop = self.0.clone();
        let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(task);
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }
}
