use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::{
    OwnedSemaphorePermit, Semaphore, TryAcquireError,
    mpsc::{self, UnboundedReceiver, UnboundedSender},
};

use crate::EngineError;

/// Something that waits for the model, and may be given up while it does.
pub(crate) trait Job {
    /// Nobody wants the answer any more.
    fn is_abandoned(&self) -> bool;
}

/// The entrance of a bounded queue that can be closed for good.
pub(crate) struct Gate<T> {
    queue: RwLock<Option<UnboundedSender<Queued<T>>>>,
    places: Arc<Semaphore>,
    size: usize,
}

/// The other end. A job that comes out leaves its place to the next.
pub(crate) struct Inbox<T> {
    arriving: UnboundedReceiver<Queued<T>>,
    waiting: VecDeque<Queued<T>>,
}

/// A place in the queue. The channel has no bound of its own; nothing enters it without one of these.
pub(crate) struct Place<T> {
    queue: UnboundedSender<Queued<T>>,
    place: OwnedSemaphorePermit,
}

struct Queued<T> {
    job: T,
    /// Free for others when dropped.
    place: OwnedSemaphorePermit,
}

/// A queue of at most `size` jobs.
pub(crate) fn queue<T: Job>(size: usize) -> (Gate<T>, Inbox<T>) {
    let (sender, arriving) = mpsc::unbounded_channel();
    let places = Arc::new(Semaphore::new(size));
    let gate = Gate {
        queue: RwLock::new(Some(sender)),
        places,
        size,
    };
    let inbox = Inbox {
        arriving,
        waiting: VecDeque::new(),
    };
    (gate, inbox)
}

impl<T> Gate<T> {
    /// A place in the queue, taken before any work is done for the request.
    pub(crate) fn reserve(&self) -> Result<Place<T>, EngineError> {
        self.reserve_many(1)
    }

    /// Places for jobs that come together; none if there are not so many.
    pub(crate) fn reserve_many(&self, count: u32) -> Result<Place<T>, EngineError> {
        let queue = self
            .queue
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .filter(|queue| !queue.is_closed())
            .ok_or(EngineError::Stopped)?;
        match Arc::clone(&self.places).try_acquire_many_owned(count) {
            Ok(place) => Ok(Place { queue, place }),
            Err(TryAcquireError::NoPermits) => Err(EngineError::Overloaded),
            Err(TryAcquireError::Closed) => Err(EngineError::Stopped),
        }
    }

    /// Lets nobody in any more; what is queued stays queued, and the reader sees the end after it.
    pub(crate) fn close(&self) {
        *self.queue.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn depth(&self) -> usize {
        self.size.saturating_sub(self.places.available_permits())
    }
}

impl<T> Place<T> {
    /// One of the places; `None` if this is the last.
    pub(crate) fn split(&mut self) -> Option<Self> {
        (self.place.num_permits() > 1).then_some(())?;
        let place = self.place.split(1)?;
        Some(Self {
            queue: self.queue.clone(),
            place,
        })
    }

    /// Where the reader is gone, so is the job; whoever waits for it sees that.
    pub(crate) fn fill(self, job: T) {
        let queued = Queued {
            job,
            place: self.place,
        };
        if self.queue.send(queued).is_err() {
            tracing::trace!("a job found no reader");
        }
    }
}

impl<T: Job> Inbox<T> {
    /// Blocks until there is a job; false once the gate is closed and all that was let in is out.
    pub(crate) fn wait(&mut self) -> bool {
        if self.waiting.is_empty() {
            self.waiting.extend(self.arriving.blocking_recv());
        }
        !self.waiting.is_empty()
    }

    /// Looks who has come.
    pub(crate) fn poll(&mut self) {
        while let Ok(queued) = self.arriving.try_recv() {
            self.waiting.push_back(queued);
        }
    }

    /// The first of those with the lowest rank, if it fits; its place is free then.
    pub(crate) fn pick(
        &mut self,
        rank: impl Fn(&T) -> usize,
        fits: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let ranked = self.waiting.iter().enumerate();
        let (index, next) = ranked.min_by_key(|(_, queued)| rank(&queued.job))?;
        if !fits(&next.job) {
            return None;
        }
        let Queued { job, place } = self.waiting.remove(index)?;
        drop(place);
        Some(job)
    }

    /// Gives the places of abandoned jobs to others, so that callers who lost patience and ask again do not lock everybody out.
    /// Returns how many there were.
    pub(crate) fn sweep(&mut self) -> usize {
        self.poll();
        self.remove(Job::is_abandoned).len()
    }

    /// Takes out all of these; their places are free then.
    pub(crate) fn remove(&mut self, these: impl Fn(&T) -> bool) -> Vec<T> {
        if !self.waiting.iter().any(|queued| these(&queued.job)) {
            return Vec::new();
        }
        let (go, stay): (Vec<_>, _) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|queued| these(&queued.job));
        self.waiting = stay.into();
        go.into_iter().map(|queued| queued.job).collect()
    }
}
