//! Whom we ask, and how the answerer proves to be that one.

use std::sync::Arc;

use identity::{Accept, BundleHandle, Clock, SpiffeId};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use transport::Endpoint;

use crate::http::ALPN;

/// A key broker: where it is, and who it must be.
#[derive(Debug, Clone)]
pub struct Server {
    /// What is dialled; behind it the host passes bytes on.
    pub endpoint: Endpoint,
    /// Who has to answer there.
    pub identity: ServerIdentity,
}

/// How a broker proves itself in TLS.
#[derive(Debug, Clone)]
pub enum ServerIdentity {
    /// By an X.509-SVID with exactly this ID, under the bundle of its trust domain.
    Spiffe(SpiffeId),
    /// By a certificate for this host name under one of these roots, and none that a system trusts: for brokers that are
    /// not ours, such as a stock Trustee.
    Web {
        /// The name in the certificate.
        name: ServerName<'static>,
        /// Whose word for it counts; never empty.
        roots: Vec<CertificateDer<'static>>,
    },
}

/// A server with the TLS settings that hold it to its identity.
pub(crate) struct Link {
    pub(crate) server: Server,
    pub(crate) tls: Arc<ClientConfig>,
}

impl Link {
    /// No certificate of ours is shown: what we are is in the evidence.
    pub(crate) fn new(
        server: Server,
        bundles: &BundleHandle,
        clock: &Clock,
    ) -> Result<Self, identity::Error> {
        let tls = match &server.identity {
            ServerIdentity::Spiffe(id) => identity::client_config_at(
                clock.clone(),
                None,
                Arc::clone(bundles),
                Accept::Ids(vec![id.clone()]),
                ALPN,
            )?,
            ServerIdentity::Web { roots, .. } => identity::web_client_config(clock, roots, ALPN)?,
        };
        Ok(Self { server, tls })
    }

    /// What TLS is told to ask for.
    pub(crate) fn name(&self) -> ServerName<'static> {
        match &self.server.identity {
            ServerIdentity::Spiffe(_) => identity::server_name(),
            ServerIdentity::Web { name, .. } => name.clone(),
        }
    }

    /// What HTTP is told: a host name where there is one, any other text where TLS knows the peer by its ID.
    pub(crate) fn host(&self) -> String {
        match &self.server.identity {
            ServerIdentity::Spiffe(_) => "kbs".to_owned(),
            ServerIdentity::Web { name, .. } => name.to_str().into_owned(),
        }
    }
}
