//! A trust bundle as it is written down: a JWK set (SPIFFE Trust Domain and Bundle §4), or plain certificates in PEM.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::leaf::signing_certificate;
use crate::{Error, pem};

/// SPIRE's bundles with a dozen of authorities are below 40 KiB.
pub const MAX_DOCUMENT: usize = 1 << 20;
/// JWT keys included.
const MAX_KEYS: usize = 256;
const X509: &str = "x509-svid";

/// What a bundle says. It carries no trust domain's name: whoever reads it knows from where it came, and for whom it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleDocument {
    /// CA certificates. None at all is a statement too: everything in the domain is revoked.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Grows with each change. PEM has none.
    pub sequence: Option<u64>,
    /// After how long to look again. PEM has none.
    pub refresh_hint: Option<Duration>,
}

/// Other members are for other readers.
#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
    spiffe_sequence: Option<u64>,
    spiffe_refresh_hint: Option<u64>,
}

/// An object's members. What they have to be depends on `use`, so an entry for another use may be of any shape; but none may be
/// there twice, since two readers could then read two bundles.
struct Jwk(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Jwk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Jwk;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a jwk")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Jwk, A::Error> {
                let mut members: Vec<(String, Value)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.iter().any(|(earlier, _)| *earlier == name) {
                        return Err(A::Error::custom("a member is there twice"));
                    }
                    members.push((name, value));
                }
                Ok(Jwk(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Jwk {
    fn member(&self, name: &str) -> Option<&Value> {
        let member = self.0.iter().find(|(own, _)| own == name);
        member.map(|(_, value)| value)
    }

    /// The certificate of an X.509 entry; `None` for entries that are to be ignored.
    fn authority(&self) -> Result<Option<CertificateDer<'static>>, Error> {
        if self.member("use").and_then(Value::as_str) != Some(X509) {
            return Ok(None);
        }
        if self.member("kty").and_then(Value::as_str).is_none() {
            return Err(Error::Bundle("has an x509-svid key without kty"));
        }
        // More than one is allowed by RFC 7517; SPIFFE takes the first.
        let first = match self.member("x5c") {
            None => None,
            Some(Value::Array(certificates)) => certificates.first(),
            Some(_) => return Err(Error::Bundle("has an x5c that is no list")),
        };
        let Some(first) = first else { return Ok(None) };
        let der = first.as_str().and_then(|text| STANDARD.decode(text).ok());
        let der = der.ok_or(Error::Bundle("has a certificate that is not base64"))?;
        Ok(Some(CertificateDer::from(der)))
    }
}

impl BundleDocument {
    /// Reads a JWK set. Entries without `use`, or for another use than X.509-SVIDs, are ignored, and so is an entry without
    /// certificate (§4.2). A certificate that may not sign, or cannot be read, refuses the whole: half a bundle is another bundle.
    ///
    /// # Errors
    /// [`Error::Bundle`], or what is wrong with a certificate.
    pub fn from_jwks(json: &[u8]) -> Result<Self, Error> {
        if json.len() > MAX_DOCUMENT {
            return Err(Error::Bundle("is too large"));
        }
        let set: JwkSet =
            serde_json::from_slice(json).map_err(|_detail| Error::Bundle("is no jwk set"))?;
        if set.keys.len() > MAX_KEYS {
            return Err(Error::Bundle("has too many keys"));
        }
        let mut authorities = Vec::new();
        for key in set.keys {
            authorities.extend(key.authority()?);
        }
        Self {
            authorities,
            sequence: set.spiffe_sequence,
            refresh_hint: set.spiffe_refresh_hint.map(Duration::from_secs),
        }
        .checked()
    }

    /// Reads a file's or a setting's text: a JWK set if it begins with a brace, otherwise PEM.
    ///
    /// # Errors
    /// As [`BundleDocument::from_jwks`], and PEM without any certificate.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        if text.trim_start().starts_with('{') {
            return Self::from_jwks(text.as_bytes());
        }
        Self {
            authorities: pem::certificates(text)?,
            sequence: None,
            refresh_hint: None,
        }
        .checked()
    }

    fn checked(self) -> Result<Self, Error> {
        for certificate in &self.authorities {
            signing_certificate(certificate)?;
        }
        Ok(self)
    }
}
