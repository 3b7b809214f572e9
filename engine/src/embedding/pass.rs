//! Which inputs run in the next pass.

use std::{collections::HashMap, sync::Arc};

/// What a request still wants.
pub(super) struct Wish {
    caller: Arc<str>,
    /// Inputs that have not run: their tokens and their place in the request, the shortest first.
    left: Vec<(usize, usize)>,
    /// Tokens that have run.
    served: u64,
}

impl Wish {
    pub(super) fn new(caller: Arc<str>, lengths: impl Iterator<Item = usize>) -> Self {
        let mut left: Vec<_> = lengths.zip(0..).collect();
        left.sort_unstable();
        Self {
            caller,
            left,
            served: 0,
        }
    }

    pub(super) fn caller(&self) -> &Arc<str> {
        &self.caller
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    pub(super) fn tokens(&self) -> usize {
        self.left.iter().map(|(tokens, _)| tokens).sum()
    }

    /// Index in `left` of the longest that has room.
    fn fitting(&self, room: usize) -> Option<usize> {
        self.left
            .partition_point(|(tokens, _)| *tokens <= room)
            .checked_sub(1)
    }
}

/// Tokens that have run for each caller who wants something.
#[derive(Default)]
pub(super) struct Served(HashMap<Arc<str>, u64>);

impl Served {
    /// Chooses inputs of at most `budget` tokens together, or one that is longer; each as the number of its request and its place
    /// there. The next is always of the caller for whom the fewest tokens have run, and among that caller's requests of the one for
    /// which the fewest have; of a request, the longest that still has room. So nobody waits for another's long list, and passes are
    /// full.
    pub(super) fn fill(&mut self, wishes: &mut [Wish], budget: usize) -> Vec<(usize, usize)> {
        self.greet(wishes);
        let mut chosen = Vec::new();
        let mut room = budget;
        loop {
            // Whoever is first is served, however long.
            let limit = if chosen.is_empty() { usize::MAX } else { room };
            let next = wishes
                .iter_mut()
                .enumerate()
                .filter_map(|(number, wish)| Some((wish.fitting(limit)?, number, wish)))
                .min_by_key(|(_, number, wish)| (self.of(&wish.caller), wish.served, *number));
            let Some((index, number, wish)) = next else {
                return chosen;
            };
            let (tokens, place) = wish.left.remove(index);
            let count = u64::try_from(tokens).unwrap_or(u64::MAX);
            wish.served = wish.served.saturating_add(count);
            let sum = self.0.entry(Arc::clone(&wish.caller)).or_default();
            *sum = sum.saturating_add(count);
            room = room.saturating_sub(tokens);
            chosen.push((number, place));
        }
    }

    fn of(&self, caller: &Arc<str>) -> u64 {
        self.0.get(caller).copied().unwrap_or_default()
    }

    /// Whoever comes starts beside the one who has had the least: neither ahead for having stayed away, nor behind. Whoever wants
    /// nothing more is forgotten.
    fn greet(&mut self, wishes: &[Wish]) {
        self.0
            .retain(|caller, _| wishes.iter().any(|wish| wish.caller == *caller));
        let least = self.0.values().copied().min().unwrap_or_default();
        for wish in wishes {
            self.0.entry(Arc::clone(&wish.caller)).or_insert(least);
        }
    }
}

#[cfg(test)]
mod tests;
