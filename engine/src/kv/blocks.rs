//! Whose each block is, and which hold a beginning that may come again.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{Hash, Hasher},
    sync::Arc,
};

use zeroize::Zeroizing;

use super::BLOCK;

/// The beginning that a block goes on from. Numbers are not used twice, so one that was forgotten is nobody's beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Chain(u64);

/// What a full block holds: whose it is, what comes before, its tokens. Compared whole, so no two callers, and no two texts, are
/// ever taken for each other.
#[derive(PartialEq, Eq)]
struct Content {
    owner: Arc<str>,
    before: Chain,
    tokens: Zeroizing<Vec<u32>>,
}

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.owner.hash(state);
        self.before.hash(state);
        self.tokens.as_slice().hash(state);
    }
}

/// Accounts of the blocks of a [`KvPool`](super::KvPool).
pub(crate) struct Blocks {
    total: usize,
    /// In nobody's use, and holding nothing of use.
    free: Vec<u32>,
    /// How many sequences use each.
    users: Vec<u32>,
    /// Full blocks by what they hold.
    known: HashMap<Arc<Content>, (u32, Chain)>,
    /// What a block is known for, and since when nobody uses it.
    held: HashMap<u32, (Arc<Content>, u64)>,
    /// Known blocks that nobody uses, the longest unused first.
    idle: BTreeMap<u64, u32>,
    clock: u64,
}

impl Blocks {
    pub(crate) fn new(total: usize) -> Self {
        let count = u32::try_from(total).unwrap_or(u32::MAX);
        Self {
            total,
            free: (0..count).rev().collect(),
            users: vec![0; total],
            known: HashMap::new(),
            held: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Blocks that [`take`](Self::take) can give.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// A block for one sequence; what it is known for is forgotten.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let block = match self.free.pop() {
            Some(block) => block,
            None => {
                let (_, block) = self.idle.pop_first()?;
                if let Some((content, _)) = self.held.remove(&block) {
                    self.known.remove(&content);
                }
                block
            }
        };
        *self.users.get_mut(block as usize)? += 1;
        Some(block)
    }

    /// One sequence needs it no more.
    pub(crate) fn give_back(&mut self, block: u32) {
        let Some(users) = self.users.get_mut(block as usize) else {
            return;
        };
        *users = users.saturating_sub(1);
        if *users > 0 {
            return;
        }
        match self.held.get_mut(&block) {
            Some((_, since)) => {
                self.clock += 1;
                *since = self.clock;
                self.idle.insert(self.clock, block);
            }
            None => self.free.push(block),
        }
    }

    /// The block that holds these tokens of this owner after that beginning, for one more sequence.
    pub(crate) fn find(
        &mut self,
        owner: &Arc<str>,
        before: Chain,
        tokens: &[u32],
    ) -> Option<(u32, Chain)> {
        let content = content(owner, before, tokens)?;
        let (block, chain) = *self.known.get(&content)?;
        let users = self.users.get_mut(block as usize)?;
        if *users == 0
            && let Some((_, since)) = self.held.get(&block)
        {
            self.idle.remove(since);
        }
        *users += 1;
        Some((block, chain))
    }

    /// Remembers what a full block holds; the beginning that it completes.
    pub(crate) fn remember(
        &mut self,
        block: u32,
        owner: &Arc<str>,
        before: Chain,
        tokens: &[u32],
    ) -> Option<Chain> {
        let content = Arc::new(content(owner, before, tokens)?);
        // Another sequence was first; this block stays its own sequence's.
        if let Some((_, chain)) = self.known.get(&content) {
            return Some(*chain);
        }
        self.clock += 1;
        let chain = Chain(self.clock);
        self.known.insert(Arc::clone(&content), (block, chain));
        self.held.insert(block, (content, 0));
        Some(chain)
    }
}

fn content(owner: &Arc<str>, before: Chain, tokens: &[u32]) -> Option<Content> {
    (tokens.len() == BLOCK).then(|| Content {
        owner: Arc::clone(owner),
        before,
        tokens: Zeroizing::new(tokens.to_vec()),
    })
}

#[cfg(test)]
mod tests;
