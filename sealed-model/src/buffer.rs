use std::sync::{Mutex, PoisonError};

use crate::layout::SEGMENT;

/// A ciphertext buffer on loan from the package's pool.
pub(crate) struct Buffer<'p> {
    pool: &'p Mutex<Vec<Vec<u8>>>,
    bytes: Vec<u8>,
}

impl<'p> Buffer<'p> {
    pub(crate) fn take(pool: &'p Mutex<Vec<Vec<u8>>>) -> Self {
        let bytes = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self {
            pool,
            bytes: bytes.unwrap_or_default(),
        }
    }

    pub(crate) fn of_len(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < len {
            self.bytes.resize(len.max(SEGMENT), 0);
        }
        let (bytes, _) = self.bytes.split_at_mut(len);
        bytes
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(bytes);
    }
}
