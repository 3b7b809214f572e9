//! The likeliest tokens of a vocabulary, without sorting it.

use std::cmp::Ordering;

/// Tokens with their weights, in no order. Of equals the first in the vocabulary is the likelier.
#[derive(Default)]
pub(crate) struct Likeliest(Vec<(u32, f32)>);

impl Likeliest {
    /// The `count` largest, which may be logits as well.
    pub(crate) fn largest(&mut self, values: &[f32], count: usize) {
        self.0.clear();
        if count == 0 {
            return;
        }
        // As many again may come before the smaller half is thrown out.
        let full = count.saturating_mul(2).max(64);
        let mut floor = f32::NEG_INFINITY;
        for (start, chunk) in (0..).step_by(CHUNK).zip(values.chunks(CHUNK)) {
            // What equals the last of them comes later in the vocabulary, and is not likelier.
            if !any_above(chunk, floor) {
                continue;
            }
            for (token, value) in (start..).zip(chunk).filter(|(_, value)| **value > floor) {
                self.0.push((token, *value));
            }
            if self.0.len() >= full {
                floor = self.keep(count).unwrap_or(floor);
            }
        }
        self.keep(count);
    }

    /// Those above `floor`.
    pub(crate) fn above(&mut self, weights: &[f32], floor: f32) {
        self.0.clear();
        for (start, chunk) in (0..).step_by(CHUNK).zip(weights.chunks(CHUNK)) {
            if any_above(chunk, floor) {
                let candidates = (start..).zip(chunk.iter().copied());
                self.0
                    .extend(candidates.filter(|(_, weight)| *weight > floor));
            }
        }
    }

    pub(crate) fn at_least(&mut self, weight: f32) {
        self.0.retain(|(_, each)| *each >= weight);
    }

    pub(crate) fn sum(&self) -> f64 {
        self.0.iter().map(|(_, weight)| f64::from(*weight)).sum()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (u32, f32)> {
        self.0.iter().copied()
    }

    /// The likeliest first: for a few.
    pub(crate) fn sort(&mut self) {
        self.0.sort_unstable_by(order);
    }

    /// Throws out all but the `count` likeliest. The value of the last of them.
    fn keep(&mut self, count: usize) -> Option<f32> {
        if count < self.0.len() {
            self.0.select_nth_unstable_by(count, order);
            self.0.truncate(count);
        }
        let last = self.0.iter().max_by(|a, b| order(a, b));
        last.filter(|_| self.0.len() == count)
            .map(|(_, value)| *value)
    }
}

/// Most of a vocabulary is passed over this many at a time.
const CHUNK: usize = 64;

/// Without a branch in it, so that the compiler makes vectors of it.
fn any_above(chunk: &[f32], floor: f32) -> bool {
    chunk
        .iter()
        .fold(false, |any, value| any | (*value > floor))
}

fn order((left, a): &(u32, f32), (right, b): &(u32, f32)) -> Ordering {
    b.total_cmp(a).then(left.cmp(right))
}

/// Keeps the fewest of the likeliest that together reach `wanted`; all, if they do not. Looks at half as many in each round.
pub(crate) fn nucleus(Likeliest(candidates): &mut Likeliest, wanted: f64) {
    let (mut low, mut high) = (0, candidates.len());
    let mut before = 0.0;
    // Those before `low` are in; those from `high` on are out, unless all are needed.
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(open) = candidates.get_mut(low..high) else {
            return;
        };
        open.select_nth_unstable_by(middle - low, order);
        let Some(heavier) = open.get(..=middle - low) else {
            return;
        };
        let sum: f64 = heavier.iter().map(|(_, weight)| f64::from(*weight)).sum();
        if before + sum >= wanted {
            high = middle;
        } else {
            before += sum;
            low = middle + 1;
        }
    }
    // The one at which it was reached is in.
    candidates.truncate(low + 1);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(weights: &[f32]) -> Vec<(u32, f32)> {
        let mut all: Vec<_> = (0..).zip(weights.iter().copied()).collect();
        all.sort_by(order);
        all
    }

    proptest! {
        #[test]
        fn the_largest_are_the_first_of_all_sorted(
            weights in proptest::collection::vec(0..40u8, 0..500), count in 0..200usize,
        ) {
            let weights: Vec<f32> = weights.into_iter().map(f32::from).collect();
            let mut found = Likeliest::default();
            found.largest(&weights, count);
            found.sort();
            let mut expected = sorted(&weights);
            expected.truncate(count);
            prop_assert_eq!(found.0, expected);
        }

        #[test]
        fn the_nucleus_is_the_shortest_beginning_of_all_sorted(
            weights in proptest::collection::vec(1..40u8, 1..300), share in 0.0..1.0f64,
        ) {
            let weights: Vec<f32> = weights.into_iter().map(f32::from).collect();
            let wanted = share * weights.iter().map(|weight| f64::from(*weight)).sum::<f64>();
            let mut found = Likeliest::default();
            found.above(&weights, 0.0);
            nucleus(&mut found, wanted);
            found.sort();
            let mut reached = 0.0;
            let mut expected = sorted(&weights);
            let last = expected.iter().position(|(_, weight)| {
                reached += f64::from(*weight);
                reached >= wanted
            });
            expected.truncate(last.unwrap_or(expected.len()) + 1);
            prop_assert_eq!(found.0, expected);
        }
    }
}
