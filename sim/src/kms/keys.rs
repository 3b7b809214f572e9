//! One symmetric key, and ciphertexts that name it: version, key id, nonce, AES-256-GCM with the encryption context as associated
//! data. The service's own form is its secret.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::policy::KeyPolicy;

const VERSION: u8 = 1;

pub(super) struct Key {
    pub(super) id: String,
    pub(super) arn: String,
    pub(super) policy: KeyPolicy,
    material: RandomizedNonceKey,
}

pub(super) type Context = BTreeMap<String, String>;

impl Key {
    pub(super) fn generate(
        id: String,
        arn: String,
        policy: KeyPolicy,
    ) -> Result<Self, Unspecified> {
        let mut material = Zeroizing::new([0; 32]);
        rand::fill(material.as_mut_slice())?;
        Ok(Self {
            id,
            arn,
            policy,
            material: RandomizedNonceKey::new(&AES_256_GCM, material.as_slice())?,
        })
    }

    pub(super) fn wrap(&self, plaintext: &[u8], context: &Context) -> Result<Vec<u8>, Unspecified> {
        let mut sealed = plaintext.to_vec();
        let nonce = self
            .material
            .seal_in_place_append_tag(Aad::from(associated(context)?), &mut sealed)?;
        let length = u8::try_from(self.id.len()).ok().ok_or(Unspecified)?;
        Ok([
            &[VERSION, length],
            self.id.as_bytes(),
            nonce.as_ref(),
            &sealed,
        ]
        .concat())
    }

    pub(super) fn unwrap(
        &self,
        sealed: &[u8],
        context: &Context,
    ) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let (id, rest) = parts(sealed).ok_or(Unspecified)?;
        if id != self.id.as_bytes() {
            return Err(Unspecified);
        }
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(Unspecified)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce)?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let length = self
            .material
            .open_in_place(
                nonce,
                Aad::from(associated(context)?),
                opened.as_mut_slice(),
            )?
            .len();
        opened.truncate(length);
        Ok(opened)
    }
}

/// The id of the key that made this ciphertext.
pub(super) fn key_of(sealed: &[u8]) -> Option<&[u8]> {
    parts(sealed).map(|(id, _)| id)
}

fn parts(sealed: &[u8]) -> Option<(&[u8], &[u8])> {
    match sealed {
        [VERSION, length, rest @ ..] => rest.split_at_checked(usize::from(*length)),
        _ => None,
    }
}

/// Sorted by name, as a map is; JSON keeps names and values apart.
fn associated(context: &Context) -> Result<Vec<u8>, Unspecified> {
    serde_json::to_vec(context).ok().ok_or(Unspecified)
}
