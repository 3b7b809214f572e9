use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::EngineError;

/// Picks the next token.
pub(crate) struct Sampler {
    temperature: f64,
    top_p: f64,
    random: StdRng,
}

impl Sampler {
    pub(crate) fn new(temperature: f32, top_p: f32, seed: Option<u64>) -> Self {
        Self {
            temperature: temperature.into(),
            top_p: top_p.into(),
            random: seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64),
        }
    }

    /// # Errors
    /// `Internal` if the logits are not numbers.
    pub(crate) fn sample(&mut self, logits: &[f32]) -> Result<u32, EngineError> {
        let (best, highest) = best(logits).ok_or(EngineError::Internal)?;
        if self.temperature <= 0.0 || self.top_p <= 0.0 {
            return token(best);
        }
        let weight = |logit: f32| (f64::from(logit - highest) / self.temperature).exp();
        let total: f64 = logits.iter().map(|logit| weight(*logit)).sum();

        // Sorting a whole vocabulary at each step would cost more than the step of a small model. Tokens outside the nucleus
        // share less than 1 - top_p, so a token below their average cannot be needed to fill it.
        let floor = (1.0 - self.top_p) / logits.len() as f64 * total;
        let mut candidates: Vec<(usize, f64)> = logits
            .iter()
            .map(|logit| weight(*logit))
            .enumerate()
            .filter(|(_, weight)| *weight > floor)
            .collect();
        let mut mass = candidates.iter().map(|(_, weight)| weight).sum::<f64>();
        if self.top_p < 1.0 {
            candidates.sort_by(|(left, a), (right, b)| b.total_cmp(a).then(left.cmp(right)));
            let wanted = self.top_p * total;
            let mut sum = 0.0;
            let kept = candidates.iter().position(|(_, weight)| {
                sum += weight;
                sum >= wanted
            });
            if let Some(last) = kept {
                candidates.truncate(last + 1);
                mass = sum;
            }
        }

        let mut left = self.random.random::<f64>() * mass;
        let drawn = candidates.iter().find(|(_, weight)| {
            left -= weight;
            left < 0.0
        });
        // Rounding may leave a rest after the last candidate.
        token(
            drawn
                .or(candidates.last())
                .map_or(best, |(index, _)| *index),
        )
    }
}

/// The first of the highest logits; `None` if any is NaN, all are minus infinity, or there are none.
fn best(logits: &[f32]) -> Option<(usize, f32)> {
    let mut best: Option<(usize, f32)> = None;
    for (index, logit) in logits.iter().enumerate() {
        if logit.is_nan() || *logit == f32::INFINITY {
            return None;
        }
        if best.is_none_or(|(_, highest)| *logit > highest) {
            best = Some((index, *logit));
        }
    }
    best.filter(|(_, highest)| highest.is_finite())
}

fn token(index: usize) -> Result<u32, EngineError> {
    u32::try_from(index).map_err(|_wide| EngineError::Internal)
}

#[cfg(test)]
mod tests;
