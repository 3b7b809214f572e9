//! The three operations, in the order of the service: key, document, policy, cryptography.

use std::collections::BTreeMap;
use std::time::SystemTime;

use attestation::{Document, Evidence, Verifier};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::cms;
use super::keys::{Context, Key, key_of};
use super::policy::Decision;
use super::refusal::Refusal;

const SYMMETRIC_DEFAULT: &str = "SYMMETRIC_DEFAULT";
const MAX_DOCUMENT: usize = 262_144;
const MAX_CIPHERTEXT: usize = 6144;
const MAX_PLAINTEXT: usize = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    key_id: Option<String>,
    plaintext: Option<String>,
    ciphertext_blob: Option<String>,
    #[serde(default)]
    encryption_context: Context,
    encryption_algorithm: Option<String>,
    key_spec: Option<String>,
    number_of_bytes: Option<usize>,
    recipient: Option<Recipient>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Recipient {
    key_encryption_algorithm: Option<String>,
    attestation_document: Option<String>,
}

/// All that decides, and the caller's name.
pub(super) struct Desk<'a> {
    pub(super) keys: &'a [Key],
    pub(super) verifier: &'a Verifier,
    pub(super) principal: &'a str,
    pub(super) now: SystemTime,
}

/// An answer, and the document's public key for whoever watches.
pub(super) struct Done {
    pub(super) answer: Value,
    pub(super) recipient: Option<Vec<u8>>,
}

impl Desk<'_> {
    pub(super) fn run(&self, operation: &str, body: &[u8]) -> Result<Done, Refusal> {
        let request: Request = serde_json::from_slice(body)
            .map_err(|error| Refusal::new("SerializationException", error.to_string()))?;
        if request
            .encryption_algorithm
            .as_ref()
            .is_some_and(|name| name != SYMMETRIC_DEFAULT)
        {
            return Err(Refusal::new(
                "InvalidKeyUsageException",
                "the key is symmetric",
            ));
        }
        match operation {
            "Encrypt" => self.encrypt(&request),
            "Decrypt" => self.decrypt(&request),
            "GenerateDataKey" => self.generate_data_key(&request),
            other => Err(Refusal::new(
                "UnknownOperationException",
                format!("{other} is not simulated"),
            )),
        }
    }

    fn encrypt(&self, request: &Request) -> Result<Done, Refusal> {
        let key = self.key(request.key_id.as_deref())?;
        self.authorize("Encrypt", key, request, None)?;
        let plaintext = blob(request.plaintext.as_deref(), "plaintext", MAX_PLAINTEXT)?;
        let sealed = key
            .wrap(&plaintext, &request.encryption_context)
            .map_err(internal)?;
        Ok(Done {
            answer: json!({
                "CiphertextBlob": STANDARD.encode(sealed),
                "KeyId": key.arn,
                "EncryptionAlgorithm": SYMMETRIC_DEFAULT,
            }),
            recipient: None,
        })
    }

    fn decrypt(&self, request: &Request) -> Result<Done, Refusal> {
        let sealed = blob(
            request.ciphertext_blob.as_deref(),
            "ciphertextBlob",
            MAX_CIPHERTEXT,
        )?;
        let invalid = || Refusal::new("InvalidCiphertextException", "");
        let made_by =
            key_of(&sealed).and_then(|id| self.keys.iter().find(|key| key.id.as_bytes() == id));
        let key = match request.key_id.as_deref() {
            Some(id) => self.key(Some(id))?,
            None => made_by.ok_or_else(invalid)?,
        };
        let document = self.document(request)?;
        self.authorize("Decrypt", key, request, document.as_ref())?;
        if made_by.is_some_and(|by| by.id != key.id) {
            return Err(Refusal::new(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this operation.",
            ));
        }
        let plaintext = key
            .unwrap(&sealed, &request.encryption_context)
            .map_err(|_one_error_for_all| invalid())?;
        let mut answer = Map::new();
        answer.insert("KeyId".into(), key.arn.clone().into());
        answer.insert("EncryptionAlgorithm".into(), SYMMETRIC_DEFAULT.into());
        hand_out(answer, &plaintext, document)
    }

    fn generate_data_key(&self, request: &Request) -> Result<Done, Refusal> {
        let key = self.key(request.key_id.as_deref())?;
        let document = self.document(request)?;
        self.authorize("GenerateDataKey", key, request, document.as_ref())?;
        let length = match (request.key_spec.as_deref(), request.number_of_bytes) {
            (Some("AES_256"), None) => 32,
            (Some("AES_128"), None) => 16,
            (None, Some(length @ 1..=1024)) => length,
            _ => {
                return Err(Refusal::validation(
                    "KeySpec or NumberOfBytes must be given, one of them",
                ));
            }
        };
        let mut plaintext = Zeroizing::new(vec![0; length]);
        rand::fill(&mut plaintext).map_err(internal)?;
        let sealed = key
            .wrap(&plaintext, &request.encryption_context)
            .map_err(internal)?;
        let mut answer = Map::new();
        answer.insert("KeyId".into(), key.arn.clone().into());
        answer.insert("CiphertextBlob".into(), STANDARD.encode(sealed).into());
        hand_out(answer, &plaintext, document)
    }

    fn key(&self, id: Option<&str>) -> Result<&Key, Refusal> {
        let id = id.ok_or_else(|| null("keyId"))?;
        self.keys
            .iter()
            .find(|key| key.id == id || key.arn == id)
            .ok_or_else(|| Refusal::new("NotFoundException", format!("Key '{id}' does not exist")))
    }

    /// Chain, signature and certificates' times, as for any verifier. No challenge, and no age beyond the certificates'.
    fn document(&self, request: &Request) -> Result<Option<Document>, Refusal> {
        let Some(recipient) = &request.recipient else {
            return Ok(None);
        };
        if recipient.key_encryption_algorithm.as_deref() != Some("RSAES_OAEP_SHA_256") {
            return Err(Refusal::validation(
                "keyEncryptionAlgorithm must be RSAES_OAEP_SHA_256",
            ));
        }
        let bytes = blob(
            recipient.attestation_document.as_deref(),
            "attestationDocument",
            MAX_DOCUMENT,
        )?;
        let invalid = |error: &dyn std::fmt::Display| {
            Refusal::validation(format!("the attestation document is not valid: {error}"))
        };
        let evidence = Evidence::from_bytes(bytes.to_vec()).map_err(|error| invalid(&error))?;
        let document = self
            .verifier
            .authenticate(&evidence, self.now)
            .map_err(|error| invalid(&error))?;
        Ok(Some(document))
    }

    fn authorize(
        &self,
        operation: &str,
        key: &Key,
        request: &Request,
        document: Option<&Document>,
    ) -> Result<(), Refusal> {
        let mut facts: BTreeMap<String, String> = BTreeMap::new();
        facts.insert("aws:principalarn".to_owned(), self.principal.to_owned());
        for (name, value) in &request.encryption_context {
            facts.insert(
                format!("kms:encryptioncontext:{}", name.to_ascii_lowercase()),
                value.clone(),
            );
        }
        for (index, pcr) in document.iter().flat_map(|document| &document.pcrs) {
            facts.insert(
                format!("kms:recipientattestation:pcr{index}"),
                pcr.to_string(),
            );
            if *index == 0 {
                facts.insert(
                    "kms:recipientattestation:imagesha384".to_owned(),
                    pcr.to_string(),
                );
            }
        }
        let why = match key
            .policy
            .decide(&format!("kms:{operation}"), self.principal, &facts)
        {
            Decision::Allowed => return Ok(()),
            Decision::Denied => "with an explicit deny in a resource-based policy".to_owned(),
            Decision::NotAllowed => {
                format!("because no resource-based policy allows the kms:{operation} action")
            }
        };
        Err(Refusal::new(
            "AccessDeniedException",
            format!(
                "User: {} is not authorized to perform: kms:{operation} on resource: {} {why}",
                self.principal, key.arn
            ),
        ))
    }
}

/// In the clear to a caller without a document, as the service does; else for the document's key alone.
fn hand_out(
    mut answer: Map<String, Value>,
    plaintext: &[u8],
    document: Option<Document>,
) -> Result<Done, Refusal> {
    let Some(document) = document else {
        answer.insert("Plaintext".into(), STANDARD.encode(plaintext).into());
        return Ok(Done {
            answer: answer.into(),
            recipient: None,
        });
    };
    let recipient = document
        .public_key
        .ok_or_else(|| Refusal::validation("the attestation document has no public key"))?;
    let envelope = cms::envelope(&recipient, plaintext).map_err(|_no_rsa| {
        Refusal::validation("the attestation document's public key is not an RSA key")
    })?;
    answer.insert(
        "CiphertextForRecipient".into(),
        STANDARD.encode(envelope).into(),
    );
    answer.insert("Plaintext".into(), "".into());
    Ok(Done {
        answer: answer.into(),
        recipient: Some(recipient),
    })
}

fn blob(text: Option<&str>, name: &str, max: usize) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let bytes = STANDARD
        .decode(text.ok_or_else(|| null(name))?)
        .map_err(|error| Refusal::new("SerializationException", error.to_string()))?;
    match (1..=max).contains(&bytes.len()) {
        true => Ok(Zeroizing::new(bytes)),
        false => Err(Refusal::validation(format!(
            "1 validation error detected: Value at '{name}' failed to satisfy constraint: Member must have length between 1 and {max}"
        ))),
    }
}

fn null(name: &str) -> Refusal {
    Refusal::validation(format!(
        "1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"
    ))
}

fn internal(error: aws_lc_rs::error::Unspecified) -> Refusal {
    Refusal::new("KMSInternalException", error.to_string())
}
