//! An interrupted run goes on where it stopped, keeps nothing that it cannot vouch for, and uses no nonce twice.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]
mod support;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::SystemTime;

use sealed_model::{DataKey, DirSource, Error, Package, SealOptions, partial_path, seal};
use support::{EPOCH, Memory, NAME, World, key, pattern, safetensors};

const LONG: &str = "a.safetensors";
const CUT: &str = "b.safetensors";
const KEPT: &str = "a.safetensors.enc";

/// A model of which a run could seal `LONG`, and not `CUT`, which changed meanwhile.
fn interrupted() -> World {
    let world = World::new();
    world.write(LONG, &safetensors(&pattern(4_000_000)));
    let cut = safetensors(&pattern(3_000_000));
    world.write(CUT, &cut);
    let path = world.model().join(CUT);
    let (key, signer) = (key(), &world.signer);
    let options = SealOptions {
        name: NAME,
        epoch: EPOCH,
        key: &key,
        signer,
        created: SystemTime::UNIX_EPOCH,
        // The longest is begun first, and a file that was begun is finished.
        progress: &|progress| {
            if progress.file == CUT {
                let file = File::options().write(true).open(&path).unwrap();
                file.set_len(1000).unwrap();
            }
        },
    };
    let outcome = seal(&world.model(), &world.out(), &options);
    assert!(matches!(&outcome, Err(Error::Rejected { file, .. }) if file == CUT));
    fs::write(&path, cut).unwrap();
    assert!(!world.out().exists());
    world
}

fn left(world: &World) -> Memory {
    Memory::load(&partial_path(&world.out()))
}

#[test]
fn files_that_were_done_are_kept_and_the_package_is_as_good_as_any() {
    let world = interrupted();
    let done = left(&world).0;
    assert!(done.contains_key(KEPT));
    assert!(done.keys().all(|name| name.ends_with(".enc")), "{done:?}");
    assert!(!done.contains_key("b.safetensors.enc"));
    world.seal().unwrap();
    assert!(!partial_path(&world.out()).exists());
    let package = Memory::load(&world.out());
    assert!(package.0[KEPT] == done[KEPT], "encrypted once");
    world.open_and_verify_all(&package).unwrap();
    let unlocked = world.open(&package).unwrap();
    for file in [LONG, CUT, "config.json"] {
        let plain = fs::read(world.model().join(file)).unwrap();
        assert!(*unlocked.read(file, 1 << 30).unwrap() == plain);
    }
}

#[test]
fn a_file_that_changed_since_is_encrypted_anew_under_another_salt() {
    let world = interrupted();
    let before = left(&world).0[KEPT].clone();
    let mut changed = pattern(4_000_000);
    changed[3_999_999] ^= 1;
    world.write(LONG, &safetensors(&changed));
    world.seal().unwrap();
    let package = Memory::load(&world.out());
    assert_ne!(package.0[KEPT][..40], before[..40]);
    world.open_and_verify_all(&package).unwrap();
    let got = world.open(&package).unwrap().read(LONG, 1 << 30).unwrap();
    assert!(*got == safetensors(&changed));
}

#[test]
fn what_another_key_epoch_or_model_had_sealed_is_not_kept() {
    for (name, epoch, other_key) in [
        (NAME, EPOCH, true),
        (NAME, EPOCH + 1, false),
        ("other", EPOCH, false),
    ] {
        let world = interrupted();
        let before = left(&world).0[KEPT].clone();
        let bytes = if other_key { [7; 32] } else { support::KEY };
        let key = DataKey::from_bytes(&bytes).unwrap();
        world.seal_as(name, epoch, &key).unwrap();
        let package = Memory::load(&world.out());
        assert_ne!(package.0[KEPT][..40], before[..40], "{name} {epoch}");
        Package::open(&package, &world.trusted(), name, epoch)
            .unwrap()
            .unlock(key)
            .unwrap()
            .verify()
            .unwrap();
    }
}

#[test]
fn what_is_cut_altered_or_strange_in_the_partial_directory_is_not_published() {
    for change in [
        |bytes: &mut Vec<u8>| bytes.truncate(1 << 20),
        |bytes: &mut Vec<u8>| bytes.truncate(10),
        |bytes: &mut Vec<u8>| bytes.push(0),
        |bytes: &mut Vec<u8>| bytes[0] ^= 1,
        |bytes: &mut Vec<u8>| bytes[20] ^= 1,
        |bytes: &mut Vec<u8>| bytes[3_500_000] ^= 1,
        |bytes: &mut Vec<u8>| bytes.clear(),
    ] {
        let world = interrupted();
        let partial = partial_path(&world.out());
        let mut bytes = fs::read(partial.join(KEPT)).unwrap();
        change(&mut bytes);
        fs::write(partial.join(KEPT), &bytes).unwrap();
        // As a run that was killed may leave it, or a later one of another model.
        for name in [
            "b.safetensors.enc.part",
            "manifest.json",
            "manifest.sig",
            "gone.json.enc",
            "notes",
        ] {
            fs::write(partial.join(name), "x").unwrap();
        }
        world.seal().unwrap();
        let package = Memory::load(&world.out());
        assert_eq!(package.0.len(), 6 + 5);
        world.open_and_verify_all(&package).unwrap();
    }
}

#[test]
fn two_runs_do_not_work_on_one_package() {
    let world = World::new();
    let partial = partial_path(&world.out());
    fs::create_dir(&partial).unwrap();
    let other = File::open(&partial).unwrap();
    other.lock().unwrap();
    assert!(matches!(world.seal(), Err(Error::Busy { path }) if path == partial));
    assert!(partial.exists());
    drop(other);
    world.seal().unwrap();
}

#[test]
fn a_link_in_place_of_the_partial_directory_is_refused() {
    let world = World::new();
    let partial = partial_path(&world.out());
    let elsewhere = world.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("precious"), "x").unwrap();
    symlink(&elsewhere, &partial).unwrap();
    assert!(matches!(world.seal(), Err(Error::Io { .. })));
    assert!(elsewhere.join("precious").exists());
}

#[test]
fn a_package_that_appeared_meanwhile_is_not_replaced() {
    let world = World::new();
    let out = world.out();
    let (key, signer) = (key(), &world.signer);
    let options = SealOptions {
        name: NAME,
        epoch: EPOCH,
        key: &key,
        signer,
        created: SystemTime::UNIX_EPOCH,
        progress: &|_| drop(fs::create_dir(&out)),
    };
    let outcome = seal(&world.model(), &world.out(), &options);
    assert!(matches!(outcome, Err(Error::OutputExists { .. })));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    fs::remove_dir(&out).unwrap();
    world.seal().unwrap();
    let source = DirSource::new(world.out());
    Package::open(source, &world.trusted(), NAME, EPOCH).unwrap();
}
