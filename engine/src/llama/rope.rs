//! Rotary position embedding. Angles are computed for the positions of a step, which costs less than a table for a context of a
//! hundred thousand positions.

use std::f32::consts::PI;

use candle_core::{Device, Result, Tensor};

use super::{
    config::{MAX_CONTEXT, MAX_THETA, narrow},
    family::Family,
};
use crate::{LoadError, fields::Fields, weights::Weights};

/// One kind of rotation, as configured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rotation {
    pub(crate) theta: f32,
    pub(crate) scaling: Scaling,
    /// How many numbers of a head are rotated: the first.
    pub(crate) dim: usize,
}

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
    /// A divisor for each frequency: one list up to the original context, the other for sequences that go beyond it.
    Long {
        short: Vec<f32>,
        long: Vec<f32>,
        original_context: usize,
        /// Of cosines and sines.
        magnitude: f32,
    },
}

/// The largest head has a thousand numbers, two to a frequency.
const MAX_FACTORS: usize = 512;

impl Rotation {
    /// The rotation of all layers, or of those without a window and then of those with one.
    pub(super) fn read_all(
        family: Family,
        fields: &Fields<'_>,
        head_dim: usize,
        context: usize,
    ) -> std::result::Result<Vec<Self>, LoadError> {
        // Newer files hold all settings in one object, and in one for each kind of layer where those differ.
        let newer = fields.object("rope_parameters")?;
        let rope = match &newer {
            Some(newer) => match newer.object("full_attention")? {
                Some(full) => Some(full),
                None => fields.object("rope_parameters")?,
            },
            None => fields.object("rope_scaling")?,
        };
        let theta = match &rope {
            Some(rope) if rope.value("rope_theta").is_some() => {
                rope.optional_positive("rope_theta", MAX_THETA)?
            }
            _ => fields.optional_positive("rope_theta", MAX_THETA)?,
        };
        let share = match &rope {
            Some(rope) if rope.value("partial_rotary_factor").is_some() => {
                rope.optional_positive("partial_rotary_factor", 1.0)?
            }
            _ => fields.optional_positive("partial_rotary_factor", 1.0)?,
        };
        let dim = rotated(head_dim, share.unwrap_or(1.0));
        if dim == 0 {
            return Err(fields.error("partial_rotary_factor", "leaves nothing to rotate"));
        }
        let scaling = match &rope {
            Some(rope) => Scaling::read(rope, fields, family, dim, context)?,
            None => Scaling::None,
        };
        let mut all = vec![Self {
            theta: narrow(theta.unwrap_or(family.rope_theta())),
            scaling,
            dim,
        }];
        if let Some((theta, scaling)) = family.local_rope() {
            let local = newer
                .as_ref()
                .map_or(Ok(None), |newer| newer.object("sliding_attention"))?;
            let found = match &local {
                Some(local) => {
                    if Scaling::read(local, fields, family, dim, context)? != scaling {
                        return Err(local.error("rope_type", "only default is supported"));
                    }
                    local.optional_positive("rope_theta", MAX_THETA)?
                }
                None => fields.optional_positive("rope_local_base_freq", MAX_THETA)?,
            };
            all.push(Self {
                theta: narrow(found.unwrap_or(theta)),
                scaling,
                dim,
            });
        }
        Ok(all)
    }
}

/// An even number of the first of a head.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most the size of a head"
)]
fn rotated(head_dim: usize, share: f64) -> usize {
    (head_dim as f64 * share) as usize / 2 * 2
}

impl Scaling {
    fn read(
        rope: &Fields<'_>,
        fields: &Fields<'_>,
        family: Family,
        dim: usize,
        context: usize,
    ) -> std::result::Result<Self, LoadError> {
        let kind = match rope.text("rope_type")? {
            Some(kind) => Some(kind),
            None => rope.text("type")?,
        };
        let factor = || rope.positive("factor", 1e6).map(narrow);
        match kind {
            None | Some("default" | "none") => Ok(Self::None),
            Some("linear") => Ok(Self::Linear { factor: factor()? }),
            Some("llama3") => {
                let low = narrow(rope.positive("low_freq_factor", 1e6)?);
                let high = narrow(rope.positive("high_freq_factor", 1e6)?);
                if high <= low {
                    return Err(rope.error(
                        "high_freq_factor",
                        format!("{high} is not above low_freq_factor {low}"),
                    ));
                }
                let original = rope.count("original_max_position_embeddings", MAX_CONTEXT)?;
                Ok(Self::Llama3 {
                    factor: factor()?,
                    low,
                    high,
                    original_context: original as f32,
                })
            }
            // What the first files of Phi-3 called it.
            Some("su" | "yarn") if family == Family::Phi3 => Self::long(rope, fields, dim, context),
            Some("longrope") => Self::long(rope, fields, dim, context),
            Some(_) => Err(rope.error(
                "rope_type",
                "only default, linear, llama3 and longrope are supported",
            )),
        }
    }

    fn long(
        rope: &Fields<'_>,
        fields: &Fields<'_>,
        dim: usize,
        context: usize,
    ) -> std::result::Result<Self, LoadError> {
        let factors = |field: &str| {
            let list = rope.list(field, MAX_FACTORS)?;
            let numbers = list.and_then(|list| {
                list.iter()
                    .map(|value| {
                        value
                            .as_f64()
                            .filter(|factor| *factor > 0.0 && *factor <= 1e6)
                    })
                    .collect()
            });
            let numbers: Option<Vec<f64>> = numbers;
            numbers
                .filter(|numbers| numbers.len() == dim / 2)
                .map(|numbers| numbers.into_iter().map(narrow).collect::<Vec<f32>>())
                .ok_or_else(|| rope.error(field, format!("expected {} positive numbers", dim / 2)))
        };
        const ORIGINAL: &str = "original_max_position_embeddings";
        // Phi-3 has it outside, which wins.
        let original = match fields.optional_count(ORIGINAL, MAX_CONTEXT)? {
            Some(original) => original,
            None => rope
                .optional_count(ORIGINAL, MAX_CONTEXT)?
                .unwrap_or(context),
        };
        let stretch = match rope.optional_positive("factor", 1e6)? {
            Some(factor) => factor,
            None => context as f64 / original as f64,
        };
        let magnitude = match rope.optional_positive("attention_factor", 1e6)? {
            Some(magnitude) => magnitude,
            None if stretch <= 1.0 || original < 2 => 1.0,
            None => (1.0 + stretch.ln() / (original as f64).ln()).sqrt(),
        };
        Ok(Self::Long {
            short: factors("short_factor")?,
            long: factors("long_factor")?,
            original_context: original,
            magnitude: narrow(magnitude),
        })
    }

    /// A frequency, the `index`th, for sequences that reach beyond the original context or not.
    fn apply(&self, frequency: f32, index: usize, beyond: bool) -> f32 {
        match self {
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
            Self::Long { short, long, .. } => {
                let factors = if beyond { long } else { short };
                frequency / factors.get(index).copied().unwrap_or(1.0)
            }
        }
    }
}

/// One rotation, ready to be applied.
pub(crate) struct Rope {
    frequencies: Vec<f32>,
    /// For sequences that go beyond this many positions.
    beyond: Option<(usize, Vec<f32>)>,
    magnitude: f32,
    dim: usize,
}

const DIVISORS: &str = "rope_freqs.weight";

/// Cosines and sines for the tokens of a step, `[tokens, dim / 2]`.
pub(crate) struct Angles {
    cos: Tensor,
    sin: Tensor,
    dim: usize,
}

impl Rope {
    pub(crate) fn load(
        weights: &Weights,
        rotation: &Rotation,
    ) -> std::result::Result<Self, LoadError> {
        let dim = rotation.dim;
        // GGUF has the result of a scaling, not its rule: what to divide each frequency by.
        let divisors = match weights.contains(DIVISORS) {
            true => {
                let divisors = weights.get(DIVISORS, &[dim / 2])?;
                divisors.to_vec1().map_err(LoadError::Compute)?
            }
            false => vec![1.0; dim / 2],
        };
        let frequencies = |beyond: bool| {
            let each = divisors.iter().enumerate().map(|(index, divisor)| {
                let frequency = 1.0 / rotation.theta.powf((2 * index) as f32 / dim as f32);
                rotation.scaling.apply(frequency, index, beyond) / divisor
            });
            each.collect::<Vec<f32>>()
        };
        let (beyond, magnitude) = match &rotation.scaling {
            Scaling::Long {
                original_context,
                magnitude,
                ..
            } => (Some((*original_context, frequencies(true))), *magnitude),
            _ => (None, 1.0),
        };
        Ok(Self {
            frequencies: frequencies(false),
            beyond,
            magnitude,
            dim,
        })
    }

    /// For tokens at these positions, each of a sequence that may grow to so many.
    pub(crate) fn at(&self, positions: &[(usize, usize)]) -> Result<Angles> {
        let half = self.dim / 2;
        let (mut cos, mut sin) = (
            Vec::with_capacity(positions.len() * half),
            Vec::with_capacity(positions.len() * half),
        );
        for (position, limit) in positions {
            let frequencies = match &self.beyond {
                Some((original, frequencies)) if limit > original => frequencies,
                _ => &self.frequencies,
            };
            for frequency in frequencies {
                let angle = *position as f32 * frequency;
                cos.push(angle.cos() * self.magnitude);
                sin.push(angle.sin() * self.magnitude);
            }
        }
        let shape = (positions.len(), half);
        Ok(Angles {
            cos: Tensor::from_vec(cos, shape, &Device::Cpu)?,
            sin: Tensor::from_vec(sin, shape, &Device::Cpu)?,
            dim: self.dim,
        })
    }
}

impl Angles {
    /// `x` is `[tokens, heads, head_dim]`.
    pub(crate) fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        let head_dim = x.dim(2)?;
        let turn = |x: &Tensor| {
            candle_nn::rotary_emb::rope_thd(&x.unsqueeze(0)?.contiguous()?, &self.cos, &self.sin)?
                .squeeze(0)
        };
        if self.dim == head_dim {
            return turn(x);
        }
        let still = x.narrow(2, self.dim, head_dim - self.dim)?;
        Tensor::cat(&[turn(&x.narrow(2, 0, self.dim)?)?, still], 2)
    }
}
