//! Our `model.sig` and that of OpenSSF's own tool (PyPI `model-signing`), each checked by both, over good and bad directories.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealed_model::{Error, SignedModel};
use support::{Memory, World};

struct Peer {
    python: PathBuf,
    dir: tempfile::TempDir,
}

impl Peer {
    /// With the world's key in files.
    fn find(world: &World) -> Option<Self> {
        let python = support::python("model_signing._signing.sign_ec_key, OpenSSL")?;
        let dir = tempfile::tempdir().unwrap();
        let key = world.signer.to_pem().unwrap();
        fs::write(dir.path().join("key.pem"), key.as_bytes()).unwrap();
        let public = world.signer.public().unwrap().to_pem();
        fs::write(dir.path().join("pub.pem"), public).unwrap();
        Some(Self { python, dir })
    }

    fn run(&self, arguments: &[&str], model: &Path, signature: &Path, more: &[&str]) -> bool {
        let output = Command::new(&self.python)
            .args(["-m", "model_signing"])
            .args(arguments)
            .arg(model)
            .arg("--signature")
            .arg(signature)
            .args(more)
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("No such option"), "{text}");
        output.status.success()
    }

    fn sign(&self, model: &Path, signature: &Path, more: &[&str]) {
        let more = [&["--private_key", "key.pem"], more].concat();
        assert!(self.run(&["sign", "key"], model, signature, &more));
    }

    fn accepts(&self, model: &Path, signature: &Path) -> bool {
        let key = ["--public_key", "pub.pem"];
        self.run(&["verify", "key"], model, signature, &key)
    }
}

fn check(world: &World, dir: &Path, signature: &Path) -> Result<(), Error> {
    let bytes = fs::read(signature).unwrap();
    let trusted = world.trusted();
    let (model, _) = SignedModel::verify(&bytes, &trusted)?;
    model.check_dir(dir, signature, &|_| {})
}

/// A model whose order by bytes and by folders differ, with what is and what is not of it.
fn world() -> World {
    let world = World::new();
    world.write("b/d.json", b"{}");
    world.write("b-c.json", b"{}");
    world.write(".git/HEAD", b"x");
    world.write(".gitattributes", b"x");
    world.write(".cache/huggingface/x.lock", b"x");
    world
}

#[test]
fn our_signature_is_accepted_by_both_and_refused_by_both_when_a_file_changes() {
    let world = world();
    world.seal().unwrap();
    let model = world.model();
    let signature = world.out().join("model.sig");
    check(&world, &model, &signature).unwrap();
    // In the directory, where unsealing puts it.
    let beside = model.join("model.sig");
    fs::copy(&signature, &beside).unwrap();
    check(&world, &model, &beside).unwrap();
    check(&world, &model, &signature).unwrap();
    let peer = Peer::find(&world);
    let agree = |accepted: bool, why: &str| {
        let ours = check(&world, &model, &beside);
        assert_eq!(ours.is_ok(), accepted, "{why}: {ours:?}");
        if let Some(peer) = &peer {
            assert_eq!(peer.accepts(&model, &beside), accepted, "{why}");
        }
    };
    agree(true, "as signed");

    let config = fs::read(model.join("config.json")).unwrap();
    world.write("config.json", b"{} ");
    agree(false, "changed");
    fs::remove_file(model.join("config.json")).unwrap();
    agree(false, "missing");
    world.write("config.json", &config);
    world.write("more.json", b"{}");
    agree(false, "a file more");
    fs::remove_file(model.join("more.json")).unwrap();
    world.write("1_Pooling/.gitignore", b"");
    agree(false, "ignored at the top only");
    fs::remove_file(model.join("1_Pooling/.gitignore")).unwrap();
    symlink("config.json", model.join("link.json")).unwrap();
    agree(false, "a link");
    fs::remove_file(model.join("link.json")).unwrap();
    fs::rename(model.join("b-c.json"), model.join("b-d.json")).unwrap();
    agree(false, "renamed");
    fs::rename(model.join("b-d.json"), model.join("b-c.json")).unwrap();
    world.write(".github/x", b"");
    world.write(".cache/more", b"");
    agree(true, "ignored");
}

#[test]
fn the_file_that_is_not_as_signed_is_named() {
    let world = world();
    world.seal().unwrap();
    let model = world.model();
    let signature = world.out().join("model.sig");
    let refusal = || check(&world, &model, &signature).unwrap_err().to_string();
    world.write("config.json", b"{} ");
    assert!(refusal().starts_with("config.json: SHA-256 "));
    fs::remove_file(model.join("config.json")).unwrap();
    assert_eq!(refusal(), "config.json: is signed, but not there");
    symlink("b-c.json", model.join("config.json")).unwrap();
    assert!(refusal().starts_with("config.json: is a link"));
    fs::remove_file(model.join("config.json")).unwrap();
    fs::create_dir(model.join("config.json")).unwrap();
    assert_eq!(refusal(), "config.json: is signed, but not there");
    world.write("a\u{1b}[2J.json", b"{}");
    assert_eq!(refusal(), "a[2J.json: is not signed");
}

#[test]
fn their_signature_is_accepted_and_held_against_changes() {
    let world = world();
    let Some(peer) = Peer::find(&world) else {
        return;
    };
    let model = world.model();
    let signature = model.join("theirs.sig");
    peer.sign(&model, &signature, &[]);
    check(&world, &model, &signature).unwrap();
    let trusted = [sealed_model::SigningKey::generate()
        .unwrap()
        .public()
        .unwrap()];
    assert!(SignedModel::verify(&fs::read(&signature).unwrap(), &trusted).is_err());
    world.write("b/d.json", b"[]");
    assert!(matches!(
        check(&world, &model, &signature),
        Err(Error::Digest { file, .. }) if file == "b/d.json"
    ));
    world.write("b/d.json", b"{}");
    // Unlike ours it covers download bookkeeping.
    world.write(".cache/more", b"");
    assert!(matches!(
        check(&world, &model, &signature),
        Err(Error::ModelFile { file, .. }) if file == ".cache/more"
    ));
}

#[test]
fn their_ignored_paths_and_links_mean_the_same_here() {
    let world = world();
    let Some(peer) = Peer::find(&world) else {
        return;
    };
    let model = world.model();
    let cache = model.join(".cache");
    let signature = world.dir.path().join("theirs.sig");
    let ignore = ["--ignore-paths", cache.to_str().unwrap()];
    peer.sign(&model, &signature, &ignore);
    check(&world, &model, &signature).unwrap();
    world.write(".cache/more", b"");
    check(&world, &model, &signature).unwrap();
    assert!(peer.accepts(&model, &signature));

    symlink("config.json", model.join("link.json")).unwrap();
    assert!(check(&world, &model, &signature).is_err());
    peer.sign(&model, &signature, &["--allow_symlinks"]);
    check(&world, &model, &signature).unwrap();
    fs::remove_file(model.join("link.json")).unwrap();
    symlink("b-c.json", model.join("link.json")).unwrap();
    let outcome = check(&world, &model, &signature);
    assert!(
        matches!(&outcome, Err(Error::Digest { file, .. }) if file == "link.json"),
        "{outcome:?}"
    );
    // What lies behind a link to a directory no reader of v1.0 lists.
    fs::remove_file(model.join("link.json")).unwrap();
    symlink("config.json", model.join("link.json")).unwrap();
    symlink("b", model.join("folder")).unwrap();
    assert!(check(&world, &model, &signature).is_err());
}

#[test]
fn a_package_that_was_rotated_or_unsealed_still_has_a_signature_that_the_tool_accepts() {
    let world = world();
    let package = world.package();
    let Some(peer) = Peer::find(&world) else {
        return;
    };
    let out = world.dir.path().join("again");
    let unlocked = world.open(&package).unwrap();
    sealed_model::unseal(&unlocked, &world.trusted(), &out, &|_| {}).unwrap();
    assert!(peer.accepts(&out, &out.join("model.sig")));
    assert_eq!(Memory::load(&out).0["model.sig"], package.0["model.sig"]);
}
