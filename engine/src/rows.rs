//! Changes to the rows of a matrix, in its own memory, on all threads and in vectors as wide as the processor has.

mod math;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor};

use crate::parallel;
pub(crate) use math::{Activation, exp};

const LANES: usize = 16;
/// Numbers that are worth a thread's while.
const PART: usize = 1 << 13;

/// Calls `work` with the number of each row and the row. `x` is `[rows, width]` or longer, contiguous, in f32, and shared with
/// nobody: a product that was just made.
///
/// `work` must be `#[inline(always)]` all the way down to be compiled for the processor's vectors.
pub(crate) fn each(x: &Tensor, work: impl Fn(usize, &mut [f32]) + Sync) -> Result<()> {
    let width = x.dim(candle_core::D::Minus1)?;
    x.inplace_op1(&Each { width, work })
}

struct Each<F> {
    width: usize,
    work: F,
}

impl<F: Fn(usize, &mut [f32]) + Sync> InplaceOp1 for Each<F> {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets())
        else {
            candle_core::bail!("rows are not contiguous numbers in f32")
        };
        let Some(values) = values.get_mut(start..end) else {
            candle_core::bail!("rows are beyond their matrix")
        };
        let width = self.width.max(1);
        let rows = (PART / width).max(1);
        let part = |(index, part): (usize, &mut [f32])| {
            each_of(
                index * rows,
                part,
                width,
                #[inline(always)]
                |index, row| (self.work)(index, row),
            );
        };
        match values.len() <= rows * width {
            true => part((0, values)),
            false => {
                let parts = values.chunks_mut(rows * width).enumerate();
                parallel::for_each(parts.collect(), part);
            }
        }
        Ok(())
    }
}

/// As [`each`], on this thread, for rows of a matrix from the `first` on. A reference to a closure would be called, not inlined.
pub(crate) fn each_of(
    first: usize,
    values: &mut [f32],
    width: usize,
    work: impl Fn(usize, &mut [f32]),
) {
    with_widest_vectors(
        #[inline(always)]
        || {
            for (row, values) in values.chunks_exact_mut(width.max(1)).enumerate() {
                work(first + row, values);
            }
        },
    );
}

/// The numbers of a contiguous matrix in f32, as they lie.
pub(crate) fn view<R>(x: &Tensor, read: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = x.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => match values.get(start..end)
        {
            Some(values) => read(values),
            None => candle_core::bail!("rows are beyond their matrix"),
        },
        _ => candle_core::bail!("rows are not contiguous numbers in f32"),
    }
}

/// A layer norm: rows of mean 0 and variance 1, times a weight, plus a bias where there is one.
pub(crate) struct LayerNorm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) epsilon: f32,
}

impl LayerNorm {
    /// In the memory of `x`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<()> {
        each(
            x,
            #[inline(always)]
            |_, row| self.row(row),
        )
    }

    #[inline(always)]
    pub(crate) fn row(&self, row: &mut [f32]) {
        let size = row.len() as f32;
        let mean = sum(row, itself) / size;
        let variance = sum(
            row,
            #[inline(always)]
            |value| (value - mean) * (value - mean),
        ) / size;
        let scale = 1.0 / (variance + self.epsilon).sqrt();
        for ((value, weight), bias) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
            *value = (*value - mean) * scale * weight + bias;
        }
    }
}

/// `x + beside`, in the memory of `x`.
pub(crate) fn add_matrix(x: &Tensor, beside: &Tensor) -> Result<()> {
    view(beside, |beside| {
        each(
            x,
            #[inline(always)]
            |index, row| add_row(index, row, beside),
        )
    })
}

/// To a row, the row with the same number of a matrix of the same width.
#[inline(always)]
pub(crate) fn add_row(index: usize, row: &mut [f32], matrix: &[f32]) {
    let beside = same_row(index, row.len(), matrix);
    for (value, beside) in row.iter_mut().zip(beside) {
        *value += beside;
    }
}

/// None where the matrix has no such row.
#[inline(always)]
pub(crate) fn same_row(index: usize, width: usize, matrix: &[f32]) -> &[f32] {
    let start = index * width;
    matrix.get(start..start + width).unwrap_or_default()
}

/// In lanes, which the compiler makes vectors of; the order of additions is the same on every processor.
#[inline(always)]
pub(crate) fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (lanes, rest) = values.as_chunks::<LANES>();
    for lane in lanes {
        for (sum, value) in sums.iter_mut().zip(lane) {
            *sum += of(*value);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| of(*value)).sum::<f32>()
}

#[inline(always)]
pub(crate) fn itself(value: f32) -> f32 {
    value
}

/// Minus infinity of none, and whatever is a number of those that are none.
#[inline(always)]
pub(crate) fn highest(values: &[f32]) -> f32 {
    let higher = |a: f32, b: f32| if b > a { b } else { a };
    let mut best = [f32::NEG_INFINITY; LANES];
    let (lanes, rest) = values.as_chunks::<LANES>();
    for lane in lanes {
        for (best, value) in best.iter_mut().zip(lane) {
            *best = higher(*best, *value);
        }
    }
    best.into_iter()
        .chain(rest.iter().copied())
        .fold(f32::NEG_INFINITY, higher)
}

/// Compiled for any processor, for one with AVX2 and for one with AVX-512.
pub(crate) fn with_widest_vectors(work: impl FnOnce()) {
    pulp::Arch::new().dispatch(work);
}
