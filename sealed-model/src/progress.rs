use std::sync::atomic::{AtomicU64, Ordering};

/// How far a run is, in plaintext bytes over all files.
#[derive(Debug, Clone, Copy)]
pub struct SealProgress<'a> {
    /// The file that just moved on.
    pub file: &'a str,
    pub done: u64,
    pub total: u64,
}

/// Counts what several threads have done.
pub(crate) struct Meter<'a> {
    done: AtomicU64,
    total: u64,
    show: &'a (dyn Fn(SealProgress<'_>) + Sync),
}

impl<'a> Meter<'a> {
    pub(crate) fn new(total: u64, show: &'a (dyn Fn(SealProgress<'_>) + Sync)) -> Self {
        Self {
            done: AtomicU64::new(0),
            total,
            show,
        }
    }

    pub(crate) fn add(&self, file: &str, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.show)(SealProgress {
            file,
            done,
            total: self.total,
        });
    }

    /// What was done in vain.
    pub(crate) fn take_back(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
    }
}
