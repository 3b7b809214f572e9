//! Matrices in f32, in the order in which their products read them.
//!
//! The rows of a matrix become panels once, when it is read. Libraries, which do not know a matrix before, put it in order for each product.

use std::cell::RefCell;

use candle_core::{Device, Result, Tensor};

use crate::{
    parallel,
    product::{BLOCK, Product, panel_width, turn},
    rows,
};

/// Multiplications that are worth a thread's while.
const PART: usize = 1 << 18;
/// One line of the processor's caches, in bytes.
const LINE: usize = 64;
/// Tokens of one piece of work.
const TOKENS: usize = 4 * BLOCK;

thread_local! {
    /// A panel that is being turned. One for all matrices that a thread reads, or the system would clear its pages again for each.
    static LYING: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A matrix of weights, `[outputs, inputs]`.
pub(crate) struct Packed {
    /// From `start` on, the beginning of a line: panels of `width` rows, `[inputs, width]` each. Rows that the last one lacks are zeros.
    values: Vec<f32>,
    start: usize,
    width: usize,
    outputs: usize,
    inputs: usize,
}

impl Packed {
    /// `read` writes the matrix, row by row, into the memory where it stays.
    ///
    /// # Errors
    /// That of `read`.
    pub(crate) fn new<E>(
        outputs: usize,
        inputs: usize,
        read: impl FnOnce(&mut [f32]) -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        let width = panel_width();
        let length = outputs.next_multiple_of(width) * inputs;
        // Comes as zeros from the system, so no page is touched before its bytes are there.
        let mut values = vec![0f32; length + LINE / size_of::<f32>()];
        let start = values
            .as_ptr()
            .align_offset(LINE)
            .min(values.len() - length);
        let (_, panels) = values.split_at_mut(start);
        let (panels, _) = panels.split_at_mut(length);
        let (matrix, _) = panels.split_at_mut(outputs * inputs);
        read(matrix)?;
        LYING.with_borrow_mut(|lying| {
            for panel in panels.chunks_exact_mut((width * inputs).max(1)) {
                // Copied first: memory that no cache holds is fastest read as it lies.
                lying.clear();
                lying.extend_from_slice(panel);
                let rows: Vec<&[f32]> = lying.chunks_exact(inputs.max(1)).collect();
                turn(&rows, width, panel);
            }
        });
        Ok(Self {
            values,
            start,
            width,
            outputs,
            inputs,
        })
    }

    /// The rows with these numbers.
    pub(crate) fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let mut rows: Vec<f32> = Vec::with_capacity(ids.len() * self.inputs);
        for id in ids {
            let id = usize::try_from(*id).map_err(candle_core::Error::wrap)?;
            let mut panels = self
                .panels()
                .chunks_exact((self.width * self.inputs).max(1));
            let panel = panels.nth(id / self.width);
            match panel.filter(|_| id < self.outputs) {
                Some(panel) => rows.extend(panel.iter().skip(id % self.width).step_by(self.width)),
                None => candle_core::bail!("a row is beyond its matrix"),
            }
        }
        Tensor::from_vec(rows, (ids.len(), self.inputs), &Device::Cpu)
    }

    fn panels(&self) -> &[f32] {
        let panels = self.values.get(self.start..).unwrap_or_default();
        let length = self.outputs.next_multiple_of(self.width) * self.inputs;
        panels.get(..length).unwrap_or_default()
    }

    /// `x · Wᵀ + b` for the rows of `x`, `[rows, inputs]`, contiguous, in f32. `then` gets the number of each row of the product, and the row
    /// while the processor's caches still hold it.
    pub(crate) fn product(
        &self,
        x: &Tensor,
        bias: Option<&[f32]>,
        then: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Tensor> {
        let tokens = self.tokens(x, bias)?;
        let bias = bias.unwrap_or_default();
        let mut sums = vec![0f32; tokens * self.outputs];
        rows::view(x, |x| {
            let x = self.rows_of(x, tokens);
            match self.threads(tokens) {
                Threads::SideBySide(threads) => {
                    self.side_by_side(&x, bias, &mut sums, threads);
                    rows::each_of(0, &mut sums, self.outputs, then);
                }
                Threads::ByTokens(threads) => {
                    by_tokens(&x, &mut sums, self.outputs, threads, |first, x, sums| {
                        self.part(x, bias, sums);
                        rows::each_of(
                            first,
                            sums,
                            self.outputs,
                            #[inline(always)]
                            |index, row| then(index, row),
                        );
                    });
                }
            }
            Ok(())
        })?;
        Tensor::from_vec(sums, (tokens, self.outputs), &Device::Cpu)
    }

    /// `down` of `between` of this product. What lies between exists for a few tokens at a time, in the processor's caches.
    pub(crate) fn through(
        &self,
        x: &Tensor,
        bias: Option<&[f32]>,
        between: impl Fn(usize, &mut [f32]) + Sync,
        (down, down_bias): (&Self, Option<&[f32]>),
        then: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Tensor> {
        let tokens = self.tokens(x, bias)?;
        let Threads::ByTokens(threads) = self.threads(tokens) else {
            return down.product(&self.product(x, bias, between)?, down_bias, then);
        };
        if down.inputs != self.outputs || down_bias.is_some_and(|bias| bias.len() != down.outputs) {
            candle_core::bail!("a product of {} columns with {}", self.outputs, down.inputs)
        }
        let mut sums = vec![0f32; tokens * down.outputs];
        rows::view(x, |x| {
            let x = self.rows_of(x, tokens);
            by_tokens(&x, &mut sums, down.outputs, threads, |first, x, sums| {
                let mut wide = vec![0f32; x.len() * self.outputs];
                self.part(x, bias.unwrap_or_default(), &mut wide);
                rows::each_of(
                    first,
                    &mut wide,
                    self.outputs,
                    #[inline(always)]
                    |index, row| between(index, row),
                );
                let wide = down.rows_of(&wide, x.len());
                down.part(&wide, down_bias.unwrap_or_default(), sums);
                rows::each_of(
                    first,
                    sums,
                    down.outputs,
                    #[inline(always)]
                    |index, row| then(index, row),
                );
            });
            Ok(())
        })?;
        Tensor::from_vec(sums, (tokens, down.outputs), &Device::Cpu)
    }

    /// The rows of `x`, if they and the bias fit.
    fn tokens(&self, x: &Tensor, bias: Option<&[f32]>) -> Result<usize> {
        let (tokens, inputs) = x.dims2()?;
        if inputs != self.inputs || bias.is_some_and(|bias| bias.len() != self.outputs) {
            candle_core::bail!("a product of {inputs} columns with {}", self.inputs)
        }
        Ok(tokens)
    }

    fn rows_of<'a>(&self, x: &'a [f32], tokens: usize) -> Vec<&'a [f32]> {
        match self.inputs {
            0 => vec![&[]; tokens],
            inputs => x.chunks_exact(inputs).collect(),
        }
    }

    fn threads(&self, tokens: usize) -> Threads {
        let work = tokens * self.outputs * self.inputs;
        match rayon::current_num_threads().min(work / PART) {
            threads if threads > 1 && tokens < 2 * BLOCK * threads => Threads::SideBySide(threads),
            threads => Threads::ByTokens(threads.max(1)),
        }
    }

    /// For as many tokens as fit the processor's caches.
    fn part(&self, x: &[&[f32]], bias: &[f32], sums: &mut [f32]) {
        Product {
            rows: x,
            panels: self.panels(),
            bias,
            sums,
            stride: self.outputs,
            columns: 0..self.outputs,
        }
        .run();
    }

    /// Each thread has panels of its own, where there are few tokens.
    fn side_by_side(&self, x: &[&[f32]], bias: &[f32], sums: &mut [f32], threads: usize) {
        let panels = self.outputs.div_ceil(self.width).div_ceil(threads);
        let mut parts: Vec<_> = self
            .panels()
            .chunks(panels * self.width * self.inputs)
            .enumerate()
            .map(|(index, part)| {
                let first = index * panels * self.width;
                let outputs = (panels * self.width).min(self.outputs - first);
                (first..first + outputs, part, vec![0f32; x.len() * outputs])
            })
            .collect();
        parallel::for_each(parts.iter_mut().collect(), |(columns, panels, sums)| {
            Product {
                rows: x,
                panels,
                bias: bias.get(columns.clone()).unwrap_or_default(),
                sums,
                stride: columns.len(),
                columns: 0..columns.len(),
            }
            .run();
        });
        for (columns, _, made) in parts {
            let each = sums.chunks_exact_mut(self.outputs);
            for (sums, made) in each.zip(made.chunks_exact(columns.len())) {
                if let Some(sums) = sums.get_mut(columns.clone()) {
                    sums.copy_from_slice(made);
                }
            }
        }
    }
}

/// What each of so many threads has of its own.
enum Threads {
    /// Panels.
    SideBySide(usize),
    ByTokens(usize),
}

/// Calls `part` with the number of the first of some tokens, these tokens, and their rows of `sums`.
fn by_tokens(
    x: &[&[f32]],
    sums: &mut [f32],
    outputs: usize,
    threads: usize,
    part: impl Fn(usize, &[&[f32]], &mut [f32]) + Sync,
) {
    let each = match threads {
        1 => TOKENS,
        threads => TOKENS.min(x.len().div_ceil(4 * threads).next_multiple_of(BLOCK)),
    };
    let sums = sums.chunks_mut((each * outputs).max(1));
    let parts = x.chunks(each).zip(sums).enumerate();
    match threads {
        1 => parts.for_each(|(index, (x, sums))| part(index * each, x, sums)),
        _ => parallel::for_each(parts.collect(), |(index, (x, sums))| {
            part(index * each, x, sums);
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut random = StdRng::seed_from_u64(seed);
        (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
    }

    fn packed(matrix: &[f32], outputs: usize, inputs: usize) -> Packed {
        let read = |values: &mut [f32]| {
            values.copy_from_slice(matrix);
            Ok::<(), std::convert::Infallible>(())
        };
        Packed::new(outputs, inputs, read).unwrap()
    }

    /// In f64, by the definition.
    fn expected(x: &[f32], matrix: &[f32], inputs: usize, bias: Option<&[f32]>) -> Vec<f64> {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
            products.sum()
        };
        let row = |x| {
            let rows = matrix.chunks_exact(inputs).enumerate();
            let bias = |index: usize| bias.map_or(0.0, |bias| f64::from(bias[index]));
            rows.map(move |(index, row)| dot(x, row) + bias(index))
        };
        x.chunks_exact(inputs).flat_map(row).collect()
    }

    fn check(tokens: usize, outputs: usize, inputs: usize) {
        let (x, matrix) = (random(tokens * inputs, 1), random(outputs * inputs, 2));
        let bias = random(outputs, 3);
        let x_rows = Tensor::from_slice(&x, (tokens, inputs), &Device::Cpu).unwrap();
        for bias in [None, Some(bias.as_slice())] {
            let made = packed(&matrix, outputs, inputs).product(&x_rows, bias, |_, _| {});
            let made = made
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap();
            let expected = expected(&x, &matrix, inputs, bias);
            assert_eq!(made.len(), expected.len());
            for (made, expected) in made.iter().zip(&expected) {
                let off = (f64::from(*made) - expected).abs();
                assert!(
                    off < 1e-4,
                    "{tokens} · {outputs} · {inputs}: {made} {expected}"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn products_of_every_shape_are_those_of_their_definition(
            tokens in 0usize..80, outputs in 1usize..150, inputs in 1usize..90,
        ) {
            check(tokens, outputs, inputs);
        }
    }

    #[test]
    fn products_on_all_threads_and_of_many_columns_are_those_of_their_definition() {
        check(3, 700, 2 * 1024 + 5);
        check(150, 100, 1024);
        check(151, 33, 1024 + 1);
    }

    #[test]
    fn a_token_gets_the_same_bits_alone_and_among_others() {
        let (tokens, outputs, inputs) = (151, 75, 1024 + 40);
        let (x, matrix) = (random(tokens * inputs, 4), random(outputs * inputs, 5));
        let packed = packed(&matrix, outputs, inputs);
        let x = Tensor::from_vec(x, (tokens, inputs), &Device::Cpu).unwrap();
        let together = packed
            .product(&x, None, |_, _| {})
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        for (token, together) in together.iter().enumerate() {
            let alone = x.narrow(0, token, 1).unwrap();
            let alone = packed
                .product(&alone, None, |_, _| {})
                .unwrap()
                .to_vec2::<f32>()
                .unwrap();
            assert_eq!(&alone[0], together);
        }
    }

    #[test]
    fn one_product_through_another_is_both_after_each_other() {
        let (inputs, wide, outputs) = (40, 96, 33);
        let up = packed(&random(wide * inputs, 8), wide, inputs);
        let down = packed(&random(outputs * wide, 9), outputs, wide);
        let (up_bias, down_bias) = (random(wide, 10), random(outputs, 11));
        let between =
            |index: usize, row: &mut [f32]| row.iter_mut().for_each(|x| *x *= index as f32);
        let then = |index: usize, row: &mut [f32]| row[0] = index as f32;
        for tokens in [0, 1, 20, 200, 1000] {
            let x = random(tokens * inputs, 12);
            let x = Tensor::from_vec(x, (tokens, inputs), &Device::Cpu).unwrap();
            let through = up
                .through(&x, Some(&up_bias), between, (&down, Some(&down_bias)), then)
                .unwrap();
            let wide = up.product(&x, Some(&up_bias), between).unwrap();
            let after = down.product(&wide, Some(&down_bias), then).unwrap();
            let numbers = |x: Tensor| x.to_vec2::<f32>().unwrap();
            assert_eq!(numbers(through), numbers(after));
        }
        let x = Tensor::zeros((200, inputs), candle_core::DType::F32, &Device::Cpu).unwrap();
        for refused in [
            up.through(&x, None, between, (&up, None), then),
            up.through(&x, None, between, (&down, Some(&up_bias)), then),
            up.through(&x, Some(&down_bias), between, (&down, None), then),
        ] {
            assert!(refused.is_err());
        }
    }

    #[test]
    fn rows_are_found_again() {
        let (outputs, inputs) = (75, 19);
        let matrix = random(outputs * inputs, 6);
        let packed = packed(&matrix, outputs, inputs);
        let ids: Vec<u32> = (0..75).rev().collect();
        let rows = packed.rows(&ids).unwrap().to_vec2::<f32>().unwrap();
        assert!(rows.iter().rev().flatten().eq(&matrix));
        for beyond in [75, 80, u32::MAX] {
            assert!(packed.rows(&[beyond]).is_err());
        }
    }

    #[test]
    fn refuses_tokens_of_another_width() {
        let packed = packed(&random(12, 7), 3, 4);
        for shape in [(2, 3), (2, 5)] {
            let x = Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
            assert!(packed.product(&x, None, |_, _| {}).is_err());
        }
        let x = Tensor::zeros((2, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(packed.product(&x, Some(&[0.0; 4]), |_, _| {}).is_err());
    }

    #[test]
    fn what_reading_ends_with_is_told() {
        assert_eq!(Packed::new(3, 4, |_| Err("gone")).err(), Some("gone"));
    }
}
