//! All matrix products with weights. Kernels are exchanged here, and no model notices.

mod quantized;

use std::sync::Arc;

use candle_core::{D, Device, Result, Tensor, quantized::GgmlDType};

use crate::{LoadError, rows, weights::Weights};
pub(crate) use quantized::Quantized;

/// A matrix of weights, `[outputs, inputs]`. Clones share it.
#[derive(Clone)]
pub(crate) enum Matrix {
    Dense(Tensor),
    /// Rows in blocks of ggml's formats. Several parts, one below the other, since each passes through a buffer when it is read.
    Quantized(Vec<Arc<Quantized>>),
}

impl Matrix {
    /// Adds rows, `inputs` long, from the bytes of their blocks; `bytes` must be aligned to two.
    pub(crate) fn quantized_rows(
        bytes: &[u8],
        format: GgmlDType,
        rows: usize,
        inputs: usize,
    ) -> Result<Arc<Quantized>> {
        Quantized::new(bytes, format, rows, inputs).map(Arc::new)
    }

    /// `x · Wᵀ` for the rows of `x`, `[rows, inputs]` in f32.
    fn product(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(weight) => x.matmul(&weight.t()?),
            Self::Quantized(parts) => {
                let x = x.contiguous()?;
                joined(parts, D::Minus1, |part| part.product(&x))
            }
        }
    }

    /// The rows with these numbers, in f32: a table of embeddings.
    pub(crate) fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let list = |ids: &[u32]| Tensor::from_slice(ids, ids.len(), &Device::Cpu);
        match self {
            Self::Dense(table) => table.index_select(&list(ids)?, 0),
            Self::Quantized(parts) => match parts.as_slice() {
                [part] => part.rows(&list(ids)?),
                parts => {
                    let row = |id: &u32| -> Result<Tensor> {
                        let mut id = *id;
                        for part in parts {
                            let rows =
                                u32::try_from(part.outputs()).map_err(candle_core::Error::wrap)?;
                            match id.checked_sub(rows) {
                                Some(next) => id = next,
                                None => return part.rows(&list(&[id])?),
                            }
                        }
                        candle_core::bail!("a token id is beyond the table")
                    };
                    Tensor::cat(&ids.iter().map(row).collect::<Result<Vec<_>>>()?, 0)
                }
            },
        }
    }
}

/// One result from the result of each part.
fn joined(
    parts: &[Arc<Quantized>],
    dim: D,
    each: impl Fn(&Arc<Quantized>) -> Result<Tensor>,
) -> Result<Tensor> {
    match parts {
        [part] => each(part),
        parts => Tensor::cat(&parts.iter().map(each).collect::<Result<Vec<_>>>()?, dim),
    }
}

/// `x · Wᵀ + b` over a matrix of rows.
pub(crate) struct Linear {
    weight: Matrix,
    bias: Option<Vec<f32>>,
}

impl Linear {
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        outputs: usize,
        inputs: usize,
        bias: bool,
    ) -> std::result::Result<Self, LoadError> {
        let bias = bias
            .then(|| weights.vector(&format!("{name}.bias"), outputs))
            .transpose()?;
        Ok(Self {
            weight: weights.matrix(&format!("{name}.weight"), outputs, inputs)?,
            bias,
        })
    }

    /// The projection that `weight` has as a table already.
    pub(crate) fn from_weight(weight: Matrix) -> Self {
        Self { weight, bias: None }
    }

    pub(crate) fn is_quantized(&self) -> bool {
        matches!(self.weight, Matrix::Quantized(_))
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = self.weight.product(x)?;
        if let Some(bias) = &self.bias {
            rows::add(&product, bias)?;
        }
        Ok(product)
    }
}
