use candle_core::{Result, Tensor};

use crate::{LoadError, weights::Weights};

/// `x · Wᵀ + b` over a matrix of rows.
pub(super) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(super) fn load(
        weights: &Weights,
        name: &str,
        outputs: usize,
        inputs: usize,
        bias: bool,
    ) -> std::result::Result<Self, LoadError> {
        let bias = bias
            .then(|| weights.get(&format!("{name}.bias"), &[outputs]))
            .transpose()?;
        Ok(Self {
            weight: weights.get(&format!("{name}.weight"), &[outputs, inputs])?,
            bias,
        })
    }

    pub(super) fn from_weight(weight: Tensor) -> Self {
        Self { weight, bias: None }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = x.matmul(&self.weight.t()?)?;
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}
