//! A release under the next key and epoch: the same plaintext, the same signature over it, nothing of the old key.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]
mod support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use sealed_model::{
    DataKey, Error, Package, PublisherKey, RotateOptions, SigningKey, Source, UnlockedPackage,
    rotate,
};
use support::{EPOCH, Memory, NAME, World, pattern, safetensors};

const WEIGHTS: &str = "model.safetensors.enc";

fn world() -> (World, Memory) {
    let world = World::new();
    world.write("model.safetensors", &safetensors(&pattern(2_500_000)));
    let package = world.package();
    (world, package)
}

fn out(world: &World) -> PathBuf {
    world.dir.path().join("rotated")
}

fn next_key() -> DataKey {
    DataKey::from_bytes(&[9; 32]).unwrap()
}

fn rotate_to<S: Source>(
    world: &World,
    package: &UnlockedPackage<S>,
    epoch: u64,
    key: &DataKey,
    publishers: &[PublisherKey],
) -> Result<(), Error> {
    let options = RotateOptions {
        epoch,
        key,
        signer: &world.signer,
        created: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        progress: &|_| {},
    };
    rotate(package, publishers, &out(world), &options).map(drop)
}

#[test]
fn a_rotated_package_opens_with_the_new_key_only_and_keeps_the_publishers_signature() {
    let (world, package) = world();
    let old = world.open(&package).unwrap();
    rotate_to(&world, &old, EPOCH + 1, &next_key(), &world.trusted()).unwrap();
    let rotated = Memory::load(&out(&world));
    for name in ["model.sig", "bom.cdx.json"] {
        assert_eq!(rotated.0[name], package.0[name], "{name}");
    }
    for name in package.0.keys().filter(|name| name.ends_with(".enc")) {
        assert_ne!(rotated.0[name], package.0[name], "{name}");
        assert_eq!(rotated.0[name].len(), package.0[name].len(), "{name}");
    }
    let open = |key| {
        Package::open(&rotated, &world.trusted(), NAME, EPOCH + 1)
            .unwrap()
            .unlock(key)
    };
    assert!(matches!(open(support::key()), Err(Error::WrongKey { .. })));
    let unlocked = open(next_key()).unwrap();
    assert_eq!(unlocked.manifest().key_id, "models/demo/epoch-4");
    assert_eq!(unlocked.manifest().created, "2027-01-15T08:00:00Z");
    unlocked
        .documents()
        .unwrap()
        .check(unlocked.manifest(), &world.trusted())
        .unwrap();
    for entry in unlocked.files() {
        assert_eq!(
            *unlocked.read(&entry.path, 1 << 30).unwrap(),
            fs::read(world.model().join(&entry.path)).unwrap()
        );
    }
    unlocked.check_segments().unwrap().verify().unwrap();
    // No plaintext, and nothing else, beside it.
    let mut left: Vec<_> = fs::read_dir(world.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["model", "rotated"]);
}

#[test]
fn an_epoch_that_is_not_newer_and_the_old_key_are_refused() {
    let (world, package) = world();
    let old = world.open(&package).unwrap();
    for epoch in [1, EPOCH - 1, EPOCH] {
        let outcome = rotate_to(&world, &old, epoch, &next_key(), &world.trusted());
        assert!(
            matches!(outcome, Err(Error::NotNewer { .. })),
            "{outcome:?}"
        );
    }
    for epoch in [0, 1 << 53] {
        let outcome = rotate_to(&world, &old, epoch, &next_key(), &world.trusted());
        assert!(matches!(outcome, Err(Error::Epoch { .. })), "{outcome:?}");
    }
    let outcome = rotate_to(&world, &old, EPOCH + 1, &support::key(), &world.trusted());
    assert!(matches!(outcome, Err(Error::Key { .. })), "{outcome:?}");
    assert!(!out(&world).exists());
}

#[test]
fn a_package_that_is_not_what_its_publisher_signed_is_not_carried_over() {
    let (world, package) = world();
    let attempt = |package: &Memory, publishers: &[PublisherKey]| {
        let old = world.open(package).unwrap();
        let outcome = rotate_to(&world, &old, EPOCH + 1, &next_key(), publishers);
        assert!(!out(&world).exists());
        outcome.unwrap_err()
    };
    let stranger = [SigningKey::generate().unwrap().public().unwrap()];
    assert!(matches!(
        attempt(&package, &stranger),
        Error::ModelSignature { .. }
    ));
    assert!(matches!(
        attempt(&package, &[]),
        Error::ModelSignature { .. }
    ));
    let mut cut = package.clone();
    cut.file("model.sig").pop();
    assert!(matches!(
        attempt(&cut, &world.trusted()),
        Error::Digest { .. }
    ));
    let mut flipped = package.clone();
    flipped.file(WEIGHTS)[1_200_000] ^= 1;
    assert!(matches!(
        attempt(&flipped, &world.trusted()),
        Error::Segment { segment: 1, .. }
    ));
    // Other weights, under the right key: every tag fits, the publisher's digest does not.
    let mut other = pattern(2_500_000);
    other[0] ^= 1;
    world.write("model.safetensors", &safetensors(&other));
    let mut forged = package.clone();
    *forged.file(WEIGHTS) = world.package().0[WEIGHTS].clone();
    assert!(matches!(
        attempt(&forged, &world.trusted()),
        Error::Digest { file, .. } if file == "model.safetensors"
    ));
    let mut flipped_empty = package;
    flipped_empty.file("LICENSE.enc")[50] ^= 1;
    assert!(matches!(
        attempt(&flipped_empty, &world.trusted()),
        Error::Segment { .. }
    ));
}
