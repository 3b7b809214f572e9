//! Which measurement is who, and whoever signs for it: the built-in authority, or a SPIRE server.

mod builtin;
pub(crate) mod spire;

use std::time::{Duration, SystemTime};

use attestation::{Pcrs, ReferenceValues};
use identity::issue::Csr;
use identity::{Leaf, MAX_CHAIN, SpiffeId, leaf, other_names};
use rustls_pki_types::CertificateDer;

pub(crate) use builtin::Builtin;
use spire::SpireError;

/// A signer backdates by as much as this, and its clock is not ours.
const SKEW: Duration = Duration::from_secs(60);

/// Whoever signs. It is told a name and a key that evidence proved, and is not believed: see [`Issuer::issue`].
pub(crate) trait IssuerBackend: Send + Sync {
    /// The chain for one request, leaf first. Blocks, so it is called where that is allowed.
    fn sign(&self, order: &Order<'_>) -> Result<Vec<CertificateDer<'static>>, IssuerError>;

    /// Why it could not sign at `now`; a readiness probe's answer.
    fn ready(&self, now: SystemTime) -> Result<(), &'static str>;
}

/// What is to be signed.
pub(crate) struct Order<'a> {
    /// From the measurement, never from the request.
    pub(crate) id: &'a SpiffeId,
    /// DER SubjectPublicKeyInfo that evidence was made for.
    pub(crate) spki: &'a [u8],
    /// The DER request over that key: see [`identity::issue::csr`] for what it cannot contain.
    pub(crate) csr: &'a [u8],
    /// The longest life; the signer may choose a shorter one.
    pub(crate) ttl: Duration,
    pub(crate) now: SystemTime,
}

pub(crate) struct Issuer {
    backend: Box<dyn IssuerBackend>,
    ttl: Duration,
    map: Vec<(SpiffeId, ReferenceValues)>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum IssuerError {
    #[error("no identity is mapped to this measurement: {0}")]
    Unmapped(String),
    #[error("this measurement is mapped to {0} and to {1}")]
    Ambiguous(SpiffeId, SpiffeId),
    #[error("{0}")]
    Authority(#[from] identity::Error),
    #[error("the authority certified something else than it was asked to: {0}")]
    Unexpected(&'static str),
    #[error("spire: {0}")]
    Spire(#[from] SpireError),
}

impl IssuerError {
    /// Whether the operator decided against it, so that asking again changes nothing.
    pub(crate) fn is_denial(&self) -> bool {
        match self {
            Self::Unmapped(_) | Self::Ambiguous(..) => true,
            Self::Spire(error) => error.is_denial(),
            Self::Authority(_) | Self::Unexpected(_) => false,
        }
    }
}

impl Issuer {
    pub(crate) fn new(
        backend: Box<dyn IssuerBackend>,
        ttl: Duration,
        map: Vec<(SpiffeId, ReferenceValues)>,
    ) -> Self {
        Self { backend, ttl, map }
    }

    /// The one identity of the image that was measured.
    pub(crate) fn identity(
        &self,
        measured: &Pcrs,
        now: SystemTime,
    ) -> Result<&SpiffeId, IssuerError> {
        let mut found: Option<&SpiffeId> = None;
        let mut difference = String::from("the map is empty");
        for (id, images) in &self.map {
            match (images.appraise(measured, now), found) {
                (Ok(()), None) => found = Some(id),
                (Ok(()), Some(first)) if first != id => {
                    return Err(IssuerError::Ambiguous(first.clone(), id.clone()));
                }
                (Ok(()), Some(_)) => {}
                (Err(error), _) => difference = error.to_string(),
            }
        }
        found.ok_or(IssuerError::Unmapped(difference))
    }

    /// Certifies the key of `request`, whose DER is `csr`, as `id`; gives the chain, leaf first, and what the leaf says.
    ///
    /// Whoever signed is another program with a mind of its own, so the leaf is looked at as a stranger's would be: an
    /// X.509-SVID by the rules, of this ID and this key, without other names, valid now and no longer than was allowed.
    pub(crate) fn issue(
        &self,
        id: &SpiffeId,
        request: &Csr,
        csr: &[u8],
        now: SystemTime,
    ) -> Result<(Vec<CertificateDer<'static>>, Leaf), IssuerError> {
        let order = Order {
            id,
            spki: &request.spki_der,
            csr,
            ttl: self.ttl,
            now,
        };
        let chain = self.backend.sign(&order)?;
        if chain.len() > MAX_CHAIN {
            return Err(IssuerError::Unexpected(
                "more certificates than a peer takes",
            ));
        }
        let first = chain.first().ok_or(IssuerError::Unexpected("nothing"))?;
        let issued = leaf(first)?;
        if issued.id != *id {
            return Err(IssuerError::Unexpected("another identity"));
        }
        if issued.spki_der != order.spki {
            return Err(IssuerError::Unexpected("another key"));
        }
        if other_names(first)? != 0 {
            return Err(IssuerError::Unexpected("names beside the identity"));
        }
        issued.valid_at(now)?;
        let longest = now.checked_add(self.ttl.saturating_add(SKEW));
        if longest.is_none_or(|longest| issued.not_after > longest) {
            return Err(IssuerError::Unexpected("a life longer than issuer.ttl_s"));
        }
        Ok((chain, issued))
    }

    /// Why nothing could be issued at `now`.
    pub(crate) fn ready(&self, now: SystemTime) -> Result<(), &'static str> {
        self.backend.ready(now)
    }
}

#[cfg(test)]
mod tests;
