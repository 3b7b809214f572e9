use candle_core::{DType, Device, Result, Tensor};

use super::Config;

/// Keys and values of one sequence, written in place: a step copies its own row, not the whole past.
///
/// Memory grows by doubling up to the sequence's limit, so a short answer under a high `max_tokens` stays small. It is freed,
/// not cleared, when the sequence ends: like the weights it rests on the process's memory being private.
pub(crate) struct Cache {
    layers: Vec<Layer>,
    len: usize,
    capacity: usize,
    limit: usize,
}

/// `[kv_heads, capacity, head_dim]` each.
struct Layer {
    keys: Tensor,
    values: Tensor,
}

/// The cache of one layer while a step runs: the new rows go behind `len`.
pub(super) struct LayerCache<'a> {
    layer: &'a Layer,
    len: usize,
}

/// The first allocation: most chats fit, and rows stay aligned.
const FIRST_CAPACITY: usize = 256;

impl Cache {
    pub(super) fn new(config: &Config, limit: usize) -> Result<Self> {
        let capacity = limit.min(FIRST_CAPACITY);
        let shape = (config.kv_heads, capacity, config.head_dim);
        let zeros = || Tensor::zeros(shape, DType::F32, &Device::Cpu);
        let layers = config
            .layers
            .iter()
            .map(|_| {
                Ok(Layer {
                    keys: zeros()?,
                    values: zeros()?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            layers,
            len: 0,
            capacity,
            limit,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Tokens that it may come to hold.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Makes room for `more` tokens.
    pub(super) fn reserve(&mut self, more: usize) -> Result<()> {
        let needed = self.len + more;
        if needed <= self.capacity {
            return Ok(());
        }
        if needed > self.limit {
            candle_core::bail!(
                "a sequence of {needed} tokens exceeds its limit of {}",
                self.limit
            );
        }
        let capacity = needed.max(self.capacity * 2).min(self.limit);
        for layer in &mut self.layers {
            layer.keys = grow(&layer.keys, self.len, capacity)?;
            layer.values = grow(&layer.values, self.len, capacity)?;
        }
        self.capacity = capacity;
        Ok(())
    }

    pub(super) fn layer(&self, index: usize) -> Result<LayerCache<'_>> {
        let Some(layer) = self.layers.get(index) else {
            candle_core::bail!("the cache has no layer {index}")
        };
        Ok(LayerCache {
            layer,
            len: self.len,
        })
    }

    /// Counts the tokens of a finished step as part of the past.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

impl LayerCache<'_> {
    /// Writes the rows of this step, `[kv_heads, tokens, head_dim]`, and returns everything up to them.
    pub(super) fn append(&self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        self.layer.keys.slice_set(keys, 1, self.len)?;
        self.layer.values.slice_set(values, 1, self.len)?;
        let end = self.len + keys.dim(1)?;
        Ok((
            self.layer.keys.narrow(1, 0, end)?,
            self.layer.values.narrow(1, 0, end)?,
        ))
    }
}

fn grow(old: &Tensor, len: usize, capacity: usize) -> Result<Tensor> {
    let (heads, _, dim) = old.dims3()?;
    let new = Tensor::zeros((heads, capacity, dim), old.dtype(), old.device())?;
    if len > 0 {
        new.slice_set(&old.narrow(1, 0, len)?.contiguous()?, 1, 0)?;
    }
    Ok(new)
}
