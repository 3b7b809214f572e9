//! Where each segment of a file lies, in plaintext and in ciphertext. Arithmetic only.

use std::ops::Range;

/// Ciphertext bytes of a full segment.
pub(crate) const SEGMENT: usize = 1 << 20;
pub(crate) const TAG: usize = 16;
/// Length byte, salt, nonce prefix.
pub(crate) const HEADER: usize = 1 + 32 + 7;
/// Plaintext bytes of a full segment; the first makes room for the header.
const PLAIN: u64 = (SEGMENT - TAG) as u64;
const FIRST_PLAIN: u64 = (SEGMENT - TAG - HEADER) as u64;
/// 1 TiB: beyond any model file, and far below the 2^32 segments that the nonce can count.
pub(crate) const MAX_PLAINTEXT: u64 = 1 << 40;

/// The segments of a file with a given plaintext length. An empty file has one, empty, segment: its tag vouches for the emptiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    plaintext: u64,
    segments: u32,
}

impl Layout {
    /// None where `plaintext` is longer than [`MAX_PLAINTEXT`].
    pub(crate) fn new(plaintext: u64) -> Option<Self> {
        if plaintext > MAX_PLAINTEXT {
            return None;
        }
        let further = plaintext.saturating_sub(FIRST_PLAIN).div_ceil(PLAIN);
        Some(Self {
            plaintext,
            segments: u32::try_from(further + 1).ok()?,
        })
    }

    pub(crate) fn plaintext_len(&self) -> u64 {
        self.plaintext
    }

    pub(crate) fn ciphertext_len(&self) -> u64 {
        HEADER as u64 + self.plaintext + u64::from(self.segments) * TAG as u64
    }

    pub(crate) fn segments(&self) -> u32 {
        self.segments
    }

    pub(crate) fn is_last(&self, segment: u32) -> bool {
        segment + 1 == self.segments
    }

    /// The segment that holds the plaintext byte at `offset`.
    pub(crate) fn segment_at(&self, offset: u64) -> u32 {
        if offset < FIRST_PLAIN {
            return 0;
        }
        let segment = 1 + (offset - FIRST_PLAIN) / PLAIN;
        u32::try_from(segment).unwrap_or(u32::MAX)
    }

    pub(crate) fn plaintext_of(&self, segment: u32) -> Range<u64> {
        let start = match segment {
            0 => 0,
            further => FIRST_PLAIN + u64::from(further - 1) * PLAIN,
        };
        let end = FIRST_PLAIN + u64::from(segment) * PLAIN;
        start.min(self.plaintext)..end.min(self.plaintext)
    }

    /// Ciphertext and tag, without the header.
    pub(crate) fn ciphertext_of(&self, segment: u32) -> Range<u64> {
        let start = match segment {
            0 => HEADER as u64,
            further => u64::from(further) * SEGMENT as u64,
        };
        let plain = self.plaintext_of(segment);
        start..start + (plain.end - plain.start) + TAG as u64
    }
}

/// The length of a range that lies within one segment, or within a buffer that exists.
pub(crate) fn len_of(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lengths that Tink's own implementation wrote.
    #[test]
    fn lengths_are_those_of_tink() {
        for (plaintext, segments, ciphertext) in [
            (0, 1, 56),
            (1, 1, 57),
            (1_048_520, 1, 1_048_576),
            (1_048_521, 2, 1_048_593),
            (3_000_000, 3, 3_000_088),
        ] {
            let layout = Layout::new(plaintext).unwrap();
            assert_eq!(layout.segments(), segments, "{plaintext}");
            assert_eq!(layout.ciphertext_len(), ciphertext, "{plaintext}");
        }
    }

    #[test]
    fn a_length_beyond_the_cap_has_no_layout() {
        assert!(Layout::new(MAX_PLAINTEXT).is_some());
        assert!(Layout::new(MAX_PLAINTEXT + 1).is_none());
        assert!(Layout::new(u64::MAX).is_none());
    }

    proptest! {
        #[test]
        fn segments_tile_plaintext_and_ciphertext(plaintext in 0..40_000_000u64, probe in any::<prop::sample::Index>()) {
            let layout = Layout::new(plaintext).unwrap();
            let (mut plain_at, mut cipher_at) = (0, HEADER as u64);
            for segment in 0..layout.segments() {
                let (plain, cipher) = (layout.plaintext_of(segment), layout.ciphertext_of(segment));
                prop_assert_eq!(plain.start, plain_at);
                prop_assert_eq!(cipher.start, cipher_at);
                prop_assert!(len_of(&cipher) <= SEGMENT);
                prop_assert_eq!(layout.is_last(segment), plain.end == plaintext);
                (plain_at, cipher_at) = (plain.end, cipher.end);
            }
            prop_assert_eq!(cipher_at, layout.ciphertext_len());
            if plaintext > 0 {
                let offset = probe.index(usize::try_from(plaintext).unwrap()) as u64;
                prop_assert!(layout.plaintext_of(layout.segment_at(offset)).contains(&offset));
            }
        }
    }
}
