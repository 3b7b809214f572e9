//! What holds for all inputs.

mod support;

use image::{Sha384Digest, changes};
use proptest::collection::vec;
use proptest::prelude::*;
use support::{OFFICIAL, SIGNED, assembled, packed, read, repair};

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in vec(any::<u8>(), 0..2000)) {
        drop(read(&bytes));
    }

    #[test]
    fn no_changed_image_makes_the_reader_panic(
        signed in any::<bool>(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = if signed { SIGNED } else { OFFICIAL }.to_vec();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        repair(&mut bytes);
        drop(read(&bytes));
    }

    #[test]
    fn no_changed_header_makes_the_reader_panic(edits in vec((0_usize..600, any::<u8>()), 1..4)) {
        let mut bytes = OFFICIAL.to_vec();
        for (at, value) in edits {
            bytes[at] = value;
        }
        repair(&mut bytes);
        drop(read(&bytes));
    }

    #[test]
    fn no_sections_make_the_reader_panic(
        sections in vec((0_u16..8, vec(any::<u8>(), 0..64)), 0..36),
    ) {
        let sections: Vec<_> = sections.iter().map(|(kind, bytes)| (*kind, &bytes[..])).collect();
        if sections.len() <= 32 {
            drop(read(&assembled(&sections)));
        }
    }

    #[test]
    fn what_is_written_is_read_and_written_again_alike(
        kernel in vec(any::<u8>(), 1..300),
        command_line in "[ -~]{0,80}",
        ramdisks in vec(vec(any::<u8>(), 1..300), 1..6),
    ) {
        let parts: Vec<&[u8]> = ramdisks.iter().map(|bytes| &bytes[..]).collect();
        let bytes = packed(&kernel, &command_line, &parts, None).unwrap();
        prop_assert_eq!(&bytes, &packed(&kernel, &command_line, &parts, None).unwrap());
        let image = read(&bytes).unwrap();
        prop_assert_eq!(image.kernel.sha384, Sha384Digest::of(&kernel));
        prop_assert_eq!(&image.command_line, &command_line);
        prop_assert_eq!(image.size, bytes.len() as u64);
        let digests: Vec<_> = image.ramdisks.iter().map(|ramdisk| ramdisk.sha384).collect();
        let expected: Vec<_> = parts.iter().map(|bytes| Sha384Digest::of(bytes)).collect();
        prop_assert_eq!(digests, expected);
        prop_assert!(changes(&image, &read(&bytes).unwrap()).is_empty());
    }

    #[test]
    fn a_changed_ramdisk_moves_the_registers_it_is_said_to(which in 0_usize..3, at in any::<prop::sample::Index>()) {
        let mut ramdisks = [vec![1; 40], vec![2; 50], vec![3; 60]];
        let build = |ramdisks: &[Vec<u8>; 3]| {
            let parts: Vec<&[u8]> = ramdisks.iter().map(|bytes| &bytes[..]).collect();
            read(&packed(b"kernel", "quiet", &parts, None).unwrap()).unwrap()
        };
        let before = build(&ramdisks);
        let at = at.index(ramdisks[which].len());
        ramdisks[which][at] ^= 1;
        let after = build(&ramdisks);
        let moved: Vec<u8> = before
            .measurements
            .registers()
            .zip(after.measurements.registers())
            .filter(|(old, new)| old != new)
            .map(|(old, _)| old.0)
            .collect();
        let said = changes(&before, &after);
        prop_assert_eq!(said.len(), 1);
        prop_assert_eq!(&said[0].what, &format!("ramdisk {}", which + 1));
        prop_assert_eq!(&moved[..], said[0].registers);
    }
}
