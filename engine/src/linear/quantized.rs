//! Rows of a matrix in blocks of ggml's formats.

use std::{borrow::Cow, sync::Arc};

use candle_core::{
    CpuStorage, Device, Result, Tensor,
    quantized::{GgmlDType, QStorage, QTensor, QuantizedType},
};
use half::f16;

use crate::rows;

/// candle makes products of many tokens from tiles, which it keeps beside the blocks. Tiles of Q4_K are more than twice as long as
/// their blocks, so that for a single token, for which each weight is read once, memory is the bound and the blocks are faster.
pub(crate) struct Quantized {
    /// Makes tiles of the blocks.
    tensor: QTensor,
    blocks: Arc<dyn QuantizedType>,
    outputs: usize,
    inputs: usize,
}

impl Quantized {
    /// From the bytes of the blocks, which must be aligned to two.
    pub(crate) fn new(
        bytes: &[u8],
        format: GgmlDType,
        outputs: usize,
        inputs: usize,
    ) -> Result<Self> {
        let blocks = Arc::from(format.from_data(Cow::Borrowed(bytes)));
        let storage = QStorage::Cpu(Box::new(Shared(Arc::clone(&blocks))));
        Ok(Self {
            tensor: QTensor::new(storage, (outputs, inputs))?,
            blocks,
            outputs,
            inputs,
        })
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// `x · Wᵀ` for the rows of `x`, `[rows, inputs]`, contiguous, in f32.
    pub(crate) fn product(&self, x: &Tensor) -> Result<Tensor> {
        if self.blocks.dtype() != GgmlDType::Q4K || x.dims() != [1, self.inputs] {
            // Not candle's QMatMul: an environment variable changes what that does.
            return x.apply_op1_no_bwd(&self.tensor);
        }
        let mut product = vec![0.0; self.outputs];
        rows::view(x, |x| {
            self.blocks
                .matmul_t((1, self.inputs, self.outputs), x, &mut product)
        })?;
        Tensor::from_vec(product, (1, self.outputs), &Device::Cpu)
    }

    /// The rows with these numbers, in f32.
    pub(crate) fn rows(&self, ids: &Tensor) -> Result<Tensor> {
        self.tensor.embedding(ids)
    }
}

/// The same blocks in two places.
struct Shared(Arc<dyn QuantizedType>);

impl QuantizedType for Shared {
    fn dtype(&self) -> GgmlDType {
        self.0.dtype()
    }

    fn matmul_t(&self, mkn: (usize, usize, usize), lhs: &[f32], dst: &mut [f32]) -> Result<()> {
        self.0.matmul_t(mkn, lhs, dst)
    }

    fn matmul_t_f16(&self, mkn: (usize, usize, usize), lhs: &[f16], dst: &mut [f16]) -> Result<()> {
        self.0.matmul_t_f16(mkn, lhs, dst)
    }

    fn embedding(&self, ids: &[u32], rows: usize, hidden: usize) -> Result<CpuStorage> {
        self.0.embedding(ids, rows, hidden)
    }

    fn dequantize(&self, elem_count: usize) -> Result<CpuStorage> {
        self.0.dequantize(elem_count)
    }

    fn storage_size_in_bytes(&self) -> usize {
        self.0.storage_size_in_bytes()
    }

    fn as_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn block_size(&self) -> usize {
        self.0.block_size()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    /// Weights do not change.
    fn from_float(&mut self, _xs: &[f32]) {}

    /// Weights do not change.
    fn from_float_imatrix(&mut self, _xs: &[f32], _imatrix_weights: &[f32], _n_per_row: usize) {}
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    const INPUTS: usize = 512;
    const OUTPUTS: usize = 48;

    fn random(rows: usize, seed: u64) -> Tensor {
        let mut random = StdRng::seed_from_u64(seed);
        let numbers: Vec<f32> = (0..rows * INPUTS)
            .map(|_| random.random_range(-1.0..1.0))
            .collect();
        Tensor::from_vec(numbers, (rows, INPUTS), &Device::Cpu).unwrap()
    }

    fn matrix(format: GgmlDType) -> Quantized {
        let blocks = QTensor::quantize(&random(OUTPUTS, 1), format).unwrap();
        Quantized::new(&blocks.data().unwrap(), format, OUTPUTS, INPUTS).unwrap()
    }

    #[test]
    fn a_token_alone_gets_what_it_gets_among_others() {
        for format in [GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::Q8_0] {
            let (matrix, x) = (matrix(format), random(7, 2));
            let together = matrix.product(&x).unwrap().to_vec2::<f32>().unwrap();
            for (row, together) in together.iter().enumerate() {
                let one = x.narrow(0, row, 1).unwrap().contiguous().unwrap();
                let alone = matrix.product(&one).unwrap().to_vec2::<f32>().unwrap();
                for (alone, together) in alone[0].iter().zip(together) {
                    assert!(
                        (alone - together).abs() < 1e-3,
                        "{format:?}: {alone} {together}"
                    );
                }
            }
        }
    }

    #[test]
    fn products_are_those_of_the_weights_in_f32() {
        for format in [GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::Q8_0] {
            let (matrix, x) = (matrix(format), random(1, 3));
            let ids = Tensor::arange(0u32, u32::try_from(OUTPUTS).unwrap(), &Device::Cpu).unwrap();
            let dense = matrix.rows(&ids).unwrap();
            let expected = x.matmul(&dense.t().unwrap()).unwrap();
            let expected = expected.to_vec2::<f32>().unwrap();
            let found = matrix.product(&x).unwrap().to_vec2::<f32>().unwrap();
            for (found, expected) in found[0].iter().zip(&expected[0]) {
                // The token is rounded to eight bits.
                assert!(
                    (found - expected).abs() < 0.1,
                    "{format:?}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn refuses_rows_of_another_length() {
        let x = Tensor::zeros((1, INPUTS / 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(matrix(GgmlDType::Q4K).product(&x).is_err());
    }
}
