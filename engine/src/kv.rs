//! Keys and values of all sequences, in blocks: memory is taken once, a sequence holds a list of blocks, and what a step writes is
//! its own tokens.
//!
//! Memory of a block that is given back is not cleared: like the weights it rests on the process's memory being private.

mod blocks;

pub(crate) use blocks::{Blocks, Chain};
use candle_core::{Result, bail};

/// Tokens of a block.
pub(crate) const BLOCK: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl KvShape {
    /// Numbers that a block takes in one layer, for keys as for values.
    fn block(self) -> usize {
        self.kv_heads * BLOCK * self.head_dim
    }

    /// Memory of a block, in all layers.
    pub(crate) fn block_bytes(self) -> u64 {
        let numbers = self.block().saturating_mul(2 * self.layers);
        u64::try_from(numbers.saturating_mul(size_of::<f32>())).unwrap_or(u64::MAX)
    }
}

/// The memory itself. Which block is whose is [`Blocks`]' task.
pub(crate) struct KvPool {
    shape: KvShape,
    layers: Vec<KvLayer>,
}

/// `[blocks, kv_heads, BLOCK, head_dim]` each.
pub(crate) struct KvLayer {
    shape: KvShape,
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// The memory of one sequence: its blocks, and how many tokens in them count.
#[derive(Clone, Copy)]
pub(crate) struct Held<'a> {
    pub(crate) blocks: &'a [u32],
    pub(crate) tokens: usize,
}

impl KvPool {
    /// Pages come from the system as they are first written.
    pub(crate) fn new(shape: KvShape, blocks: usize) -> Self {
        let layer = || KvLayer {
            shape,
            keys: vec![0.0; blocks * shape.block()],
            values: vec![0.0; blocks * shape.block()],
        };
        Self {
            shape,
            layers: (0..shape.layers).map(|_| layer()).collect(),
        }
    }

    pub(crate) fn layer(&mut self, index: usize) -> Result<&mut KvLayer> {
        match self.layers.get_mut(index) {
            Some(layer) => Ok(layer),
            None => bail!("there are {} layers, not {index}", self.shape.layers),
        }
    }
}

impl KvLayer {
    /// Writes tokens behind those that are held. `keys` and `values` are `[tokens, kv_heads, head_dim]`.
    pub(crate) fn write(&mut self, held: Held<'_>, keys: &[f32], values: &[f32]) -> Result<()> {
        let (dim, width) = (
            self.shape.head_dim,
            self.shape.kv_heads * self.shape.head_dim,
        );
        let tokens = keys.chunks_exact(width).zip(values.chunks_exact(width));
        for (position, (keys, values)) in (held.tokens..).zip(tokens) {
            let start = self.start(held.blocks, position)?;
            for (head, (key, value)) in keys
                .chunks_exact(dim)
                .zip(values.chunks_exact(dim))
                .enumerate()
            {
                let at = start + head * BLOCK * dim;
                match (
                    self.keys.get_mut(at..at + dim),
                    self.values.get_mut(at..at + dim),
                ) {
                    (Some(to_key), Some(to_value)) => {
                        to_key.copy_from_slice(key);
                        to_value.copy_from_slice(value);
                    }
                    _ => bail!("a block is beyond the memory"),
                }
            }
        }
        Ok(())
    }

    /// Where the token at a position lies, for the first head.
    fn start(&self, blocks: &[u32], position: usize) -> Result<usize> {
        match blocks.get(position / BLOCK) {
            Some(block) => {
                Ok(*block as usize * self.shape.block() + position % BLOCK * self.shape.head_dim)
            }
            None => bail!("a sequence has no block for position {position}"),
        }
    }

    /// Keys and values of one head, block by block, each `[tokens of the block, head_dim]`.
    pub(crate) fn head<'a>(
        &'a self,
        held: Held<'a>,
        head: usize,
    ) -> impl Iterator<Item = Result<(&'a [f32], &'a [f32])>> {
        let dim = self.shape.head_dim;
        (0..held.tokens.div_ceil(BLOCK)).map(move |index| {
            let count = BLOCK.min(held.tokens - index * BLOCK);
            let at = self.start(held.blocks, index * BLOCK)? + head * BLOCK * dim;
            match (
                self.keys.get(at..at + count * dim),
                self.values.get(at..at + count * dim),
            ) {
                (Some(keys), Some(values)) => Ok((keys, values)),
                _ => bail!("a block is beyond the memory"),
            }
        })
    }

    /// Keys and values of all heads, `[kv_heads, tokens, head_dim]`.
    pub(crate) fn gather(&self, held: Held<'_>) -> Result<(Vec<f32>, Vec<f32>)> {
        let size = held.tokens * self.shape.kv_heads * self.shape.head_dim;
        let (mut keys, mut values) = (Vec::with_capacity(size), Vec::with_capacity(size));
        for head in 0..self.shape.kv_heads {
            for block in self.head(held, head) {
                let (key, value) = block?;
                keys.extend_from_slice(key);
                values.extend_from_slice(value);
            }
        }
        Ok((keys, values))
    }
}
