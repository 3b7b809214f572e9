use std::time::SystemTime;

use identity::issue::Authority;
use rustls_pki_types::CertificateDer;

use super::{IssuerBackend, IssuerError, Order};

/// A signing certificate and its key, in files of this broker.
pub(crate) struct Builtin(Authority);

impl Builtin {
    pub(crate) fn new(authority: Authority) -> Self {
        Self(authority)
    }
}

impl IssuerBackend for Builtin {
    fn sign(&self, order: &Order<'_>) -> Result<Vec<CertificateDer<'static>>, IssuerError> {
        Ok(self.0.issue(order.id, order.spki, order.ttl, order.now)?)
    }

    fn ready(&self, now: SystemTime) -> Result<(), &'static str> {
        match self.0.not_after() > now {
            true => Ok(()),
            false => Err("issuer's certificate has ended"),
        }
    }
}
