//! The verifier. Evidence is accepted if, in this order:
//!
//! 1. **structure**: it is one COSE_Sign1 with exactly the headers and members of a Nitro attestation document, within
//!    its bounds, and nothing after it;
//! 2. **chain**: its certificates lead from the trust anchor, which is ours, to the signing leaf, at this time;
//! 3. **signature**: the leaf signed these very bytes (ES384);
//! 4. **not debug**: PCR0, PCR1 and PCR2 are present and none is all zero;
//! 5. **nonce**: it carries the relying party's challenge;
//! 6. **binding**: it attests the public key, and its user data is the hash of the binding, that the relying party
//!    computed from its own state;
//! 7. **measurements**: they are those of an accepted image;
//! 8. **freshness**: its own time is neither too old nor in the future.
//!
//! A step's failure is its variant of [`Error`], and no later step runs. Trust anchor, time and every expectation are
//! arguments; nothing is looked up. [`audit`](Verifier::audit) runs the same steps for somebody who only looks.

use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use subtle::ConstantTimeEq;

use crate::anchor::TrustAnchor;
use crate::binding::Binding;
use crate::certificate::Checked;
use crate::chain::{ChainCache, RevocationLists, Rules};
use crate::digest::Sha256Digest;
use crate::document::{Document, UnverifiedDocument};
use crate::error::{Error, FreshnessError};
use crate::evidence::Evidence;
use crate::pcr::Pcrs;
use crate::reference_values::ReferenceValues;

mod audit;

pub use audit::{Audit, Verdict};

/// How far the attester's clock may be ahead of ours: for the start of a certificate and for the document's time.
/// Leaf certificates are not backdated, so a fresh one may start "in the future".
pub const CLOCK_LEEWAY: Duration = Duration::from_secs(5);

/// PCR0 image, PCR1 kernel, PCR2 application: zero in debug mode, and only there. Other registers are no sign of it:
/// debug enclaves do have PCR4, and production enclaves have zeros in unused ones.
const ZERO_IN_DEBUG_MODE: [u8; 3] = [0, 1, 2];

/// A challenge of fewer bytes could be guessed, and an empty one is in every document.
pub(crate) const MIN_NONCE: usize = 16;

/// Decides on evidence under one trust anchor.
#[derive(Debug, Clone)]
pub struct Verifier {
    anchor: TrustAnchor,
    revocation: Option<RevocationLists>,
    cache: Option<ChainCache>,
}

/// What the relying party knows by itself and the evidence must agree with.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The challenge given for this piece of evidence, at least 16 bytes.
    pub nonce: &'a [u8],
    /// The key being attested, DER SubjectPublicKeyInfo.
    pub public_key: &'a [u8],
    /// Rebuilt from the relying party's own view, never received.
    pub binding: &'a Binding,
    /// Who judges the measurements, and by what.
    pub measurements: Appraisal<'a>,
    /// Oldest acceptable document.
    pub max_age: Duration,
}

/// Who judges the measurements. Debug enclaves are refused either way.
#[derive(Debug, Clone, Copy)]
pub enum Appraisal<'a> {
    /// The verifier, by these.
    Reference(&'a ReferenceValues),
    /// The caller, by the returned claims; for instance a policy engine.
    ByCaller,
}

/// What verified evidence says. Only [`Verifier::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims {
    /// The secure module: `<instance id>-enc<enclave id>`.
    pub module_id: String,
    /// When the module made the document, by the module's clock.
    pub timestamp: SystemTime,
    /// [`crate::DIGEST`].
    pub digest: &'static str,
    /// The registers.
    pub pcrs: Pcrs,
    /// The attested key.
    pub public_key: Option<Vec<u8>>,
    /// SHA-512 of the binding.
    pub user_data: Option<Vec<u8>>,
    /// The challenge.
    pub nonce: Option<Vec<u8>>,
    /// End of the signing certificate's validity.
    pub leaf_not_after: SystemTime,
}

impl Verifier {
    /// A verifier that trusts `anchor` and nothing else.
    pub fn new(anchor: TrustAnchor) -> Self {
        Self {
            anchor,
            revocation: None,
            cache: None,
        }
    }

    /// Refuses what these lists name. Without any, certificates end by their dates alone, as AWS wants it.
    #[must_use]
    pub fn with_revocation_lists(mut self, lists: RevocationLists) -> Self {
        self.revocation = Some(lists);
        self
    }

    /// Remembers verified authorities in `cache`, which may be other verifiers' as well. Not used together with
    /// revocation lists.
    #[must_use]
    pub fn with_chain_cache(mut self, cache: ChainCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// The root this verifier trusts.
    pub fn anchor(&self) -> &TrustAnchor {
        &self.anchor
    }

    /// All steps.
    ///
    /// # Errors
    /// The variant of the first step that fails.
    pub fn verify(
        &self,
        evidence: &Evidence,
        expected: &Expected<'_>,
        now: SystemTime,
    ) -> Result<Claims, Error> {
        let document = self.authenticate(evidence, now)?; // steps 1 to 3
        // Step 4: not debug.
        not_debug(&document.pcrs)?;
        // Step 5: nonce.
        check_nonce(document.nonce.as_deref(), expected.nonce)?;
        // Step 6: binding.
        check_public_key(document.public_key.as_deref(), expected.public_key)?;
        check_binding(document.user_data.as_deref(), expected.binding)?;
        // Step 7: measurements.
        match expected.measurements {
            Appraisal::Reference(values) => values.appraise(&document.pcrs, now)?,
            Appraisal::ByCaller => {}
        }
        // Step 8: freshness.
        check_freshness(document.timestamp, expected.max_age, now)?;
        Ok(Claims::of(document))
    }

    /// Steps 1 to 3 only: a true document of some machine under the anchor, made for anyone, at any time the
    /// certificates allow. To look at a document, not to trust one.
    ///
    /// # Errors
    /// [`Error::Structure`], [`Error::Chain`] or [`Error::Signature`].
    pub fn authenticate(&self, evidence: &Evidence, now: SystemTime) -> Result<Document, Error> {
        // Step 1: structure.
        let document = UnverifiedDocument::parse(evidence.as_bytes())?;
        // Step 2: chain.
        let leaf = self.check_chain(&document, now)?;
        // Step 3: signature.
        check_signature(&document, &leaf)?;
        Ok(document.authenticated(leaf.validity.not_after))
    }

    fn check_chain(
        &self,
        document: &UnverifiedDocument<'_>,
        now: SystemTime,
    ) -> Result<Checked, Error> {
        let rules = Rules {
            anchor: &self.anchor,
            revocation: self.revocation.as_ref(),
            cache: self.cache.as_ref(),
        };
        Ok(rules.verify(&document.cabundle, document.certificate, now)?)
    }
}

impl Claims {
    // Not `From`: that would let anyone turn a document that merely has a good signature into claims.
    fn of(document: Document) -> Self {
        Self {
            module_id: document.module_id,
            timestamp: document.timestamp,
            digest: document.digest,
            pcrs: document.pcrs,
            public_key: document.public_key,
            user_data: document.user_data,
            nonce: document.nonce,
            leaf_not_after: document.leaf_not_after,
        }
    }
}

fn check_signature(document: &UnverifiedDocument<'_>, leaf: &Checked) -> Result<(), Error> {
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &leaf.point)
        .verify(&document.signed_bytes(), document.signature)
        .map_err(|_unspecified| Error::Signature)
}

fn not_debug(pcrs: &Pcrs) -> Result<(), Error> {
    match ZERO_IN_DEBUG_MODE
        .into_iter()
        .find(|index| pcrs.get(index).is_none_or(|pcr| pcr.is_zero()))
    {
        Some(index) => Err(Error::Debug { index }),
        None => Ok(()),
    }
}

fn check_nonce(actual: Option<&[u8]>, expected: &[u8]) -> Result<(), Error> {
    if expected.len() < MIN_NONCE {
        return Err(Error::WeakChallenge {
            length: expected.len(),
        });
    }
    match same(actual, expected) {
        true => Ok(()),
        false => Err(Error::Nonce {
            expected: expected.into(),
            actual: actual.map(Into::into),
        }),
    }
}

fn check_public_key(actual: Option<&[u8]>, expected: &[u8]) -> Result<(), Error> {
    match same(actual, expected) {
        true => Ok(()),
        false => Err(Error::PublicKey {
            expected: Sha256Digest::of(expected),
            actual: actual.map(Sha256Digest::of),
        }),
    }
}

fn check_binding(actual: Option<&[u8]>, binding: &Binding) -> Result<(), Error> {
    let expected = binding.user_data();
    match same(actual, &expected) {
        true => Ok(()),
        false => Err(Error::Binding {
            purpose: binding.purpose(),
            expected: expected.as_slice().into(),
            actual: actual.map(Into::into),
        }),
    }
}

/// In constant time for equal lengths, so that nobody learns an expectation byte by byte.
fn same(actual: Option<&[u8]>, expected: &[u8]) -> bool {
    actual.is_some_and(|actual| actual.ct_eq(expected).into())
}

fn check_freshness(
    timestamp: SystemTime,
    max_age: Duration,
    now: SystemTime,
) -> Result<(), FreshnessError> {
    match now.duration_since(timestamp) {
        Ok(age) if age > max_age => Err(FreshnessError::TooOld { age, max_age }),
        Ok(_) => Ok(()),
        Err(future) if future.duration() > CLOCK_LEEWAY => Err(FreshnessError::Future {
            ahead: future.duration(),
        }),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
