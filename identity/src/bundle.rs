//! Trust bundles: per trust domain, the CA certificates that may vouch for its members.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use spiffe::TrustDomain;
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage,
    RequiredEkuNotFoundContext,
};

use crate::leaf::{Window, leaf, signing_certificate};
use crate::proven::Proven;
use crate::{BundleDocument, Error, Leaf, pem, tls};

/// Most certificates a peer may send, leaf included. SPIRE nests two or three; eight leaves room, bounds the work.
pub const MAX_CHAIN: usize = 8;

/// Bundles that are replaced while the TLS configurations built on them stay.
pub type BundleHandle = Arc<ArcSwap<TrustBundles>>;

/// Trust domain to CA certificates. Bundles of different domains are never merged, so a CA of one domain cannot
/// vouch for an ID of another, whatever name it gave itself.
#[derive(Clone, Debug, Default)]
pub struct TrustBundles {
    domains: HashMap<TrustDomain, Domain>,
    /// Under exactly these domains.
    proven: Proven,
}

#[derive(Clone, Debug)]
struct Domain {
    anchors: Vec<Anchor>,
    /// Of the document it came from.
    sequence: Option<u64>,
}

impl Domain {
    fn is_of(&self, document: &BundleDocument) -> bool {
        let held = self.anchors.iter().map(|anchor| &anchor.der);
        held.eq(&document.authorities)
    }
}

#[derive(Clone, Debug)]
struct Anchor {
    anchor: TrustAnchor<'static>,
    der: CertificateDer<'static>,
    valid: Window,
}

impl TrustBundles {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One bundle from a file's or a setting's text: see [`BundleDocument::from_text`].
    ///
    /// # Errors
    /// As there.
    pub fn from_text(trust_domain: &TrustDomain, text: &str) -> Result<Self, Error> {
        let mut bundles = Self::new();
        bundles.update(trust_domain, &BundleDocument::from_text(text)?)?;
        Ok(bundles)
    }

    /// One bundle from concatenated PEM certificates.
    ///
    /// # Errors
    /// No certificate in `text`, or one that may not sign others.
    pub fn from_pem(trust_domain: &TrustDomain, text: &str) -> Result<Self, Error> {
        let mut bundles = Self::new();
        bundles.insert(trust_domain.clone(), pem::certificates(text)?)?;
        Ok(bundles)
    }

    /// Sets the bundle of one trust domain, replacing what was there. An empty list means that everything in the
    /// domain is revoked.
    ///
    /// # Errors
    /// A certificate that may not sign others. The domain's old bundle is then gone too: a bundle we cannot read
    /// must not leave a revoked one in force.
    pub fn insert(
        &mut self,
        trust_domain: TrustDomain,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<(), Error> {
        self.proven = Proven::default();
        self.domains.remove(&trust_domain);
        let anchors = certificates
            .into_iter()
            .map(Anchor::new)
            .collect::<Result<Vec<_>, Error>>()?;
        let domain = Domain {
            anchors,
            sequence: None,
        };
        self.domains.insert(trust_domain, domain);
        Ok(())
    }

    /// Takes a bundle of one trust domain in the place of the one before, which must not be newer: whoever could bring back an old
    /// bundle would undo a revocation. Tells whether anything changed.
    ///
    /// # Errors
    /// [`Error::OlderBundle`], or a certificate that may not sign. What was there stays.
    pub fn update(
        &mut self,
        trust_domain: &TrustDomain,
        document: &BundleDocument,
    ) -> Result<bool, Error> {
        if let Some(held) = self.domains.get(trust_domain) {
            let (same, older) = (held.is_of(document), held.sequence);
            match (older, document.sequence) {
                // Nothing is counted, so nothing can go back; or counting begins.
                (None, _) => {}
                (Some(older), Some(found)) if found > older => {}
                (Some(older), Some(found)) if found == older && same => {}
                (Some(held), found) => return Err(Error::OlderBundle { held, found }),
            }
            if same && older == document.sequence {
                return Ok(false);
            }
        }
        let authorities = document.authorities.iter().cloned();
        let anchors = authorities
            .map(Anchor::new)
            .collect::<Result<Vec<_>, Error>>()?;
        let domain = Domain {
            anchors,
            sequence: document.sequence,
        };
        self.proven = Proven::default();
        self.domains.insert(trust_domain.clone(), domain);
        Ok(true)
    }

    /// The sequence number of one trust domain's bundle, if it has one.
    #[must_use]
    pub fn sequence(&self, trust_domain: &TrustDomain) -> Option<u64> {
        self.domains.get(trust_domain)?.sequence
    }

    /// A handle that TLS configurations can hold while the bundles change.
    #[must_use]
    pub fn into_handle(self) -> BundleHandle {
        Arc::new(ArcSwap::from_pointee(self))
    }

    /// Trust domains that have at least one CA certificate.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.domains
            .iter()
            .filter_map(|(name, domain)| (!domain.anchors.is_empty()).then_some(name))
    }

    /// The CA certificates of one trust domain, as they were given.
    pub fn certificates(
        &self,
        trust_domain: &TrustDomain,
    ) -> impl Iterator<Item = &CertificateDer<'static>> {
        let domain = self.domains.get(trust_domain);
        let anchors = domain.map_or(&[][..], |domain| &domain.anchors);
        anchors.iter().map(|anchor| &anchor.der)
    }

    /// Checks a chain, leaf first: the leaf rules, then RFC 5280 path validation at `now` against the bundle of the
    /// leaf's own trust domain and no other.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Leaf, Error> {
        let (end_entity, intermediates) = chain.split_first().ok_or(Error::NoCertificate)?;
        self.verify_parts(end_entity, intermediates, now)
    }

    pub(crate) fn verify_parts(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<Leaf, Error> {
        let found = intermediates.len().saturating_add(1);
        if found > MAX_CHAIN {
            return Err(Error::ChainTooLong {
                found,
                max: MAX_CHAIN,
            });
        }
        let key = Proven::key(end_entity, intermediates);
        if let Some(leaf) = self.proven.find(&key, now) {
            return Ok(leaf);
        }
        let leaf = leaf(end_entity)?;
        leaf.valid_at(now)?;
        // webpki looks at the CA flag and path lengths, not at key usage or names: those rules are ours to hold.
        let mut window = Window::new(leaf.not_before, leaf.not_after);
        for certificate in intermediates {
            window = window.within(signing_certificate(certificate)?);
        }
        let domain = leaf.id.trust_domain();
        let mut anchors = Vec::<TrustAnchor<'_>>::new();
        for anchor in self
            .domains
            .get(domain)
            .into_iter()
            .flat_map(|domain| &domain.anchors)
        {
            if anchor.valid.contains(now) {
                // Whichever of them it is that vouches.
                window = window.within(anchor.valid);
                anchors.push(anchor.anchor.clone());
            }
        }
        if anchors.is_empty() {
            return Err(Error::UnknownTrustDomain(domain.clone()));
        }
        let untrusted = |source| Error::Untrusted {
            trust_domain: domain.clone(),
            source,
        };
        EndEntityCert::try_from(end_entity)
            .map_err(untrusted)?
            .verify_for_usage(
                tls::signature_algorithms().all,
                &anchors,
                intermediates,
                unix_time(now)?,
                BothAuthUsages,
                None,
                None,
            )
            .map_err(untrusted)?;
        // Not so where the peer sent along a certificate that is no part of the path and not valid: nothing to remember.
        if window.contains(now) {
            self.proven.insert(key, window, leaf.clone());
        }
        Ok(leaf)
    }
}

impl Anchor {
    fn new(der: CertificateDer<'static>) -> Result<Self, Error> {
        let valid = signing_certificate(&der)?;
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|_detail| Error::Encoding("trust anchor"))?
            .to_owned();
        Ok(Self { anchor, der, valid })
    }
}

/// An extended key usage, where one is present on leaf or CA, allows both directions: every SVID is used in both.
struct BothAuthUsages;

/// id-kp-serverAuth and id-kp-clientAuth, DER content octets (RFC 5280 §4.2.1.12).
const SERVER_AUTH: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 1]);
const CLIENT_AUTH: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]);

impl ExtendedKeyUsageValidator for BothAuthUsages {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let present = purposes.collect::<Result<Vec<_>, _>>()?;
        for (purpose, required) in [
            (SERVER_AUTH, KeyUsage::server_auth()),
            (CLIENT_AUTH, KeyUsage::client_auth()),
        ] {
            if !present.is_empty() && !present.contains(&purpose) {
                return Err(webpki::Error::RequiredEkuNotFoundContext(
                    RequiredEkuNotFoundContext {
                        required,
                        present: present.iter().map(KeyPurposeId::to_decoded_oid).collect(),
                    },
                ));
            }
        }
        Ok(())
    }
}

fn unix_time(now: SystemTime) -> Result<UnixTime, Error> {
    let since = now
        .duration_since(UNIX_EPOCH)
        .map_err(|_before_1970| Error::Clock)?;
    Ok(UnixTime::since_unix_epoch(since))
}
