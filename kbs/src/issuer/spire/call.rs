//! One connection to the server and the calls on it.
//!
//! Each piece of work opens its own: enclaves ask once an hour, a handshake takes milliseconds, and nothing has to be known about
//! when SPIRE closes a connection whose agent was renewed, banned or restarted.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use identity::{
    Accept, BundleDocument, BundleHandle, Clock, Credentials, MAX_CHAIN, SpiffeId, TrustBundles,
    TrustDomain,
};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;
use tower::service_fn;
use transport::Endpoint;

use super::pb::spire::api::server::bundle::v1::GetBundleRequest;
use super::pb::spire::api::server::bundle::v1::bundle_client::BundleClient;
use super::{SpireError, types};

/// For one piece of work, connection and all. Below the broker's limit for a decision, which has evidence to verify as well.
pub(super) const LIMIT: Duration = Duration::from_secs(6);
/// A page of entries is the largest answer; a server that sends more is not waited for.
pub(super) const MAX_ANSWER: usize = 4 << 20;
/// A reason, not a page.
const MAX_MESSAGE: usize = 200;
/// The names that SPIRE reserves for its own programs.
const SERVER_PATH: &str = "/spire/server";

/// Where the server is, and how it is known to be the one.
pub(super) struct Link {
    pub(super) endpoint: Endpoint,
    pub(super) trust: Trust,
}

pub(super) enum Trust {
    /// The server's own socket: whoever may open it is trusted, by the file's mode.
    Socket,
    /// TLS 1.3, `spiffe://<trust domain>/spire/server`, under this bundle.
    Spiffe {
        server: SpiffeId,
        bundles: BundleHandle,
        clock: Clock,
    },
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Link {
    pub(super) fn tcp(
        endpoint: Endpoint,
        trust_domain: &TrustDomain,
        bundles: BundleHandle,
        clock: Clock,
    ) -> Result<Self, SpireError> {
        let server = SpiffeId::from_segments(trust_domain.clone(), &["spire", "server"])
            .map_err(|_constant| SpireError::Key)?;
        debug_assert_eq!(server.path(), SERVER_PATH);
        Ok(Self {
            endpoint,
            trust: Trust::Spiffe {
                server,
                bundles,
                clock,
            },
        })
    }

    /// Opens a connection, as `agent` where the server asks who calls.
    pub(super) async fn open(
        &self,
        agent: Option<Arc<Credentials>>,
    ) -> Result<Channel, SpireError> {
        let unreachable = |source| SpireError::Unreachable {
            endpoint: self.endpoint.clone(),
            source,
        };
        let stream = self.endpoint.connect().await.map_err(unreachable)?;
        let stream: Box<dyn Io> = match &self.trust {
            Trust::Socket => Box::new(stream),
            Trust::Spiffe {
                server,
                bundles,
                clock,
            } => {
                let not_the_server = |source| SpireError::Certificate {
                    what: "certificate",
                    source,
                };
                let accept = Accept::Ids(vec![server.clone()]);
                let tls = identity::client_config_at(
                    clock.clone(),
                    agent,
                    Arc::clone(bundles),
                    accept,
                    &[b"h2"],
                )
                .map_err(not_the_server)?;
                let stream = TlsConnector::from(tls)
                    .connect(identity::server_name(), stream)
                    .await
                    .map_err(|error| match identity::verdict(&error) {
                        // rustls wraps our own reason in its words.
                        Some(reason) => unreachable(io::Error::other(reason.to_string())),
                        None => unreachable(error),
                    })?;
                identity::client_facts(stream.get_ref().1).map_err(not_the_server)?;
                Box::new(stream)
            }
        };
        // gRPC's library wants to dial by itself; it is handed the one stream, and cannot have another.
        let once = Arc::new(Mutex::new(Some(stream)));
        let connector = service_fn(move |_uri| {
            let stream = once.lock().map_or(None, |mut once| once.take());
            async move {
                stream
                    .map(TokioIo::new)
                    .ok_or_else(|| io::Error::other("the connection ended"))
            }
        });
        // The name goes into `:authority`, which must be a host's; a path or an ID would be refused by strict peers.
        tonic::transport::Endpoint::from_static("http://spire-server")
            .connect_with_connector(connector)
            .await
            .map_err(|error| unreachable(io::Error::other(error)))
    }
}

/// What went wrong with `call`, in the server's words.
pub(super) fn refused(call: &'static str) -> impl FnOnce(tonic::Status) -> SpireError {
    move |status| {
        let words = status.message().chars().take(MAX_MESSAGE);
        SpireError::Call {
            call,
            code: status.code(),
            message: words.flat_map(char::escape_default).collect(),
        }
    }
}

/// The certificates of an answer, leaf first.
pub(super) fn chain(
    svid: Option<types::X509svid>,
) -> Result<Vec<CertificateDer<'static>>, SpireError> {
    let chain = svid.ok_or(SpireError::Malformed("answer"))?.cert_chain;
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return Err(SpireError::Malformed("number of certificates"));
    }
    let der = |bytes: Vec<u8>| CertificateDer::from(bytes);
    Ok(chain.into_iter().map(der).collect())
}

/// What was signed leads to the bundle that enclaves are measured with; otherwise they would throw it away.
pub(super) fn verified(
    bundles: &TrustBundles,
    chain: Vec<CertificateDer<'static>>,
    now: SystemTime,
) -> Result<Vec<CertificateDer<'static>>, SpireError> {
    let broken = |source| SpireError::Certificate {
        what: "issued chain",
        source,
    };
    bundles.verify(&chain, now).map_err(broken)?;
    Ok(chain)
}

/// The trust domain's bundle as the server has it.
pub(super) async fn bundle(
    channel: Channel,
    trust_domain: &TrustDomain,
) -> Result<BundleDocument, SpireError> {
    let request = GetBundleRequest {
        output_mask: Some(types::BundleMask {
            x509_authorities: true,
            sequence_number: true,
            ..types::BundleMask::default()
        }),
    };
    let answer = BundleClient::new(channel)
        .max_decoding_message_size(MAX_ANSWER)
        .get_bundle(request)
        .await
        .map_err(refused("GetBundle"))?
        .into_inner();
    if answer.trust_domain != trust_domain.as_str() {
        return Err(SpireError::Malformed("bundle"));
    }
    // Tainted ones too: they are about to be revoked, and are not yet.
    let authorities = answer.x509_authorities.into_iter();
    let authorities = authorities.map(|authority| CertificateDer::from(authority.asn1));
    Ok(BundleDocument {
        authorities: authorities.collect(),
        sequence: Some(answer.sequence_number),
        refresh_hint: None,
    })
}

/// Why a bundle was not taken.
pub(super) fn bundle_refused(source: identity::Error) -> SpireError {
    SpireError::Certificate {
        what: "bundle",
        source,
    }
}
