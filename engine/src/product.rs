//! Products of matrices in f32, by one kernel for every processor's vectors.
//!
//! The right matrix is in panels: as many of its columns as two vectors have numbers, so that two vectors hold a row of the panel. Sums of up to
//! [`BLOCK`] rows of the left matrix with one panel stay in registers, and every number of the panel is read once for all of them.
//!
//! Every sum adds in the same order, whatever else is multiplied beside it.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

/// Rows whose sums fit the registers beside what they are made of: of 32 registers, and of 16.
pub(crate) const BLOCK: usize = 12;
const SMALL_BLOCK: usize = 6;
/// What is summed at a time: its part of a panel fits the processor's second cache beside the rows.
const DEPTH: usize = 1024;

/// `sums = rows · panels + bias`.
pub(crate) struct Product<'a> {
    /// Of the left matrix, each as long as a panel.
    pub(crate) rows: &'a [&'a [f32]],
    /// `[inputs, panel_width()]` each. What goes beyond the last column is not looked at.
    pub(crate) panels: &'a [f32],
    /// One for each column, or none at all.
    pub(crate) bias: &'a [f32],
    /// `[rows, stride]`: what is in `columns` of each row is written over.
    pub(crate) sums: &'a mut [f32],
    pub(crate) stride: usize,
    pub(crate) columns: Range<usize>,
}

impl Product<'_> {
    pub(crate) fn run(self) {
        Arch::new().dispatch(self);
    }
}

/// Columns of a panel.
pub(crate) fn panel_width() -> usize {
    struct Width;

    impl WithSimd for Width {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _simd: S) -> usize {
            2 * S::F32_LANES
        }
    }
    Arch::new().dispatch(Width)
}

/// Rows of one length become columns, `[rows, length]` to `[length, width]`, where `width` is not less than `rows`.
pub(crate) fn turn(rows: &[&[f32]], width: usize, turned: &mut [f32]) {
    // Few columns at a time: the lines that they come from and go to stay in the processor's first cache.
    const COLUMNS: usize = 16;
    let width = width.max(1);
    let (fours, rest) = rows.as_chunks::<4>();
    for (part, turned) in turned.chunks_mut(COLUMNS * width).enumerate() {
        for (index, rows) in fours.iter().enumerate() {
            let rows = rows.map(|row| row.get(part * COLUMNS..).unwrap_or_default());
            let [a, b, c, d] = rows.map(|row| row.as_chunks::<4>().0);
            let squares = a.iter().zip(b).zip(c).zip(d);
            for ((((a, b), c), d), turned) in squares.zip(turned.chunks_exact_mut(4 * width)) {
                let columns = turn_square([a, b, c, d]);
                for (turned, column) in turned.chunks_exact_mut(width).zip(columns) {
                    let turned = turned.get_mut(4 * index..).unwrap_or_default();
                    if let Some(turned) = turned.first_chunk_mut::<4>() {
                        *turned = column;
                    }
                }
            }
            let done = turned.len() / width / 4 * 4;
            for (place, row) in rows.iter().enumerate() {
                let (_, turned) = turned.split_at_mut(done * width);
                put(row.get(done..), 4 * index + place, width, turned);
            }
        }
        for (place, row) in rest.iter().enumerate() {
            put(
                row.get(part * COLUMNS..),
                4 * fours.len() + place,
                width,
                turned,
            );
        }
    }
}

#[inline(always)]
fn turn_square([a, b, c, d]: [&[f32; 4]; 4]) -> [[f32; 4]; 4] {
    [
        [a[0], b[0], c[0], d[0]],
        [a[1], b[1], c[1], d[1]],
        [a[2], b[2], c[2], d[2]],
        [a[3], b[3], c[3], d[3]],
    ]
}

/// A row becomes the column `place`.
fn put(row: Option<&[f32]>, place: usize, width: usize, turned: &mut [f32]) {
    let places = turned.chunks_exact_mut(width);
    let places = places.filter_map(|row| row.get_mut(place));
    for (turned, value) in places.zip(row.unwrap_or_default()) {
        *turned = *value;
    }
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let inputs = self.rows.first().map_or(0, |row| row.len());
        let (width, stride) = (2 * S::F32_LANES, self.stride);
        let sizes = blocks(self.rows.len(), S::REGISTER_COUNT);
        if inputs == 0 || self.columns.is_empty() {
            return self.sums_of_nothing();
        }
        for first in (0..inputs).step_by(DEPTH) {
            let range = first..inputs.min(first + DEPTH);
            let panels = self.panels.chunks_exact(width * inputs);
            for (panel, column) in panels.zip(self.columns.clone().step_by(width)) {
                let columns = column..self.columns.end.min(column + width);
                let start = match first {
                    0 => {
                        let bias = column - self.columns.start;
                        let bias = self.bias.get(bias..bias + columns.len());
                        Some(load(simd, bias))
                    }
                    _ => None,
                };
                let panel = panel.get(width * range.start..width * range.end);
                let panel = panel.unwrap_or_default();
                let (mut rows, mut sums) = (self.rows, &mut *self.sums);
                for size in &sizes {
                    let these = rows.split_off(..*size).unwrap_or_default();
                    let into = match sums.len() > size * stride {
                        true => sums.split_off_mut(..size * stride).unwrap_or_default(),
                        false => std::mem::take(&mut sums),
                    };
                    let into = Into {
                        sums: into,
                        stride,
                        columns: columns.clone(),
                        start,
                    };
                    match size {
                        12 => add::<S, 12>(simd, these, &range, panel, into),
                        6 => add::<S, 6>(simd, these, &range, panel, into),
                        4 => add::<S, 4>(simd, these, &range, panel, into),
                        2 => add::<S, 2>(simd, these, &range, panel, into),
                        _ => add::<S, 1>(simd, these, &range, panel, into),
                    }
                }
            }
        }
    }
}

impl Product<'_> {
    /// Of rows without a number.
    fn sums_of_nothing(self) {
        for row in self.sums.chunks_mut(self.stride.max(1)) {
            let sums = row.get_mut(self.columns.clone()).unwrap_or_default();
            sums.fill(0.0);
            for (sum, bias) in sums.iter_mut().zip(self.bias) {
                *sum = *bias;
            }
        }
    }
}

/// How many tokens are summed together, one block after the other.
fn blocks(tokens: usize, registers: usize) -> Vec<usize> {
    let largest = match registers >= 32 {
        true => BLOCK,
        false => SMALL_BLOCK,
    };
    let mut blocks = vec![largest; tokens / largest];
    let mut rest = tokens % largest;
    for size in [SMALL_BLOCK, 4, 2, 1] {
        blocks.extend(std::iter::repeat_n(size, rest / size));
        rest %= size;
    }
    blocks
}

/// Where sums of a block with a panel go.
struct Into<'a, S: Simd> {
    sums: &'a mut [f32],
    stride: usize,
    columns: Range<usize>,
    /// What they begin with; what is in their places already if nothing.
    start: Option<[S::f32s; 2]>,
}

/// One block of rows with one panel.
#[inline(always)]
fn add<S: Simd, const ROWS: usize>(
    simd: S,
    rows: &[&[f32]],
    range: &Range<usize>,
    panel: &[f32],
    Into {
        sums,
        stride,
        columns,
        start,
    }: Into<'_, S>,
) {
    let place = |row: usize| row * stride + columns.start..row * stride + columns.end;
    let mut held: [_; ROWS] = match start {
        Some(start) => [start; ROWS],
        None => std::array::from_fn(
            #[inline(always)]
            |row| load(simd, sums.get(place(row))),
        ),
    };
    let (panel, _) = S::as_simd_f32s(panel);
    let (panel, _) = panel.as_chunks::<2>();
    let depth = panel.len();
    let x: [&[f32]; ROWS] = std::array::from_fn(
        #[inline(always)]
        |row| {
            let x = rows.get(row).and_then(|x| x.get(range.clone()));
            x.and_then(|x| x.get(..depth)).unwrap_or_default()
        },
    );
    if x.iter().any(|x| x.len() != depth) {
        return;
    }
    for (place, [low, high]) in panel.iter().enumerate() {
        for (held, x) in held.iter_mut().zip(x) {
            let Some(x) = x.get(place) else { break };
            let x = simd.splat_f32s(*x);
            held[0] = simd.mul_add_e_f32s(x, *low, held[0]);
            held[1] = simd.mul_add_e_f32s(x, *high, held[1]);
        }
    }
    for (row, held) in held.into_iter().enumerate() {
        let Some(sums) = sums.get_mut(place(row)) else {
            return;
        };
        match S::as_mut_simd_f32s(sums).0 {
            [low, high] => [*low, *high] = held,
            _ => {
                let (low, high) = sums.split_at_mut(S::F32_LANES.min(columns.len()));
                simd.partial_store_f32s(low, held[0]);
                simd.partial_store_f32s(high, held[1]);
            }
        }
    }
}

/// Zeros where there are no more numbers.
#[inline(always)]
fn load<S: Simd>(simd: S, values: Option<&[f32]>) -> [S::f32s; 2] {
    let values = values.unwrap_or_default();
    match S::as_simd_f32s(values).0 {
        [low, high] => [*low, *high],
        _ => {
            let (low, high) = values.split_at(S::F32_LANES.min(values.len()));
            [simd.partial_load_f32s(low), simd.partial_load_f32s(high)]
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_turns_to_its_place(rows in 0usize..40, wider in 0usize..5, length in 0usize..50) {
            let width = rows + wider;
            let numbers: Vec<f32> = (0..rows * length).map(|number| number as f32 + 1.0).collect();
            let of_length: Vec<&[f32]> = (0..rows).map(|row| &numbers[row * length..(row + 1) * length]).collect();
            let mut turned = vec![0.0; length * width];
            turn(&of_length, width, &mut turned);
            for (column, places) in turned.chunks_exact(width.max(1)).enumerate() {
                for (row, found) in places.iter().enumerate() {
                    let expected = of_length.get(row).map_or(0.0, |row| row[column]);
                    prop_assert_eq!(*found, expected);
                }
            }
        }
    }

    #[test]
    fn nothing_beside_the_columns_is_written() {
        let rows = [[1.0f32, 2.0], [3.0, 4.0]];
        let panels = vec![1.0; 2 * panel_width()];
        for columns in [2..3, 0..5, 4..5] {
            let mut sums = vec![-1.0; 10];
            Product {
                rows: &[&rows[0], &rows[1]],
                panels: &panels,
                bias: &[],
                sums: &mut sums,
                stride: 5,
                columns: columns.clone(),
            }
            .run();
            for (index, sum) in sums.iter().enumerate() {
                let expected = match columns.contains(&(index % 5)) {
                    true => [3.0, 7.0][index / 5],
                    false => -1.0,
                };
                assert_eq!(*sum, expected, "{columns:?}, {index}");
            }
        }
    }

    #[test]
    fn sums_of_nothing_are_the_bias() {
        let mut sums = vec![-1.0; 6];
        Product {
            rows: &[&[], &[]],
            panels: &[],
            bias: &[1.0, 2.0],
            sums: &mut sums,
            stride: 3,
            columns: 1..3,
        }
        .run();
        assert_eq!(sums, [-1.0, 1.0, 2.0, -1.0, 1.0, 2.0]);
    }
}
