//! The rules an X.509-SVID meets by itself (SPIFFE X509-SVID §2, §3, §4), before any chain is looked at.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use spiffe::SpiffeId;
use spiffe::spiffe_id::uri_has_spiffe_scheme;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use crate::Error;

/// A leaf of a SPIRE authority is under 1 KiB, one with an RSA-4096 key under 3 KiB; above this nothing is parsed.
const MAX_CERTIFICATE: usize = 16 * 1024;

/// Tag of `uniformResourceIdentifier` in `GeneralName` (RFC 5280 §4.2.1.6).
const URI_TAG: u32 = 6;

/// What a well-formed X.509-SVID says. It is *not* trusted yet: only [`crate::TrustBundles::verify`] and the TLS
/// verifiers say that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub id: SpiffeId,
    /// The serial number's big-endian octets in lower hex, without a leading sign octet.
    pub serial: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// DER SubjectPublicKeyInfo.
    pub spki_der: Vec<u8>,
    /// SHA-256 of the whole DER certificate.
    pub sha256: [u8; 32],
}

impl Leaf {
    /// Whether `now` lies in the validity period, both ends included (RFC 5280 §4.1.2.5).
    pub fn valid_at(&self, now: SystemTime) -> Result<(), Error> {
        if now < self.not_before {
            return Err(Error::NotYetValid {
                not_before: self.not_before,
            });
        }
        if now > self.not_after {
            return Err(Error::Expired {
                not_after: self.not_after,
            });
        }
        Ok(())
    }
}

/// When something is valid, both ends included (RFC 5280 §4.1.2.5).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Window {
    pub(crate) fn new(not_before: SystemTime, not_after: SystemTime) -> Self {
        Self {
            not_before,
            not_after,
        }
    }

    pub(crate) fn not_after(self) -> SystemTime {
        self.not_after
    }

    /// When both are.
    pub(crate) fn within(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }

    pub(crate) fn contains(self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// Reads one DER certificate and applies the leaf rules. Validity, signature and path are not looked at.
///
/// # Errors
/// The first rule that is broken.
pub fn leaf(der: &[u8]) -> Result<Leaf, Error> {
    let certificate = parse(der)?;
    let id = workload_id(&certificate)?;
    refuse_ca(&certificate)?;
    check_key_usage(&certificate)?;
    check_extended_key_usage(&certificate)?;
    let tbs = &certificate.tbs_certificate;
    Ok(Leaf {
        id,
        serial: serial(certificate.raw_serial()),
        not_before: system_time(tbs.validity.not_before)?,
        not_after: system_time(tbs.validity.not_after)?,
        spki_der: tbs.subject_pki.raw.to_vec(),
        sha256: sha256(der),
    })
}

/// How many names a certificate carries beside its URIs: DNS names, addresses, directory names. They are no identity to a
/// SPIFFE peer, and may be one to others.
///
/// # Errors
/// Not one DER certificate.
pub fn other_names(der: &[u8]) -> Result<usize, Error> {
    let certificate = parse(der)?;
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_duplicate| Error::Encoding("subject alternative name"))?;
    let names = extension.map_or(&[][..], |extension| &extension.value.general_names);
    let others = names
        .iter()
        .filter(|name| !matches!(name, GeneralName::URI(_)));
    Ok(others.count())
}

/// Applies the rules for a certificate that signs others (SPIFFE X509-SVID §3.1, §4.3).
pub(crate) fn signing_certificate(der: &[u8]) -> Result<Window, Error> {
    let certificate = parse(der)?;
    let constraints = certificate
        .basic_constraints()
        .map_err(|_duplicate| Error::Encoding("basic constraints"))?;
    if !constraints.is_some_and(|extension| extension.value.ca) {
        return Err(Error::SigningCertificate("is not a ca"));
    }
    let usage = certificate
        .key_usage()
        .map_err(|_malformed| Error::Encoding("key usage"))?;
    if !usage.is_some_and(|extension| extension.value.key_cert_sign()) {
        return Err(Error::SigningCertificate("lacks keyCertSign"));
    }
    // A signing certificate may carry no SPIFFE ID at all; if it carries one, it names the trust domain alone.
    for uri in uri_names(&certificate)?.uris {
        if uri_has_spiffe_scheme(uri) && SpiffeId::new(uri).map_or(true, |id| !id.path().is_empty())
        {
            return Err(Error::SigningCertificate("has a spiffe id with a path"));
        }
    }
    let validity = &certificate.tbs_certificate.validity;
    Ok(Window::new(
        system_time(validity.not_before)?,
        system_time(validity.not_after)?,
    ))
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    if der.len() > MAX_CERTIFICATE {
        return Err(Error::Encoding("too large"));
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(Error::Encoding("trailing bytes")),
        Err(_detail) => Err(Error::Encoding("not an x.509 certificate")),
    }
}

fn workload_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, Error> {
    let names = uri_names(certificate)?;
    let [uri] = names.uris.as_slice() else {
        return Err(Error::UriNames {
            found: names.uris.len(),
        });
    };
    let id = SpiffeId::new(uri).map_err(|_detail| Error::SpiffeId)?;
    // The parser lowers the trust domain; a certificate that needs that is not what its issuer was asked for.
    if id.to_string() != *uri {
        return Err(Error::SpiffeId);
    }
    if id.path().is_empty() {
        return Err(Error::MissingPath { id });
    }
    if certificate.subject().iter().next().is_none() && !names.critical {
        return Err(Error::NameNotCritical);
    }
    Ok(id)
}

struct UriNames<'a> {
    uris: Vec<&'a str>,
    critical: bool,
}

/// Every URI name, of any scheme: taking the first `spiffe:` one would let a second name ride along unseen.
fn uri_names<'a>(certificate: &'a X509Certificate<'_>) -> Result<UriNames<'a>, Error> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_duplicate| Error::Encoding("subject alternative name"))?;
    let Some(extension) = extension else {
        return Ok(UriNames {
            uris: Vec::new(),
            critical: false,
        });
    };
    let mut uris = Vec::new();
    for name in &extension.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::Invalid(tag, _) if tag.0 == URI_TAG => {
                return Err(Error::Encoding("uri name"));
            }
            _ => {} // DNS and other names may stand beside the ID and carry no identity
        }
    }
    Ok(UriNames {
        uris,
        critical: extension.critical,
    })
}

fn refuse_ca(certificate: &X509Certificate<'_>) -> Result<(), Error> {
    let constraints = certificate
        .basic_constraints()
        .map_err(|_duplicate| Error::Encoding("basic constraints"))?
        .ok_or(Error::MissingBasicConstraints)?;
    if constraints.value.ca {
        return Err(Error::CaLeaf);
    }
    Ok(())
}

fn check_key_usage(certificate: &X509Certificate<'_>) -> Result<(), Error> {
    let usage = certificate
        .key_usage()
        .map_err(|_malformed| Error::Encoding("key usage"))?
        .ok_or(Error::MissingKeyUsage)?;
    if !usage.critical {
        return Err(Error::KeyUsageNotCritical);
    }
    if !usage.value.digital_signature() {
        return Err(Error::MissingDigitalSignature);
    }
    if usage.value.key_cert_sign() {
        return Err(Error::SigningKeyUsage("keyCertSign"));
    }
    if usage.value.crl_sign() {
        return Err(Error::SigningKeyUsage("cRLSign"));
    }
    Ok(())
}

fn check_extended_key_usage(certificate: &X509Certificate<'_>) -> Result<(), Error> {
    let usage = certificate
        .extended_key_usage()
        .map_err(|_malformed| Error::Encoding("extended key usage"))?;
    let Some(usage) = usage else { return Ok(()) };
    if !usage.value.server_auth {
        return Err(Error::ExtendedKeyUsage("serverAuth"));
    }
    if !usage.value.client_auth {
        return Err(Error::ExtendedKeyUsage("clientAuth"));
    }
    Ok(())
}

fn serial(octets: &[u8]) -> String {
    match octets {
        [0, rest @ ..] if !rest.is_empty() => hex::encode(rest),
        all => hex::encode(all),
    }
}

fn system_time(time: ASN1Time) -> Result<SystemTime, Error> {
    let seconds = time.timestamp();
    let offset = Duration::from_secs(seconds.unsigned_abs());
    let moment = if seconds < 0 {
        UNIX_EPOCH.checked_sub(offset)
    } else {
        UNIX_EPOCH.checked_add(offset)
    };
    moment.ok_or(Error::Encoding("validity"))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = digest::digest(&digest::SHA256, bytes);
    out.copy_from_slice(digest.as_ref());
    out
}
