//! Every way in which a package may not be what its publisher made, and that each is refused with the file named.
#![expect(clippy::expect_used, reason = "a test says what should have failed")]
mod support;

use proptest::prelude::*;
use sealed_model::{DataKey, Error, ErrorKind, Package, SigningKey, verify_ciphertexts};
use support::{EPOCH, Memory, NAME, World, key, pattern, safetensors};

const WEIGHTS: &str = "model.safetensors.enc";

/// A world whose weights take three segments.
fn large() -> World {
    let world = World::new();
    world.write("model.safetensors", &safetensors(&pattern(2_500_000)));
    world
}

fn refusal(world: &World, package: &Memory) -> Error {
    let error = world.open_and_verify(package).expect_err("it was accepted");
    refused(&error);
    error
}

fn refused(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(!error.is_retryable());
}

#[test]
fn any_flipped_bit_of_any_file_is_refused() {
    let world = World::new();
    let package = world.package();
    world.open_and_verify_all(&package).unwrap();
    for (name, bytes) in &package.0 {
        // One digest covers all of these, whichever bit it is.
        let bits = if ["model.sig", "bom.cdx.json"].contains(&name.as_str()) {
            1
        } else {
            8
        };
        for at in 0..bytes.len() {
            for bit in 0..bits {
                let mut changed = package.clone();
                changed.file(name)[at] ^= 1 << bit;
                let error = world
                    .open_and_verify_all(&changed)
                    .expect_err("it was accepted");
                refused(&error);
                let text = error.to_string();
                assert!(
                    text.starts_with(name)
                        || matches!(
                            error,
                            Error::Signature { .. } | Error::UnknownPublisher { .. }
                        ),
                    "{name} byte {at} bit {bit}: {text}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_other_byte_anywhere_is_refused(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), xor in 1..=255u8) {
        let world = World::new();
        let mut package = world.package();
        let name = package.0.keys().nth(file.index(package.0.len())).unwrap().clone();
        let bytes = package.file(&name);
        let at = at.index(bytes.len());
        bytes[at] ^= xor;
        prop_assert!(world.open_and_verify_all(&package).is_err());
    }
}

#[test]
fn a_flipped_bit_in_a_later_segment_names_file_and_segment_and_leaves_the_others_readable() {
    let world = large();
    let mut package = world.package();
    package.file(WEIGHTS)[1_100_000] ^= 1;
    assert!(
        matches!(refusal(&world, &package), Error::Segment { file, segment: 1 } if file == WEIGHTS)
    );

    let unlocked = world.open(&package).unwrap();
    let mut buf = vec![1; 1000];
    unlocked.read_at("model.safetensors", 0, &mut buf).unwrap();
    let mut all = vec![1; 2_500_000];
    assert!(unlocked.read_at("model.safetensors", 0, &mut all).is_err());
    assert!(
        all.iter().all(|byte| *byte == 0),
        "nothing of a failed read stays"
    );
}

#[test]
fn swapped_segments_are_refused() {
    let world = large();
    let mut package = world.package();
    world.write("model.safetensors", &safetensors(&pattern(3_500_000)));
    let mut four = world.package();
    // Two full segments of one file, exchanged.
    let (_, rest) = four.file(WEIGHTS).split_at_mut(1 << 20);
    let (second, third) = rest.split_at_mut(1 << 20);
    second.swap_with_slice(&mut third[..1 << 20]);
    assert!(matches!(refusal(&world, &four), Error::Segment { file, .. } if file == WEIGHTS));
    // The same place of another encryption of the same model, epoch and file.
    let again = world.package_as(NAME, EPOCH, &key());
    package.file(WEIGHTS)[1 << 20..2 << 20].copy_from_slice(&again.0[WEIGHTS][1 << 20..2 << 20]);
    assert!(matches!(
        refusal(&world, &package),
        Error::Segment { segment: 1, .. }
    ));
}

#[test]
fn swapped_files_are_refused() {
    let world = World::new();
    world.write("a.json", b"[1]");
    world.write("b.json", b"[2]");
    let mut package = world.package();
    let a = package.file("a.json.enc").clone();
    let b = std::mem::replace(package.file("b.json.enc"), a);
    *package.file("a.json.enc") = b;
    assert!(
        matches!(refusal(&world, &package), Error::Segment { file, .. } if file == "a.json.enc")
    );
}

#[test]
fn a_file_of_another_epoch_or_model_under_the_same_key_is_refused() {
    let world = World::new();
    let package = world.package();
    for other in [
        world.package_as(NAME, EPOCH - 1, &key()),
        world.package_as("other", EPOCH, &key()),
    ] {
        let mut mixed = package.clone();
        *mixed.file(WEIGHTS) = other.0[WEIGHTS].clone();
        assert!(matches!(refusal(&world, &mixed), Error::Segment { file, .. } if file == WEIGHTS));
    }
}

#[test]
fn a_cut_tail_and_appended_bytes_are_refused_before_any_key_is_used() {
    let world = large();
    let package = world.package();
    let full = package.0[WEIGHTS].len();
    // At a segment boundary too: there each segment that is left is whole.
    for len in [
        0,
        39,
        40,
        1 << 20,
        2 << 20,
        full - 16,
        full - 1,
        full + 1,
        full + 16,
    ] {
        let mut changed = package.clone();
        changed.file(WEIGHTS).resize(len, 0);
        let opened = Package::open(&changed, &world.trusted(), NAME, EPOCH);
        assert!(
            matches!(&opened, Err(Error::Size { file, actual, .. }) if file == WEIGHTS && *actual == len as u64),
            "{len}: {opened:?}"
        );
    }
}

#[test]
fn a_source_that_lies_about_a_size_and_cuts_at_a_boundary_is_refused() {
    struct Liar(Memory);
    impl sealed_model::Source for Liar {
        fn size(&self, name: &str) -> std::io::Result<u64> {
            self.0.size(name)
        }
        fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
            // The second segment, where the third was asked for.
            let offset = if offset == 2 << 20 { 1 << 20 } else { offset };
            self.0.read_at(name, offset, buf)
        }
    }
    let world = large();
    let error = world.open_and_verify(Liar(world.package())).unwrap_err();
    assert!(matches!(error, Error::Segment { .. }), "{error}");
}

#[test]
fn a_wrong_key_is_told_from_an_altered_file() {
    let world = World::new();
    let package = world.package();
    let locked = Package::open(&package, &world.trusted(), NAME, EPOCH).unwrap();
    let error = locked.unlock(DataKey::generate().unwrap()).err().unwrap();
    assert!(
        matches!(&error, Error::WrongKey { key_id } if key_id == "models/demo/epoch-3"),
        "{error}"
    );
}

#[test]
fn weights_that_a_holder_of_the_data_key_put_there_are_refused_where_segments_are_checked() {
    let world = large();
    let package = world.package();
    // Other weights of the same size, sealed with the same key for the same model, epoch and file.
    let mut other = pattern(2_500_000);
    other[2_000_000] ^= 1;
    world.write("model.safetensors", &safetensors(&other));
    let mut forged = package.clone();
    *forged.file(WEIGHTS) = world.package().0[WEIGHTS].clone();
    // Each tag fits: who has the key is believed.
    world.open_and_verify(&forged).unwrap();

    let checked = world.open(&forged).unwrap().check_segments().unwrap();
    let mut buf = vec![1; 1000];
    let error = checked
        .read_at("model.safetensors", 0, &mut buf)
        .unwrap_err();
    assert!(matches!(&error, Error::Segment { file, segment: 0 } if file == WEIGHTS));
    refused(&error);
    assert!(buf.iter().all(|byte| *byte == 0));
    let error = checked.verify().unwrap_err();
    assert!(matches!(error, Error::Segment { .. }), "{error}");
    world.open(&package).unwrap().check_segments().unwrap();
    world.open_and_verify_all(&package).unwrap();

    // A list that fits the forged weights is not the one that was signed.
    let mut listed = forged.clone();
    *listed.file("segments.sha256") = world.package().0["segments.sha256"].clone();
    let error = world.open(&listed).unwrap().check_segments().err().unwrap();
    assert!(
        matches!(&error, Error::Digest { file, .. } if file.starts_with("segments.sha256: ")),
        "{error}"
    );
    for len in [0, 4 * 32, 5 * 32, 7 * 32] {
        let mut cut = package.clone();
        cut.file("segments.sha256").resize(len, 0);
        let error = world.open(&cut).unwrap().check_segments().err().unwrap();
        assert!(matches!(error, Error::Size { .. }), "{len}: {error}");
    }
}

#[test]
fn a_mirror_without_any_key_finds_what_is_not_as_published() {
    let world = large();
    let package = world.package();
    let manifest = world.open(&package).unwrap().manifest().clone();
    verify_ciphertexts(&package, &manifest, &|_| {}).unwrap();
    for at in [0, 39, 40, (1 << 20) - 1, 1 << 20, (2 << 20) + 5] {
        let mut changed = package.clone();
        changed.file(WEIGHTS)[at] ^= 1;
        let error = verify_ciphertexts(&changed, &manifest, &|_| {}).unwrap_err();
        assert!(
            matches!(&error, Error::Segment { file, segment } if file == WEIGHTS && *segment as usize == at >> 20),
            "{at}: {error}"
        );
    }
}

#[test]
fn a_signature_or_a_bill_of_materials_of_another_release_is_refused() {
    let world = World::new();
    let package = world.package();
    world.write("config.json", b"[]");
    let other = world.package();
    for name in ["model.sig", "bom.cdx.json"] {
        let mut mixed = package.clone();
        *mixed.file(name) = other.0[name].clone();
        let error = world.open(&mixed).unwrap().documents().unwrap_err();
        assert!(
            matches!(&error, Error::Digest { file, .. } if file == name),
            "{error}"
        );
    }
    // A manifest that names the other signature does not make it one over its own files.
    let opened = world.open(&package).unwrap();
    let theirs = world.open(&other).unwrap().documents().unwrap();
    let error = theirs
        .check(opened.manifest(), &world.trusted())
        .unwrap_err();
    assert!(error.to_string().contains("other files"), "{error}");
    let stranger = SigningKey::generate().unwrap().public().unwrap();
    let error = opened
        .documents()
        .unwrap()
        .check(opened.manifest(), &[stranger])
        .unwrap_err();
    assert!(matches!(error, Error::ModelSignature { .. }), "{error}");
}

#[test]
fn a_lower_epoch_and_another_name_are_refused() {
    let world = World::new();
    let package = world.package();
    let open = |name, floor| Package::open(&package, &world.trusted(), name, floor);
    assert!(open(NAME, EPOCH).is_ok());
    assert!(open(NAME, 0).is_ok());
    assert!(matches!(
        open(NAME, EPOCH + 1),
        Err(Error::StaleEpoch {
            floor: 4,
            actual: 3
        })
    ));
    assert!(matches!(open("demo2", EPOCH), Err(Error::WrongName { .. })));
}

#[test]
fn a_publisher_outside_the_list_is_refused_and_named() {
    let world = World::new();
    let package = world.package();
    let stranger = SigningKey::generate().unwrap().public().unwrap();
    let outcome = Package::open(&package, &[stranger], NAME, EPOCH);
    let id = world.signer.public().unwrap().id();
    assert!(matches!(outcome, Err(Error::UnknownPublisher { publisher, .. }) if publisher == id));
    assert!(Package::open(&package, &[], NAME, EPOCH).is_err());
}

#[test]
fn a_manifest_changed_with_care_or_taken_from_another_release_is_refused() {
    let world = World::new();
    let package = world.package();
    let text = String::from_utf8(package.0["manifest.json"].clone()).unwrap();
    let mut raised = package.clone();
    *raised.file("manifest.json") = text
        .replace("epoch-3", "epoch-4")
        .replace("\"epoch\": 3", "\"epoch\": 4")
        .into_bytes();
    assert!(matches!(refusal(&world, &raised), Error::Signature { .. }));

    let next = world.package_as(NAME, EPOCH + 1, &key());
    let mut mixed = package.clone();
    *mixed.file("manifest.json") = next.0["manifest.json"].clone();
    assert!(matches!(refusal(&world, &mixed), Error::Signature { .. }));
    // The whole of the newer release's manifest, over the older one's files.
    *mixed.file("manifest.sig") = next.0["manifest.sig"].clone();
    assert!(matches!(refusal(&world, &mixed), Error::Segment { .. }));
}

#[test]
fn a_format_from_the_future_is_named_and_its_signature_still_checked() {
    let world = World::new();
    let mut package = world.package();
    let text = String::from_utf8(package.0["manifest.json"].clone()).unwrap();
    *package.file("manifest.json") = text
        .replace("sealed-model/1", "sealed-model/2")
        .into_bytes();
    assert!(
        matches!(refusal(&world, &package), Error::Signature { .. }),
        "signature before parsing"
    );
}

#[test]
fn absurd_sizes_are_refused_before_memory_is_taken() {
    struct Huge(Memory, &'static str);
    impl sealed_model::Source for Huge {
        fn size(&self, name: &str) -> std::io::Result<u64> {
            if name == self.1 {
                Ok(u64::MAX)
            } else {
                self.0.size(name)
            }
        }
        fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
            self.0.read_at(name, offset, buf)
        }
    }
    let world = World::new();
    for (name, expected) in [
        ("manifest.json", "manifest.json"),
        ("manifest.sig", "manifest.sig"),
        (WEIGHTS, WEIGHTS),
    ] {
        let error = world.open(Huge(world.package(), name)).err().unwrap();
        assert!(
            matches!(error, Error::TooLarge { .. } | Error::Size { .. }),
            "{error}"
        );
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn a_missing_file_or_a_failing_source_is_unavailable_not_refused() {
    let world = World::new();
    for name in ["manifest.json", "manifest.sig", WEIGHTS] {
        let mut package = world.package();
        package.0.remove(name);
        let error = world.open(&package).err().unwrap();
        assert!(error.is_retryable(), "{error}");
        assert!(error.to_string().starts_with(name), "{error}");
    }
}
