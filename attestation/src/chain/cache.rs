//! Authorities that were verified before.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::CertificateDer;

use crate::certificate::Validity;
use crate::digest::Sha256Digest;

/// Real chains change once a day and enclave: enough for a fleet, and below 100 KiB.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(127);

/// Remembers chains of authorities whose signatures were verified, root to instance, so that the next document of the same
/// machine costs two signature checks and not five. Clones share one memory.
///
/// What is remembered is named by the SHA-256 of every certificate of the chain, the root included: a chain with another
/// byte, or under another root, is another chain. Leaf certificates and verdicts are never remembered, and the validity of
/// each remembered certificate is checked against the time of each use. The least recently used chain gives way.
#[derive(Clone, Debug)]
pub struct ChainCache {
    capacity: NonZeroUsize,
    chains: Arc<Mutex<Chains>>,
}

/// By name, most recently used last.
type Chains = VecDeque<(Sha256Digest, Arc<VerifiedChain>)>;

/// What is left to know of authorities whose signatures, names, extensions and path lengths hold.
#[derive(Debug)]
pub(super) struct VerifiedChain {
    /// From the root down.
    pub(super) validities: Vec<Validity>,
    /// The last of them, which signs leaves.
    pub(super) issuer: rustls_pki_types::TrustAnchor<'static>,
}

impl VerifiedChain {
    /// None when webpki finds nothing to trust in `issuer`; it has just verified it.
    pub(super) fn new(validities: Vec<Validity>, issuer: &[u8]) -> Option<Self> {
        let issuer = CertificateDer::from(issuer);
        let issuer = webpki::anchor_from_trusted_cert(&issuer).ok()?.to_owned();
        Some(Self { validities, issuer })
    }
}

impl Default for ChainCache {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

impl ChainCache {
    /// Room for `capacity` chains, about 700 bytes each.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self {
            capacity,
            chains: Arc::default(),
        }
    }

    /// How many chains are remembered.
    pub fn len(&self) -> usize {
        self.with(|chains| chains.len())
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn key(chain: &[&[u8]]) -> Sha256Digest {
        let mut context = Context::new(&SHA256);
        for certificate in chain {
            // With its length, so that no other division into certificates has the same name.
            context.update(&certificate.len().to_be_bytes());
            context.update(certificate);
        }
        let mut key = [0; Sha256Digest::LENGTH];
        key.copy_from_slice(context.finish().as_ref());
        key.into()
    }

    pub(super) fn find(&self, key: &Sha256Digest) -> Option<Arc<VerifiedChain>> {
        self.with(|chains| {
            let position = chains.iter().rposition(|(known, _)| known == key)?;
            let found = chains.remove(position)?;
            let chain = Arc::clone(&found.1);
            chains.push_back(found);
            Some(chain)
        })
    }

    pub(super) fn insert(&self, key: Sha256Digest, chain: VerifiedChain) {
        self.with(|chains| {
            // Two threads may have verified it at once.
            chains.retain(|(known, _)| *known != key);
            while chains.len() >= self.capacity.get() {
                chains.pop_front();
            }
            chains.push_back((key, Arc::new(chain)));
        });
    }

    /// Nothing in here can panic half-way, so what a poisoned lock guards is whole.
    fn with<T>(&self, access: impl FnOnce(&mut Chains) -> T) -> T {
        access(&mut self.chains.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn chain() -> VerifiedChain {
        VerifiedChain {
            validities: vec![Validity {
                not_before: SystemTime::UNIX_EPOCH,
                not_after: SystemTime::UNIX_EPOCH,
            }],
            issuer: crate::TrustAnchor::aws_nitro().anchor().clone(),
        }
    }

    fn key(byte: u8) -> Sha256Digest {
        Sha256Digest::from_bytes([byte; 32])
    }

    #[test]
    fn the_chain_that_was_not_used_longest_gives_way() {
        let cache = ChainCache::new(NonZeroUsize::new(2).unwrap());
        cache.insert(key(1), chain());
        cache.insert(key(2), chain());
        assert!(cache.find(&key(1)).is_some());
        cache.insert(key(3), chain());
        assert_eq!(cache.len(), 2);
        assert!(cache.find(&key(1)).is_some() && cache.find(&key(3)).is_some());
        assert!(cache.find(&key(2)).is_none());
    }

    #[test]
    fn a_chain_is_remembered_once() {
        let cache = ChainCache::default();
        cache.insert(key(1), chain());
        cache.insert(key(1), chain());
        assert_eq!(cache.len(), 1);
        assert!(ChainCache::default().is_empty());
    }

    #[test]
    fn another_division_into_certificates_is_another_chain() {
        let keys = [
            ChainCache::key(&[b"ab", b"c"]),
            ChainCache::key(&[b"a", b"bc"]),
            ChainCache::key(&[b"abc"]),
            ChainCache::key(&[b"c", b"ab"]),
            ChainCache::key(&[]),
        ];
        for (position, key) in keys.iter().enumerate() {
            assert!(!keys[position + 1..].contains(key), "{position}");
        }
    }
}
