//! Step 2: from the trust anchor down to the certificate that signed the document.
//!
//! ```text
//! cabundle[0] root ─► cabundle[1] regional ─► zonal ─► instance ─► certificate (leaf, 3 hours)
//! ```
//! Signatures, names, validity, path lengths and critical extensions are webpki's; what webpki leaves to its caller
//! (curve, key usage, that the bundle *is* the path) is checked here. There is no revocation: AWS tells verifiers not to
//! use the certificates' CRLs, and leaves live three hours.

use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::asn1_rs::oid;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;

use crate::anchor::TrustAnchor;
use crate::digest::Sha256Digest;
use crate::error::ChainError;
use crate::verifier::CLOCK_LEEWAY;

/// Certificates without an extended key usage pass, and such as allow any (RFC 5280 section 4.2.1.12, OID
/// 2.5.29.37.0); one restricted to TLS, say, is not for signing evidence.
const ANY_EXTENDED_KEY_USAGE: KeyUsage = KeyUsage::required_if_present(&[0x55, 0x1d, 0x25, 0x00]);

/// Where in the chain a certificate stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Root,
    Intermediate,
    Leaf,
}

/// What a certificate says once its form has been checked.
pub(crate) struct Checked {
    /// Uncompressed P-384 point (SEC 1), 97 bytes.
    pub(crate) point: Vec<u8>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    path_length: Option<u32>,
}

/// Gives the leaf if `cabundle` (root first) is a valid path from `anchor` to `leaf` at `now`.
pub(crate) fn verify(
    anchor: &TrustAnchor,
    cabundle: &[&[u8]],
    leaf: &[u8],
    now: SystemTime,
) -> Result<Checked, ChainError> {
    // The root comes from us, never from the document; the document's copy only has to agree.
    let (root, intermediates) = match cabundle.split_first() {
        Some((&root, intermediates)) if root == anchor.der() => (root, intermediates),
        other => {
            let actual = Sha256Digest::of(other.map_or(&[], |(root, _)| root));
            return Err(ChainError::Anchor {
                expected: anchor.fingerprint(),
                actual,
            });
        }
    };

    // Form, from the root down.
    let checked_root = check(root, Level::Root, 0)?;
    let mut latest_start = SystemTime::UNIX_EPOCH;
    let mut path_lengths = vec![checked_root.path_length];
    for (position, certificate) in (1..).zip(intermediates) {
        let checked = check(certificate, Level::Intermediate, position)?;
        latest_start = latest_start.max(checked.not_before);
        path_lengths.push(checked.path_length);
    }
    let checked_leaf = check(leaf, Level::Leaf, cabundle.len())?;
    latest_start = latest_start.max(checked_leaf.not_before);

    // webpki takes an anchor's word for itself, so the root's own limits are checked here.
    if now < checked_root.not_before || now > checked_root.not_after {
        return Err(ChainError::AnchorValidity);
    }
    for (below, (position, limit)) in path_lengths.iter().enumerate().rev().enumerate() {
        if limit.is_some_and(|limit| u32::try_from(below).is_ok_and(|below| below > limit)) {
            return Err(ChainError::Certificate {
                position,
                problem: "too many certificates below it",
            });
        }
    }

    // Leaves are not backdated: one that starts within the leeway is judged at its own start, everything else at `now`.
    let at = if latest_start > now && latest_start <= now + CLOCK_LEEWAY {
        latest_start
    } else {
        now
    };
    let at = UnixTime::since_unix_epoch(
        at.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO),
    );

    let leaf = CertificateDer::from(leaf);
    let intermediates: Vec<_> = intermediates
        .iter()
        .map(|&der| CertificateDer::from(der))
        .collect();
    let end_entity = EndEntityCert::try_from(&leaf)?;
    let path = end_entity.verify_for_usage(
        &[webpki::aws_lc_rs::ECDSA_P384_SHA384],
        std::slice::from_ref(anchor.anchor()),
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
    Ok(checked_leaf)
}

fn check(der: &[u8], level: Level, position: usize) -> Result<Checked, ChainError> {
    check_certificate(der, level).map_err(|problem| ChainError::Certificate { position, problem })
}

/// The form of one certificate: version 3, P-384, ECDSA with SHA-384, and the basic constraints and key usage of its
/// level. Signature, names and time are not looked at.
pub(crate) fn check_certificate(der: &[u8], level: Level) -> Result<Checked, &'static str> {
    let Ok((rest, certificate)) = X509Certificate::from_der(der) else {
        return Err("not a certificate");
    };
    if !rest.is_empty() {
        return Err("followed by other bytes");
    }
    if certificate.version() != X509Version::V3 {
        return Err("not version 3");
    }
    let point = p384_point(&certificate)?;
    if *certificate.signature_algorithm.oid() != oid!(1.2.840.10045.4.3.3) {
        return Err("not signed with ECDSA and SHA-384");
    }

    let Ok(basic_constraints) = certificate.basic_constraints() else {
        return Err("basic constraints unreadable or repeated");
    };
    let Ok(Some(key_usage)) = certificate.key_usage() else {
        return Err("key usage absent, unreadable or repeated");
    };
    let path_length = match (level, basic_constraints) {
        (Level::Leaf, Some(constraints)) if constraints.value.ca => {
            return Err("a CA certificate as leaf");
        }
        (Level::Leaf, _) => {
            if !key_usage.value.digital_signature() {
                return Err("key usage does not allow signing documents");
            }
            if key_usage.value.key_cert_sign() || key_usage.value.crl_sign() {
                return Err("key usage of a CA on the leaf");
            }
            None
        }
        (Level::Root | Level::Intermediate, Some(constraints))
            if constraints.value.ca && constraints.critical =>
        {
            if !key_usage.value.key_cert_sign() {
                return Err("key usage does not allow signing certificates");
            }
            constraints.value.path_len_constraint
        }
        (Level::Root | Level::Intermediate, _) => return Err("not a CA certificate"),
    };
    if level == Level::Root && certificate.subject().as_raw() != certificate.issuer().as_raw() {
        return Err("not issued by itself");
    }
    Ok(Checked {
        point,
        not_before: system_time(certificate.validity().not_before)?,
        not_after: system_time(certificate.validity().not_after)?,
        path_length,
    })
}

/// RFC 5480: id-ecPublicKey with secp384r1, an uncompressed point.
fn p384_point(certificate: &X509Certificate<'_>) -> Result<Vec<u8>, &'static str> {
    const PROBLEM: &str = "key is not on P-384";
    let key = certificate.public_key();
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok());
    if *key.algorithm.oid() != oid!(1.2.840.10045.2.1) || curve != Some(oid!(1.3.132.0.34)) {
        return Err(PROBLEM);
    }
    match key.parsed() {
        Ok(PublicKey::EC(point))
            if point.data().len() == 97 && point.data().first() == Some(&4) =>
        {
            Ok(point.data().to_vec())
        }
        _ => Err(PROBLEM),
    }
}

fn system_time(time: ASN1Time) -> Result<SystemTime, &'static str> {
    u64::try_from(time.timestamp())
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or("validity out of range")
}
