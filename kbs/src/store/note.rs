//! Checkpoints: how long the log is and what it holds, signed, as C2SP tlog-checkpoint in a C2SP signed-note.
//!
//! ```text
//! cloister-kbs/3f0a…        origin, the signing key's name
//! 1042                      number of entries
//! <base64 of 32 bytes>      root of the Merkle tree over their hashes
//!
//! — cloister-kbs/3f0a… <base64 of key id and Ed25519 signature>
//! ```

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::tree::{Node, Tree};

/// A checkpoint of ours is under 300 bytes; witnesses add a line each.
pub(crate) const MAX_NOTE: usize = 64 * 1024;
const MAX_NAME: usize = 256;
/// Ed25519, in a key's id and in its text.
const ALGORITHM: u8 = 1;
const ORIGIN: &str = "cloister-kbs/";

/// The public key of a log and its name, written as C2SP signed-note does: `<name>+<key id>+<base64>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPublicKey {
    name: String,
    key: [u8; 32],
}

/// What a checkpoint says, after its signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) size: u64,
    pub(crate) root: Node,
}

/// Why a text is no checkpoint of this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not the form of C2SP signed-note and tlog-checkpoint.
    #[error("it is not a checkpoint (C2SP tlog-checkpoint)")]
    Form,
    /// Another log's, or another key's.
    #[error("it is a checkpoint of another log: it is not signed by this log's key")]
    NotOurs,
    /// Ours by name, and changed.
    #[error("its signature does not verify")]
    Signature,
}

impl LogPublicKey {
    fn id(&self) -> [u8; 4] {
        let mut text = self.name.clone().into_bytes();
        text.extend_from_slice(&[b'\n', ALGORITHM]);
        text.extend_from_slice(&self.key);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
        let mut id = [0; 4];
        if let Some(first) = digest.as_ref().first_chunk() {
            id = *first;
        }
        id
    }

    /// Reads a checkpoint that this key signed. Signatures of other keys, a witness's say, are passed over.
    pub(crate) fn open(&self, note: &str) -> Result<Checkpoint, NoteError> {
        let text = self.verify(note)?;
        let mut lines = text.lines();
        let (origin, size, root) = (lines.next(), lines.next(), lines.next());
        let (Some(origin), Some(size), Some(root)) = (origin, size, root) else {
            return Err(NoteError::Form);
        };
        if origin != self.name {
            return Err(NoteError::NotOurs);
        }
        let number: u64 = size.parse().map_err(|_range| NoteError::Form)?;
        // One spelling: no sign, no leading zero.
        if number.to_string() != size {
            return Err(NoteError::Form);
        }
        let root = STANDARD.decode(root).map_err(|_form| NoteError::Form)?;
        let root = Node::try_from(root).map_err(|_length| NoteError::Form)?;
        Ok(Checkpoint { size: number, root })
    }

    /// The signed text, with the newline that ends it.
    fn verify<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        if note.len() > MAX_NOTE || !note.ends_with('\n') {
            return Err(NoteError::Form);
        }
        let control = |c: char| c.is_control() && c != '\n';
        if note.contains(control) {
            return Err(NoteError::Form);
        }
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(NoteError::Form)?;
        let text = note.get(..=text.len()).ok_or(NoteError::Form)?;
        let mut verdict = Err(NoteError::NotOurs);
        for line in signatures.lines() {
            let parts = line
                .strip_prefix("\u{2014} ")
                .and_then(|l| l.split_once(' '));
            let (name, signature) = parts.ok_or(NoteError::Form)?;
            let signature = STANDARD.decode(signature);
            let signature = signature.map_err(|_form| NoteError::Form)?;
            let (id, signature) = signature.split_first_chunk().ok_or(NoteError::Form)?;
            if name != self.name || *id != self.id() {
                continue;
            }
            UnparsedPublicKey::new(&ED25519, self.key)
                .verify(text.as_bytes(), signature)
                .map_err(|_unspecified| NoteError::Signature)?;
            verdict = Ok(text);
        }
        verdict
    }
}

impl fmt::Display for LogPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ALGORITHM], &self.key[..]].concat());
        write!(f, "{}+{}+{key}", self.name, hex::encode(self.id()))
    }
}

impl FromStr for LogPublicKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Form);
        };
        let plain = |c: char| !c.is_whitespace() && !c.is_control();
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
            return Err(NoteError::Form);
        }
        let key = STANDARD.decode(key).map_err(|_form| NoteError::Form)?;
        let Some((&ALGORITHM, key)) = key.split_first() else {
            return Err(NoteError::Form);
        };
        let key = Self {
            name: name.to_owned(),
            key: key.try_into().map_err(|_length| NoteError::Form)?,
        };
        if hex::encode(key.id()) != id {
            return Err(NoteError::Form);
        }
        Ok(key)
    }
}

/// Signs the checkpoints of one log.
pub(crate) struct LogSigner {
    pair: Ed25519KeyPair,
    public: LogPublicKey,
}

impl LogSigner {
    /// A fresh key as PKCS#8 DER; [`LogSigner::from_pkcs8`] reads it.
    pub(crate) fn generate() -> Option<Zeroizing<Vec<u8>>> {
        let pair = Ed25519KeyPair::generate().ok()?;
        let pkcs8 = pair.to_pkcs8v1().ok()?;
        Some(Zeroizing::new(pkcs8.as_ref().to_vec()))
    }

    pub(crate) fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(der).ok()?;
        let key: [u8; 32] = pair.public_key().as_ref().try_into().ok()?;
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
        let digest = attestation::Sha256Digest::of(spki.as_ref()).to_string();
        let name = format!("{ORIGIN}{}", digest.get(..16)?);
        let public = LogPublicKey { name, key };
        Some(Self { pair, public })
    }

    pub(crate) fn public(&self) -> &LogPublicKey {
        &self.public
    }

    pub(crate) fn sign(&self, tree: &Tree) -> String {
        let name = &self.public.name;
        let root = STANDARD.encode(tree.root());
        let text = format!("{name}\n{}\n{root}\n", tree.size());
        let signature = self.pair.sign(text.as_bytes());
        let signature = STANDARD.encode([&self.public.id()[..], signature.as_ref()].concat());
        format!("{text}\n\u{2014} {name} {signature}\n")
    }
}

#[cfg(test)]
mod tests;
