use std::path::PathBuf;

use image::EntryKind;

use super::*;

/// The smallest file that passes for a static program.
fn elf(content: &[u8]) -> Vec<u8> {
    let mut elf = vec![0; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = 62;
    elf[32] = 64;
    elf[54] = 56;
    elf.extend_from_slice(content);
    elf
}

/// One program header, of this type.
fn with_header(kind: u8) -> Vec<u8> {
    let mut elf = elf(&[0; 56]);
    elf[56] = 1;
    elf[64] = kind;
    elf
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        bench.put("kernel", b"a kernel");
        bench.put("init", &elf(b"init"));
        bench.put("enclave", &elf(b"enclave"));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn build(&self, config: &[u8], out: &str) -> Result<Built, Error> {
        let parts = Parts {
            kernel: &self.path("kernel"),
            init: &self.path("init"),
            enclave: &self.path("enclave"),
            config,
            name: "test",
            version: "1",
        };
        build(&parts, None, &self.path(out))
    }
}

#[test]
fn the_same_parts_give_the_same_bytes() {
    let bench = Bench::new();
    bench.build(b"a = 1", "one.eif").unwrap();
    // Other times on the files.
    bench.put("enclave", &elf(b"enclave"));
    bench.build(b"a = 1", "two.eif").unwrap();
    let read = |name| std::fs::read(bench.path(name)).unwrap();
    assert_eq!(read("one.eif"), read("two.eif"));
}

#[test]
fn another_configuration_is_another_application_on_the_same_base() {
    let bench = Bench::new();
    let one = bench.build(b"a = 1", "one.eif").unwrap().image.measurements;
    let two = bench.build(b"a = 2", "two.eif").unwrap().image.measurements;
    assert_ne!(one.pcr0, two.pcr0);
    assert_eq!(one.pcr1, two.pcr1);
    assert_ne!(one.pcr2, two.pcr2);
}

#[test]
fn what_it_packs_passes_the_check_that_init_makes() {
    let bench = Bench::new();
    let built = bench.build(b"a = 1", "one.eif").unwrap();
    let [boot, app] = built.ramdisks.as_slice() else {
        panic!("two ramdisks")
    };
    assert!(boot.iter().any(|entry| entry.path == "init"));
    let paths: Vec<_> = app.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["app", LIST, CONFIG, PROGRAM]);

    // Unpacked by hand: the list names exactly what lies beside it.
    let root = bench.path("root");
    std::fs::create_dir_all(root.join("app")).unwrap();
    let (bytes, _) = app_ramdisk(&elf(b"enclave"), b"a = 1").unwrap();
    let list = bytes
        .windows(8)
        .position(|w| w == b"cloister")
        .map(|at| &bytes[at..])
        .unwrap();
    let end = list.windows(4).position(|w| w == b"end ").unwrap();
    let length = end + list[end..].iter().position(|b| *b == b'\n').unwrap() + 1;
    let place = |path: &str, content: &[u8], mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(root.join(path), content).unwrap();
        std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    place(LIST, &list[..length], 0o444);
    place(CONFIG, b"a = 1", 0o444);
    place(PROGRAM, &elf(b"enclave"), 0o555);
    assert_eq!(files::check(&root).unwrap().len(), 2);
    for entry in app {
        if let EntryKind::File { sha256 } = &entry.kind {
            let content = std::fs::read(root.join(&entry.path)).unwrap();
            assert_eq!(
                sha256.as_bytes().as_slice(),
                digest(&SHA256, &content).as_ref()
            );
        }
    }
}

#[test]
fn refuses_a_program_that_needs_libraries() {
    let bench = Bench::new();
    bench.put("enclave", &with_header(3));
    let error = bench.build(b"", "x.eif").unwrap_err().to_string();
    assert!(error.contains("enclave: is linked dynamically"), "{error}");
    // Another kind of header is no loader.
    bench.put("enclave", &with_header(1));
    bench.build(b"", "x.eif").unwrap();
}

#[test]
fn refuses_what_is_no_program_for_this_processor() {
    let bench = Bench::new();
    let mut other_processor = elf(b"");
    other_processor[18] = 183;
    let mut headers_outside = elf(b"");
    headers_outside[56] = 9;
    let mut far_table = with_header(1);
    far_table[32..40].fill(0xff);
    for bad in [
        b"#!/bin/sh".to_vec(),
        Vec::new(),
        other_processor,
        headers_outside,
        far_table,
    ] {
        bench.put("init", &bad);
        let error = bench.build(b"", "x.eif").unwrap_err().to_string();
        assert!(error.contains("init: is no ELF program"), "{error}");
    }
}

#[test]
fn refuses_a_configuration_that_an_enclave_would_not_read() {
    let error = Bench::new().build(&vec![b'#'; MAX_CONFIG + 1], "x.eif");
    assert!(matches!(error, Err(Error::ConfigTooLarge(_))));
}

#[test]
fn a_failed_signature_leaves_nothing_behind() {
    let bench = Bench::new();
    let parts = Parts {
        kernel: &bench.path("kernel"),
        init: &bench.path("init"),
        enclave: &bench.path("enclave"),
        config: b"",
        name: "test",
        version: "1",
    };
    let signer = Signer {
        certificate: b"no certificate",
        key: b"no key",
    };
    let error = build(&parts, Some(&signer), &bench.path("x.eif"));
    assert!(matches!(error, Err(Error::Signature(_))));
    assert!(!bench.path("x.eif").exists());
    assert!(!bench.path("x.eif.partial").exists());
}

#[test]
fn names_a_missing_part_and_leaves_nothing_behind() {
    let bench = Bench::new();
    std::fs::remove_file(bench.path("kernel")).unwrap();
    let error = bench.build(b"", "x.eif").unwrap_err().to_string();
    assert!(error.contains("kernel: "), "{error}");
    assert!(!bench.path("x.eif").exists());
    assert!(!bench.path("x.eif.partial").exists());
}
