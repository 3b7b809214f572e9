//! Arbitrary bytes as two ramdisks. Nothing is an error but the reader's own, and what was listed can be written again.
#![no_main]

use image::{EntryKind, Lister, RamdiskWriter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8])| {
    let mut lister = Lister::new(1 << 16);
    let mut writer = Some(RamdiskWriter::new(std::io::sink()));
    for ramdisk in [input.0, input.1] {
        let listing = lister.ramdisk(ramdisk).expect("memory can be read");
        for entry in &listing.entries {
            assert!(!entry.path.is_empty() && !entry.path.starts_with('/'));
            assert!(entry.path.split('/').all(|part| !matches!(part, "" | "..")));
            let (path, mode) = (&entry.path, entry.mode);
            // A path that the writer refuses ends the comparison.
            writer = writer.and_then(|writer| match (&entry.kind, &entry.content) {
                (EntryKind::Directory, _) => writer.directory(path, mode).ok(),
                (EntryKind::File { sha256 }, Some(content)) => {
                    assert_eq!(entry.size, content.len() as u64);
                    assert_eq!(*sha256, image::Sha256Digest::of(content));
                    writer.file(path, mode, entry.size, &content[..]).ok()
                }
                (EntryKind::Symlink { target }, _) => writer.symlink(path, target).ok(),
                _ => None,
            });
        }
    }
});
