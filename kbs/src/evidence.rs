//! Evidence as it comes over the wire, and the one place where it is verified.

use std::time::{Duration, SystemTime};

use attestation::{
    Appraisal, Binding, BootId, Claims, Evidence, Expected, Sha256Digest, Subject, Verifier,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::store::Facts;
use crate::tee_key::{TeePublicKey, runtime_data_digest};
use crate::token::NitroClaims;

/// A document answers a nonce that is younger than this, so it cannot rightly be older.
const MAX_AGE: Duration = crate::session::SESSION_LIFETIME;

/// The document, and what the attester says its binding was made of. Neither digest is believed: they are hashed into
/// the binding that the document has to carry.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NitroEvidence {
    document: String,
    config_digest: Sha256Digest,
    boot_id: BootId,
}

/// What the document has to agree with.
pub(crate) struct Challenge<'a> {
    pub(crate) nonce: &'a [u8],
    pub(crate) public_key: &'a [u8],
    pub(crate) subject: Subject,
}

impl NitroEvidence {
    /// All steps of the verifier; who the measurements belong to is for policy to say.
    ///
    /// As soon as the document is authentic, `facts` get its registers: a refusal of a true document is worth more in
    /// the log than one of noise.
    pub(crate) fn verify(
        &self,
        verifier: &Verifier,
        challenge: Challenge<'_>,
        facts: &mut Facts,
        now: SystemTime,
    ) -> Result<Claims, String> {
        let Ok(document) = STANDARD.decode(&self.document) else {
            return Err("document is not base64".to_owned());
        };
        let evidence = Evidence::from_bytes(document).map_err(|error| error.to_string())?;
        let binding = Binding {
            config_digest: self.config_digest,
            boot_id: self.boot_id,
            subject: challenge.subject,
        };
        let expected = Expected {
            nonce: challenge.nonce,
            public_key: challenge.public_key,
            binding: &binding,
            measurements: Appraisal::ByCaller,
            max_age: MAX_AGE,
        };
        match verifier.verify(&evidence, &expected, now) {
            Ok(claims) => {
                facts.pcrs = Some(claims.pcrs.clone());
                facts.fresh = true;
                facts.config_digest = Some(self.config_digest);
                Ok(claims)
            }
            Err(error) => {
                if let Ok(document) = verifier.authenticate(&evidence, now) {
                    facts.fresh = document.nonce.as_deref() == Some(challenge.nonce);
                    facts.pcrs = Some(document.pcrs);
                }
                Err(describe(&error))
            }
        }
    }

    /// For a key release: the document answers `nonce` and attests `key`, both as they were sent.
    pub(crate) fn verify_key_release(
        &self,
        verifier: &Verifier,
        nonce: &str,
        key: &TeePublicKey,
        facts: &mut Facts,
        now: SystemTime,
    ) -> Result<Claims, String> {
        let spki = key.spki_der().map_err(|error| error.to_string())?;
        let challenge = Challenge {
            nonce: nonce.as_bytes(),
            public_key: &spki,
            subject: Subject::KeyRelease {
                runtime_data_sha384: runtime_data_digest(nonce, key),
            },
        };
        self.verify(verifier, challenge, facts, now)
    }

    pub(crate) fn claims(&self, claims: &Claims, verifier: &Verifier) -> NitroClaims {
        NitroClaims {
            pcrs: claims
                .pcrs
                .iter()
                .map(|(index, pcr)| (index.to_string(), *pcr))
                .collect(),
            module_id: claims.module_id.clone(),
            config_digest: self.config_digest,
            boot_id: self.boot_id,
            root_sha256: verifier.anchor().fingerprint(),
        }
    }
}

/// The error with its causes, on one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
