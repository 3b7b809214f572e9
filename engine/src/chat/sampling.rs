//! From logits to the next token. A vocabulary has 128,000 tokens and more: none of this sorts all of it, and what is as long as the
//! vocabulary lies in a [`Scratch`] that all sequences use in turn.

mod likeliest;
mod penalties;
mod weights;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{ChatRequest, EngineError};
pub(crate) use likeliest::Likeliest;
use likeliest::nucleus;
use penalties::Penalties;
pub(crate) use weights::highest;
use weights::{sum, weigh};

/// Picks the next token.
pub(crate) struct Sampler {
    temperature: f32,
    top_p: f32,
    /// 0 for all.
    top_k: usize,
    min_p: f32,
    bias: Vec<(u32, f32)>,
    penalties: Option<Penalties>,
    random: StdRng,
}

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct Scratch {
    weights: Vec<f32>,
    candidates: Likeliest,
    /// Logits as the model gave them.
    raw: Vec<f32>,
}

impl Scratch {
    /// Keeps the logits of one step, and returns the sum of their exponentials over that of the highest.
    pub(crate) fn keep(&mut self, logits: &[f32], highest: f32) -> f64 {
        self.raw.clear();
        self.raw.extend_from_slice(logits);
        weigh(logits, highest, 1.0, &mut self.weights)
    }

    pub(crate) fn kept(&self, token: u32) -> Option<f32> {
        self.raw.get(token as usize).copied()
    }
}

impl Sampler {
    /// For one choice of a checked request.
    pub(crate) fn new(request: &ChatRequest, choice: u32, prompt: &[u32]) -> Self {
        // Each choice its own seed; the first has the request's.
        let seed = request
            .seed
            .map(|seed| seed.wrapping_add(u64::from(choice).wrapping_mul(GOLDEN)));
        Self {
            temperature: request.temperature,
            top_p: request.top_p,
            top_k: usize::try_from(request.top_k).unwrap_or(0),
            min_p: request.min_p,
            bias: request.logit_bias.clone(),
            penalties: Penalties::new(request, prompt),
            random: seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64),
        }
    }

    /// Changes logits by what was asked for; what may not come is made minus infinity elsewhere.
    pub(crate) fn adjust(&self, logits: &mut [f32]) {
        if let Some(penalties) = &self.penalties {
            penalties.apply(logits);
        }
        for (token, bias) in &self.bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
    }

    /// `logits` are adjusted.
    ///
    /// # Errors
    /// `Internal` if the logits are not numbers.
    pub(crate) fn sample(
        &mut self,
        logits: &[f32],
        scratch: &mut Scratch,
    ) -> Result<u32, EngineError> {
        let (best, highest) = highest(logits).ok_or(EngineError::Internal)?;
        let token = if self.temperature <= 0.0 || self.top_p <= 0.0 || self.top_k == 1 {
            best
        } else {
            self.draw(logits, highest, scratch).unwrap_or(best)
        };
        if let Some(penalties) = &mut self.penalties {
            penalties.made(token);
        }
        Ok(token)
    }

    /// `None` where rounding leaves a rest after the last candidate.
    fn draw(&mut self, logits: &[f32], highest: f32, scratch: &mut Scratch) -> Option<u32> {
        let Scratch {
            weights,
            candidates,
            ..
        } = scratch;
        // The likeliest weighs 1.
        let total = weigh(
            logits,
            highest,
            self.temperature.recip().min(STEEPEST),
            weights,
        );
        let few = (1..weights.len()).contains(&self.top_k);
        if !few && self.top_p >= 1.0 && self.min_p <= 0.0 {
            return self.draw_any(weights, total);
        }
        let mut mass = total;
        if few {
            candidates.largest(weights, self.top_k);
            mass = candidates.sum();
        } else {
            // Tokens outside the nucleus share less than 1 - top_p, so a token below their average cannot be needed to fill it.
            let average = (1.0 - f64::from(self.top_p)) / weights.len() as f64 * total;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a bound, a hair below what is needed"
            )]
            let floor = match self.top_p < 1.0 {
                true => (average * BELOW) as f32,
                false => self.min_p * BELOW as f32,
            };
            candidates.above(weights, floor);
        }
        if self.top_p < 1.0 {
            nucleus(candidates, f64::from(self.top_p) * mass);
        }
        if self.min_p > 0.0 {
            candidates.at_least(self.min_p);
        }
        let mut left = self.random.random::<f64>() * candidates.sum();
        let drawn = candidates.iter().find(|(_, weight)| {
            left -= f64::from(*weight);
            left < 0.0
        });
        drawn.or(candidates.iter().last()).map(|(token, _)| token)
    }

    /// From all tokens: over sums of stretches first, then inside one.
    fn draw_any(&mut self, weights: &[f32], total: f64) -> Option<u32> {
        let mut left = self.random.random::<f64>() * total;
        for (index, stretch) in weights.chunks(weights::STRETCH).enumerate() {
            let whole = sum(stretch);
            if left >= whole {
                left -= whole;
                continue;
            }
            let place = stretch.iter().position(|weight| {
                left -= f64::from(*weight);
                left < 0.0
            });
            // By rounding the parts may be less than the whole: the last that can come.
            let place = place.or_else(|| stretch.iter().rposition(|weight| *weight > 0.0))?;
            return u32::try_from(index * weights::STRETCH + place).ok();
        }
        None
    }
}

/// Makes the seeds of choices differ in many bits.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// Of one over the temperature: differences of logits times this are numbers still.
const STEEPEST: f32 = 1e30;
/// A hair: [`Likeliest::above`] leaves out what is equal, which may be needed.
const BELOW: f64 = 1.0 - 1e-6;

#[cfg(test)]
mod tests;
