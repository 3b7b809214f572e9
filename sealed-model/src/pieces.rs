use std::ops::Range;

use crate::layout::{Layout, len_of};

/// Segments fetched by one call of the source: enough that a request to the host costs little against its bytes, small enough
/// that the ciphertext is still in the processor's cache when it is decrypted.
const RUN: u32 = 2;

/// Part of a read: whole consecutive segments into `into`, or one segment in part.
pub(crate) enum Piece<'b> {
    Whole {
        first: u32,
        count: u32,
        into: &'b mut [u8],
    },
    Part {
        segment: u32,
        range: Range<usize>,
        into: &'b mut [u8],
    },
}

/// Splits a read at segment boundaries; consecutive whole segments stay together, [`RUN`] at a time.
pub(crate) fn pieces<'b>(layout: &Layout, offset: u64, buf: &'b mut [u8]) -> Vec<Piece<'b>> {
    let mut pieces = Vec::new();
    let (mut at, mut rest) = (offset, buf);
    while !rest.is_empty() {
        let segment = layout.segment_at(at);
        let plain = layout.plaintext_of(segment);
        let whole = |segment: u32| {
            let plain = layout.plaintext_of(segment);
            at <= plain.start && plain.end - at <= rest.len() as u64
        };
        let (end, count) = if whole(segment) {
            let run = (segment..layout.segments())
                .take(RUN as usize)
                .take_while(|s| whole(*s));
            let last = run.last().unwrap_or(segment);
            (layout.plaintext_of(last).end, last - segment + 1)
        } else {
            (plain.end.min(at + rest.len() as u64), 0)
        };
        let (into, later) = rest.split_at_mut(len_of(&(at..end)));
        pieces.push(match count {
            0 => Piece::Part {
                segment,
                range: len_of(&(plain.start..at))..len_of(&(plain.start..end)),
                into,
            },
            count => Piece::Whole {
                first: segment,
                count,
                into,
            },
        });
        (at, rest) = (end, later);
    }
    pieces
}
