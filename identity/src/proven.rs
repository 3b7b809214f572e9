//! Chains that were verified before, under the bundles they are kept beside.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::CertificateDer;

use crate::Leaf;
use crate::leaf::Window;

/// Callers of one enclave, or enclaves of one caller; about 700 bytes each.
const CAPACITY: usize = 256;

/// The name of a chain: every certificate of it, as it was sent, in its order.
pub(crate) type Key = [u8; 32];

/// What was found in chains that passed every check. Only what passed is remembered, for one set of bundles: a clone, which somebody
/// is about to change, begins with nothing, and so does one that was changed. A peer who comes back with the same certificates then
/// costs a hash and not two or three signatures; its own signature in the handshake is verified each time.
#[derive(Debug, Default)]
pub(crate) struct Proven(Mutex<VecDeque<(Key, Window, Leaf)>>);

impl Clone for Proven {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Proven {
    pub(crate) fn key(
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Key {
        let mut context = Context::new(&SHA256);
        for certificate in std::iter::once(end_entity).chain(intermediates) {
            // With its length, so that no other division into certificates has the same name.
            context.update(&certificate.len().to_be_bytes());
            context.update(certificate);
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        key
    }

    /// The leaf of that chain, if the path that was found then is valid at `now`.
    pub(crate) fn find(&self, key: &Key, now: SystemTime) -> Option<Leaf> {
        self.with(|known| {
            let position = known.iter().rposition(|(known, ..)| known == key)?;
            let (_, window, leaf) = known.get(position)?;
            if !window.contains(now) {
                // Another path may be valid.
                known.remove(position);
                return None;
            }
            let leaf = leaf.clone();
            // Most recently used last.
            let used = known.remove(position)?;
            known.push_back(used);
            Some(leaf)
        })
    }

    pub(crate) fn insert(&self, key: Key, window: Window, leaf: Leaf) {
        self.with(|known| {
            // Two handshakes may have verified it at once.
            known.retain(|(known, ..)| *known != key);
            while known.len() >= CAPACITY {
                known.pop_front();
            }
            known.push_back((key, window, leaf));
        });
    }

    /// Nothing in here can panic half-way, so what a poisoned lock guards is whole.
    fn with<T>(&self, access: impl FnOnce(&mut VecDeque<(Key, Window, Leaf)>) -> T) -> T {
        access(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::issue::{self, Authority};
    use crate::{SpiffeId, TrustDomain};

    #[test]
    fn what_was_not_used_for_longest_gives_way() {
        let (now, hour) = (
            UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            Duration::from_secs(3600),
        );
        let domain = TrustDomain::new("one.test").unwrap();
        let ca = Authority::generate_root(&domain, now, 24 * hour).unwrap();
        let id = SpiffeId::new("spiffe://one.test/enclave").unwrap();
        let leaf = issue::new_svid(&ca, &id, hour, now).unwrap().leaf().clone();
        let window = Window::new(now, now + hour);

        let proven = Proven::default();
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            key
        };
        for number in 0..CAPACITY {
            proven.insert(key(number), window, leaf.clone());
        }
        assert_eq!(proven.find(&key(0), now), Some(leaf.clone()));
        proven.insert(key(CAPACITY), window, leaf.clone());
        proven.insert(key(CAPACITY), window, leaf.clone());
        assert_eq!(proven.with(|known| known.len()), CAPACITY);
        assert_eq!(proven.find(&key(1), now), None, "the oldest");
        assert_eq!(proven.find(&key(0), now), Some(leaf));
        assert_eq!(
            proven.find(&key(0), now + 2 * hour),
            None,
            "its time is over"
        );
        assert_eq!(proven.clone().with(|known| known.len()), 0);
    }
}
