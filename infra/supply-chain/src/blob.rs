//! Detached signatures over whole files: ECDSA P-256 over SHA-256, in DER, in base64; what `cosign sign-blob` makes.

use std::io::Read;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealed_model::{PublisherKey, Sha256Digest, SigningKey};

use crate::Error;

/// How the message under every DSSE signature begins.
const DSSE: &[u8] = b"DSSEv1 ";
/// In base64 a P-256 signature takes 96 bytes.
const MAX_SIGNATURE: usize = 256;

/// A file that was read whole and may be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob(Sha256Digest);

/// Reads a file for somebody else, and has seen all of it afterwards: what was parsed and what is signed are the same bytes.
pub struct BlobReader<R> {
    content: R,
    context: Context,
    head: Vec<u8>,
}

impl<R: Read> BlobReader<R> {
    pub fn new(content: R) -> Self {
        Self {
            content,
            context: Context::new(&SHA256),
            head: Vec::with_capacity(DSSE.len()),
        }
    }

    /// Reads what is left.
    ///
    /// # Errors
    /// [`Error::Input`] for a file that begins as the message under a DSSE signature does. The same keys sign manifests,
    /// attestations and lists: whoever gets such a file signed as a blob has a signature under all that it says.
    pub fn finish(mut self) -> Result<Blob, Error> {
        std::io::copy(&mut self, &mut std::io::sink()).map_err(Error::Content)?;
        if self.head == DSSE {
            return Err(Error::input(
                "file",
                "begins as a DSSE message, and would be signed as one: it is no file to sign",
            ));
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(self.context.finish().as_ref());
        Ok(Blob(digest.into()))
    }
}

impl<R: Read> Read for BlobReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.content.read(buffer)?;
        let part = buffer.get(..count).unwrap_or_default();
        self.context.update(part);
        let missing = DSSE.len().saturating_sub(self.head.len());
        self.head.extend(part.iter().take(missing));
        Ok(count)
    }
}

impl Blob {
    /// Reads all of `content`, in bounded memory.
    ///
    /// # Errors
    /// See [`BlobReader::finish`].
    pub fn read(content: impl Read) -> Result<Self, Error> {
        BlobReader::new(content).finish()
    }

    pub fn sha256(&self) -> &Sha256Digest {
        &self.0
    }

    /// # Errors
    /// [`Error::Key`] where no signature could be made.
    pub fn sign(&self, signer: &SigningKey) -> Result<Signature, Error> {
        signer
            .sign_digest(&self.0)
            .map(Signature)
            .map_err(Error::Key)
    }

    /// Which of `keys` signed this file.
    ///
    /// # Errors
    /// [`Error::Signature`] where none did.
    pub fn verify<'k>(
        &self,
        signature: &Signature,
        keys: &'k [PublisherKey],
    ) -> Result<&'k PublisherKey, Error> {
        keys.iter()
            .find(|key| key.verify_digest(&self.0, &signature.0))
            .ok_or(Error::Signature { what: "file" })
    }
}

/// A detached signature; whose, and over what, is not known before [`Blob::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature(Vec<u8>);

impl Signature {
    /// From base64, perhaps with a line break at the end.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let malformed = || Error::malformed("signature", "is not one line of base64");
        if text.len() > MAX_SIGNATURE {
            return Err(malformed());
        }
        let line = text.strip_suffix(b"\n").unwrap_or(text);
        match STANDARD.decode(line) {
            Ok(der) if !der.is_empty() => Ok(Self(der)),
            _ => Err(malformed()),
        }
    }

    /// Base64, without a line break, as cosign writes it.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (SigningKey, PublisherKey) {
        let key = SigningKey::generate().unwrap();
        let public = key.public().unwrap();
        (key, public)
    }

    #[test]
    fn a_signature_holds_for_its_file_and_key() {
        let (key, public) = keys();
        let (_, other) = keys();
        let blob = Blob::read(b"an image".as_slice()).unwrap();
        let signature = blob.sign(&key).unwrap();
        let read = Signature::parse(format!("{}\n", signature.to_base64()).as_bytes()).unwrap();
        let trusted = [other.clone(), public];
        assert_eq!(blob.verify(&read, &trusted).unwrap(), &trusted[1]);

        let changed = Blob::read(b"an imagf".as_slice()).unwrap();
        assert!(changed.verify(&signature, &trusted).is_err());
        assert!(blob.verify(&signature, &[other]).is_err());
        assert!(blob.verify(&signature, &[]).is_err());
    }

    #[test]
    fn refuses_to_sign_what_would_also_be_a_signed_statement() {
        // The first byte of the message comes alone: the head is put together from several reads.
        let message = b"DSSEv1 28 application/vnd.in-toto+json 2 {}";
        for split in [0, 1, 6, 7, 8] {
            let (one, two) = message.split_at(split);
            let error = Blob::read(one.chain(two)).unwrap_err();
            assert!(matches!(error, Error::Input { .. }), "{error}");
        }
        for near in [b"DSSEv1".as_slice(), b"DSSEv2 1", b" DSSEv1 "] {
            assert!(Blob::read(near).is_ok());
        }
    }

    #[test]
    fn refuses_what_is_not_one_line_of_base64() {
        for text in ["", "\n", "MEUC\n\n", " MEUC", "MEU", "{}", &"M".repeat(300)] {
            assert!(Signature::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_signed() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("gone"))
            }
        }
        let error = Blob::read(b"a part".chain(Broken)).unwrap_err();
        assert!(matches!(error, Error::Content(_)), "{error}");
    }
}
