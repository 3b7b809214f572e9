//! Quantized rows, part by part.

use std::sync::{Arc, PoisonError};

use candle_core::quantized::GgmlDType;

use super::{Entry, RowOrder, Weights, rows};
use crate::{
    LoadError,
    linear::{Matrix, Quantized},
};

/// Of one buffer. Larger parts would make fewer products, smaller ones take less memory beside the tensors.
const PART_BYTES: usize = 8 << 20;
/// Four times eight MiB beside the tensors, whatever the number of threads.
pub(super) const BUFFERS: usize = 4;
/// Kernels work on tiles of so many rows.
const TILE_ROWS: usize = 16;

impl Weights {
    pub(super) fn blocks(
        &self,
        name: &str,
        entry: &Entry,
        format: GgmlDType,
        [outputs, inputs]: [usize; 2],
    ) -> Result<Vec<Arc<Quantized>>, LoadError> {
        let wrong = || entry.refuse(name, "its bytes do not fit its shape".into());
        let row = inputs
            .checked_div(format.block_size())
            .and_then(|blocks| blocks.checked_mul(format.type_size()))
            .filter(|row| *row > 0)
            .ok_or_else(wrong)?;
        let total = row
            .checked_mul(outputs)
            .and_then(|bytes| u64::try_from(bytes).ok());
        if total != Some(entry.bytes) {
            return Err(wrong());
        }
        // Whole heads, which are put in order within a part, and whole tiles.
        let unit = match entry.rows {
            RowOrder::AsComputed => TILE_ROWS,
            RowOrder::Interleaved { head_dim } => head_dim.saturating_mul(TILE_ROWS),
        };
        let most = (PART_BYTES / row / unit).max(1).saturating_mul(unit);

        let mut parts = Vec::with_capacity(outputs.div_ceil(most));
        let (mut done, mut offset) = (0, entry.offset);
        while done < outputs {
            let count = most.min(outputs - done);
            let bytes = count.checked_mul(row).ok_or_else(wrong)?;
            let part = self.buffered(bytes, |memory| {
                self.part(name, entry, format, offset, (count, inputs), memory)
            })?;
            parts.push(part);
            done += count;
            offset = u64::try_from(bytes)
                .ok()
                .and_then(|bytes| offset.checked_add(bytes))
                .ok_or_else(wrong)?;
        }
        Ok(parts)
    }

    /// Lends a buffer of so many bytes, in which blocks are aligned; waits for one if all are in use.
    fn buffered<T>(&self, bytes: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
        let _turn = self.buffers.take();
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = spare().pop().unwrap_or_default();
        let words = bytes.div_ceil(size_of::<u32>());
        if buffer.len() < words {
            drop(buffer);
            buffer = vec![0; words];
        }
        let memory: &mut [u8] = bytemuck::cast_slice_mut(&mut buffer);
        let (memory, _) = memory.split_at_mut(bytes);
        let done = work(memory);
        spare().push(buffer);
        done
    }

    fn part(
        &self,
        name: &str,
        entry: &Entry,
        format: GgmlDType,
        offset: u64,
        (rows, inputs): (usize, usize),
        memory: &mut [u8],
    ) -> Result<Arc<Quantized>, LoadError> {
        let read = self.files.read_at(&entry.file, offset, memory);
        read.map_err(|source| LoadError::Read {
            file: entry.file.to_string(),
            source,
        })?;
        if let RowOrder::Interleaved { head_dim } = entry.rows {
            rows::halve(memory, memory.len() / rows, head_dim)
                .ok_or_else(|| entry.refuse(name, format!("rows are not heads of {head_dim}")))?;
        }
        Matrix::quantized_rows(memory, format, rows, inputs).map_err(LoadError::Compute)
    }
}
