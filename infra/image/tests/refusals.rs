//! One wrong field each, with a checksum that fits: the reader names that field and no other.

mod support;

use image::{Error, Kind, MAX_IMAGE, Place};
use support::{OFFICIAL, OFFSETS, SIZES, assembled, packed, put, read, repair};

const KERNEL: (u16, &[u8]) = (1, b"kernel");
const COMMAND_LINE: (u16, &[u8]) = (2, b"console=ttyS0");
const RAMDISK: (u16, &[u8]) = (3, b"ramdisk");
const METADATA: (u16, &[u8]) = (5, b"{}");

/// What the reader says of the official image after `change`.
#[expect(clippy::unwrap_used, reason = "an accepted image is a failed test")]
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Error {
    let mut bytes = OFFICIAL.to_vec();
    change(&mut bytes);
    repair(&mut bytes);
    read(&bytes).unwrap_err()
}

#[expect(clippy::unwrap_used, reason = "an accepted image is a failed test")]
fn refused(sections: &[(u16, &[u8])]) -> Error {
    read(&assembled(sections)).unwrap_err()
}

macro_rules! is {
    ($error:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = $error;
        assert!(matches!(error, $pattern $(if $guard)?), "{error:?}");
    }};
}

#[test]
fn hand_made_images_are_read_when_nothing_is_wrong() {
    read(&assembled(&[KERNEL, COMMAND_LINE, RAMDISK])).unwrap();
    read(&assembled(&[KERNEL, (2, b""), RAMDISK, RAMDISK, METADATA])).unwrap();
    read(&assembled(&[KERNEL, COMMAND_LINE, METADATA, RAMDISK])).unwrap();
}

#[test]
fn refuses_another_magic() {
    is!(
        changed(|b| b[0] = b'E'),
        Error::Magic {
            actual: [b'E', b'e', b'i', b'f']
        }
    );
}

#[test]
fn refuses_every_other_version() {
    for version in [0, 1, 2, 3, 5, 255] {
        is!(changed(|b| b[5] = version), Error::Version { actual } if actual == u16::from(version));
    }
}

#[test]
fn refuses_flags_without_a_meaning() {
    is!(
        changed(|b| b[7] = 2),
        Error::Flags {
            place: Place::Header,
            actual: 2
        }
    );
    is!(
        changed(|b| b[6] = 1),
        Error::Flags {
            place: Place::Header,
            actual: 0x100
        }
    );
    is!(
        changed(|b| b[548 + 3] = 1),
        Error::Flags {
            place: Place::SectionHeader(0),
            actual: 1
        }
    );
}

#[test]
fn refuses_bytes_that_should_be_zero() {
    is!(
        changed(|b| b[25] = 1),
        Error::Reserved {
            field: "reserved field",
            ..
        }
    );
    is!(
        changed(|b| b[543] = 1),
        Error::Reserved {
            field: "unused field",
            ..
        }
    );
    let unused = 8 * 31;
    is!(changed(|b| b[OFFSETS + unused] = 1), Error::Reserved { .. });
    is!(changed(|b| b[SIZES + unused] = 1), Error::Reserved { .. });
}

#[test]
fn refuses_section_counts_that_cannot_be() {
    for count in [0, 1, 2, 33, u16::MAX] {
        is!(
            changed(|b| b[26..28].copy_from_slice(&count.to_be_bytes())),
            Error::SectionCount { actual } if actual == usize::from(count)
        );
    }
}

#[test]
fn refuses_more_or_fewer_sections_than_there_are() {
    // One less: its entries are no longer zero by right. One more: its offset is not where it would have to be.
    is!(changed(|b| b[27] -= 1), Error::Reserved { .. });
    is!(changed(|b| b[27] += 1), Error::Offset { index: 6, .. });
}

#[test]
fn refuses_overlapping_sections_gaps_and_offsets_out_of_range() {
    is!(
        changed(|b| put(b, OFFSETS, 0)),
        Error::Offset {
            index: 0,
            expected: 548,
            actual: 0
        }
    );
    for offset in [548, 549 + 12 + 3000, 559 + 3000, 1 << 40, u64::MAX] {
        is!(
            changed(|b| put(b, OFFSETS + 8, offset)),
            Error::Offset { index: 1, .. }
        );
    }
}

#[test]
fn refuses_two_sections_at_one_place() {
    // Tables in which the second section is the first once more.
    is!(
        changed(|b| {
            put(b, OFFSETS + 8, 548);
            put(b, SIZES + 8, 3000);
        }),
        Error::Offset { index: 1, .. }
    );
}

#[test]
fn refuses_sizes_beyond_the_limits_before_reading_them() {
    for size in [MAX_IMAGE, u64::MAX - 12, u64::MAX] {
        is!(
            changed(|b| put(b, SIZES, size)),
            Error::TooLarge {
                what: Place::Image,
                ..
            }
        );
    }
    // The tables fit each other here: the image is really this large, by its header.
    for (code, kind, size) in [
        (1, Kind::Kernel, (256 << 20) + 1),
        (2, Kind::CommandLine, 2048),
        (4, Kind::Signature, (64 << 10) + 1),
        (5, Kind::Metadata, (1 << 20) + 1),
    ] {
        let sections = [KERNEL, COMMAND_LINE, RAMDISK, (code, b"")];
        let at = match code {
            1 => 0,
            2 => 1,
            _ => 3,
        };
        let mut bytes = claiming(&sections, at, size);
        repair(&mut bytes);
        is!(
            read(&bytes).unwrap_err(),
            Error::TooLarge { what: Place::Section(k), actual, .. } if k == kind && actual == size
        );
    }
}

/// An image whose section `at` claims `size` bytes, everywhere alike, and has none of them.
fn claiming(sections: &[(u16, &[u8])], at: usize, size: u64) -> Vec<u8> {
    let mut bytes = assembled(sections);
    let mut offset = 548;
    for (index, (_, content)) in sections.iter().enumerate() {
        put(&mut bytes, OFFSETS + 8 * index, offset);
        let size = if index == at {
            size
        } else {
            content.len() as u64
        };
        offset += 12 + size;
    }
    let header: usize = 548
        + sections
            .iter()
            .take(at)
            .map(|(_, c)| 12 + c.len())
            .sum::<usize>();
    put(&mut bytes, SIZES + 8 * at, size);
    put(&mut bytes, header + 4, size);
    bytes
}

#[test]
fn refuses_sizes_that_the_two_headers_tell_differently() {
    is!(
        changed(|b| put(b, 548 + 4, 2999)),
        Error::SizeMismatch {
            index: 0,
            table: 3000,
            section: 2999
        }
    );
}

#[test]
fn refuses_unknown_sections() {
    for code in [0, 6, 0x0101] {
        is!(
            refused(&[KERNEL, COMMAND_LINE, RAMDISK, (code, b"x")]),
            Error::UnknownSection { index: 3, .. }
        );
    }
}

#[test]
fn refuses_a_second_kernel_command_line_metadata_or_signature() {
    is!(
        refused(&[KERNEL, COMMAND_LINE, RAMDISK, KERNEL]),
        Error::Duplicate(Kind::Kernel)
    );
    is!(
        refused(&[KERNEL, KERNEL, COMMAND_LINE, RAMDISK]),
        Error::Duplicate(Kind::Kernel)
    );
    is!(
        refused(&[KERNEL, COMMAND_LINE, RAMDISK, COMMAND_LINE]),
        Error::Duplicate(Kind::CommandLine)
    );
    is!(
        refused(&[KERNEL, COMMAND_LINE, METADATA, RAMDISK, METADATA]),
        Error::Duplicate(Kind::Metadata)
    );
    let signature = (4, &b"x"[..]);
    is!(
        refused(&[KERNEL, COMMAND_LINE, signature, RAMDISK, signature]),
        Error::Duplicate(Kind::Signature)
    );
}

#[test]
fn refuses_another_order_for_order_is_measured() {
    is!(
        refused(&[COMMAND_LINE, KERNEL, RAMDISK]),
        Error::Order {
            index: 0,
            expected: Kind::Kernel,
            actual: Kind::CommandLine
        }
    );
    is!(
        refused(&[KERNEL, RAMDISK, COMMAND_LINE]),
        Error::Order {
            index: 1,
            expected: Kind::CommandLine,
            actual: Kind::Ramdisk
        }
    );
}

#[test]
fn refuses_an_image_without_ramdisk_or_with_an_empty_section() {
    is!(
        refused(&[KERNEL, COMMAND_LINE, METADATA]),
        Error::Missing(Kind::Ramdisk)
    );
    is!(
        refused(&[(1, b""), COMMAND_LINE, RAMDISK]),
        Error::Empty(Kind::Kernel)
    );
    is!(
        refused(&[KERNEL, COMMAND_LINE, (3, b"")]),
        Error::Empty(Kind::Ramdisk)
    );
    is!(
        refused(&[KERNEL, COMMAND_LINE, RAMDISK, (5, b"")]),
        Error::Empty(Kind::Metadata)
    );
}

#[test]
fn refuses_command_lines_that_a_loader_would_read_otherwise() {
    is!(
        refused(&[KERNEL, (2, b"quiet\0debug"), RAMDISK]),
        Error::CommandLine("has a NUL byte in it")
    );
    is!(
        refused(&[KERNEL, (2, b"\xff"), RAMDISK]),
        Error::CommandLine("is not UTF-8")
    );
}

#[test]
fn refuses_metadata_that_is_no_json_object() {
    let deep = "[".repeat(100_000);
    for text in ["[]", "1", "{", "{} {}", "\u{feff}{}", deep.as_str()] {
        is!(
            refused(&[KERNEL, COMMAND_LINE, RAMDISK, (5, text.as_bytes())]),
            Error::Metadata(_)
        );
    }
}

#[test]
fn refuses_a_file_that_ends_anywhere_before_its_end() {
    for length in 0..OFFICIAL.len() {
        is!(read(&OFFICIAL[..length]).unwrap_err(), Error::Truncated(_));
    }
}

#[test]
fn refuses_bytes_after_the_last_section() {
    is!(changed(|b| b.push(0)), Error::TrailingBytes);
}

#[test]
fn refuses_every_flipped_bit_that_the_checksum_covers() {
    for at in (0..OFFICIAL.len()).step_by(7) {
        let mut bytes = OFFICIAL.to_vec();
        bytes[at] ^= 0x10;
        assert!(read(&bytes).is_err(), "byte {at}");
    }
    let mut bytes = OFFICIAL.to_vec();
    bytes[547] ^= 1;
    is!(read(&bytes).unwrap_err(), Error::Checksum { .. });
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let long = "x".repeat(2048);
    is!(
        packed(b"k", &long, &[b"r"], None).unwrap_err(),
        Error::TooLarge { .. }
    );
    is!(
        packed(b"k", "a\0b", &[b"r"], None).unwrap_err(),
        Error::CommandLine(_)
    );
    is!(
        packed(b"", "", &[b"r"], None).unwrap_err(),
        Error::Empty(Kind::Kernel)
    );
    is!(
        packed(b"k", "", &[], None).unwrap_err(),
        Error::Missing(Kind::Ramdisk)
    );
    is!(
        packed(b"k", "", &[b"r", b""], None).unwrap_err(),
        Error::Empty(Kind::Ramdisk)
    );
    is!(
        packed(b"k", "", &[b"r".as_slice(); 30], None).unwrap_err(),
        Error::SectionCount { actual: 33 }
    );
    packed(b"k", &long[1..], &[b"r".as_slice(); 29], None).unwrap();
}
