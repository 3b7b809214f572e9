//! What the tensors will take, before any of it is taken.

use candle_core::quantized::GgmlDType;

use super::{Dtype, Entry, Weights, quantize};
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

    /// Memory of the tensors once the model has run, or while they are read, whichever is more.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let table_only = self.tensors.contains_key(HEAD);
        let mut widest = 0;
        let each = self.tensors.iter().map(|(name, entry)| {
            let (format, bytes) = match (entry.dtype, self.format(name, entry)) {
                (Dtype::Quantized(format), _) => (format, entry.bytes),
                (_, Some(format)) => {
                    widest = widest.max(dense(entry));
                    (format, stored(entry, format))
                }
                (_, None) => return dense(entry),
            };
            // Rows are looked up in it, and no product is made with it.
            match table_only && name == TABLE {
                true => bytes,
                false => with_tiles(format, bytes),
            }
        });
        let all = each.fold(0, u64::saturating_add);
        let at_once = u64::try_from(quantize::AT_ONCE).unwrap_or(u64::MAX);
        all.saturating_add(widest.saturating_mul(at_once))
    }
}

pub(super) fn is_vocabulary(name: &str) -> bool {
    name == TABLE || name == HEAD
}

/// As f32.
fn dense(entry: &Entry) -> u64 {
    match entry.dtype {
        Dtype::F32 => entry.bytes,
        Dtype::F16 | Dtype::Bf16 => entry.bytes.saturating_mul(2),
        Dtype::Quantized(_) | Dtype::Other(_) => 0,
    }
}

/// In blocks of another format than it has.
fn stored(entry: &Entry, format: GgmlDType) -> u64 {
    let of = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    (dense(entry) / 4 / of(format.block_size())).saturating_mul(of(format.type_size()))
}

/// candle keeps the blocks, and beside them the tiles that its kernels read (`repack_x86.rs`): bytes of both for bytes of blocks, each
/// for 256 weights.
fn with_tiles(format: GgmlDType, bytes: u64) -> u64 {
    let (both, blocks) = match format {
        GgmlDType::Q4K => (336, 144),
        GgmlDType::Q6K => (530, 210),
        _ => (544, 272),
    };
    bytes.saturating_mul(both) / blocks
}
