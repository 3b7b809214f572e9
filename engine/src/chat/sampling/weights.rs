//! Passes over a vocabulary, in lanes which the compiler makes vectors of. The order of additions is the same on every processor.

use crate::rows::with_widest_vectors;

const LANES: usize = 16;
/// Weights that are summed in single precision; the sums of stretches are summed in double.
pub(crate) const STRETCH: usize = 1024;

/// The first of the highest logits; `None` if any is NaN, all are minus infinity, or there are none.
pub(crate) fn highest(logits: &[f32]) -> Option<(u32, f32)> {
    let mut found = (f32::NEG_INFINITY, false);
    with_widest_vectors(|| found = highest_value(logits));
    let (highest, not_a_number) = found;
    if not_a_number || !highest.is_finite() {
        return None;
    }
    let first = logits.iter().position(|logit| *logit == highest)?;
    Some((u32::try_from(first).ok()?, highest))
}

#[inline(always)]
fn highest_value(logits: &[f32]) -> (f32, bool) {
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut highest = [f32::NEG_INFINITY; LANES];
    let mut strange = [false; LANES];
    for chunk in chunks {
        for ((highest, strange), logit) in highest.iter_mut().zip(&mut strange).zip(chunk) {
            *highest = if *logit > *highest { *logit } else { *highest };
            *strange |= logit.is_nan();
        }
    }
    let mut value = f32::NEG_INFINITY;
    for logit in highest.iter().chain(rest) {
        value = if *logit > value { *logit } else { value };
    }
    let strange = strange.contains(&true) || rest.iter().any(|logit| logit.is_nan());
    (value, strange)
}

/// `weights` become e^((logit - highest) · steep); their sum.
pub(crate) fn weigh(logits: &[f32], highest: f32, steep: f32, weights: &mut Vec<f32>) -> f64 {
    weights.resize(logits.len(), 0.0);
    with_widest_vectors(|| exponentials(logits, highest, steep, weights));
    weights.chunks(STRETCH).map(sum).sum()
}

#[inline(always)]
fn exponentials(logits: &[f32], highest: f32, steep: f32, weights: &mut [f32]) {
    let (from, rest) = logits.as_chunks::<LANES>();
    let (to, last) = weights.as_chunks_mut::<LANES>();
    for (from, to) in from.iter().zip(to) {
        for (logit, weight) in from.iter().zip(to) {
            *weight = exponential((logit - highest) * steep);
        }
    }
    for (logit, weight) in rest.iter().zip(last) {
        *weight = exponential((logit - highest) * steep);
    }
}

pub(crate) fn sum(weights: &[f32]) -> f64 {
    let mut all = 0.0;
    with_widest_vectors(|| all = sum_in_lanes(weights));
    all
}

#[inline(always)]
fn sum_in_lanes(weights: &[f32]) -> f64 {
    let (chunks, rest) = weights.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for chunk in chunks {
        for (sum, weight) in sums.iter_mut().zip(chunk) {
            *sum += weight;
        }
    }
    sums.iter().chain(rest).map(|sum| f64::from(*sum)).sum()
}

/// e^x for x up to 0, to a few units in the last place; 0 below what a normal number can say. Cephes' polynomial: 2^n for the whole
/// part, a series for the rest.
#[inline(always)]
#[expect(
    clippy::excessive_precision,
    reason = "the constants as they are published"
)]
fn exponential(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    /// 1.5 · 2^23: adding it rounds to a whole number, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let at_least = if x > LOWEST { x } else { LOWEST };
    let shifted = at_least * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = at_least - whole * 0.693_359_375 - whole * -2.121_944_4e-4;
    let mut series = 1.987_569_15e-4;
    series = series * rest + 1.398_199_95e-3;
    series = series * rest + 8.333_451_9e-3;
    series = series * rest + 4.166_579_6e-2;
    series = series * rest + 1.666_666_55e-1;
    series = series * rest + 5.000_000_1e-1;
    let series = series * rest * rest + rest + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x > LOWEST { series * scale } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_the_library() {
        for step in 0..87_000 {
            let x = -0.001 * step as f32;
            let (ours, theirs) = (exponential(x), x.exp());
            assert!(
                (ours - theirs).abs() <= theirs * 3e-7,
                "{x}: {ours}, {theirs}"
            );
        }
        assert_eq!(exponential(0.0), 1.0);
        for nothing in [-87.5, -1e30, f32::NEG_INFINITY] {
            assert_eq!(exponential(nothing), 0.0);
        }
    }

    #[test]
    fn the_highest_is_found_in_every_lane() {
        for length in [1, 15, 16, 17, 100] {
            for (place, token) in (0..length).zip(0..) {
                let mut logits = vec![-1.0; length];
                logits[place] = 2.0;
                assert_eq!(highest(&logits), Some((token, 2.0)));
                logits[place] = f32::NAN;
                assert_eq!(highest(&logits), None);
                logits[place] = f32::INFINITY;
                assert_eq!(highest(&logits), None);
                logits[place] = f32::NEG_INFINITY;
                assert_eq!(highest(&logits).is_some(), length > 1);
            }
        }
    }

    #[test]
    fn sums_have_every_weight() {
        for length in [0, 1, 16, 31, 3000] {
            let logits = vec![0.0; length];
            let mut weights = vec![5.0; 7];
            assert_eq!(weigh(&logits, 0.0, 1.0, &mut weights), length as f64);
            assert_eq!(weights, vec![1.0; length]);
        }
    }
}
