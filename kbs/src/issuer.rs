//! Which measurement is who, and the built-in authority that certifies it.

use std::time::{Duration, SystemTime};

use attestation::{Pcrs, ReferenceValues};
use identity::issue::Authority;
use identity::{Leaf, SpiffeId, leaf};
use rustls_pki_types::CertificateDer;

pub(crate) struct Issuer {
    authority: Authority,
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
    #[error("the authority certified something else than it was asked to")]
    Unexpected,
}

impl Issuer {
    pub(crate) fn new(
        authority: Authority,
        ttl: Duration,
        map: Vec<(SpiffeId, ReferenceValues)>,
    ) -> Self {
        Self {
            authority,
            ttl,
            map,
        }
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

    /// Certifies `spki` (DER) as `id`; gives the chain, leaf first, and what the leaf says.
    pub(crate) fn issue(
        &self,
        id: &SpiffeId,
        spki: &[u8],
        now: SystemTime,
    ) -> Result<(Vec<CertificateDer<'static>>, Leaf), IssuerError> {
        let chain = self.authority.issue(id, spki, self.ttl, now)?;
        let issued = leaf(chain.first().ok_or(IssuerError::Unexpected)?)?;
        // Another authority may stand here one day, with a mind of its own.
        if issued.id != *id || issued.spki_der != spki || issued.valid_at(now).is_err() {
            return Err(IssuerError::Unexpected);
        }
        Ok((chain, issued))
    }

    /// When the authority's own certificate ends, and with it everything it could issue.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.authority.not_after()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::UNIX_EPOCH;

    use attestation::Pcr;
    use identity::TrustDomain;

    use super::*;

    fn images(byte: u8) -> ReferenceValues {
        ReferenceValues::try_new(vec![BTreeMap::from([(0, Pcr::from_bytes([byte; 48]))])]).unwrap()
    }

    fn measured(byte: u8) -> Pcrs {
        Pcrs::from([
            (0, Pcr::from_bytes([byte; 48])),
            (1, Pcr::from_bytes([9; 48])),
        ])
    }

    fn id(path: &str) -> SpiffeId {
        SpiffeId::new(format!("spiffe://example.org/{path}")).unwrap()
    }

    fn issuer(map: Vec<(SpiffeId, ReferenceValues)>) -> Issuer {
        let domain = TrustDomain::new("example.org").unwrap();
        let hour = Duration::from_secs(3600);
        let root = Authority::generate_root(&domain, UNIX_EPOCH + hour, hour).unwrap();
        Issuer::new(root, Duration::from_secs(600), map)
    }

    #[test]
    fn the_measurement_alone_says_who_it_is() {
        let issuer = issuer(vec![
            (id("a"), images(1)),
            (id("b"), images(2)),
            (id("b"), images(3)),
        ]);
        assert_eq!(issuer.identity(&measured(1), UNIX_EPOCH).unwrap(), &id("a"));
        assert_eq!(issuer.identity(&measured(2), UNIX_EPOCH).unwrap(), &id("b"));
        assert_eq!(issuer.identity(&measured(3), UNIX_EPOCH).unwrap(), &id("b"));
        assert!(matches!(
            issuer.identity(&measured(4), UNIX_EPOCH),
            Err(IssuerError::Unmapped(_))
        ));
        assert!(matches!(
            issuer.identity(&Pcrs::new(), UNIX_EPOCH),
            Err(IssuerError::Unmapped(_))
        ));
    }

    #[test]
    fn a_measurement_with_two_names_gets_none() {
        let issuer = issuer(vec![(id("a"), images(1)), (id("b"), images(1))]);
        assert!(matches!(
            issuer.identity(&measured(1), UNIX_EPOCH),
            Err(IssuerError::Ambiguous(..))
        ));
    }

    #[test]
    fn what_is_issued_is_for_this_key_and_this_identity() {
        let issuer = issuer(vec![(id("a"), images(1))]);
        let (_, csr) = identity::issue::key_and_csr(&id("other")).unwrap();
        let spki = identity::issue::csr(&csr).unwrap().spki_der;
        let now = UNIX_EPOCH + Duration::from_secs(3700);
        let (_, issued) = issuer.issue(&id("a"), &spki, now).unwrap();
        assert_eq!((issued.id, issued.spki_der), (id("a"), spki));
        assert!(issued.not_after <= now + Duration::from_secs(600));
    }
}
