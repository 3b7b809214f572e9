use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Serving,
    /// A step panicked. The engine goes on answering what it can, but should be replaced.
    Failed,
    /// The thread has ended.
    Stopped,
}

/// Counters since the engine was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that wait.
    pub queue_depth: u64,
    /// Requests being computed.
    pub running: u64,
    pub completed: u64,
    pub cancelled: u64,
    pub failed: u64,
    /// Tokens read, of conversations and embedding inputs.
    pub prompt_tokens: u64,
    /// Tokens made.
    pub completion_tokens: u64,
    pub embedded_inputs: u64,
    /// Of prompt tokens: those that an earlier request of the same caller began with, and that did not run again.
    pub cached_prompt_tokens: u64,
    /// How often a request had to give its memory to others, and ran again later.
    pub preempted: u64,
    /// Blocks of keys and values that requests hold.
    pub kv_blocks_used: u64,
}

/// What the handle and the thread both see.
pub(crate) struct Shared {
    pub(crate) counters: Counters,
    /// Set once: the thread gives up what it is doing within one step.
    pub(crate) abort: AtomicBool,
    pub(crate) health: watch::Sender<Health>,
    pub(crate) pace: Pace,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            counters: Counters::default(),
            abort: AtomicBool::new(false),
            health: watch::Sender::new(Health::Serving),
            pace: Pace::default(),
        }
    }

    pub(crate) fn aborted(&self) -> bool {
        self.abort.load(Ordering::Relaxed)
    }
}

/// How long an answer takes until the next one ends, lately.
#[derive(Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    /// `answers` ended together, so long after those before.
    pub(crate) fn record(&self, since: Duration, answers: usize) {
        let each = since / u32::try_from(answers.max(1)).unwrap_or(u32::MAX);
        let each = u64::try_from(each.as_micros()).unwrap_or(u64::MAX);
        let before = self.0.load(Ordering::Relaxed);
        let now = match before {
            0 => each,
            _ => (before.saturating_mul(7)).saturating_add(each) / 8,
        };
        self.0.store(now.max(1), Ordering::Relaxed);
    }

    /// Until `waiting` answers have ended.
    pub(crate) fn ahead(&self, waiting: usize) -> Duration {
        let waiting = u64::try_from(waiting).unwrap_or(u64::MAX);
        Duration::from_micros(self.0.load(Ordering::Relaxed).saturating_mul(waiting))
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) running: AtomicU64,
    pub(crate) completed: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) completion_tokens: AtomicU64,
    pub(crate) embedded_inputs: AtomicU64,
    pub(crate) cached_prompt_tokens: AtomicU64,
    pub(crate) preempted: AtomicU64,
    pub(crate) kv_blocks_used: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(u64::try_from(amount).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, queue_depth: usize) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            queue_depth: u64::try_from(queue_depth).unwrap_or(u64::MAX),
            running: read(&self.running),
            completed: read(&self.completed),
            cancelled: read(&self.cancelled),
            failed: read(&self.failed),
            prompt_tokens: read(&self.prompt_tokens),
            completion_tokens: read(&self.completion_tokens),
            embedded_inputs: read(&self.embedded_inputs),
            cached_prompt_tokens: read(&self.cached_prompt_tokens),
            preempted: read(&self.preempted),
            kv_blocks_used: read(&self.kv_blocks_used),
        }
    }
}
