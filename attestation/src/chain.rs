//! Step 2: from the trust anchor down to the certificate that signed the document.
//!
//! ```text
//! cabundle[0] root ─► cabundle[1] regional ─► zonal ─► instance ─► certificate (leaf, 3 hours)
//! ```
//! Signatures, names and critical extensions are webpki's; what webpki leaves to its caller (curve, key usage,
//! that the bundle *is* the path) is checked here, and validity too, so that an error can say whose and when. AWS tells
//! verifiers not to use the lists that its certificates name, and leaves live three hours: lists count only where the
//! relying party has some of its own.

mod cache;
mod revocation;

use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::anchor::TrustAnchor;
use crate::certificate::{Checked, Level, Validity, check_certificate};
use crate::digest::Sha256Digest;
use crate::error::ChainError;
use crate::verifier::CLOCK_LEEWAY;

pub use cache::ChainCache;
use cache::VerifiedChain;
pub use revocation::{RevocationLists, RevocationListsError};

/// Certificates without an extended key usage pass, and such as allow any (RFC 5280 section 4.2.1.12, OID
/// 2.5.29.37.0); one restricted to TLS, say, is not for signing evidence.
const ANY_EXTENDED_KEY_USAGE: KeyUsage = KeyUsage::required_if_present(&[0x55, 0x1d, 0x25, 0x00]);

/// What a chain is judged by, beside the time.
pub(crate) struct Rules<'a> {
    pub(crate) anchor: &'a TrustAnchor,
    pub(crate) revocation: Option<&'a RevocationLists>,
    pub(crate) cache: Option<&'a ChainCache>,
}

impl Rules<'_> {
    /// Gives the leaf if `cabundle` (root first) is a valid path from the anchor to `leaf` at `now`.
    pub(crate) fn verify(
        &self,
        cabundle: &[&[u8]],
        leaf: &[u8],
        now: SystemTime,
    ) -> Result<Checked, ChainError> {
        // The root comes from us, never from the document; the document's copy only has to agree.
        let intermediates = match cabundle.split_first() {
            Some((&root, intermediates)) if root == self.anchor.der() => intermediates,
            other => {
                let actual = Sha256Digest::of(other.map_or(&[], |(root, _)| root));
                return Err(ChainError::Anchor {
                    expected: self.anchor.fingerprint(),
                    actual,
                });
            }
        };
        // Lists end, and they are about the authorities as well: where there are any, every signature is looked at again.
        let cache = self.cache.filter(|_| self.revocation.is_none());
        let known = cache.map(|cache| (cache, ChainCache::key(cabundle)));
        if let Some((cache, key)) = &known
            && let Some(chain) = cache.find(key)
        {
            let leaf_form = check(leaf, Level::Leaf, cabundle.len())?;
            let validities = chain.validities.iter().chain([&leaf_form.validity]);
            let at = check_validity(validities, now)?;
            if !cache.has_signed(key, leaf) {
                let issuer = std::slice::from_ref(&chain.issuer);
                verify_path(issuer, &[], leaf, at)?;
                cache.signed(key, leaf);
            }
            return Ok(leaf_form);
        }
        let (chain, leaf_form) = self.verify_all(cabundle, intermediates, leaf, now)?;
        if let (Some((cache, key)), Some(chain)) = (known, chain) {
            cache.signed(&key, leaf);
            cache.insert(key, chain);
        }
        Ok(leaf_form)
    }

    /// Every certificate, every signature. Gives what may be remembered of the authorities, and the leaf.
    fn verify_all(
        &self,
        cabundle: &[&[u8]],
        intermediates: &[&[u8]],
        leaf: &[u8],
        now: SystemTime,
    ) -> Result<(Option<VerifiedChain>, Checked), ChainError> {
        // Form, from the root down.
        let mut authorities = Vec::with_capacity(cabundle.len());
        for (position, certificate) in cabundle.iter().enumerate() {
            let level = match position {
                0 => Level::Root,
                _ => Level::Intermediate,
            };
            authorities.push(check(certificate, level, position)?);
        }
        let leaf_form = check(leaf, Level::Leaf, cabundle.len())?;

        // webpki takes an anchor's word for itself, so the root's own limits are checked here, with everybody's.
        let validities: Vec<Validity> = authorities.iter().map(|form| form.validity).collect();
        let at = check_validity(validities.iter().chain([&leaf_form.validity]), now)?;
        for (below, (position, form)) in authorities.iter().enumerate().rev().enumerate() {
            let limit = form.path_length;
            if limit.is_some_and(|limit| u32::try_from(below).is_ok_and(|below| below > limit)) {
                return Err(ChainError::Certificate {
                    position,
                    problem: "too many certificates below it",
                });
            }
        }

        let anchors = std::slice::from_ref(self.anchor.anchor());
        verify_path(anchors, intermediates, leaf, at)?;
        if let Some(lists) = self.revocation {
            lists.check(authorities.iter().chain([&leaf_form]), now)?;
        }
        // A name constraint of an authority above the last one would be forgotten; real chains have none.
        let constrained = authorities.iter().any(|form| form.name_constraints);
        let chain = match (constrained, intermediates.last()) {
            (false, Some(issuer)) => VerifiedChain::new(validities, issuer),
            _ => None,
        };
        Ok((chain, leaf_form))
    }
}

/// webpki's part, by an anchor that is trusted already.
fn verify_path(
    anchors: &[rustls_pki_types::TrustAnchor<'_>],
    intermediates: &[&[u8]],
    leaf: &[u8],
    at: UnixTime,
) -> Result<(), ChainError> {
    let leaf = CertificateDer::from(leaf);
    let intermediates: Vec<_> = intermediates
        .iter()
        .map(|&der| CertificateDer::from(der))
        .collect();
    let end_entity = EndEntityCert::try_from(&leaf)?;
    let path = end_entity.verify_for_usage(
        &[webpki::aws_lc_rs::ECDSA_P384_SHA384],
        anchors,
        &intermediates,
        at,
        ANY_EXTENDED_KEY_USAGE,
        None,
        None,
    )?;
    // webpki may leave out or reorder what it was given; a bundle with anything else in it is not the attester's.
    let used = path.intermediate_certificates().map(webpki::Cert::der);
    if !used.eq(intermediates.iter().rev().cloned()) {
        return Err(ChainError::Order);
    }
    Ok(())
}

/// All certificates, from the root down, are valid now; gives the time that webpki shall judge them at.
fn check_validity<'a>(
    chain: impl Iterator<Item = &'a Validity> + Clone,
    now: SystemTime,
) -> Result<UnixTime, ChainError> {
    let since_epoch = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let second = SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs());
    // Leaves are not backdated: one that starts within the leeway is judged at its own start, everything else at `now`.
    let below_root = chain.clone().skip(1);
    let latest_start = below_root.map(|validity| validity.not_before).max();
    let at = match latest_start {
        Some(start) if start > second && start <= now + CLOCK_LEEWAY => start,
        _ => second,
    };
    for (position, validity) in chain.enumerate() {
        // The root gets no leeway: it is thirty years old.
        let at = if position == 0 { second } else { at };
        if !validity.contains(at) {
            return Err(ChainError::Validity {
                position,
                not_before: validity.not_before,
                not_after: validity.not_after,
                at: second,
            });
        }
    }
    Ok(UnixTime::since_unix_epoch(
        at.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO),
    ))
}

fn check(der: &[u8], level: Level, position: usize) -> Result<Checked, ChainError> {
    check_certificate(der, level).map_err(|problem| ChainError::Certificate { position, problem })
}
