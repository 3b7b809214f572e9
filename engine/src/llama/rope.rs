use std::f32::consts::PI;

use candle_core::{Device, Result, Tensor};

use super::config::{Config, MAX_CONTEXT, narrow};
use crate::{LoadError, fields::Fields, weights::Weights};

/// Rotary position embedding. Angles are computed for the positions of a step, which costs less than a table for a context
/// of a hundred thousand positions.
pub(super) struct Rope {
    inverse_frequencies: Vec<f32>,
}

const DIVISORS: &str = "rope_freqs.weight";

/// How a model that was trained on a short context reaches a longer one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scaling {
    None,
    Linear {
        factor: f32,
    },
    Llama3 {
        factor: f32,
        low: f32,
        high: f32,
        original_context: f32,
    },
}

impl Scaling {
    pub(super) fn read(fields: &Fields<'_>) -> std::result::Result<Self, LoadError> {
        let kind = match fields.text("rope_type")? {
            Some(kind) => Some(kind),
            None => fields.text("type")?,
        };
        let factor = || fields.positive("factor", 1e6).map(narrow);
        match kind {
            None | Some("default" | "none") => Ok(Self::None),
            Some("linear") => Ok(Self::Linear { factor: factor()? }),
            Some("llama3") => {
                let low = narrow(fields.positive("low_freq_factor", 1e6)?);
                let high = narrow(fields.positive("high_freq_factor", 1e6)?);
                if high <= low {
                    return Err(fields.error(
                        "high_freq_factor",
                        format!("{high} is not above low_freq_factor {low}"),
                    ));
                }
                let original = fields.count("original_max_position_embeddings", MAX_CONTEXT)?;
                Ok(Self::Llama3 {
                    factor: factor()?,
                    low,
                    high,
                    original_context: original as f32,
                })
            }
            Some(_) => {
                Err(fields.error("rope_type", "only default, linear and llama3 are supported"))
            }
        }
    }

    fn apply(&self, frequency: f32) -> f32 {
        match *self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 {
                factor,
                low,
                high,
                original_context,
            } => {
                let wavelength = 2.0 * PI / frequency;
                if wavelength < original_context / high {
                    frequency
                } else if wavelength > original_context / low {
                    frequency / factor
                } else {
                    let smooth = (original_context / wavelength - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}

impl Rope {
    pub(super) fn load(weights: &Weights, config: &Config) -> std::result::Result<Self, LoadError> {
        let dim = config.head_dim;
        // GGUF has the result of a scaling, not its rule: what to divide each frequency by.
        let divisors = match weights.contains(DIVISORS) {
            true => {
                let divisors = weights.get(DIVISORS, &[dim / 2])?;
                divisors.to_vec1().map_err(LoadError::Compute)?
            }
            false => vec![1.0; dim / 2],
        };
        let frequency = |i: usize| 1.0 / config.rope_theta.powf(i as f32 / dim as f32);
        let inverse_frequencies = (0..dim)
            .step_by(2)
            .zip(divisors)
            .map(|(i, divisor)| config.rope_scaling.apply(frequency(i)) / divisor)
            .collect();
        Ok(Self {
            inverse_frequencies,
        })
    }

    /// Cosines and sines, one row of half a head per position.
    pub(super) fn at(&self, positions: &[usize]) -> Result<(Tensor, Tensor)> {
        let shape = (positions.len(), self.inverse_frequencies.len());
        let (cos, sin): (Vec<f32>, Vec<f32>) = positions
            .iter()
            .flat_map(|position| {
                self.inverse_frequencies
                    .iter()
                    .map(move |frequency| *position as f32 * frequency)
            })
            .map(|angle| (angle.cos(), angle.sin()))
            .unzip();
        Ok((
            Tensor::from_vec(cos, shape, &Device::Cpu)?,
            Tensor::from_vec(sin, shape, &Device::Cpu)?,
        ))
    }
}
