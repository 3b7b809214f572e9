//! The built command, as its users run it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

struct World(TempDir);

impl World {
    /// A directory with keys and a small model.
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        assert_eq!(
            world.run(&["keygen", "--out", "keys"]).status.code(),
            Some(0)
        );
        fs::create_dir_all(world.path("model/1_Pooling")).unwrap();
        fs::write(world.path("model/1_Pooling/config.json"), "{}").unwrap();
        fs::write(world.path("model/README.md"), "# Model").unwrap();
        let header = br#"{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
        let weights = [
            &(header.len() as u64).to_le_bytes()[..],
            header,
            b"\x01\x02\x03\x04",
        ]
        .concat();
        fs::write(world.path("model/model.safetensors"), weights).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_cloister"))
            .current_dir(&self.0)
            .args(arguments)
            .output()
            .unwrap()
    }

    fn seal(&self, out: &str) -> Output {
        self.run(&[
            "seal",
            "model",
            "--out",
            out,
            "--name",
            "demo",
            "--epoch",
            "2",
            "--key-file",
            "keys/data.key",
            "--sign-key",
            "keys/publisher.key.pem",
        ])
    }

    fn verify_model(&self, dir: &str) -> Output {
        self.run(&["verify-model", dir, "--publisher", "keys/publisher.pub.pem"])
    }

    fn rotate(&self, epoch: &str, out: &str) -> Output {
        self.run(&[
            "rotate",
            "package",
            "--out",
            out,
            "--epoch",
            epoch,
            "--key-file",
            "keys/data.key",
            "--new-key-file",
            "next/data.key",
            "--publisher",
            "keys/publisher.pub.pem",
            "--sign-key",
            "keys/publisher.key.pem",
        ])
    }

    fn unseal(&self, package: &str, out: &str) -> Output {
        self.run(&[
            "unseal",
            package,
            "--out",
            out,
            "--key-file",
            "keys/data.key",
            "--publisher",
            "keys/publisher.pub.pem",
        ])
    }
}

fn stdout(output: &Output) -> String {
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// One line on stderr that names what it is about, and the exit code.
fn fails(output: &Output, code: i32, about: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(
        text.starts_with("error: ") && text.ends_with('\n') && text.lines().count() == 1,
        "{text}"
    );
    for word in about {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn secret_keys_are_for_their_owner_only_and_never_overwritten() {
    let world = World::new();
    assert_eq!(mode(&world.path("keys/data.key")), 0o600);
    assert_eq!(mode(&world.path("keys/publisher.key.pem")), 0o600);
    assert_eq!(mode(&world.path("keys/publisher.pub.pem")), 0o644);
    let before = fs::read(world.path("keys/data.key")).unwrap();
    assert_eq!(before.len(), 64);
    fails(
        &world.run(&["keygen", "--out", "keys"]),
        64,
        &["keys/data.key", "exists"],
    );
    assert_eq!(fs::read(world.path("keys/data.key")).unwrap(), before);
    stdout(&world.run(&["keygen", "--out", "next", "--only", "data"]));
    assert!(!world.path("next/publisher.key.pem").exists());
    assert_ne!(fs::read(world.path("next/data.key")).unwrap(), before);
}

#[test]
fn a_model_sealed_inspected_and_unsealed_comes_back_the_same() {
    let world = World::new();
    let sealed = stdout(&world.seal("package"));
    assert!(sealed.contains("models/demo/epoch-2"), "{sealed}");

    let seen = stdout(&world.run(&["inspect", "package"]));
    for word in [
        "demo",
        "not checked",
        "1_Pooling/config.json",
        "model.safetensors",
        "3 files",
    ] {
        assert!(seen.contains(word), "{word} is not in: {seen}");
    }
    let seen = stdout(&world.run(&[
        "inspect",
        "package",
        "--publisher",
        "keys/publisher.pub.pem",
    ]));
    assert!(seen.contains("signature   valid"), "{seen}");
    let json = stdout(&world.run(&["inspect", "package", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["manifest"]["epoch"], 2);
    assert!(sealed.contains(json["manifest_sha256"].as_str().unwrap()));

    stdout(&world.unseal("package", "again"));
    let checked = stdout(&world.verify_model("again"));
    assert!(checked.contains("signature   valid"), "{checked}");
    for file in ["1_Pooling/config.json", "README.md", "model.safetensors"] {
        assert_eq!(
            fs::read(world.path("again").join(file)).unwrap(),
            fs::read(world.path("model").join(file)).unwrap()
        );
    }
}

#[test]
fn a_model_that_is_not_as_signed_is_refused_with_the_files_name() {
    let world = World::new();
    stdout(&world.seal("package"));
    fs::copy(
        world.path("package/model.sig"),
        world.path("model/model.sig"),
    )
    .unwrap();
    stdout(&world.verify_model("model"));
    fs::write(world.path("model/more.json"), "{}").unwrap();
    fails(
        &world.verify_model("model"),
        77,
        &["model: more.json: is not signed"],
    );
    fs::remove_file(world.path("model/more.json")).unwrap();
    fs::write(world.path("model/README.md"), "# Other").unwrap();
    fails(
        &world.verify_model("model"),
        77,
        &["README.md: SHA-256", "expected"],
    );
    fs::remove_file(world.path("model/README.md")).unwrap();
    fails(
        &world.verify_model("model"),
        77,
        &["README.md: is signed, but not there"],
    );
    fails(&world.verify_model("package"), 77, &["is not signed"]);
    fails(&world.verify_model("nowhere"), 64, &["nowhere/model.sig"]);
    stdout(&world.run(&["keygen", "--out", "other", "--only", "publisher"]));
    let stranger = [
        "verify-model",
        "model",
        "--publisher",
        "other/publisher.pub.pem",
    ];
    fails(
        &world.run(&stranger),
        77,
        &["model/model.sig", "none of the keys"],
    );
}

#[test]
fn a_package_is_rotated_to_another_key_and_epoch() {
    let world = World::new();
    stdout(&world.seal("package"));
    fails(&world.rotate("3", "package-3"), 64, &["next/data.key"]);
    stdout(&world.run(&["keygen", "--out", "next", "--only", "data"]));
    fails(&world.rotate("2", "package-3"), 64, &["epoch 2", "--epoch"]);
    let made = stdout(&world.rotate("3", "package-3"));
    assert!(made.contains("models/demo/epoch-3"), "{made}");
    assert_eq!(
        fs::read(world.path("package/model.sig")).unwrap(),
        fs::read(world.path("package-3/model.sig")).unwrap()
    );
    fails(
        &world.unseal("package-3", "again"),
        77,
        &["models/demo/epoch-3", "--key-file"],
    );
    fs::copy(world.path("next/data.key"), world.path("keys/data.key")).unwrap();
    stdout(&world.unseal("package-3", "again"));
    stdout(&world.verify_model("again"));
    fails(
        &world.rotate("4", "package-4"),
        77,
        &["package: manifest.json", "models/demo/epoch-2"],
    );
}

#[test]
fn a_mirror_compares_every_byte_without_a_key() {
    let world = World::new();
    stdout(&world.seal("package"));
    let all = ["inspect", "package", "--all"];
    let seen = stdout(&world.run(&all));
    assert!(seen.contains("bom         sha256 "), "{seen}");
    let sealed = world.path("package/README.md.enc");
    let mut bytes = fs::read(&sealed).unwrap();
    bytes[45] ^= 1;
    fs::write(&sealed, &bytes).unwrap();
    stdout(&world.run(&["inspect", "package"]));
    fails(&world.run(&all), 77, &["README.md.enc", "segment 0"]);
    bytes[45] ^= 1;
    fs::write(&sealed, &bytes).unwrap();
    fs::write(world.path("package/bom.cdx.json"), "{}").unwrap();
    fails(
        &world.run(&["inspect", "package"]),
        77,
        &["bom.cdx.json: SHA-256"],
    );
}

#[test]
fn a_seal_that_was_killed_goes_on_where_it_was_and_leaves_nothing_behind() {
    let world = World::new();
    let tensor = |name: &str, len: usize| {
        let header =
            format!(r#"{{"w":{{"dtype":"U8","shape":[{len}],"data_offsets":[0,{len}]}}}}"#);
        let length = (header.len() as u64).to_le_bytes();
        let bytes = [&length[..], header.as_bytes(), &vec![7; len]].concat();
        fs::write(world.path("model").join(name), bytes).unwrap();
    };
    for index in 0..24 {
        tensor(&format!("m-{index:02}.safetensors"), 8 << 20);
    }
    let partial = world.path(".package.cloister-partial");
    let mut run = Command::new(env!("CARGO_BIN_EXE_cloister"))
        .current_dir(&world.0)
        .args(["seal", "model", "--out", "package", "--name", "demo"])
        .args(["--epoch", "2", "--key-file", "keys/data.key"])
        .args(["--sign-key", "keys/publisher.key.pem"])
        .spawn()
        .unwrap();
    let done = || {
        let entries = fs::read_dir(&partial).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name.ends_with(".enc"))
            .collect::<Vec<_>>()
    };
    while done().is_empty() && run.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(!world.path("package").exists(), "it was killed in time");
    let kept = done();
    let first = partial.join(kept.first().unwrap());
    let before = fs::read(&first).unwrap();

    stdout(&world.seal("package"));
    assert!(!partial.exists());
    let after = world.path("package").join(first.file_name().unwrap());
    assert!(before == fs::read(after).unwrap(), "kept as it was");
    stdout(&world.unseal("package", "again"));
}

#[test]
fn a_model_with_code_is_refused_and_nothing_is_left() {
    let world = World::new();
    fs::write(world.path("model/modeling.py"), "import os").unwrap();
    fails(
        &world.seal("package"),
        77,
        &["modeling.py", "code", "remove it"],
    );
    let left = fs::read_dir(world.0.path()).unwrap().count();
    assert_eq!(left, 2, "keys and model");
}

#[test]
fn what_is_wrong_and_how_to_fix_it_is_one_line() {
    let world = World::new();
    stdout(&world.seal("package"));
    fails(&world.seal("package"), 64, &["package", "exists", "--out"]);
    fails(
        &world.run(&["inspect", "nowhere"]),
        64,
        &["nowhere", "manifest.sig", "cloister seal"],
    );
    fails(
        &world.run(&[
            "inspect",
            "package",
            "--publisher",
            "keys/publisher.key.pem",
        ]),
        64,
        &["publisher.key.pem", "PUBLIC KEY"],
    );

    stdout(&world.run(&["keygen", "--out", "other"]));
    let seen = world.run(&[
        "inspect",
        "package",
        "--publisher",
        "other/publisher.pub.pem",
    ]);
    fails(&seen, 77, &["package", "unknown publisher"]);
    assert!(
        String::from_utf8_lossy(&seen.stdout).contains("model.safetensors"),
        "the table is shown all the same"
    );
    let wrong_key = [
        "unseal",
        "package",
        "--out",
        "x",
        "--key-file",
        "other/data.key",
        "--publisher",
        "keys/publisher.pub.pem",
    ];
    fails(
        &world.run(&wrong_key),
        77,
        &["models/demo/epoch-2", "--key-file"],
    );
    let wrong_publisher = [
        "unseal",
        "package",
        "--out",
        "x",
        "--key-file",
        "keys/data.key",
        "--publisher",
        "other/publisher.pub.pem",
    ];
    fails(
        &world.run(&wrong_publisher),
        77,
        &["manifest.sig", "--publisher"],
    );

    let sealed = world.path("package/model.safetensors.enc");
    let mut bytes = fs::read(&sealed).unwrap();
    bytes[50] ^= 1;
    fs::write(&sealed, &bytes).unwrap();
    fails(
        &world.unseal("package", "x"),
        77,
        &["model.safetensors.enc", "segment 0"],
    );
    bytes.pop();
    fs::write(&sealed, &bytes).unwrap();
    fails(
        &world.run(&["inspect", "package"]),
        77,
        &["model.safetensors.enc", "bytes, expected"],
    );
    assert!(!world.path("x").exists());

    fs::set_permissions(
        world.path("keys/data.key"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    fails(&world.seal("package2"), 64, &["keys/data.key", "chmod 600"]);
    fs::set_permissions(
        world.path("keys/data.key"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    fs::write(world.path("keys/data.key"), "short").unwrap();
    fails(
        &world.seal("package2"),
        64,
        &["keys/data.key", "64 hex digits"],
    );
}

#[test]
fn usage_errors_exit_64_and_help_shows_examples() {
    let world = World::new();
    assert_eq!(world.run(&["seal"]).status.code(), Some(64));
    assert_eq!(world.run(&[]).status.code(), Some(64));
    assert_eq!(
        world.run(&["seal", "model", "--key", "00"]).status.code(),
        Some(64)
    );
    for command in [
        "keygen",
        "seal",
        "inspect",
        "unseal",
        "rotate",
        "verify-model",
        "verify",
    ] {
        let help = stdout(&world.run(&[command, "--help"]));
        assert!(
            help.contains("Example") && help.contains(&format!("cloister {command}")),
            "{help}"
        );
    }
    assert!(stdout(&world.run(&["--help"])).contains("Examples:"));
    assert!(stdout(&world.run(&["--version"])).starts_with("cloister "));
}
