use std::time::SystemTime;

use identity::{SpiffeId, TrustBundles, TrustDomain};
use rustls_pki_types::CertificateDer;
use tokio::runtime::Handle;
use tokio::time::timeout;
use transport::Endpoint;

use super::call::{self, LIMIT, Link, Trust, refused};
use super::pb::spire::api::server::svid::v1::MintX509svidRequest;
use super::pb::spire::api::server::svid::v1::svid_client::SvidClient;
use super::{Listing, Preflight, SpireError};
use crate::issuer::{IssuerBackend, IssuerError, Order};

/// `MintX509SVID` on the server's private socket. Whoever has that socket has the trust domain.
pub(crate) struct Mint {
    link: Link,
    trust_domain: TrustDomain,
    preflight: Preflight,
    runtime: Handle,
}

impl Mint {
    /// Asks for the bundle once, and looks for entries that give `ids` to somebody.
    ///
    /// # Errors
    /// See [`SpireError`].
    pub(crate) async fn start(
        socket: Endpoint,
        trust_domain: TrustDomain,
        ids: &[SpiffeId],
        now: SystemTime,
    ) -> Result<Self, SpireError> {
        let mint = Self {
            link: Link {
                endpoint: socket.clone(),
                trust: Trust::Socket,
            },
            trust_domain,
            preflight: Preflight::new(Listing::Socket(socket), Vec::new()),
            runtime: Handle::current(),
        };
        let start = async {
            call::bundle(mint.link.open(None).await?, &mint.trust_domain).await?;
            mint.preflight.check(ids, None, now).await
        };
        timeout(LIMIT, start)
            .await
            .map_err(|_elapsed| SpireError::Timeout)??;
        tracing::warn!(
            socket = %mint.link.endpoint,
            "identities are minted over the SPIRE server's private socket, which can mint any other as well: \
             use [issuer.spire] in production"
        );
        Ok(mint)
    }

    async fn mint(&self, order: &Order<'_>) -> Result<Vec<CertificateDer<'static>>, SpireError> {
        let id = std::slice::from_ref(order.id);
        self.preflight.check(id, None, order.now).await?;
        let channel = self.link.open(None).await?;
        let request = MintX509svidRequest {
            csr: order.csr.to_vec(),
            ttl: i32::try_from(order.ttl.as_secs()).unwrap_or(i32::MAX),
        };
        let answer = SvidClient::new(channel.clone())
            .mint_x509svid(request)
            .await
            .map_err(refused("MintX509SVID"))?;
        let chain = call::chain(answer.into_inner().svid)?;
        let document = call::bundle(channel, &self.trust_domain).await?;
        let mut bundles = TrustBundles::new();
        bundles
            .update(&self.trust_domain, &document)
            .map_err(call::bundle_refused)?;
        call::verified(&bundles, chain, order.now)
    }
}

impl IssuerBackend for Mint {
    fn sign(&self, order: &Order<'_>) -> Result<Vec<CertificateDer<'static>>, IssuerError> {
        let work = async { timeout(LIMIT, self.mint(order)).await };
        let signed = self.runtime.block_on(work);
        Ok(signed.map_err(|_elapsed| SpireError::Timeout)??)
    }

    /// There is nothing of ours that ends; whether the server answers shows when it is asked.
    fn ready(&self, _now: SystemTime) -> Result<(), &'static str> {
        Ok(())
    }
}
