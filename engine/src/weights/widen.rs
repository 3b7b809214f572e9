//! f16 and bf16 to f32 in the memory of the f32.

use half::slice::{HalfBitsSliceExt as _, HalfFloatSliceExt as _};
use rayon::prelude::*;

/// Numbers that one thread widens at a time.
const PART: usize = 1 << 18;

/// The upper half of `values` holds as many 16-bit numbers as `values` has places; afterwards `values` holds them.
///
/// The first half of the numbers lies behind the places it goes to, so it can be widened by several threads at once. What is left
/// is the same task for the rest, half as large.
pub(super) fn in_place(values: &mut [f32], widen: fn(&[u16], &mut [f32])) {
    let mut rest = values;
    while rest.len() > 1 {
        let (places, later) = rest.split_at_mut(rest.len() / 2);
        let bits: &[u16] = bytemuck::cast_slice(later);
        // The numbers end where `later` does, and there are as many as `rest` has places.
        let (from, count) = (later.len() - places.len(), places.len());
        if let Some(bits) = bits.get(from..from + count) {
            places
                .par_chunks_mut(PART)
                .zip(bits.par_chunks(PART))
                .for_each(|(places, bits)| widen(bits, places));
        }
        rest = later;
    }
    if let [value] = rest {
        let [_, bits]: [u16; 2] = bytemuck::cast(*value);
        widen(&[bits], std::slice::from_mut(value));
    }
}

pub(super) fn f16(bits: &[u16], values: &mut [f32]) {
    let halves: &[half::f16] = bits.reinterpret_cast();
    halves.convert_to_f32_slice(values);
}

pub(super) fn bf16(bits: &[u16], values: &mut [f32]) {
    for (value, bits) in values.iter_mut().zip(bits) {
        *value = f32::from_bits(u32::from(*bits) << 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As [`in_place`] finds them: the numbers in the upper half.
    fn packed(numbers: &[u16]) -> Vec<f32> {
        let mut bits = vec![0xffff; numbers.len()];
        bits.extend_from_slice(numbers);
        bits.chunks(2)
            .map(|pair| bytemuck::cast([pair[0], pair[1]]))
            .collect()
    }

    #[test]
    fn every_number_arrives_at_its_place_whatever_their_count() {
        for count in (0..40).chain([255, 256, 257, 1000, 3 * PART + 5]) {
            let numbers: Vec<u16> = (0..0x7f80).cycle().take(count).collect();
            let mut values = packed(&numbers);
            in_place(&mut values, bf16);
            let expected: Vec<f32> = numbers
                .iter()
                .map(|bits| half::bf16::from_bits(*bits).to_f32())
                .collect();
            assert_eq!(values, expected, "{count}");
        }
    }

    #[test]
    fn halves_keep_their_values() {
        let numbers: Vec<half::f16> = (0..999)
            .map(|n| half::f16::from_f32(n as f32 / 7.0))
            .collect();
        let bits: Vec<u16> = numbers.iter().map(|number| number.to_bits()).collect();
        let mut values = packed(&bits);
        in_place(&mut values, f16);
        let expected: Vec<f32> = numbers.iter().map(|number| number.to_f32()).collect();
        assert_eq!(values, expected);
    }
}
