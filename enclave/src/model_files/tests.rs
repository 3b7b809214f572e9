use std::path::Path;
use std::time::UNIX_EPOCH;

use sealed_model::{DirSource, ErrorKind, SealOptions, SigningKey};

use super::*;

/// Seals weights with this byte in them, always with the same key.
fn sealed(dir: &Path, signer: &SigningKey, byte: u8) -> std::path::PathBuf {
    let model = dir.join(format!("model-{byte}"));
    std::fs::create_dir(&model).unwrap();
    let header = br#"{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    let weights = [&length, header.as_slice(), &[byte; 4]].concat();
    std::fs::write(model.join("model.safetensors"), weights).unwrap();
    let out = dir.join(format!("package-{byte}"));
    let options = SealOptions {
        name: "demo",
        epoch: 1,
        key: &key(),
        signer,
        created: UNIX_EPOCH,
        progress: &|_| {},
    };
    sealed_model::seal(&model, &out, &options).unwrap();
    out
}

fn key() -> DataKey {
    DataKey::from_bytes(&[1; 32]).unwrap()
}

#[test]
fn weights_of_a_holder_of_the_data_key_are_refused_where_segments_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let signer = SigningKey::generate().unwrap();
    let package = sealed(dir.path(), &signer, 1);
    let theirs = sealed(dir.path(), &signer, 2);
    let file = "model.safetensors.enc";
    std::fs::copy(theirs.join(file), package.join(file)).unwrap();
    let open = |check_segments| {
        let source = DirSource::new(&package);
        let package = Package::open(source, &[signer.public().unwrap()], "demo", 1).unwrap();
        PlainFiles::open(package, key(), check_segments).unwrap()
    };
    open(false).verify_rest().unwrap();
    let error = open(true).verify_rest().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    let mut weights = [1; 8];
    assert!(
        open(true)
            .read_at("model.safetensors", 0, &mut weights)
            .is_err()
    );
    assert_eq!(weights, [0; 8]);
}

#[test]
fn only_ranges_that_meet_cover_a_file() {
    type Read = &'static [(u64, u64)];
    let cases: [(Read, u64, bool); 8] = [
        (&[], 0, false),
        (&[], 5, false),
        (&[(0, 5)], 5, true),
        (&[(0, 4)], 5, false),
        (&[(3, 5), (0, 3)], 5, true),
        (&[(4, 5), (0, 3)], 5, false),
        (&[(0, 2), (1, 4), (0, 1), (4, 5)], 5, true),
        (&[(1, 5)], 5, false),
    ];
    for (ranges, size, whole) in cases {
        let read = ranges.iter().map(|(start, end)| *start..*end).collect();
        assert_eq!(covers(read, size), whole, "{ranges:?} of {size}");
    }
}
