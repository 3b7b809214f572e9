//! How this broker proves to the server which machine it is, once: a certificate of the operator's own CA, or a join token.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::{Svid, pem};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{SpireError, types};

/// Of SPIRE's x509pop challenge, and of our half of it.
const NONCE: usize = 32;
/// A UUID by default; SPIRE takes any text.
const MAX_TOKEN: u64 = 512;
/// A chain and a key in PEM.
const MAX_STATE: u64 = 64 * 1024;
/// Room for most of them: a growing text would leave copies of the key behind.
const STATE: usize = 32 * 1024;

pub(crate) enum Attestor {
    /// SPIRE's node attestor `x509pop`. The server may ask again, so nothing is kept.
    X509Pop {
        chain: Vec<CertificateDer<'static>>,
        key: PopKey,
    },
    /// SPIRE's node attestor `join_token`. It is good once, so what it brought is kept in a file.
    JoinToken { token: PathBuf, state: PathBuf },
}

/// The key of the machine's certificate, of a kind that SPIRE asks proof of.
pub(crate) enum PopKey {
    P256(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
}

impl PopKey {
    /// `None`: neither a P-256 nor an RSA key.
    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8);
        let rsa = || RsaKeyPair::from_pkcs8(pkcs8).map(|key| Self::Rsa(Box::new(key)));
        match p256 {
            Ok(key) => Some(Self::P256(Box::new(key))),
            Err(_) => rsa().ok(),
        }
    }
}

#[derive(Serialize)]
struct PopPayload {
    certificates: Vec<String>,
}

#[derive(Deserialize)]
struct PopChallenge {
    rsa_signature: Option<PopNonce>,
    ecdsa_signature: Option<PopNonce>,
}

#[derive(Deserialize)]
struct PopNonce {
    nonce: String,
}

#[derive(Serialize)]
struct PopResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    rsa_signature: Option<RsaProof>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ecdsa_signature: Option<EcdsaProof>,
}

#[derive(Serialize)]
struct RsaProof {
    nonce: String,
    signature: String,
}

#[derive(Serialize)]
struct EcdsaProof {
    nonce: String,
    r: String,
    s: String,
}

impl Attestor {
    /// What the first message says.
    pub(super) fn data(&self) -> Result<types::AttestationData, SpireError> {
        match self {
            Self::X509Pop { chain, .. } => {
                let certificates = chain.iter().map(|der| STANDARD.encode(der)).collect();
                let payload = serde_json::to_vec(&PopPayload { certificates });
                Ok(types::AttestationData {
                    r#type: "x509pop".to_owned(),
                    payload: payload.map_err(|_plain| SpireError::Key)?,
                })
            }
            Self::JoinToken { token, .. } => {
                let text = crate::config::read(token, MAX_TOKEN).map_err(|problem| {
                    let problem = format!("{problem} (spire-server token generate prints one)");
                    file(token, problem)
                })?;
                let text = text.trim();
                if text.is_empty() {
                    return Err(file(token, "is empty"));
                }
                Ok(types::AttestationData {
                    r#type: "join_token".to_owned(),
                    payload: text.as_bytes().to_vec(),
                })
            }
        }
    }

    /// The answer to the server's challenge.
    pub(super) fn answer(&self, challenge: &[u8]) -> Result<Vec<u8>, SpireError> {
        const WHAT: SpireError = SpireError::Malformed("challenge");
        let Self::X509Pop { key, .. } = self else {
            return Err(WHAT);
        };
        let challenge: PopChallenge = serde_json::from_slice(challenge).map_err(|_json| WHAT)?;
        let theirs = match key {
            PopKey::P256(_) => challenge.ecdsa_signature,
            PopKey::Rsa(_) => challenge.rsa_signature,
        };
        let theirs = STANDARD
            .decode(theirs.ok_or(WHAT)?.nonce)
            .map_err(|_base64| WHAT)?;
        if theirs.len() != NONCE {
            return Err(WHAT);
        }
        let mut ours = [0_u8; NONCE];
        rand::fill(&mut ours).map_err(|_unspecified| SpireError::Key)?;
        // Half of it is ours, so that no server gets a signature over words of its choice.
        let message = [theirs.as_slice(), &ours].concat();
        let nonce = STANDARD.encode(ours);
        let response = match key {
            PopKey::P256(key) => {
                let signature = key.sign(&SystemRandom::new(), &message);
                let signature = signature.map_err(|_unspecified| SpireError::Key)?;
                let (r, s) = signature
                    .as_ref()
                    .split_at_checked(32)
                    .ok_or(SpireError::Key)?;
                PopResponse {
                    rsa_signature: None,
                    ecdsa_signature: Some(EcdsaProof {
                        nonce,
                        r: STANDARD.encode(r),
                        s: STANDARD.encode(s),
                    }),
                }
            }
            PopKey::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(
                    &RSA_PSS_SHA256,
                    &SystemRandom::new(),
                    &message,
                    &mut signature,
                )
                .map_err(|_unspecified| SpireError::Key)?;
                PopResponse {
                    rsa_signature: Some(RsaProof {
                        nonce,
                        signature: STANDARD.encode(signature),
                    }),
                    ecdsa_signature: None,
                }
            }
        };
        serde_json::to_vec(&response).map_err(|_plain| SpireError::Key)
    }

    /// Whether the server takes the same proof again.
    pub(super) fn again(&self) -> bool {
        matches!(self, Self::X509Pop { .. })
    }

    /// What an earlier run kept. `None`: nothing; whether it is still valid is for the caller to see.
    pub(super) fn kept(&self) -> Result<Option<Svid>, SpireError> {
        let Self::JoinToken { state, .. } = self else {
            return Ok(None);
        };
        if !state.exists() {
            return Ok(None);
        }
        let text = crate::config::read(state, MAX_STATE).map_err(|problem| file(state, problem))?;
        let svid = Svid::from_pem(&text, &text).map_err(|error| {
            file(
                state,
                format!("{error}; remove it and make a new join token"),
            )
        })?;
        Ok(Some(svid))
    }

    /// Keeps the agent's newest identity where it could not be had again: whole or not at all, for this user only.
    pub(super) fn keep(
        &self,
        chain: &[CertificateDer<'_>],
        pkcs8: &[u8],
    ) -> Result<(), SpireError> {
        let Self::JoinToken { state, .. } = self else {
            return Ok(());
        };
        let mut text = Zeroizing::new(String::with_capacity(STATE));
        text.push_str(&pem::encode_certificates(chain));
        text.push_str(&pem::encode_private_key(pkcs8));
        write_whole(state, text.as_bytes()).map_err(|error| file(state, error.to_string()))
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

fn file(path: &Path, problem: impl Into<String>) -> SpireError {
    SpireError::File {
        path: path.to_owned(),
        problem: problem.into(),
    }
}
