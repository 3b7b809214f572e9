//! A running enclave: TLS with an SVID on both sides, a challenge of our own, and what this connection's evidence has to commit to.
//!
//! The steps are those of `docs/verifying.md`, 1 and 2. Nothing but the challenge is sent.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use attestation::{
    Binding, BootId, Evidence, EvidenceBundle, ModelIdentity, Nonce, SessionSubject, Sha256Digest,
    Subject,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::{Accept, Clock, Credentials, SpiffeId, Svid, TrustBundles};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use transport::Endpoint;

use super::input;
use crate::failure::Failure;
use crate::files;

/// Handshake, challenge and answer; a busy enclave takes seconds.
const LIMIT: Duration = Duration::from_secs(30);

/// 16 KiB of evidence in base64 and a few dozen models.
const MAX_ANSWER: usize = 64 * 1024;
const MAX_MODELS: usize = 64;

/// Ask a running enclave
#[derive(Args)]
#[command(next_help_heading = "A running enclave")]
pub(super) struct Live {
    /// HOST:PORT of the enclave or of a relay before it, or an endpoint such as unix:///path or vsock://CID:PORT.
    #[arg(long, value_name = "ENDPOINT", value_parser = endpoint, requires_all = ["svid", "key", "trust_bundle", "server_id"])]
    connect: Option<Endpoint>,
    /// Our own X.509-SVID with its chain, PEM.
    #[arg(long, value_name = "PEM", requires = "connect")]
    svid: Option<PathBuf>,
    /// Its private key, PKCS#8 in PEM, readable by you alone.
    #[arg(long, value_name = "PEM", requires = "connect")]
    key: Option<PathBuf>,
    /// Certificates that may vouch for members of the server's trust domain, PEM.
    #[arg(long, value_name = "PEM", requires = "connect")]
    trust_bundle: Option<PathBuf>,
    /// The SPIFFE ID that the server must have.
    #[arg(long, value_name = "ID", value_parser = server_id, requires = "connect")]
    server_id: Option<SpiffeId>,
}

/// What the server says. It is believed only where the document commits to it.
#[derive(Deserialize)]
struct Answer {
    evidence: String,
    config_digest: Sha256Digest,
    boot_id: BootId,
    models: Vec<ModelIdentity>,
}

impl Live {
    /// The evidence of one new connection, with what it has to agree with, and the endpoint's name.
    pub(super) fn ask(&self, now: SystemTime) -> Result<(EvidenceBundle, String), Failure> {
        let (Some(endpoint), Some(svid), Some(key), Some(bundle), Some(id)) = (
            &self.connect,
            &self.svid,
            &self.key,
            &self.trust_bundle,
            &self.server_id,
        ) else {
            return Err(Failure::bug(anyhow!("clap let an argument be missing")));
        };
        let own = Svid::from_pem(&input::text(svid)?, &files::secret(key)?)
            .map_err(|error| Failure::usage(anyhow!("{}: {error}", svid.display())))?;
        let bundles = TrustBundles::from_pem(id.trust_domain(), &input::text(bundle)?)
            .map_err(|error| Failure::usage(anyhow!("{}: {error}", bundle.display())))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::unavailable)?;
        let name = endpoint.to_string();
        let asking = async { timeout(LIMIT, ask(endpoint, own, bundles, id, now)).await };
        let bundle = runtime.block_on(asking).unwrap_or_else(|_elapsed| {
            let seconds = LIMIT.as_secs();
            Err(Failure::unavailable(anyhow!(
                "{name}: no answer within {seconds} s"
            )))
        })?;
        Ok((bundle, name))
    }
}

async fn ask(
    endpoint: &Endpoint,
    own: Svid,
    bundles: TrustBundles,
    id: &SpiffeId,
    now: SystemTime,
) -> Result<EvidenceBundle, Failure> {
    let refused = |step: &str, why: &dyn std::fmt::Display| {
        Failure::refused(anyhow!("{endpoint}: refused at {step}: {why}"))
    };
    let unavailable =
        |why: &dyn std::fmt::Display| Failure::unavailable(anyhow!("{endpoint}: {why}"));
    let own_leaf = own.leaf().sha256;

    // 1. Connection. The time this program was given, moved on by what has passed since.
    let started = tokio::time::Instant::now();
    let credentials =
        Credentials::with_clock(Clock::from_fn(Arc::new(move || now + started.elapsed())));
    credentials.install(own);
    let accept = Accept::Ids(vec![id.clone()]);
    let config = identity::client_config(
        Some(Arc::new(credentials)),
        bundles.into_handle(),
        accept,
        &[b"h2"],
    )
    .map_err(Failure::bug)?;
    let stream = endpoint.connect().await.map_err(Failure::unavailable)?;
    let stream = TlsConnector::from(config)
        .connect(identity::server_name(), stream)
        .await
        .map_err(|error| match identity::verdict(&error) {
            Some(verdict) => refused("server-identity", verdict),
            None => unavailable(&format_args!("tls handshake: {error}")),
        })?;
    let facts =
        identity::client_facts(stream.get_ref().1).map_err(|error| refused("tls", &error))?;
    facts
        .require_alpn(b"h2")
        .map_err(|error| refused("tls", &error))?;
    let server = facts
        .peer
        .ok_or_else(|| refused("server-identity", &"the server sent no certificate"))?;

    // 2. Challenge.
    let nonce = Nonce::random();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| unavailable(&error))?;
    let driver = tokio::spawn(connection);
    let question = format!(r#"{{"nonce":"{}"}}"#, nonce.to_base64url());
    let request = Request::builder()
        .method(Method::POST)
        .uri("https://enclave/v1/attestation")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(question)))
        .map_err(Failure::bug)?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| unavailable(&format_args!("{error}; does it accept this SVID?")))?;
    match answer.status() {
        StatusCode::OK => {}
        busy @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            return Err(unavailable(&format_args!("busy ({busy}), ask again later")));
        }
        other => return Err(refused("challenge", &format_args!("answered {other}"))),
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| refused("challenge", &error))?;
    driver.abort();
    let answer: Answer =
        serde_json::from_slice(&body.to_bytes()).map_err(|error| refused("challenge", &error))?;
    if answer.models.len() > MAX_MODELS {
        return Err(refused("challenge", &"too many models"));
    }
    let document = STANDARD
        .decode(&answer.evidence)
        .map_err(|error| refused("challenge", &error))?;
    let document = Evidence::from_bytes(document).map_err(|error| refused("structure", &error))?;

    // What it has to agree with: everything but the last three from this end's own state.
    let binding = Binding {
        subject: Subject::Session(SessionSubject {
            tls_spki_sha256: Sha256Digest::of(&server.spki_der),
            exporter: facts.exporter,
            peer_leaf_sha256: own_leaf.into(),
            spiffe_id: server.id.to_string(),
            svid_serial: server.serial.clone(),
            models: answer.models,
        }),
        config_digest: answer.config_digest,
        boot_id: answer.boot_id,
    };
    let mut bundle = EvidenceBundle::new(document);
    bundle.nonce = Some(nonce.as_bytes().to_vec());
    bundle.public_key = Some(server.spki_der.clone());
    bundle.binding = Some(binding);
    bundle.recorded = Some(now);
    Ok(bundle)
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    let uri = match text.contains("://") {
        true => text.to_owned(),
        false => format!("tcp://{text}"),
    };
    uri.parse().map_err(|error| format!("{error}"))
}

fn server_id(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::new(text).map_err(|error| error.to_string())
}
