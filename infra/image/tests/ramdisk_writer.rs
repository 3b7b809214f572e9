//! What the ramdisk writer makes, and what it refuses. Real cpio programs say whether it is right.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot set up its world should stop"
)]
#![expect(
    clippy::print_stderr,
    reason = "a check that was skipped has to be seen"
)]

mod support;

use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use image::{EntryKind, PathError, RamdiskError, RamdiskWriter, Sha256Digest, Stop};
use support::newc::listed;

type Made<'a> = Result<RamdiskWriter<&'a mut Vec<u8>>, RamdiskError>;

fn made(build: impl for<'a> FnOnce(RamdiskWriter<&'a mut Vec<u8>>) -> Made<'a>) -> Vec<u8> {
    let mut bytes = Vec::new();
    build(RamdiskWriter::new(&mut bytes))
        .and_then(RamdiskWriter::finish)
        .unwrap();
    bytes
}

fn refusal(build: impl for<'a> FnOnce(RamdiskWriter<&'a mut Vec<u8>>) -> Made<'a>) -> RamdiskError {
    build(RamdiskWriter::new(&mut Vec::new()))
        .err()
        .expect("it was written")
}

fn sample(writer: RamdiskWriter<&mut Vec<u8>>) -> Made<'_> {
    writer
        .directory("app", 0o755)?
        .file("app/enclave", 0o755, 5, &b"hello"[..])?
        .file("app/empty", 0o600, 0, &b""[..])?
        .symlink("app/link", "enclave")?
        .directory("dev", 0o750)?
        .file("init", 0o4711, 8, &b"12345678"[..])
}

#[test]
fn the_same_entries_give_the_same_bytes() {
    assert_eq!(made(sample), made(sample));
    assert_eq!(made(sample).len() % 4, 0);
}

#[test]
fn entries_are_told_with_their_digests() {
    let mut bytes = Vec::new();
    let entries = sample(RamdiskWriter::new(&mut bytes))
        .and_then(RamdiskWriter::finish)
        .unwrap();
    let enclave = &entries[1];
    assert_eq!(enclave.path, "app/enclave");
    assert_eq!(enclave.mode, 0o755);
    assert_eq!(enclave.size, 5);
    let sha256 = Sha256Digest::of(b"hello");
    assert_eq!(enclave.kind, EntryKind::File { sha256 });
    // And the reader says the same of the bytes.
    let listing = &listed(&[&bytes])[0];
    assert_eq!(listing.entries, entries);
    assert_eq!(listing.stopped, None);
    assert_eq!(listing.remarks, []);
}

#[test]
fn a_large_file_passes_through() {
    let size = 3_000_001;
    let bytes = made(|w| w.file("model", 0o644, size, std::io::repeat(7).take(size)));
    let listing = &listed(&[&bytes])[0];
    assert_eq!(listing.entries[0].size, size);
}

#[test]
fn refuses_paths_that_can_be_read_in_two_ways() {
    for (path, reason) in [
        ("", PathError::Empty),
        ("/init", PathError::Component),
        ("./init", PathError::Component),
        ("app//x", PathError::Component),
        ("app/", PathError::Component),
        ("app/./x", PathError::Component),
        ("app/../init", PathError::Component),
        ("..", PathError::Component),
        (".", PathError::Component),
        ("in\nit", PathError::Character),
        ("in\0it", PathError::Character),
        ("f\u{fc}r", PathError::Character),
        ("TRAILER!!!", PathError::Trailer),
        (&"a".repeat(256), PathError::TooLong),
        (&"a/".repeat(2048), PathError::TooLong),
    ] {
        for error in [
            refusal(|w| w.file(path, 0o644, 0, &b""[..])),
            refusal(|w| w.directory(path, 0o755)),
            refusal(|w| w.symlink(path, "x")),
            refusal(|w| w.device(path, 0o600, 5, 1)),
        ] {
            let RamdiskError::Path { reason: actual, .. } = &error else {
                panic!("{path:?}: {error}");
            };
            assert_eq!(*actual, reason, "{path:?}");
        }
    }
}

#[test]
fn refuses_an_entry_before_its_directory() {
    for error in [
        refusal(|w| w.file("app/x", 0o644, 0, &b""[..])),
        refusal(|w| w.directory("app/x", 0o755)?.directory("app", 0o755)),
        // The kernel would write through the link, or fail on the file.
        refusal(|w| w.symlink("app", "/tmp")?.file("app/x", 0o644, 0, &b""[..])),
        refusal(|w| {
            w.file("app", 0o644, 0, &b""[..])?
                .device("app/x", 0o600, 5, 1)
        }),
        refusal(|w| w.directory("app", 0o755)?.directory("app/a/b", 0o755)),
    ] {
        assert!(matches!(error, RamdiskError::NoParent { .. }), "{error}");
    }
}

#[test]
fn refuses_a_path_twice() {
    for error in [
        refusal(|w| w.directory("app", 0o755)?.directory("app", 0o755)),
        refusal(|w| {
            w.file("init", 0o755, 0, &b""[..])?
                .symlink("init", "/bin/sh")
        }),
    ] {
        assert!(matches!(error, RamdiskError::Duplicate(_)), "{error}");
    }
}

#[test]
fn refuses_a_file_that_changed_its_size() {
    for (size, content) in [(4, "12345"), (6, "12345"), (0, "1"), (1, "")] {
        let error = refusal(|w| w.file("x", 0o644, size, content.as_bytes()));
        assert!(matches!(error, RamdiskError::SourceChanged(_)), "{error}");
    }
}

#[test]
fn refuses_what_the_format_has_no_room_for() {
    let error = refusal(|w| w.file("x", 0o644, 1 << 32, std::io::empty()));
    assert!(matches!(error, RamdiskError::TooLarge { .. }), "{error}");
    for mode in [0o10_000, 0o100_644, u32::MAX] {
        let error = refusal(|w| w.directory("x", mode));
        assert!(matches!(error, RamdiskError::Mode { .. }), "{error}");
    }
    for (target, reason) in [
        ("", PathError::Empty),
        ("a\nb", PathError::Character),
        (&"a".repeat(4096), PathError::TooLong),
    ] {
        match refusal(|w| w.symlink("x", target)) {
            RamdiskError::Path { reason: actual, .. } => assert_eq!(actual, reason),
            error => panic!("{error}"),
        }
    }
}

#[test]
fn a_failing_output_is_an_error() {
    let full = &mut [0; 100][..];
    let error = RamdiskWriter::new(full).directory("app", 0o755).err();
    assert!(matches!(error, Some(RamdiskError::Io(_))));
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("broken disk"))
        }
    }
    let error = refusal(|w| w.file("x", 0o644, 3, Failing));
    assert!(matches!(error, RamdiskError::Io(_)), "{error}");
}

/// A program that scripts/dev-tools brought, or else the machine's own. In CI there has to be a cpio.
fn tool(name: &str) -> Option<Command> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin");
    let program = [tools.join(name), name.into()].into_iter().find(|program| {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    });
    if program.is_none() {
        assert!(
            name != "cpio" || std::env::var_os("CI").is_none(),
            "cpio is not installed, and CI checks with it: run scripts/dev-tools"
        );
        say(&format!("skipped: {name} is not installed"));
    }
    program.map(Command::new)
}

fn say(line: &str) {
    eprintln!("{line}");
}

fn piped(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // A reader stops at the trailer.
        drop(stdin.write_all(&input));
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    output.stdout
}

/// Makes the files of [`sample`], with the times of 1970.
fn files(root: &Path) {
    let mode = |path: &str, mode| {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    for directory in ["app", "dev"] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    for (path, content) in [
        ("app/enclave", "hello"),
        ("app/empty", ""),
        ("init", "12345678"),
    ] {
        fs::write(root.join(path), content).unwrap();
    }
    symlink("enclave", root.join("app/link")).unwrap();
    mode("app/enclave", 0o755);
    mode("app/empty", 0o600);
    mode("init", 0o4711);
    mode("app", 0o755);
    mode("dev", 0o750);
    let paths = ["app/enclave", "app/empty", "app/link", "init", "app", "dev"];
    let touched = Command::new("touch")
        .args(["-h", "-d", "@0"])
        .args(paths)
        .current_dir(root)
        .status();
    assert!(touched.unwrap().success());
}

#[test]
fn the_bytes_are_those_of_gnu_cpio() {
    let Some(mut cpio) = tool("cpio") else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    files(root.path());
    if fs::metadata(root.path().join("app")).unwrap().nlink() != 2 {
        // btrfs and some layered file systems.
        return say("skipped: this file system does not count the links of a directory");
    }
    let names = "app\napp/enclave\napp/empty\napp/link\ndev\ninit\n";
    let theirs = piped(
        cpio.args(["-o", "-H", "newc", "--reproducible", "-R", "+0:+0"])
            .current_dir(root.path()),
        names.as_bytes(),
    );
    let ours = made(sample);
    let (archive, filler) = theirs.split_at(ours.len());
    assert_eq!(
        String::from_utf8_lossy(&ours),
        String::from_utf8_lossy(archive)
    );
    // It fills up a block of 512 bytes, as a tape has.
    assert!(filler.len() < 512 && filler.iter().all(|byte| *byte == 0));
}

#[test]
fn other_programs_read_the_archive() {
    let bytes = made(|w| sample(w)?.device("dev/console", 0o600, 5, 1));
    let names = [
        "app",
        "app/enclave",
        "app/empty",
        "app/link",
        "dev",
        "init",
        "dev/console",
    ];
    for (name, arguments) in [("cpio", ["-t", "--quiet"]), ("bsdtar", ["-t", "-f-"])] {
        let Some(mut program) = tool(name) else {
            continue;
        };
        let list = piped(program.args(arguments), &bytes);
        let list = String::from_utf8(list).unwrap();
        assert_eq!(list.lines().collect::<Vec<_>>(), names, "{name}");
    }
    if let Some(mut cpio) = tool("cpio") {
        let long = piped(cpio.args(["-tvn", "--quiet"]), &bytes);
        let long = String::from_utf8(long).unwrap();
        let line = |name: &str| {
            let line = long.lines().find(|line| line.contains(name)).unwrap();
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let console = line("dev/console");
        assert_eq!(
            console[..6],
            ["crw-------", "1", "0", "0", "5,", "1"],
            "{long}"
        );
        let init = line("init");
        assert_eq!(init[..5], ["-rws--x--x", "1", "0", "0", "8"], "{long}");
        assert!(long.contains("app/link -> enclave"), "{long}");
    }
    // What was packed is what is unpacked.
    if let Some(mut bsdtar) = tool("bsdtar") {
        let content = piped(bsdtar.args(["-xOf-", "app/enclave"]), &bytes);
        assert_eq!(content, b"hello");
    }
}

#[test]
fn an_archive_can_follow_another() {
    let first = made(|w| w.directory("app", 0o755));
    let mut bytes = first.clone();
    RamdiskWriter::new(&mut bytes)
        .directory("app", 0o755)
        .and_then(|w| w.file("app/x", 0o644, 1, &b"x"[..]))
        .and_then(RamdiskWriter::finish)
        .unwrap();
    let listing = &listed(&[&bytes])[0];
    assert_eq!(support::newc::paths(listing), ["app", "app", "app/x"]);
    assert_eq!(listing.remarks, []);
    assert!(!matches!(listing.stopped, Some(Stop::Unaligned { .. })));
}
