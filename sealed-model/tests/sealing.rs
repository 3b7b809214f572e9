//! What may be sealed, what may not and why, and that a package appears whole or not at all.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Mutex;
use std::time::SystemTime;

use sealed_model::{
    DataKey, DirSource, Error, Package, Rejection, SealOptions, SignatureVerdict, SigningKey, gguf,
    inspect, safetensors as st, seal, unseal,
};
use support::{EPOCH, KEY, NAME, World, key, pattern, safetensors};

/// Seals with one more file and returns why that is not possible; nothing is left behind.
fn rejection(path: &str, bytes: &[u8]) -> Rejection {
    let world = World::new();
    world.write(path, bytes);
    rejected(&world, path)
}

fn rejected(world: &World, path: &str) -> Rejection {
    let outcome = world.seal();
    let left: Vec<_> = fs::read_dir(world.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["model"], "a failed run leaves nothing");
    match outcome {
        Err(Error::Rejected { file, reason }) if file == path => reason,
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn what_could_run_is_refused() {
    assert!(matches!(
        rejection("pytorch_model.bin", b"x"),
        Rejection::Pickle
    ));
    assert!(matches!(
        rejection("sub/weights.pt", b"x"),
        Rejection::Pickle
    ));
    assert!(matches!(
        rejection("modeling_custom.py", b"x"),
        Rejection::Code
    ));
    assert!(matches!(rejection("ops.so", b"x"), Rejection::Code));
    assert!(matches!(
        rejection("model.onnx", b"x"),
        Rejection::UnknownKind
    ));
}

#[test]
fn links_hidden_files_and_absurd_names_are_refused() {
    let world = World::new();
    fs::write(world.dir.path().join("model/real.json"), "{}").unwrap();
    symlink("real.json", world.model().join("link.json")).unwrap();
    assert!(matches!(rejected(&world, "link.json"), Rejection::Link));

    let world = World::new();
    symlink("/etc", world.model().join("etc")).unwrap();
    assert!(matches!(rejected(&world, "etc"), Rejection::Link));

    assert!(matches!(rejection(".env", b"x"), Rejection::Hidden));
    let world = World::new();
    world.write("sub/.git/config.json", b"{}");
    assert!(matches!(rejected(&world, "sub/.git"), Rejection::Hidden));
    assert!(matches!(
        rejection("with space.json", b"{}"),
        Rejection::Name
    ));
    assert!(matches!(rejection("a~b.json", b"{}"), Rejection::Name));
    assert!(matches!(
        rejection("a/b/c/d/e.json", b"{}"),
        Rejection::Name
    ));
    let world = World::new();
    world.write("CONFIG.json", b"{}");
    assert!(
        matches!(rejected(&world, "config.json"), Rejection::SameNameButCase { other } if other == "CONFIG.json")
    );
}

#[test]
fn version_control_and_download_bookkeeping_is_left_out() {
    let world = World::new();
    for path in [".gitattributes", ".git/HEAD", ".cache/huggingface/x.lock"] {
        world.write(path, b"x");
    }
    let manifest = world.seal().unwrap();
    assert_eq!(manifest.files.len(), 4);
}

#[test]
fn files_that_are_not_what_their_name_says_are_refused() {
    assert!(matches!(
        rejection("tokenizer.json", b"{\"a\":"),
        Rejection::Json(_)
    ));
    assert!(matches!(
        rejection("tokenizer.json", b"\xff\xfe"),
        Rejection::NotText
    ));
    assert!(matches!(
        rejection("README.md", b"a\0b"),
        Rejection::NotText
    ));
    assert!(matches!(
        rejection("chat_template.jinja", &vec![b'a'; (1 << 20) + 1]),
        Rejection::TooLarge { .. }
    ));
    assert!(matches!(
        rejection("model.gguf", b"GGUF"),
        Rejection::Gguf(gguf::Problem::Short)
    ));
    assert!(matches!(
        rejection(
            "model.gguf",
            &[&b"GGUF\x03\0\0\0"[..], &[0xff; 16]].concat()
        ),
        Rejection::Gguf(gguf::Problem::Count { .. })
    ));
    let mut cut = fs::read("tests/data/tiny.gguf").unwrap();
    cut.truncate(cut.len() - 32);
    assert!(matches!(
        rejection("model.gguf", &cut),
        Rejection::Gguf(gguf::Problem::OutOfRange { .. })
    ));
    assert!(matches!(
        rejection("x.safetensors", b"1234"),
        Rejection::Safetensors(st::Problem::TooShort { .. })
    ));
    assert!(matches!(
        rejection("x.safetensors", &[0xff; 16]),
        Rejection::Safetensors(st::Problem::HeaderLength { .. })
    ));
    let mut longer = safetensors(b"data");
    longer.push(0);
    assert!(matches!(
        rejection("x.safetensors", &longer),
        Rejection::Safetensors(st::Problem::Hole { .. })
    ));
    let mut shorter = safetensors(b"data");
    shorter.pop();
    assert!(matches!(
        rejection("x.safetensors", &shorter),
        Rejection::Safetensors(st::Problem::OutOfRange { .. })
    ));
}

#[test]
fn a_sharded_model_must_have_each_tensor_where_its_index_says() {
    let world = World::new();
    let shard = |name: &str| {
        let header = format!(r#"{{"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#);
        [
            &(header.len() as u64).to_le_bytes(),
            header.as_bytes(),
            b"x",
        ]
        .concat()
    };
    world.write("m-1.safetensors", &shard("a"));
    world.write("m-2.safetensors", &shard("b"));
    let index = "m.safetensors.index.json";
    world.write(index, br#"{"metadata":{"total_size":2},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}"#);
    world.seal().unwrap();
    fs::remove_dir_all(world.out()).unwrap();

    world.write(
        index,
        br#"{"weight_map":{"a":"m-1.safetensors","b":"m-3.safetensors"}}"#,
    );
    assert!(
        matches!(rejected(&world, index), Rejection::MissingShard { shard } if shard == "m-3.safetensors")
    );
    world.write(
        index,
        br#"{"weight_map":{"a":"m-1.safetensors","c":"m-2.safetensors"}}"#,
    );
    assert!(
        matches!(rejected(&world, index), Rejection::MissingTensor { tensor, .. } if tensor == "c")
    );
    world.write(index, br#"{"weight_map":{"a":"../m-1.safetensors"}}"#);
    assert!(matches!(
        rejected(&world, index),
        Rejection::MissingShard { .. }
    ));
    world.write(
        index,
        br#"{"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}"#,
    );
    world.write("m-2.safetensors", &shard("a"));
    assert!(matches!(
        rejected(&world, index),
        Rejection::TensorInTwoShards { .. }
    ));
    world.write(index, b"{}");
    assert!(matches!(rejected(&world, index), Rejection::Json(_)));
}

#[test]
fn a_directory_without_weights_bad_options_and_an_existing_target_are_refused() {
    let world = World::new();
    fs::remove_file(world.model().join("model.safetensors")).unwrap();
    assert!(matches!(world.seal(), Err(Error::NoWeights)));
    let world = World::new();
    assert!(matches!(
        world.seal_as("a/b", 1, &key()),
        Err(Error::ModelName { .. })
    ));
    assert!(matches!(
        world.seal_as("a", 0, &key()),
        Err(Error::Epoch { .. })
    ));
    world.seal().unwrap();
    assert!(matches!(world.seal(), Err(Error::OutputExists { .. })));
}

#[test]
fn a_package_is_flat_and_holds_what_was_signed_and_one_ciphertext_per_file() {
    let world = World::new();
    let package = world.package();
    let names: Vec<_> = package.0.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "1_Pooling~config.json.enc",
            "LICENSE.enc",
            "bom.cdx.json",
            "config.json.enc",
            "manifest.json",
            "manifest.sig",
            "model.safetensors.enc",
            "model.sig",
            "segments.sha256"
        ]
    );
    let plaintext = fs::read(world.model().join("config.json")).unwrap();
    let leaks = |bytes: &Vec<u8>| {
        bytes
            .windows(plaintext.len())
            .any(|window| window == plaintext)
    };
    assert!(!package.0.values().any(leaks));
}

#[test]
fn unsealing_gives_the_directory_back() {
    let world = World::new();
    world.write("model.safetensors", &safetensors(&pattern(18_000_000)));
    world.seal().unwrap();
    let package =
        Package::open(DirSource::new(world.out()), &world.trusted(), NAME, EPOCH).unwrap();
    let unlocked = package.unlock(DataKey::from_bytes(&KEY).unwrap()).unwrap();
    let out = world.dir.path().join("again");
    unseal(&unlocked, &world.trusted(), &out, &|_| {}).unwrap();
    assert_eq!(
        fs::read(out.join("model.sig")).unwrap(),
        fs::read(world.out().join("model.sig")).unwrap()
    );
    for entry in unlocked.files() {
        assert_eq!(
            fs::read(out.join(&entry.path)).unwrap(),
            fs::read(world.model().join(&entry.path)).unwrap(),
            "{}",
            entry.path
        );
    }
    assert!(matches!(
        unseal(&unlocked, &world.trusted(), &out, &|_| {}),
        Err(Error::OutputExists { .. })
    ));
    // What was unsealed can be sealed again: the signature in it is not of the model.
    fs::remove_dir_all(world.out()).unwrap();
    fs::remove_dir_all(world.model()).unwrap();
    fs::rename(&out, world.model()).unwrap();
    assert_eq!(world.seal().unwrap().files.len(), 4);

    let stranger = [SigningKey::generate().unwrap().public().unwrap()];
    assert!(matches!(
        unseal(&unlocked, &stranger, &out, &|_| {}),
        Err(Error::Unavailable { .. } | Error::Digest { .. } | Error::ModelSignature { .. })
    ));
    assert!(!out.exists());
}

#[test]
fn progress_reaches_the_total_and_never_more() {
    let world = World::new();
    world.write("model.safetensors", &safetensors(&pattern(3_000_000)));
    let seen = Mutex::new(Vec::new());
    let (key, signer) = (key(), SigningKey::generate().unwrap());
    let options = SealOptions {
        name: NAME,
        epoch: EPOCH,
        key: &key,
        signer: &signer,
        created: SystemTime::UNIX_EPOCH,
        progress: &|progress| seen.lock().unwrap().push((progress.done, progress.total)),
    };
    let manifest = seal(&world.model(), &world.out(), &options).unwrap();
    let total: u64 = manifest.files.iter().map(|entry| entry.size).sum();
    let seen = seen.into_inner().unwrap();
    assert!(seen.iter().all(|(done, of)| *of == total && *done <= total));
    assert_eq!(seen.iter().map(|(done, _)| *done).max(), Some(total));
}

#[test]
fn inspection_needs_no_key_and_says_what_it_could_not_check() {
    let world = World::new();
    world.seal().unwrap();
    let source = DirSource::new(world.out());
    let blind = inspect(&source, &[]).unwrap();
    assert_eq!(blind.signature, SignatureVerdict::UnknownPublisher);
    assert_eq!(blind.claimed_publisher, world.signer.public().unwrap().id());
    let seen = inspect(&source, &world.trusted()).unwrap();
    assert_eq!(seen.signature, SignatureVerdict::Valid);
    assert_eq!(seen.model_signature, SignatureVerdict::Valid);
    let package = Package::open_any_version(&source, &world.trusted()).unwrap();
    assert_eq!(package.manifest_sha256(), *seen.manifest_sha256.as_bytes());
    assert_eq!(package.manifest(), &seen.manifest);

    let path = world.out().join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("2023-", "2024-")).unwrap();
    assert_eq!(
        inspect(&source, &world.trusted()).unwrap().signature,
        SignatureVerdict::Invalid
    );
    assert!(Package::open_any_version(&source, &world.trusted()).is_err());
}
