//! What is listed of a ramdisk, where a list ends, and what is said beside it.
#![expect(
    clippy::indexing_slicing,
    reason = "a test that cannot set up its world should stop"
)]

mod support;

use std::io::{self, Read};

use image::{
    ArchiveError, Compression, EntryKind, Lister, Listing, PathError, Remark, Sha256Digest, Stop,
};
use support::newc::{
    CHECK, INODE, LINKS, MODE, NAME_SIZE, Raw, SIZE, archive, gzip, listed, open_archive, paths,
};

fn one(bytes: &[u8]) -> Listing {
    listed(&[bytes]).remove(0)
}

fn refusal(bytes: &[u8]) -> ArchiveError {
    match one(bytes).stopped {
        Some(Stop::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// That of an entry which comes after a good one.
fn refused(entry: Raw) -> ArchiveError {
    refusal(&archive(&[Raw::file("good", b"1"), entry]))
}

fn sample() -> Vec<u8> {
    archive(&[
        Raw::directory("."),
        Raw::directory("./dev"),
        Raw::new("./dev/console", 0o020_600, b"")
            .with(9, 5)
            .with(10, 1),
        Raw::new("/dev/disk", 0o060_640, b"").with(9, 8),
        Raw::new("pipe", 0o010_622, b""),
        Raw::new("socket", 0o140_777, b""),
        Raw::file("init", b"hello").with(2, 7).with(3, 8).with(5, 9),
        Raw::symlink("bin", "usr/bin"),
    ])
}

#[test]
fn everything_an_archive_says_is_listed() {
    let listing = one(&sample());
    assert_eq!(listing.stopped, None);
    assert_eq!(
        paths(&listing),
        [
            ".",
            "dev",
            "dev/console",
            "dev/disk",
            "pipe",
            "socket",
            "init",
            "bin"
        ]
    );
    let kinds: Vec<_> = listing.entries.iter().map(|e| e.kind.name()).collect();
    assert_eq!(
        kinds,
        [
            "directory",
            "directory",
            "character device",
            "block device",
            "named pipe",
            "socket",
            "file",
            "symbolic link"
        ]
    );
    let console = EntryKind::CharacterDevice { major: 5, minor: 1 };
    assert_eq!(listing.entries[2].kind, console);
    assert_eq!(listing.entries[2].mode, 0o600);
    let init = &listing.entries[6];
    assert_eq!((init.uid, init.gid, init.mtime, init.size), (7, 8, 9, 5));
    let sha256 = Sha256Digest::of(b"hello");
    assert_eq!(init.kind, EntryKind::File { sha256 });
    let target = "usr/bin".to_owned();
    assert_eq!(listing.entries[7].kind, EntryKind::Symlink { target });
}

#[test]
fn a_compressed_archive_lists_the_same() {
    assert_eq!(one(&gzip(&sample())), one(&sample()));
}

#[test]
fn archives_follow_one_another_as_the_kernel_takes_them() {
    let (a, b) = (
        archive(&[Raw::file("a", b"1")]),
        archive(&[Raw::file("b", b"22")]),
    );
    for ramdisk in [
        [&a[..], &b].concat(),
        [&a[..], &[0; 512], &b].concat(),
        [&gzip(&a)[..], &gzip(&b)].concat(),
        [&gzip(&a)[..], &[0; 7], &gzip(&b)].concat(),
        [&a[..], &gzip(&b)].concat(),
        gzip(&[&a[..], &b].concat()),
        gzip(&[&a[..], &[0; 8], &b, &[0; 3]].concat()),
    ] {
        let listing = one(&ramdisk);
        assert_eq!(paths(&listing), ["a", "b"]);
        assert_eq!(listing.stopped, None);
    }
    let two = listed(&[&a, &b]);
    assert_eq!(paths(&two[0]), ["a"]);
    assert_eq!(paths(&two[1]), ["b"]);
}

#[test]
fn an_archive_that_the_kernel_leaves_out_is_not_listed() {
    let a = archive(&[Raw::file("a", b"1")]);
    let b = archive(&[Raw::file("b", b"1")]);
    let mut packed = gzip(&a);
    while packed.len() % 4 != 1 {
        // Another size, by a name in the header.
        packed = named(&packed);
    }
    let at = packed.len() as u64;
    let listings = listed(&[&packed, &b, &a]);
    assert_eq!(listings[0].stopped, None);
    assert_eq!(listings[1].stopped, Some(Stop::Unaligned { at }));
    assert_eq!(listings[1].entries, []);
    assert_eq!(listings[2].stopped, Some(Stop::Before));
    assert_eq!(listings[2].entries, []);
    // The same within one ramdisk, and cured by zeros.
    assert_eq!(
        one(&[&packed[..], &b].concat()).stopped,
        Some(Stop::Unaligned { at })
    );
    assert_eq!(one(&[&packed[..], &[0; 3], &b].concat()).stopped, None);
    // Behind an uncompressed archive even a compressed one has to be aligned.
    let odd = [&a[..], &[0], &gzip(&b)].concat();
    assert!(matches!(one(&odd).stopped, Some(Stop::Unaligned { .. })));
}

/// A gzip member with one more byte in its name.
fn named(member: &[u8]) -> Vec<u8> {
    let mut bytes = member.to_vec();
    match bytes[3] & 8 {
        0 => {
            bytes[3] |= 8;
            bytes.splice(10..10, *b"n\0");
        }
        _ => bytes.insert(10, b'n'),
    }
    bytes
}

#[test]
fn other_compressions_are_named() {
    let plain = archive(&[Raw::file("b", b"1")]);
    for (magic, compression) in [
        (*b"BZ", Compression::Bzip2),
        ([0x5d, 0], Compression::Lzma),
        ([0xfd, b'7'], Compression::Xz),
        ([0x89, 0x4c], Compression::Lzo),
        ([0x02, 0x21], Compression::Lz4),
        ([0x28, 0xb5], Compression::Zstd),
    ] {
        let packed = [&magic[..], b"whatever", &[0; 2]].concat();
        let listings = listed(&[&packed, &plain]);
        assert_eq!(listings[0].stopped, Some(Stop::Compressed(compression)));
        // What follows is listed all the same.
        assert_eq!(paths(&listings[1]), ["b"]);
        let text = listings[0].stopped.as_ref().unwrap().to_string();
        assert_eq!(text, format!("compressed with {compression}, not listed"));
    }
}

#[test]
fn refuses_an_archive_that_ends_too_early() {
    let bytes = sample();
    for end in 1..bytes.len() {
        let error = refusal(&bytes[..end]);
        // A single byte is no magic yet.
        assert!(
            matches!(
                error,
                ArchiveError::Truncated | ArchiveError::NotAnArchive { .. }
            ),
            "{end}: {error}"
        );
    }
    let packed = gzip(&bytes);
    for end in 3..packed.len() {
        let error = refusal(&packed[..end]);
        assert!(
            matches!(error, ArchiveError::Truncated | ArchiveError::Gzip(_)),
            "{end}: {error}"
        );
    }
}

#[test]
fn refuses_an_archive_without_a_trailer() {
    // It would go on in the next ramdisk, which another register covers.
    let open = open_archive(&[Raw::file("a", b"1")]);
    let listings = listed(&[&open, &archive(&[])]);
    assert_eq!(
        listings[0].stopped,
        Some(Stop::Refused(ArchiveError::Truncated))
    );
    assert_eq!(listings[1].stopped, Some(Stop::Before));
    assert_eq!(refusal(&gzip(&open)), ArchiveError::Truncated);
    assert_eq!(refusal(&gzip(b"")), ArchiveError::Truncated);
}

#[test]
fn refuses_what_is_no_archive() {
    for bytes in [
        &b"first ramdisk"[..],
        b"\x7fELF",
        b"1",
        &[0, 0, 0, 0, b'x', b'y'],
        b"\x1f\x9e",
    ] {
        assert!(matches!(refusal(bytes), ArchiveError::NotAnArchive { .. }));
    }
    let mut old = sample();
    old[5] = b'7';
    assert_eq!(refusal(&old), ArchiveError::OldFormat { at: 0 });
    let mut unknown = Raw::file("x", b"");
    unknown.magic = "070703";
    assert_eq!(refused(unknown), ArchiveError::Magic { at: 120 });
    // Nothing at all has nothing in it.
    assert_eq!(one(b"").stopped, None);
    assert_eq!(one(&[0; 64]).stopped, None);
}

#[test]
fn refuses_numbers_that_are_not_hex() {
    for field in 0..13 {
        for text in ["0000000g", "+0000001", " 0000001", "0x000001", "-0000001"] {
            let mut entry = Raw::file("x", b"");
            entry.fields[field] = text.into();
            assert_eq!(
                refused(entry),
                ArchiveError::Number { at: 120 },
                "{field} {text}"
            );
        }
    }
}

#[test]
fn refuses_hostile_sizes_without_taking_memory() {
    let error = refused(Raw::file("x", b"1").with(SIZE, u32::MAX));
    assert_eq!(error, ArchiveError::Truncated);
    for size in [4097, 1 << 20, u32::MAX] {
        let (at, reason) = (120, PathError::TooLong);
        let error = refused(Raw::file("x", b"").with(NAME_SIZE, size));
        assert_eq!(error, ArchiveError::Path { at, reason });
    }
    let path = "x".to_owned();
    let link = Raw::symlink("x", "y").with(SIZE, u32::MAX);
    assert_eq!(refused(link), ArchiveError::Target { path });
}

#[test]
fn refuses_names_that_hide_something() {
    let named = |name: &[u8]| {
        let mut entry = Raw::file("x", b"").with(NAME_SIZE, u32::try_from(name.len()).unwrap());
        entry.name = name.to_vec();
        match refused(entry) {
            ArchiveError::Path { at: 120, reason } => reason,
            other => panic!("{other}"),
        }
    };
    assert_eq!(named(b""), PathError::Nul);
    assert_eq!(named(b"\0"), PathError::Empty);
    assert_eq!(named(b"x"), PathError::Nul);
    assert_eq!(named(b"init\0.old\0"), PathError::Nul);
    assert_eq!(named(b"\xff\0"), PathError::Utf8);
    assert_eq!(named(b"../init\0"), PathError::Component);
    assert_eq!(named(b"app/../init\0"), PathError::Component);
    assert_eq!(
        named(&[&b"a".repeat(256)[..], b"\0"].concat()),
        PathError::TooLong
    );
    assert_eq!(
        named(&[&b"a/".repeat(65)[..], b"\0"].concat()),
        PathError::TooDeep
    );
}

#[test]
fn refuses_padding_that_is_not_zero() {
    for entry in [
        Raw::file("x", b"123"),
        Raw::file("ab", b"1234"),
        Raw::symlink("l", "abc"),
    ] {
        let mut entry = entry;
        entry.padding = 1;
        let error = refused(entry);
        assert!(matches!(error, ArchiveError::Padding { .. }), "{error}");
    }
}

#[test]
fn refuses_entries_that_the_kernel_skips() {
    for mode in [
        0o040_755, 0o020_600, 0o060_600, 0o010_600, 0o140_600, 0o000_644, 0o170_000,
    ] {
        let error = refused(Raw::new("x", mode, b"content"));
        assert!(
            matches!(error, ArchiveError::Content { size: 7, .. }),
            "{error}"
        );
    }
    for mode in [0, 0o644, 0o150_644, 0o170_644, 0o030_000] {
        let error = refused(Raw::new("x", mode, b""));
        assert!(matches!(error, ArchiveError::Type { .. }), "{error}");
    }
    for target in ["", "a\0b", &"a".repeat(4096)] {
        let error = refused(Raw::symlink("x", target));
        assert!(matches!(error, ArchiveError::Target { .. }), "{error}");
    }
}

#[test]
fn refuses_a_trailer_with_something_in_it() {
    for trailer in [
        Raw::trailer().with(MODE, 0o100_644),
        // For the kernel, a link of this name ends nothing.
        Raw::symlink("TRAILER!!!", "x"),
        Raw::new("TRAILER!!!", 0, b"hidden"),
    ] {
        assert_eq!(refused(trailer), ArchiveError::Trailer { at: 120 });
    }
}

#[test]
fn a_checksum_is_verified_where_there_is_one() {
    let mut entry = Raw::file("x", b"abc");
    entry.magic = "070702";
    let good = archive(&[entry.clone().with(CHECK, 0x126)]);
    assert_eq!(one(&good).stopped, None);
    assert_eq!(
        refused(entry),
        ArchiveError::Checksum {
            path: "x".into(),
            expected: 0,
            actual: 0x126
        }
    );
    // Without one, the kernel does not look.
    assert_eq!(
        one(&archive(&[Raw::file("x", b"abc").with(CHECK, 1)])).stopped,
        None
    );
}

#[test]
fn refuses_gzip_that_the_kernel_would_read_otherwise() {
    let packed = gzip(&sample());
    let changed = |at: usize, value: u8| {
        let mut bytes = packed.clone();
        bytes[at] = value;
        refusal(&bytes)
    };
    assert!(matches!(changed(2, 7), ArchiveError::Gzip(_)));
    for flags in [0x02, 0x04, 0x10, 0x20, 0xe0] {
        assert!(
            matches!(changed(3, flags), ArchiveError::Gzip(_)),
            "{flags}"
        );
    }
    // Checksum and size.
    for back in [1, 4, 5, 8] {
        let at = packed.len() - back;
        let error = changed(at, packed[at] ^ 1);
        assert!(matches!(error, ArchiveError::Gzip(_)), "{error}");
    }
    assert!(matches!(changed(10, 0xff), ArchiveError::Gzip(_)));
    let endless = [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3][..], &[b'n'; 5000]].concat();
    assert!(matches!(refusal(&endless), ArchiveError::Gzip(_)));
    assert_eq!(one(&named(&packed)).stopped, None);
}

#[test]
fn refuses_junk_inside_a_compressed_stream() {
    let a = archive(&[Raw::file("a", b"1")]);
    for (stream, at) in [
        ([&a[..], b"junk"].concat(), a.len()),
        ([&a[..], &[0], &a].concat(), a.len() + 1),
        ([&[0; 4][..], &a].concat(), 0),
        (b"junk".to_vec(), 0),
        // A stream in a stream is no archive.
        (gzip(&a), 0),
    ] {
        assert_eq!(
            refusal(&gzip(&stream)),
            ArchiveError::Junk { at: at as u64 }
        );
    }
}

#[test]
fn refuses_more_than_any_image_has() {
    let mut entries = Vec::new();
    for index in 0..=1_u32 << 18 {
        entries.push(Raw::new(&format!("{index:x}"), 0o010_600, b""));
    }
    let error = refusal(&gzip(&archive(&entries)));
    assert_eq!(error, ArchiveError::TooManyEntries { limit: 1 << 18 });
    let long = vec!["a".repeat(250); 16].join("/");
    let entries: Vec<_> = (0..4400)
        .map(|index| Raw::new(&format!("{index:04}{long}"), 0o010_600, b""))
        .collect();
    let error = refusal(&gzip(&archive(&entries)));
    assert_eq!(error, ArchiveError::TooManyNames { limit: 16 << 20 });
}

#[test]
fn a_later_entry_of_the_same_name_wins_and_is_told() {
    let first = archive(&[Raw::file("init", b"good"), Raw::directory("app")]);
    let second = archive(&[
        Raw::directory("app"),
        Raw::file("./init", b"evil"),
        Raw::symlink("app", "/tmp"),
    ]);
    let listings = listed(&[&first, &second]);
    assert_eq!(listings[0].remarks, []);
    let replaces = |path: &str, ramdisk| Remark::Replaces {
        path: path.into(),
        ramdisk,
    };
    // A directory that is named again is no news.
    assert_eq!(
        listings[1].remarks,
        [replaces("init", 1), replaces("app", 2)]
    );
    let other = Raw::directory("app").with(MODE, 0o040_777);
    let listings = listed(&[&first, &archive(&[other])]);
    assert_eq!(listings[1].remarks, [replaces("app", 1)]);
}

#[test]
fn entries_that_land_elsewhere_or_nowhere_are_told() {
    let listing = one(&archive(&[
        Raw::symlink("lib", "usr/lib"),
        Raw::file("lib/x", b"1"),
        Raw::file("nowhere/x", b"1"),
        Raw::file("plain", b"1"),
        Raw::file("plain/x", b"1"),
        // In every kernel's own archive.
        Raw::new("dev/null", 0o020_666, b""),
    ]));
    assert_eq!(
        listing.remarks,
        [
            Remark::ThroughLink {
                path: "lib/x".into(),
                link: "lib".into()
            },
            Remark::NoParent {
                path: "nowhere/x".into(),
                parent: "nowhere".into()
            },
            Remark::NoParent {
                path: "plain/x".into(),
                parent: "plain".into()
            },
        ]
    );
    // Behind a ramdisk that is not listed, nobody knows.
    let listings = listed(&[b"\xfd7zXZ\0\0\0", &archive(&[Raw::file("nowhere/x", b"1")])]);
    assert_eq!(listings[1].remarks, []);
}

#[test]
fn hard_links_share_the_content_that_comes_last() {
    let linked = |name, content| Raw::file(name, content).with(INODE, 3).with(LINKS, 2);
    let listing = one(&archive(&[
        linked("a", b""),
        Raw::file("alone", b"").with(INODE, 3),
        linked("b", b"content"),
    ]));
    let sha256 = Sha256Digest::of(b"content");
    for index in [0, 2] {
        assert_eq!(listing.entries[index].size, 7);
        assert_eq!(listing.entries[index].kind, EntryKind::File { sha256 });
    }
    assert_eq!(listing.entries[1].size, 0);
    let (path, to) = ("b".into(), "a".into());
    assert_eq!(listing.remarks, [Remark::HardLink { path, to }]);
    // A trailer ends what belongs together.
    let apart = [archive(&[linked("a", b"1")]), archive(&[linked("b", b"2")])].concat();
    assert_eq!(one(&apart).remarks, []);
}

#[test]
fn small_files_are_kept_where_asked() {
    let bytes = archive(&[
        Raw::file("small", b"1234"),
        Raw::file("large", b"12345"),
        Raw::directory("d"),
    ]);
    let kept: Vec<_> = Lister::new(4)
        .ramdisk(&bytes[..])
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| entry.content)
        .collect();
    assert_eq!(kept, [Some(b"1234"[..].into()), None, None]);
    assert!(one(&bytes).entries.iter().all(|e| e.content.is_none()));
    // Not more than 8 MiB of them.
    let file = vec![7; 1 << 20];
    let names: Vec<_> = (0..9).map(|index| index.to_string()).collect();
    let entries: Vec<_> = names.iter().map(|name| Raw::file(name, &file)).collect();
    let listing = Lister::new(u32::MAX)
        .ramdisk(&archive(&entries)[..])
        .unwrap();
    let kept = listing.entries.iter().filter(|e| e.content.is_some());
    assert_eq!(kept.count(), 8);
}

#[test]
fn a_failing_reader_is_an_error_and_not_the_end() {
    struct Failing<R>(R);
    impl<R: Read> Read for Failing<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("broken disk")),
                read => Ok(read),
            }
        }
    }
    let plain = sample();
    let packed = gzip(&plain);
    for bytes in [&plain[..20], &plain, &packed[..20], &packed, b"xx", &[]] {
        let error = Lister::new(0).ramdisk(Failing(bytes)).unwrap_err();
        assert_eq!(error.to_string(), "broken disk");
    }
}

#[test]
fn texts_escape_what_a_terminal_would_act_on() {
    let remark = one(&archive(&[Raw::file("a\x1b[2Jb/c", b"")])).remarks[0].to_string();
    let stop = refused(Raw::symlink("x\x07", "")).to_string();
    for text in [remark, stop] {
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
