use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::Usage;

/// The choices of one request.
pub(crate) struct Group {
    prompt_tokens: u32,
    open: AtomicU32,
    completion_tokens: AtomicU32,
    /// The first choice has read the prompt: the others go on from its blocks.
    read: AtomicBool,
}

impl Group {
    pub(crate) fn new(prompt_tokens: usize, choices: u32) -> Self {
        Self {
            prompt_tokens: count(prompt_tokens),
            open: AtomicU32::new(choices),
            completion_tokens: AtomicU32::new(0),
            read: AtomicBool::new(false),
        }
    }

    pub(crate) fn set_read(&self) {
        self.read.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_read(&self) -> bool {
        self.read.load(Ordering::Relaxed)
    }

    /// One choice has ended. What the request took, if it was the last.
    pub(crate) fn ended(&self, completion_tokens: usize) -> Option<Usage> {
        // Choices end on one thread, one after the other.
        let made = self
            .completion_tokens
            .fetch_add(count(completion_tokens), Ordering::Relaxed);
        let last = self.open.fetch_sub(1, Ordering::Relaxed) == 1;
        last.then(|| Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: made.saturating_add(count(completion_tokens)),
        })
    }
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
