//! OpenSSF Model Signing v1.0 with a key: `model.sig`, a Sigstore bundle around an in-toto statement that lists the SHA-256 of
//! each file of a model directory. `model_signing verify key` (PyPI) accepts ours, and we accept its.
//!
//! Accepted is what v1.0 calls method `files` with SHA-256, signed by P-256. Shards, other digests and the releases before 1.0
//! are refused by name.

mod directory;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::documents::MODEL_SIG;
use crate::dsse::{Envelope, IN_TOTO};
use crate::sigstore::{self, Content};
use crate::{Error, PublisherKey, Sha256Digest, SigningKey, json};

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";
/// 16,000 files with paths of 200 bytes take half of it.
const MAX_BUNDLE: usize = 16 << 20;
const MAX_PATH: usize = 4096;
/// What is not of a model, at the top of its directory: version control, download bookkeeping, and the signature.
pub(crate) const IGNORED: [&str; 6] = [
    ".cache",
    ".git",
    ".gitattributes",
    ".github",
    ".gitignore",
    MODEL_SIG,
];
/// `model_signing` leaves these out whatever a signature says.
const ALWAYS_IGNORED: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

/// What somebody signed of a model's plaintext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedModel {
    name: String,
    digest: Sha256Digest,
    files: BTreeMap<String, Sha256Digest>,
    ignored: BTreeSet<String>,
    follow_links: bool,
}

// Unknown fields: the statement's shape is fixed, of the predicate v1.0 says that a reader passes over what it does not know.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: [Subject; 1],
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectDigest {
    sha256: Sha256Digest,
}

#[derive(Serialize, Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Serialize, Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    #[serde(default)]
    allow_symlinks: bool,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

/// Signs `files`, paths and digests of their plaintext, as the model `name`; returns the bytes of `model.sig`.
///
/// # Errors
/// Where no signature could be made.
pub fn sign_model<'a>(
    name: &str,
    files: impl IntoIterator<Item = (&'a str, Sha256Digest)>,
    signer: &SigningKey,
) -> Result<Vec<u8>, Error> {
    let mut files: Vec<_> = files.into_iter().collect();
    // Folder by folder, as paths are ordered there: `b/d` comes before `b-c`.
    files.sort_by(|(a, _), (b, _)| a.split('/').cmp(b.split('/')));
    let statement = json::to_vec(&Statement {
        kind: STATEMENT.into(),
        subject: [Subject {
            name: name.into(),
            digest: SubjectDigest {
                sha256: root(files.iter().map(|(_, digest)| digest)),
            },
        }],
        predicate_type: PREDICATE.into(),
        predicate: Predicate {
            serialization: Serialization {
                method: "files".into(),
                hash_type: "sha256".into(),
                allow_symlinks: false,
                ignore_paths: IGNORED.map(Into::into).into(),
            },
            resources: files
                .into_iter()
                .map(|(name, digest)| Resource {
                    name: name.into(),
                    algorithm: "sha256".into(),
                    digest: digest.to_string(),
                })
                .collect(),
        },
    })?;
    let envelope = Envelope::sign(IN_TOTO, &statement, signer)?;
    // What `model_signing` names a key by, and refuses where it is another.
    let hint = Sha256Digest::of(signer.public()?.to_pem().as_bytes()).to_string();
    sigstore::write(hint, Content::Envelope(envelope))
}

impl SignedModel {
    /// What one of `keys` signed in the bundle `bytes`, and which.
    ///
    /// # Errors
    /// [`Error::ModelSignature`]; final.
    pub fn verify<'k>(
        bytes: &[u8],
        keys: &'k [PublisherKey],
    ) -> Result<(Self, &'k PublisherKey), Error> {
        let content =
            sigstore::parse(bytes, MAX_BUNDLE).map_err(|problem| refused(problem.to_string()))?;
        let Content::Envelope(envelope) = content else {
            return Err(refused("is of one file, not of a model"));
        };
        if envelope.payload_type() != IN_TOTO {
            return Err(refused("has another payload than an in-toto statement"));
        }
        let (payload, key) = envelope
            .verify(keys)
            .map_err(|unproven| refused(unproven.to_string()))?;
        Ok((Self::parse(&payload)?, key))
    }

    /// The model's name, as the signer says.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 over the files' digests: one value for all of the model.
    pub fn digest(&self) -> &Sha256Digest {
        &self.digest
    }

    /// Paths and digests.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, &Sha256Digest)> {
        self.files
            .iter()
            .map(|(path, digest)| (path.as_str(), digest))
    }

    /// The statement, whose signature was verified, or is about to be made.
    fn parse(payload: &[u8]) -> Result<Self, Error> {
        let statement: Statement = json::from_slice(payload, MAX_BUNDLE)
            .map_err(|problem| refused(format!("statement: {problem}")))?;
        let unknown = |what: &str, found: &str, known: &str| {
            let found = json::shown(found);
            Err(refused(format!(
                "{what} {found:?} is not known, this reader knows {known:?}"
            )))
        };
        if statement.kind != STATEMENT {
            return unknown("statement", &statement.kind, STATEMENT);
        }
        if statement.predicate_type != PREDICATE {
            return unknown("predicate", &statement.predicate_type, PREDICATE);
        }
        let Predicate {
            serialization,
            resources,
        } = statement.predicate;
        if serialization.method != "files" {
            return unknown("method", &serialization.method, "files");
        }
        if serialization.hash_type != "sha256" {
            return unknown("digest", &serialization.hash_type, "sha256");
        }
        let [subject] = statement.subject;
        let mut digests = Vec::with_capacity(resources.len());
        let mut files = BTreeMap::new();
        for resource in resources {
            if resource.algorithm != "sha256" {
                return unknown("digest", &resource.algorithm, "sha256");
            }
            let shown = json::shown(&resource.name);
            let digest: Sha256Digest = resource
                .digest
                .parse()
                .map_err(|_hex| refused(format!("{shown:?}: has no SHA-256")))?;
            if !is_relative(&resource.name) {
                return Err(refused(format!("{shown:?}: is no path in a directory")));
            }
            digests.push(digest);
            if files.insert(resource.name, digest).is_some() {
                return Err(refused(format!("{shown:?}: is listed twice")));
            }
        }
        if files.is_empty() {
            return Err(refused("lists no file"));
        }
        let digest = root(&digests);
        if digest != subject.digest.sha256 {
            return Err(refused(format!(
                "its files have the digest {digest}, it says {}",
                subject.digest.sha256
            )));
        }
        let mut ignored: BTreeSet<String> = ALWAYS_IGNORED.map(Into::into).into();
        for path in serialization.ignore_paths {
            // `model_signing` passes over one that leads out; it can have no effect.
            if is_relative(&path) {
                ignored.insert(path);
            }
        }
        Ok(Self {
            name: json::shown(&subject.name),
            digest,
            files,
            ignored,
            follow_links: serialization.allow_symlinks,
        })
    }

    /// # Errors
    /// Where it is not about exactly these files.
    pub(crate) fn expect<'a>(
        &self,
        files: impl Iterator<Item = (&'a str, Sha256Digest)>,
    ) -> Result<(), Error> {
        let expected: BTreeMap<_, _> = files.collect();
        let same = expected.len() == self.files.len()
            && self
                .files()
                .all(|(path, digest)| expected.get(path) == Some(digest));
        match same {
            true => Ok(()),
            false => Err(refused("is about other files than the manifest")),
        }
    }
}

fn root<'a>(digests: impl IntoIterator<Item = &'a Sha256Digest>) -> Sha256Digest {
    let mut root = crate::digest::Sha256::new();
    for digest in digests {
        root.update(digest.as_bytes());
    }
    root.finish()
}

/// A path that stays in its directory, written in one way.
fn is_relative(path: &str) -> bool {
    path.len() <= MAX_PATH
        && !path.contains('\0')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn refused(problem: impl Into<String>) -> Error {
    Error::ModelSignature {
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests;
