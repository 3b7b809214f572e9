//! in-toto Statement v1: something is said about files that are named by their digest.

use sealed_model::Sha256Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Artifact, Blob, Error, canonical};

pub(crate) const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// What cosign writes; the fields are the same.
const STATEMENT_BEFORE: &str = "https://in-toto.io/Statement/v0.1";
/// A CycloneDX BOM as a predicate (in-toto attestation predicates, "CycloneDX").
pub const CYCLONEDX_BOM: &str = "https://cyclonedx.org/bom";
const MAX_SUBJECTS: usize = 64;

/// What an attestation says. From [`crate::Envelope::verify`] it is what a trusted key signed; whether that is about your
/// file, [`Self::names`] tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectDigest {
    sha256: Sha256Digest,
}

impl Statement {
    pub(crate) fn new(
        subjects: &[Artifact],
        predicate_type: &str,
        predicate: Value,
    ) -> Result<Self, Error> {
        let statement = Self {
            kind: STATEMENT.into(),
            subject: subjects
                .iter()
                .map(|artifact| Subject {
                    name: artifact.name.clone(),
                    digest: SubjectDigest {
                        sha256: artifact.sha256,
                    },
                })
                .collect(),
            predicate_type: predicate_type.into(),
            predicate,
        };
        subjects.iter().try_for_each(|a| a.check("subject"))?;
        statement.check_subjects()?;
        Ok(statement)
    }

    /// Bytes of a payload whose signature holds, or that is to be signed.
    pub(crate) fn parse(bytes: &[u8], max: usize) -> Result<Self, Error> {
        let statement: Self = canonical::read("statement", bytes, max)?;
        if ![STATEMENT, STATEMENT_BEFORE].contains(&statement.kind.as_str()) {
            return Err(Error::UnknownVersion {
                what: "statement",
                found: canonical::shown(&statement.kind),
                known: "in-toto Statement v1 and v0.1",
            });
        }
        statement.check_subjects()?;
        Ok(statement)
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        canonical::bytes(self)
    }

    /// # Errors
    /// [`Error::Unexpected`] where it says something else than what `predicate_type` is for.
    pub fn expect(&self, predicate_type: &str) -> Result<&Value, Error> {
        match self.predicate_type == predicate_type {
            true => Ok(&self.predicate),
            false => Err(Error::Unexpected {
                what: "predicate type",
                expected: predicate_type.into(),
                found: canonical::shown(&self.predicate_type),
            }),
        }
    }

    pub fn predicate_type(&self) -> &str {
        &self.predicate_type
    }

    /// The name under which it speaks of a file with this digest.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it speaks of other files only.
    pub fn names(&self, sha256: &Sha256Digest) -> Result<&str, Error> {
        self.subject
            .iter()
            .find(|subject| subject.digest.sha256 == *sha256)
            .map(|subject| subject.name.as_str())
            .ok_or_else(|| {
                Error::malformed(
                    "statement",
                    format!("is about other files, none with SHA-256 {sha256}"),
                )
            })
    }

    /// All files that it speaks of.
    pub fn subjects(&self) -> impl Iterator<Item = (&str, &Sha256Digest)> {
        self.subject
            .iter()
            .map(|subject| (subject.name.as_str(), &subject.digest.sha256))
    }

    fn check_subjects(&self) -> Result<(), Error> {
        let problem = match self.subject.len() {
            0 => "names no file",
            1..=MAX_SUBJECTS => return Ok(()),
            _ => "names more than 64 files",
        };
        Err(Error::malformed("statement", problem))
    }
}

/// The statement that `sbom`, CycloneDX in JSON, is the bill of materials of `image`.
///
/// # Errors
/// [`Error::Malformed`] where `sbom` is no CycloneDX 1.6, [`Error::Digest`] where it names another file than `image`.
pub fn sbom_statement(image: &Artifact, sbom: &[u8]) -> Result<Vec<u8>, Error> {
    let bom: Value = canonical::read("sbom", sbom, crate::MAX_ENVELOPE)?;
    let text = |path: &str| bom.pointer(path).and_then(Value::as_str);
    if text("/bomFormat") != Some("CycloneDX") || text("/specVersion") != Some("1.6") {
        return Err(Error::malformed("sbom", "is not CycloneDX 1.6 in JSON"));
    }
    let named = text("/metadata/component/hashes/0/content")
        .and_then(|digest| digest.parse::<Sha256Digest>().ok())
        .ok_or_else(|| Error::malformed("sbom", "does not name its image by SHA-256"))?;
    if named != image.sha256 {
        return Err(Error::Digest {
            what: "sbom: image".into(),
            expected: image.sha256,
            actual: named,
        });
    }
    Statement::new(std::slice::from_ref(image), CYCLONEDX_BOM, bom)?.to_bytes()
}

/// A statement that is about `image`, checked as far as one can before it is signed.
///
/// # Errors
/// Where it is no in-toto statement, or about other files only.
pub fn unsigned_statement(image: &Blob, statement: Vec<u8>) -> Result<Vec<u8>, Error> {
    let parsed = Statement::parse(&statement, crate::MAX_ENVELOPE)?;
    parsed.names(image.sha256())?;
    Ok(statement)
}

/// SHA-256 of the file that an attested bill of materials was made from, if that was written as ours are.
///
/// # Errors
/// [`Error::Unexpected`] where the statement is another one.
pub fn bom_sha256(statement: &Statement) -> Result<Sha256Digest, Error> {
    let bom = statement.expect(CYCLONEDX_BOM)?;
    Ok(Sha256Digest::of(&canonical::bytes(bom)?))
}
