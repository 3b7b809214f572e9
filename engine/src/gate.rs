use std::sync::{PoisonError, RwLock};

use tokio::sync::mpsc::{OwnedPermit, Sender, error::TrySendError};

use crate::EngineError;

/// The entrance of a bounded queue that can be closed for good.
pub(crate) struct Gate<T>(RwLock<Option<Sender<T>>>);

impl<T> Gate<T> {
    pub(crate) fn new(queue: Sender<T>) -> Self {
        Self(RwLock::new(Some(queue)))
    }

    /// A place in the queue, taken before any work is done for the request.
    pub(crate) fn reserve(&self) -> Result<OwnedPermit<T>, EngineError> {
        let queue = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        queue
            .ok_or(EngineError::Stopped)?
            .try_reserve_owned()
            .map_err(|error| match error {
                TrySendError::Full(_) => EngineError::Overloaded,
                TrySendError::Closed(_) => EngineError::Stopped,
            })
    }

    /// Lets nobody in any more; what is queued stays queued, and the reader sees the end after it.
    pub(crate) fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn depth(&self) -> usize {
        let queue = self.0.read().unwrap_or_else(PoisonError::into_inner);
        queue
            .as_ref()
            .map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }
}
