//! The order of the rows of a head.

/// `values` holds rows of `width`, heads of `head_dim` rows. Rotary pairs that are neighbours become one half and the other: row
/// `2i + j` of a head goes to `i + j · head_dim / 2`. `None` where the rows are not whole heads.
pub(super) fn halve<T: Copy>(values: &mut [T], width: usize, head_dim: usize) -> Option<()> {
    let head = width.checked_mul(head_dim).filter(|head| *head > 0)?;
    if !values.len().is_multiple_of(head) || !head_dim.is_multiple_of(2) {
        return None;
    }
    let mut odd = Vec::with_capacity(head / 2);
    for head in values.chunks_exact_mut(head) {
        odd.clear();
        for row in 0..head_dim {
            let from = row * width..(row + 1) * width;
            if row % 2 == 1 {
                odd.extend_from_slice(head.get(from)?);
            } else {
                // Never before a row that is still to be read: it goes to half its number.
                head.copy_within(from, row / 2 * width);
            }
        }
        head.get_mut(head_dim / 2 * width..)?.copy_from_slice(&odd);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `LlamaModel.permute` of llama.cpp's `convert_hf_to_gguf.py`: reshape to (heads, 2, rows / 2, width), swap axes 1 and 2.
    fn interleave(values: &[u32], width: usize, head_dim: usize) -> Vec<u32> {
        let mut out = Vec::new();
        for head in values.chunks(width * head_dim) {
            for pair in 0..head_dim / 2 {
                for half in 0..2 {
                    let row = half * head_dim / 2 + pair;
                    out.extend_from_slice(&head[row * width..][..width]);
                }
            }
        }
        out
    }

    #[test]
    fn undoes_what_the_converter_does() {
        for (heads, head_dim, width) in [(1, 2, 1), (3, 4, 1), (2, 8, 5), (4, 64, 3)] {
            let values: Vec<u32> = (0..).take(heads * head_dim * width).collect();
            let mut stored = interleave(&values, width, head_dim);
            assert!(head_dim == 2 || stored != values);
            halve(&mut stored, width, head_dim).unwrap();
            assert_eq!(stored, values);
        }
    }

    #[test]
    fn refuses_rows_that_are_no_heads() {
        assert!(halve(&mut [0; 12], 1, 8).is_none());
        assert!(halve(&mut [0; 9], 1, 3).is_none());
        assert!(halve(&mut [0; 4], 0, 2).is_none());
        assert!(halve(&mut [0; 4], usize::MAX, 2).is_none());
    }
}
