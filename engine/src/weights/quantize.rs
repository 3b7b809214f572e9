//! Dense matrices that become blocks while they are read.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QTensor};

use super::{Entry, Weights, plan};
use crate::{
    LoadError, Quantize,
    linear::{Matrix, Quantized},
};

/// Each takes the memory of its matrix in f32 meanwhile.
pub(super) const AT_ONCE: usize = 2;

impl Weights {
    /// From here on dense matrices become this. Said once, before any is read.
    pub(crate) fn quantize(&self, to: Quantize) {
        self.quantize.get_or_init(|| to);
    }

    /// What a dense matrix becomes; `None` if it stays.
    pub(super) fn format(&self, name: &str, entry: &Entry) -> Option<GgmlDType> {
        let to = *self.quantize.get()?;
        let &[_, inputs] = entry.shape.as_slice() else {
            return None;
        };
        if !entry.dtype.is_dense() {
            return None;
        }
        let format = match to {
            Quantize::Q4K if plan::is_vocabulary(name) => GgmlDType::Q6K,
            Quantize::Q4K => GgmlDType::Q4K,
            Quantize::Q8_0 => GgmlDType::Q8_0,
        };
        [format, GgmlDType::Q8_0]
            .into_iter()
            .find(|format| inputs.is_multiple_of(format.block_size()))
    }

    pub(super) fn quantized(
        &self,
        name: &str,
        entry: &Entry,
        format: GgmlDType,
    ) -> Result<Vec<Arc<Quantized>>, LoadError> {
        let turn = self.quantizing.take();
        let dense = self.read(name, entry)?;
        let (rows, inputs) = dense.dims2().map_err(LoadError::Compute)?;
        let blocks = QTensor::quantize(&dense, format).map_err(LoadError::Compute)?;
        drop(dense);
        let bytes = blocks.data().map_err(LoadError::Compute)?;
        let part = Matrix::quantized_rows(&bytes, format, rows, inputs);
        drop(turn);
        Ok(vec![part.map_err(LoadError::Compute)?])
    }
}
