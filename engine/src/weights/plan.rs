//! What the tensors will take, before any of it is taken.

use candle_core::quantized::GgmlDType;

use super::{Dtype, Entry, Weights};
use crate::LoadError;

const TABLE: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

impl Weights {
    /// # Errors
    /// Where the tensors, and `beside` them what else the model takes, would take more than `available` bytes.
    pub(crate) fn fit(&self, beside: u64, available: u64) -> Result<(), LoadError> {
        let needed = self.resident_bytes().saturating_add(beside);
        if needed > available {
            return Err(LoadError::Memory { needed, available });
        }
        Ok(())
    }

    /// Memory of the tensors once the model has run.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let table_only = self.tensors.contains_key(HEAD);
        let each = self.tensors.iter().map(|(name, entry)| match entry.dtype {
            // Rows are looked up in it, and no product is made with it.
            Dtype::Quantized(_) if table_only && name == TABLE => entry.bytes,
            _ => resident(entry),
        });
        each.fold(0, u64::saturating_add)
    }
}

fn resident(entry: &Entry) -> u64 {
    match entry.dtype {
        Dtype::F32 => entry.bytes,
        Dtype::F16 | Dtype::Bf16 => entry.bytes.saturating_mul(2),
        Dtype::Other(_) => 0,
        Dtype::Quantized(format) => {
            // candle keeps the blocks, and beside them the tiles that its kernels read (`repack_x86.rs`): bytes of both for
            // bytes of blocks, each for 256 weights.
            let (both, blocks) = match format {
                GgmlDType::Q4K => (336, 144),
                GgmlDType::Q6K => (530, 210),
                _ => (544, 272),
            };
            (entry.bytes / blocks).saturating_mul(both)
        }
    }
}
