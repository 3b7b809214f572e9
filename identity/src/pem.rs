//! PEM in and out, for files and measured configuration.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize as _, Zeroizing};

use crate::Error;

/// Base64 characters per line (RFC 7468 §2).
const LINE: usize = 64;

/// Every certificate in `text`, in order.
///
/// # Errors
/// None there, or a section that does not decode.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_detail| Error::Pem("readable certificate"))?;
    if found.is_empty() {
        return Err(Error::Pem("certificate"));
    }
    Ok(found)
}

/// The first PKCS#8 private key in `text`.
///
/// # Errors
/// None there.
pub fn private_key(text: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_detail| Error::Pem("pkcs#8 private key"))?;
    let bytes = Zeroizing::new(key.secret_pkcs8_der().to_vec());
    key.zeroize();
    Ok(bytes)
}

#[must_use]
pub fn encode_certificates(chain: &[CertificateDer<'_>]) -> String {
    let mut out = String::new();
    for certificate in chain {
        section(&mut out, "CERTIFICATE", certificate);
    }
    out
}

#[must_use]
pub fn encode_private_key(pkcs8: &[u8]) -> Zeroizing<String> {
    // Reserved up front: a growing string would leave copies of the key behind.
    let mut out = Zeroizing::new(String::with_capacity(
        pkcs8.len().saturating_mul(2).saturating_add(128),
    ));
    section(&mut out, "PRIVATE KEY", pkcs8);
    out
}

fn section(out: &mut String, kind: &str, der: &[u8]) {
    use base64::Engine as _;
    let body = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    out.push_str("-----BEGIN ");
    out.push_str(kind);
    out.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(LINE));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END ");
    out.push_str(kind);
    out.push_str("-----\n");
}
