use spiffe::SpiffeId;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::FromDer as _;

use crate::Error;

/// A request with one URI name and a P-256 key is under 400 octets.
const MAX_REQUEST: usize = 4 * 1024;

/// What a certificate signing request asks for. The issuer decides the ID; this is only the wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    pub id: SpiffeId,
    /// DER SubjectPublicKeyInfo of a P-256 key that the asker holds: the request is signed with it.
    pub spki_der: Vec<u8>,
}

/// Reads a PKCS#10 request strictly (RFC 2986): P-256 key, own signature, empty subject, exactly one name, a URI.
///
/// # Errors
/// [`Error::Csr`] with the first thing that is wrong.
pub fn csr(der: &[u8]) -> Result<Csr, Error> {
    if der.len() > MAX_REQUEST {
        return Err(Error::Csr("too large"));
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
        return Err(Error::Csr("not a pkcs#10 request"));
    };
    let info = &request.certification_request_info;
    let algorithm = &info.subject_pki.algorithm;
    let curve = algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok());
    if algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(Error::Csr("key is not on p-256"));
    }
    request
        .verify_signature()
        .map_err(|_detail| Error::Csr("signature does not verify"))?;
    if info.subject.iter().next().is_some() {
        return Err(Error::Csr("subject is not empty"));
    }
    // Every attribute, not the first of its kind: what is not looked at could be taken for granted elsewhere.
    let more = Error::Csr("asks for more than a name");
    let mut attributes = info.iter_attributes();
    let extensions = match (attributes.next(), attributes.next()) {
        (None, _) => &[][..],
        (Some(attribute), None) => match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(requested) => requested.extensions.as_slice(),
            _ => return Err(more),
        },
        (Some(_), Some(_)) => return Err(more),
    };
    let mut names = Vec::new();
    for extension in extensions {
        let ParsedExtension::SubjectAlternativeName(extension) = extension.parsed_extension()
        else {
            return Err(more);
        };
        names.extend(&extension.general_names);
    }
    let [GeneralName::URI(uri)] = names.as_slice() else {
        return Err(Error::Csr("does not ask for exactly one uri name"));
    };
    let id = SpiffeId::new(uri).map_err(|_detail| Error::SpiffeId)?;
    if id.to_string() != *uri {
        return Err(Error::SpiffeId);
    }
    if id.path().is_empty() {
        return Err(Error::MissingPath { id });
    }
    Ok(Csr {
        id,
        spki_der: info.subject_pki.raw.to_vec(),
    })
}
