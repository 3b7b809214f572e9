//! Asking for an X.509-SVID with evidence: challenge, request, chain.

use attestation::Nonce;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::MAX_CHAIN;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::http::{Connection, Proof};
use crate::rcar::NitroEvidence;

#[derive(Serialize)]
struct Empty {}

#[derive(Deserialize)]
struct Challenge {
    nonce: String,
}

#[derive(Serialize)]
struct Request {
    nonce: String,
    csr: String,
    evidence: NitroEvidence,
}

#[derive(Deserialize)]
struct Issued {
    chain: Vec<String>,
}

pub(crate) async fn challenge(connection: &mut Connection) -> Result<Nonce, Failure> {
    let answer = connection
        .post("/cloister/v0/challenge", Proof::None, &Empty {})
        .await?;
    let Ok(Challenge { nonce }) = serde_json::from_slice(&answer.body) else {
        return Err(Failure::malformed("challenge"));
    };
    match Nonce::from_base64url(&nonce) {
        Ok(nonce) => Ok(nonce),
        Err(_) => Err(Failure::malformed("challenge's nonce")),
    }
}

/// The chain as it came, leaf first; nothing in it has been checked.
pub(crate) async fn issue(
    connection: &mut Connection,
    nonce: &Nonce,
    csr: &[u8],
    evidence: NitroEvidence,
) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let request = Request {
        nonce: nonce.to_base64url(),
        csr: STANDARD.encode(csr),
        evidence,
    };
    let answer = connection
        .post("/cloister/v0/svid", Proof::None, &request)
        .await?;
    let Ok(Issued { chain }) = serde_json::from_slice(&answer.body) else {
        return Err(Failure::malformed("issued chain"));
    };
    if chain.len() > MAX_CHAIN {
        return Err(Failure::malformed("length of the issued chain"));
    }
    let chain = chain
        .iter()
        .map(|der| STANDARD.decode(der).map(CertificateDer::from))
        .collect();
    match chain {
        Ok(chain) => Ok(chain),
        Err(_) => Err(Failure::malformed("certificate of the issued chain")),
    }
}
