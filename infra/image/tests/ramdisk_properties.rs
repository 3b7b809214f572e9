//! What holds for all ramdisks.

mod support;

use image::{EntryKind, Lister, RamdiskWriter, Sha256Digest};
use proptest::collection::vec;
use proptest::prelude::*;
use support::newc::{Raw, archive, gzip, listed};

#[derive(Debug, Clone)]
enum Add {
    Directory,
    File(Vec<u8>),
    Symlink(String),
    Device(u32, u32),
}

fn entries() -> impl Strategy<Value = Vec<(String, u32, Add)>> {
    let add = prop_oneof![
        2 => Just(Add::Directory),
        3 => vec(any::<u8>(), 0..200).prop_map(Add::File),
        1 => "[ -~]{1,40}".prop_map(Add::Symlink),
        1 => any::<(u32, u32)>().prop_map(|(major, minor)| Add::Device(major, minor)),
    ];
    vec(("[a-c]{1,2}(/[a-c]){0,3}", 0_u32..0o10_000, add), 0..24)
}

fn raw() -> impl Strategy<Value = Raw> {
    (
        "[a-z./]{0,6}|TRAILER!!!",
        prop::sample::select(vec![0o100_644, 0o040_755, 0o120_777, 0o020_600, 0]),
        vec(any::<u8>(), 0..40),
        prop::option::of((0_usize..13, any::<u32>())),
    )
        .prop_map(|(name, mode, content, change)| {
            let raw = Raw::new(&name, mode, &content);
            match change {
                Some((field, value)) => raw.with(field, value),
                None => raw,
            }
        })
}

proptest! {
    #[test]
    fn what_is_written_is_listed(entries in entries()) {
        let mut bytes = Vec::new();
        let mut writer = RamdiskWriter::new(&mut bytes);
        let mut expected = Vec::new();
        let mut directories: Vec<String> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for (path, mode, add) in entries {
            let known = path.rsplit_once('/').is_none_or(|(parent, _)| directories.iter().any(|d| d == parent));
            if !known || !seen.insert(path.clone()) {
                continue;
            }
            let (kind, size, shown) = match &add {
                Add::Directory => (EntryKind::Directory, 0, mode),
                Add::File(content) => (EntryKind::File { sha256: Sha256Digest::of(content) }, content.len() as u64, mode),
                Add::Symlink(target) => (EntryKind::Symlink { target: target.clone() }, 0, 0o777),
                Add::Device(major, minor) => (EntryKind::CharacterDevice { major: *major, minor: *minor }, 0, mode),
            };
            writer = match add {
                Add::Directory => {
                    directories.push(path.clone());
                    writer.directory(&path, mode).unwrap()
                }
                Add::File(content) => writer.file(&path, mode, size, &content[..]).unwrap(),
                Add::Symlink(target) => writer.symlink(&path, &target).unwrap(),
                Add::Device(major, minor) => writer.device(&path, mode, major, minor).unwrap(),
            };
            expected.push((path, kind, size, shown));
        }
        let written = writer.finish().unwrap();
        prop_assert_eq!(bytes.len() % 4, 0);
        for ramdisk in [&bytes, &gzip(&bytes)] {
            let listing = listed(&[ramdisk]).remove(0);
            prop_assert_eq!(&listing.stopped, &None);
            prop_assert_eq!(&listing.remarks, &[]);
            prop_assert_eq!(&listing.entries, &written);
        }
        let written: Vec<_> = written.into_iter().map(|e| (e.path, e.kind, e.size, e.mode)).collect();
        prop_assert_eq!(written, expected);
    }

    #[test]
    fn no_bytes_make_the_lister_panic(start in prop::sample::select(vec![&b""[..], b"070701", b"0", b"\x1f\x8b\x08\0"]), bytes in vec(any::<u8>(), 0..600)) {
        let mut lister = Lister::new(16);
        let bytes = [start, &bytes].concat();
        lister.ramdisk(&bytes[..]).unwrap();
        lister.ramdisk(&gzip(&bytes)[..]).unwrap();
    }

    #[test]
    fn no_entries_make_the_lister_panic(entries in vec(raw(), 0..6), cut in any::<prop::sample::Index>()) {
        let bytes = archive(&entries);
        let cut = cut.index(bytes.len());
        listed(&[&bytes, &gzip(&bytes), &bytes[..cut], &bytes]);
        listed(&[&gzip(&bytes[..cut]), &bytes]);
    }

    #[test]
    fn no_changed_stream_makes_the_lister_panic(edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let plain = archive(&[Raw::directory("app"), Raw::file("app/x", &[7; 300]), Raw::symlink("l", "app")]);
        for mut bytes in [gzip(&plain), plain] {
            for (at, value) in &edits {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            listed(&[&bytes]);
        }
    }
}
