use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::{Clock, Leaf, Svid};

/// The SVID we present, replaced while the TLS configurations that hold this stay.
///
/// Outside its validity period an SVID is not presented: the handshake fails on our side instead of the peer's.
pub struct Credentials {
    current: ArcSwapOption<Svid>,
    clock: Clock,
}

impl Credentials {
    /// Empty: every handshake fails until [`Credentials::install`]. Uses the system's wall clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Clock::system())
    }

    /// As [`Credentials::new`], with the program's own clock. Configurations built on these credentials check the
    /// peer's certificates against the same clock.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            clock,
        }
    }

    /// New handshakes present `svid` from now on; open connections keep what they negotiated.
    pub fn install(&self, svid: Svid) {
        self.current.store(Some(Arc::new(svid)));
    }

    /// The same SVID and clock, detached: later installs do not reach it. One connection made with a snapshot has
    /// certainly presented [`Credentials::leaf`] of that snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self {
            current: ArcSwapOption::new(self.current.load_full()),
            clock: self.clock.clone(),
        }
    }

    /// Presents nothing from now on: the issuer withdrew our identity.
    pub fn withdraw(&self) {
        self.current.store(None);
    }

    /// The leaf that was installed last, valid or not.
    #[must_use]
    pub fn leaf(&self) -> Option<Arc<Leaf>> {
        self.current.load().as_ref().map(|svid| svid.shared_leaf())
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    fn presentable(&self) -> Option<Arc<CertifiedKey>> {
        let current = self.current.load();
        let svid = current.as_ref()?;
        let now = self.clock.now().ok()?;
        svid.leaf().valid_at(now).ok()?;
        Some(Arc::clone(&svid.certified))
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("leaf", &self.leaf())
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.presentable()
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.presentable()
    }

    fn has_certs(&self) -> bool {
        self.presentable().is_some()
    }
}
