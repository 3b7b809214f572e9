//! One certificate by itself: its form, and when it is valid.

use std::time::{Duration, SystemTime};

use x509_parser::asn1_rs::{Oid, oid};
use x509_parser::oid_registry::OID_X509_EXT_NAME_CONSTRAINTS;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;

/// Where in the chain a certificate stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Root,
    Intermediate,
    Leaf,
}

/// RFC 5758 section 3.2.
pub(crate) const ECDSA_WITH_SHA384: Oid<'static> = oid!(1.2.840.10045.4.3.3);

/// What a certificate says once its form has been checked.
pub(crate) struct Checked {
    /// Uncompressed P-384 point (SEC 1), 97 bytes.
    pub(crate) point: Vec<u8>,
    pub(crate) validity: Validity,
    pub(crate) path_length: Option<u32>,
    pub(crate) name_constraints: bool,
    /// `cRLSign`.
    pub(crate) signs_lists: bool,
    /// Its issuer's name, DER.
    pub(crate) issuer: Vec<u8>,
    /// Its number, the content octets of the INTEGER.
    pub(crate) serial: Vec<u8>,
}

/// First and last second of a certificate's validity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Validity {
    /// Certificates know whole seconds, so `at` should be one.
    pub(crate) fn contains(&self, at: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&at)
    }
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
    if *certificate.signature_algorithm.oid() != ECDSA_WITH_SHA384 {
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
        validity: validity(&certificate)?,
        path_length,
        name_constraints: certificate
            .iter_extensions()
            .any(|extension| extension.oid == OID_X509_EXT_NAME_CONSTRAINTS),
        signs_lists: key_usage.value.crl_sign(),
        issuer: certificate.issuer().as_raw().to_vec(),
        serial: certificate.raw_serial().to_vec(),
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

pub(crate) fn validity(certificate: &X509Certificate<'_>) -> Result<Validity, &'static str> {
    Ok(Validity {
        not_before: system_time(certificate.validity().not_before)?,
        not_after: system_time(certificate.validity().not_after)?,
    })
}

pub(crate) fn system_time(time: ASN1Time) -> Result<SystemTime, &'static str> {
    u64::try_from(time.timestamp())
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or("validity out of range")
}
