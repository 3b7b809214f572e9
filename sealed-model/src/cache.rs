use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use crate::layout::SEGMENT;

/// Tensors and reads end inside segments; the next one starts where the last ended. Eight verified segments (8 MiB), wiped when
/// they leave, let each be decrypted once even where several threads read.
const CAPACITY: usize = 8;

/// A verified segment: file, index.
pub(crate) type SegmentId = (usize, u32);
pub(crate) type Plaintext = Arc<Zeroizing<Vec<u8>>>;

/// The segments that were needed in part, newest last.
#[derive(Default)]
pub(crate) struct SegmentCache(Mutex<VecDeque<(SegmentId, Plaintext)>>);

impl SegmentCache {
    pub(crate) fn find(&self, wanted: SegmentId) -> Option<Plaintext> {
        let mut entries = self.lock();
        let at = entries.iter().position(|(id, _)| *id == wanted)?;
        let entry = entries.remove(at)?;
        let plaintext = Arc::clone(&entry.1);
        entries.push_back(entry);
        Some(plaintext)
    }

    /// A buffer to decrypt the next segment into: the oldest entry's, once the cache is full, else a new one. Fresh pages and
    /// wiping cost more than the decryption itself.
    pub(crate) fn buffer(&self) -> Zeroizing<Vec<u8>> {
        let mut entries = self.lock();
        let oldest = match entries.len() {
            CAPACITY => entries.pop_front(),
            _ => None,
        };
        // Where a reader still copies from it, it is left to that reader.
        oldest
            .and_then(|(_, plaintext)| Arc::into_inner(plaintext))
            .unwrap_or_else(|| Zeroizing::new(Vec::with_capacity(SEGMENT)))
    }

    pub(crate) fn insert(&self, id: SegmentId, plaintext: Plaintext) {
        let mut entries = self.lock();
        entries.retain(|(other, _)| *other != id);
        if entries.len() == CAPACITY {
            entries.pop_front();
        }
        entries.push_back((id, plaintext));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(SegmentId, Plaintext)>> {
        // No code panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
