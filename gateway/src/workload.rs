//! Our own SVID and the server's trust bundle, from the SPIFFE Workload API of this machine.

use std::sync::Arc;
use std::time::Duration;

use identity::{BundleHandle, Credentials, Svid, TrustBundles, TrustDomain};
use rustls_pki_types::CertificateDer;
use spiffe::X509Source;
use spiffe::x509_source::X509SourceError;
use tokio::sync::Notify;

/// A local agent answers in milliseconds; without this bound the library would wait for ever.
const INITIAL_SYNC: Duration = Duration::from_secs(10);

pub(crate) struct Workload {
    source: X509Source,
    credentials: Arc<Credentials>,
    bundles: BundleHandle,
    /// The server's; the caller's own bundle is nothing that this program checks against.
    trust_domain: TrustDomain,
}

impl Workload {
    /// Waits for the first SVID and installs it.
    pub(crate) async fn start(
        endpoint: &str,
        credentials: Arc<Credentials>,
        bundles: BundleHandle,
        trust_domain: TrustDomain,
    ) -> Result<Self, X509SourceError> {
        let source = X509Source::builder()
            .endpoint(endpoint)
            .initial_sync_timeout(INITIAL_SYNC)
            .build()
            .await?;
        let workload = Self {
            source,
            credentials,
            bundles,
            trust_domain,
        };
        workload.apply();
        Ok(workload)
    }

    /// Installs every update until the source ends, and tells `changed`.
    pub(crate) async fn follow(self, changed: Arc<Notify>) {
        let mut updates = self.source.updated();
        while updates.changed().await.is_ok() {
            self.apply();
            changed.notify_one();
        }
        // Only a shutdown ends the source. What was installed last runs out by its own dates.
        tracing::warn!("workload api source ended");
    }

    fn apply(&self) {
        self.apply_svid();
        self.apply_bundle();
    }

    fn apply_svid(&self) {
        let svid = match self.source.svid() {
            Ok(svid) => svid,
            Err(error) => {
                self.credentials.withdraw();
                return tracing::warn!(%error, "workload api gives no svid");
            }
        };
        match Svid::from_spiffe(&svid) {
            Ok(svid) => {
                let leaf = svid.leaf();
                tracing::info!(
                    id = %leaf.id,
                    serial = leaf.serial,
                    until = crate::report::time(leaf.not_after),
                    "svid installed"
                );
                self.credentials.install(svid);
            }
            // The one before it may still be good; if not, its own end stops it.
            Err(error) => tracing::error!(%error, "svid from the workload api is not usable"),
        }
    }

    fn apply_bundle(&self) {
        let bundle = self
            .source
            .try_bundle_for_trust_domain(&self.trust_domain)
            .map(|bundle| {
                let authorities = bundle.authorities().iter();
                authorities
                    .map(|certificate| CertificateDer::from(certificate.as_bytes().to_vec()))
                    .collect::<Vec<_>>()
            });
        let mut bundles = TrustBundles::new();
        match bundle {
            // A bundle that is gone, or that cannot be read, leaves nothing trusted: absence is revocation.
            None => {
                tracing::warn!(trust_domain = %self.trust_domain, "workload api gives no bundle")
            }
            Some(certificates) => {
                if let Err(error) = bundles.insert(self.trust_domain.clone(), certificates) {
                    tracing::error!(trust_domain = %self.trust_domain, %error, "bundle is not usable");
                }
            }
        }
        self.bundles.store(Arc::new(bundles));
    }
}
