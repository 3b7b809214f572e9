use std::sync::{Condvar, Mutex, PoisonError};

/// How many callers may prepare text at once.
///
/// A tokenizer needs some 150 times the memory of its text. Every place in the queue could hold a caller that tokenizes;
/// only as many as there are threads to compute do, and the others wait, which costs no time: the processors are busy.
pub(crate) struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// Given back when dropped.
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            free: Mutex::new(count),
            freed: Condvar::new(),
        }
    }

    /// Blocks until it is the caller's turn.
    pub(crate) fn take(&self) -> Turn<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .freed
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
