//! The project's TLS configurations: TLS 1.3 alone, nothing resumed, nothing early, SPIFFE identities; and one for servers
//! of others, which have a host name under a given root.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, DnsName, ServerName};

use crate::verifier::PeerVerifier;
use crate::{Accept, BundleHandle, Clock, Credentials, Error};

/// What a server asks of its clients.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// A valid SVID of an accepted identity; a client without one gets an alert and nothing else.
    Svid {
        bundles: BundleHandle,
        accept: Accept,
    },
    /// No client certificate is asked for: the client proves itself by other means, such as evidence.
    None,
}

/// aws-lc-rs, TLS 1.3 suites only, hybrid post-quantum key exchange first.
///
/// The lists are spelt out because cargo features of unrelated crates can widen rustls's defaults.
#[must_use]
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

pub(crate) fn signature_algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

/// The name a SPIFFE client hands to rustls, which insists on one. It is never sent and never checked.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    #[expect(
        clippy::expect_used,
        reason = "a constant DNS name under the reserved .invalid"
    )]
    let name = DnsName::try_from_str("spiffe.invalid").expect("constant name");
    ServerName::DnsName(name.to_owned())
}

/// A server that presents `credentials` and asks its clients for `clients`.
///
/// # Errors
/// [`Error::NothingAccepted`], or rustls refusing the provider.
pub fn server_config(
    credentials: Arc<Credentials>,
    clients: ClientAuth,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, Error> {
    let builder =
        ServerConfig::builder_with_details(Arc::new(provider()), credentials.clock().provider())
            .with_protocol_versions(&[&TLS13])?;
    let builder = match clients {
        ClientAuth::Svid { bundles, accept } => {
            builder.with_client_cert_verifier(Arc::new(PeerVerifier::new(bundles, accept)?))
        }
        ClientAuth::None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(credentials);
    // A resumed session would skip the client's certificate, and with it every check above.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client that presents `credentials`, if any, to servers whose SVID chains into `bundles` and is in `accept`.
///
/// The host name is not checked; the SPIFFE ID is. Connect with [`server_name`].
///
/// # Errors
/// [`Error::NothingAccepted`], or rustls refusing the provider.
pub fn client_config(
    credentials: Option<Arc<Credentials>>,
    bundles: BundleHandle,
    accept: Accept,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, Error> {
    let clock = credentials
        .as_ref()
        .map_or_else(Clock::system, |credentials| credentials.clock().clone());
    client_config_at(clock, credentials, bundles, accept, alpn)
}

/// As [`client_config`], checking the server's certificates against `clock`.
///
/// # Errors
/// As [`client_config`].
pub fn client_config_at(
    clock: Clock,
    credentials: Option<Arc<Credentials>>,
    bundles: BundleHandle,
    accept: Accept,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_details(Arc::new(provider()), clock.provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(bundles, accept)?));
    let config = match credentials {
        Some(credentials) => builder.with_client_cert_resolver(credentials),
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(client(config, false, alpn)))
}

/// A client of servers outside the trust domain: their certificate has to chain to one of `roots` and name the host that is
/// dialled (RFC 6125, through rustls). No root of the system is believed, and no certificate of ours is sent.
///
/// # Errors
/// A root that is no CA certificate, or rustls refusing the provider.
pub fn web_client_config(
    clock: &Clock,
    roots: &[CertificateDer<'static>],
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    if store.is_empty() {
        return Err(Error::Pem("root certificate"));
    }
    let builder = ClientConfig::builder_with_details(Arc::new(provider()), clock.provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(store);
    Ok(Arc::new(client(builder.with_no_client_auth(), true, alpn)))
}

fn client(mut config: ClientConfig, sni: bool, alpn: &[&[u8]]) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = sni;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}
