//! All matrix products with weights. Kernels are exchanged here, and no model notices.

mod packed;
mod quantized;

use std::sync::Arc;

use candle_core::{D, Device, Result, Tensor, quantized::GgmlDType};

use crate::{LoadError, rows, weights::Weights};
use packed::Packed;
pub(crate) use quantized::Quantized;

/// A matrix of weights, `[outputs, inputs]`. Clones share it.
#[derive(Clone)]
pub(crate) enum Matrix {
    /// In f32, in the order in which products read it.
    Packed(Arc<Packed>),
    /// In f32, as it lies in a file: for looking up rows.
    Table(Tensor),
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

    /// In f32; `read` writes it, row by row, into the memory where it stays.
    pub(crate) fn packed<E>(
        outputs: usize,
        inputs: usize,
        read: impl FnOnce(&mut [f32]) -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        let packed = Packed::new(outputs, inputs, read)?;
        Ok(Self::Packed(Arc::new(packed)))
    }

    /// `x · Wᵀ + b` for the rows of `x`, `[rows, inputs]` in f32, and `then` for each row of that.
    fn product(
        &self,
        x: &Tensor,
        bias: Option<&[f32]>,
        then: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Tensor> {
        if let Self::Packed(packed) = self {
            return packed.product(&x.contiguous()?, bias, then);
        }
        let product = self.plain(x)?;
        rows::each(
            &product,
            #[inline(always)]
            |index, row| {
                rows::add_row(0, row, bias.unwrap_or_default());
                then(index, row);
            },
        )?;
        Ok(product)
    }

    /// `x · Wᵀ`, and no pass over it.
    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        match self {
            Self::Packed(packed) => packed.product(
                &x,
                None,
                #[inline(always)]
                |_, _| {},
            ),
            Self::Table(weight) => x.matmul(&weight.t()?),
            Self::Quantized(parts) => joined(parts, D::Minus1, |part| part.product(&x)),
        }
    }

    /// The rows with these numbers, in f32: a table of embeddings.
    pub(crate) fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let list = |ids: &[u32]| Tensor::from_slice(ids, ids.len(), &Device::Cpu);
        match self {
            Self::Packed(packed) => packed.rows(ids),
            Self::Table(table) => table.index_select(&list(ids)?, 0),
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
        match self.bias {
            None => self.weight.plain(x),
            Some(_) => self.forward_then(
                x,
                #[inline(always)]
                |_, _| {},
            ),
        }
    }

    /// `then` gets the number of each row of the product, and the row: what else is done to it, while it is at hand.
    ///
    /// `then` must be `#[inline(always)]` all the way down to be compiled for the processor's vectors.
    pub(crate) fn forward_then(
        &self,
        x: &Tensor,
        then: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Tensor> {
        self.weight.product(x, self.bias.as_deref(), then)
    }

    /// `down` of `between` of this: a feed-forward part.
    pub(crate) fn through(
        &self,
        x: &Tensor,
        between: impl Fn(usize, &mut [f32]) + Sync,
        down: &Self,
        then: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Tensor> {
        match (&self.weight, &down.weight) {
            (Matrix::Packed(up), Matrix::Packed(matrix)) => {
                let x = x.contiguous()?;
                let down = (matrix.as_ref(), down.bias.as_deref());
                up.through(&x, self.bias.as_deref(), between, down, then)
            }
            _ => down.forward_then(&self.forward_then(x, between)?, then),
        }
    }
}
