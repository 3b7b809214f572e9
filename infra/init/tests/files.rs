//! What the check of an image's files accepts, and everything it refuses.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use init::files::{FilesError, LIST, Listed, check, parse, render};
use proptest::prelude::*;

fn listed(path: &str, content: &[u8]) -> Listed {
    Listed {
        path: path.to_owned(),
        size: content.len() as u64,
        mode: 0o444,
        sha256: digest(&SHA256, content).as_ref().try_into().unwrap(),
    }
}

/// A root as the kernel unpacks it.
struct Root(tempfile::TempDir);

impl Root {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        for (path, content) in files {
            root.put(path, content);
        }
        let list = files.iter().map(|(path, content)| listed(path, content));
        root.put(LIST, render(list.collect()).unwrap().as_bytes());
        root
    }

    fn put(&self, path: &str, content: &[u8]) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Written again in some tests.
        if path.exists() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn refusal(&self) -> FilesError {
        check(self.path()).unwrap_err()
    }
}

fn good() -> Root {
    Root::new(&[
        ("app/enclave", b"a program"),
        ("app/enclave.toml", b"a = 1"),
        ("app/more/data", &[7; 300_000]),
    ])
}

#[test]
fn accepts_what_is_listed() {
    let files = check(good().path()).unwrap();
    let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["app/enclave", "app/enclave.toml", "app/more/data"]);
}

#[test]
fn refuses_a_file_with_a_hole_of_zeros_and_says_what_it_means() {
    let root = good();
    let mut content = [7; 300_000];
    content[200_000..].fill(0);
    root.put("app/more/data", &content);
    let error = root.refusal();
    assert!(matches!(&error, FilesError::Digest { path, .. } if path == "app/more/data"));
    assert!(error.to_string().contains("more memory"), "{error}");
}

#[test]
fn refuses_a_file_that_was_cut_off_or_grew() {
    for content in [&[7; 299_999][..], &[7; 300_001], &[]] {
        let root = good();
        root.put("app/more/data", content);
        assert!(matches!(root.refusal(), FilesError::Size { .. }));
    }
}

#[test]
fn refuses_a_missing_file() {
    let root = good();
    fs::remove_file(root.path().join("app/enclave")).unwrap();
    assert!(matches!(root.refusal(), FilesError::Io { path, .. } if path == "app/enclave"));
}

#[test]
fn refuses_a_missing_list() {
    let root = good();
    fs::remove_file(root.path().join(LIST)).unwrap();
    assert!(matches!(root.refusal(), FilesError::Io { path, .. } if path == LIST));
}

#[test]
fn refuses_what_is_not_listed() {
    let root = good();
    root.put("app/more/extra", b"");
    assert!(matches!(root.refusal(), FilesError::Unlisted { path } if path == "app/more/extra"));
    let root = good();
    fs::create_dir(root.path().join("app/empty")).unwrap();
    assert!(matches!(root.refusal(), FilesError::Unlisted { path } if path == "app/empty"));
}

#[test]
fn refuses_another_mode() {
    let root = good();
    let path = root.path().join("app/enclave");
    fs::set_permissions(path, fs::Permissions::from_mode(0o4444)).unwrap();
    assert!(matches!(
        root.refusal(),
        FilesError::Mode {
            expected: 0o444,
            actual: 0o4444,
            ..
        }
    ));
}

#[test]
fn refuses_a_link_in_place_of_a_file_even_to_the_same_bytes() {
    let root = good();
    let path = root.path().join("app/enclave");
    fs::rename(&path, root.path().join("elsewhere")).unwrap();
    symlink(root.path().join("elsewhere"), &path).unwrap();
    assert!(matches!(root.refusal(), FilesError::NotAFile { .. }));
}

#[test]
fn refuses_a_list_that_was_cut_off_anywhere() {
    let list = render(vec![listed("app/a", b"1"), listed("app/b", b"2")]).unwrap();
    for length in 0..list.len() {
        parse(&list.as_bytes()[..length]).unwrap_err();
        let mut zeros = list.clone().into_bytes();
        zeros[length..].fill(0);
        parse(&zeros).unwrap_err();
    }
    parse(list.as_bytes()).unwrap();
}

/// `from` replaced by `to`, with a last line that fits: the refusal has to come from the line itself.
fn resealed(from: &str, to: &str) -> Result<Vec<Listed>, FilesError> {
    let list = render(vec![listed("app/a", b"1"), listed("app/b", b"2")]).unwrap();
    assert!(list.contains(from), "{from}");
    let changed = list.replacen(from, to, 1);
    let body = &changed[..changed.rfind("end ").unwrap()];
    let lines = body.lines().count() - 1;
    let seal = hex::encode(digest(&SHA256, body.as_bytes()));
    parse(format!("{body}end {lines} {seal}\n").as_bytes())
}

#[test]
fn refuses_lines_that_are_not_written_the_one_way() {
    resealed("app/a", "app/c").unwrap_err(); // no longer sorted
    resealed("app/a", "app/b").unwrap_err(); // twice
    resealed("files v1", "files v2").unwrap_err();
    resealed(" 1 444", " 01 444").unwrap_err();
    resealed(" 1 444", " +1 444").unwrap_err();
    resealed(" 1 444", " 1 0444").unwrap_err();
    resealed(" 1 444", " 1 10444").unwrap_err();
    resealed(" 1 444", " 1 9").unwrap_err();
    resealed(" 1 444", " 1").unwrap_err();
    resealed(" 1 444", " 99999999999999999999 444").unwrap_err();
    let digest = hex::encode(digest(&SHA256, b"1"));
    resealed(&digest, &digest.to_uppercase()).unwrap_err();
    resealed(&digest, &digest[1..]).unwrap_err();
}

#[test]
fn refuses_paths_that_lead_elsewhere() {
    for path in [
        "app/../init",
        "app/./a",
        "app//a",
        "app/",
        "app",
        "/app/a",
        "init",
        "dev/a",
        "app/a b",
        "app/a\u{e4}",
        "app/manifest",
        "apple/a",
        "../app/a",
        "",
    ] {
        let error = render(vec![listed(path, b"")]).unwrap_err();
        assert!(matches!(error, FilesError::List { .. }), "{path}: {error}");
    }
    let long = format!("app/{}", "x".repeat(200));
    render(vec![listed(&long, b"")]).unwrap_err();
}

#[test]
fn refuses_a_list_larger_than_any_that_was_made() {
    parse(&vec![b'x'; (1 << 20) + 1]).unwrap_err();
    let many = (0..5000)
        .map(|n| listed(&format!("app/{n:04}"), b""))
        .collect();
    render(many).unwrap_err();
}

proptest! {
    #[test]
    fn reads_what_it_writes_and_never_panics_on_anything_else(
        names in prop::collection::btree_set("[a-z0-9._-]{1,20}", 0..20),
        noise in prop::collection::vec(any::<u8>(), 0..400),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let files: Vec<_> = names
            .iter()
            .filter(|name| !matches!(name.as_str(), "." | ".." | "manifest"))
            .map(|name| listed(&format!("app/{name}"), name.as_bytes()))
            .collect();
        let list = render(files.clone()).unwrap();
        let mut read = parse(list.as_bytes()).unwrap();
        read.sort_by(|a, b| a.path.cmp(&b.path));
        let mut files = files;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        prop_assert_eq!(read, files);
        // One byte that is another never passes.
        let mut changed = list.clone().into_bytes();
        let at = at.index(changed.len());
        if changed[at] != byte {
            changed[at] = byte;
            prop_assert!(parse(&changed).is_err());
        }
        parse(&noise).ok();
    }
}
