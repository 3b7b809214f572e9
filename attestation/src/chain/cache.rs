//! Authorities, and leaves below them, whose signatures were verified before.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::CertificateDer;

use crate::certificate::Validity;
use crate::digest::Sha256Digest;

/// Real chains change once a day and enclave: enough for a fleet, and below 100 KiB.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(127);

/// Leaves for each chain, on average: an enclave has one for three hours.
const LEAVES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);

/// Remembers chains of authorities whose signatures were verified, root to instance, and which leaves they were seen to sign.
/// The next document of the same machine costs two signature checks and not five; one with the same leaf, as in every renewal of a
/// session, costs one. Clones share one memory.
///
/// What is remembered is named by the SHA-256 of every certificate, the root included: a chain or leaf with another byte, or under
/// another root, is another one. Only signatures are remembered, which hold forever: the form of the leaf, and the validity of each
/// certificate at the time of use, are looked at each time; documents and verdicts are never remembered. What was not used for
/// longest gives way.
#[derive(Clone, Debug)]
pub struct ChainCache {
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug)]
struct Memory {
    chains: Recent<Arc<VerifiedChain>>,
    leaves: Recent<()>,
}

/// At most so many values by name, most recently used last.
#[derive(Debug)]
struct Recent<V> {
    capacity: NonZeroUsize,
    values: VecDeque<(Sha256Digest, V)>,
}

impl<V: Clone> Recent<V> {
    fn new(capacity: NonZeroUsize) -> Self {
        Self {
            capacity,
            values: VecDeque::new(),
        }
    }

    fn find(&mut self, key: &Sha256Digest) -> Option<V> {
        let position = self.values.iter().rposition(|(known, _)| known == key)?;
        let found = self.values.remove(position)?;
        let value = found.1.clone();
        self.values.push_back(found);
        Some(value)
    }

    fn insert(&mut self, key: Sha256Digest, value: V) {
        // Two threads may have verified it at once.
        self.values.retain(|(known, _)| *known != key);
        while self.values.len() >= self.capacity.get() {
            self.values.pop_front();
        }
        self.values.push_back((key, value));
    }
}

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
    /// Room for `capacity` chains, about 700 bytes each, and four times as many leaves of 32 bytes.
    pub fn new(capacity: NonZeroUsize) -> Self {
        let memory = Memory {
            chains: Recent::new(capacity),
            leaves: Recent::new(capacity.saturating_mul(LEAVES)),
        };
        Self {
            memory: Arc::new(Mutex::new(memory)),
        }
    }

    /// How many chains are remembered.
    pub fn len(&self) -> usize {
        self.with(|memory| memory.chains.values.len())
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
        self.with(|memory| memory.chains.find(key))
    }

    pub(super) fn insert(&self, key: Sha256Digest, chain: VerifiedChain) {
        self.with(|memory| memory.chains.insert(key, Arc::new(chain)));
    }

    /// Whether the chain of that name was seen to have signed exactly this leaf.
    pub(super) fn has_signed(&self, chain: &Sha256Digest, leaf: &[u8]) -> bool {
        let key = Self::key(&[chain.as_bytes().as_slice(), leaf]);
        self.with(|memory| memory.leaves.find(&key).is_some())
    }

    /// The signature of that chain's last authority on this leaf was verified.
    pub(super) fn signed(&self, chain: &Sha256Digest, leaf: &[u8]) {
        let key = Self::key(&[chain.as_bytes().as_slice(), leaf]);
        self.with(|memory| memory.leaves.insert(key, ()));
    }

    /// Nothing in here can panic half-way, so what a poisoned lock guards is whole.
    fn with<T>(&self, access: impl FnOnce(&mut Memory) -> T) -> T {
        access(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
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
    fn a_leaf_is_known_below_its_own_chain_only() {
        let cache = ChainCache::new(NonZeroUsize::MIN);
        cache.signed(&key(1), b"leaf");
        assert!(cache.has_signed(&key(1), b"leaf"));
        assert!(!cache.has_signed(&key(2), b"leaf"));
        assert!(!cache.has_signed(&key(1), b"leaf2"));
        for other in 2..=5 {
            cache.signed(&key(other), b"leaf");
        }
        assert!(!cache.has_signed(&key(1), b"leaf"), "four leaves at most");
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
