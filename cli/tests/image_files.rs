//! What `cloister` tells of the files in an image, of PCR16, and of what changed between two images.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use attestation::{Pcr, ReferenceValues, Sha256Digest, Sha384Digest};
use image::RamdiskWriter;
use serde_json::Value;
use tempfile::TempDir;

const CONFIG: &str =
    "[limits]\nqueue = 4\n\n[[models]]\nname = \"chat\"\n\n[[models]]\nname = \"embed\"\n";

/// Ramdisk 1 has an init, ramdisk 2 the files of `app`.
fn archive(path: &Path, files: &[(&str, u32, &[u8])]) {
    let mut bytes = Vec::new();
    let mut writer = RamdiskWriter::new(&mut bytes);
    if files.iter().any(|(path, ..)| path.starts_with("app/")) {
        writer = writer.directory("app", 0o755).unwrap();
    }
    for (path, mode, content) in files {
        writer = writer
            .file(path, *mode, content.len() as u64, *content)
            .unwrap();
    }
    writer.finish().unwrap();
    fs::write(path, bytes).unwrap();
}

fn kernel(version: &str) -> Vec<u8> {
    let mut bytes = vec![0; 0x800];
    bytes.splice(0x1fe..0x200, [0x55, 0xaa]);
    bytes.splice(0x202..0x206, *b"HdrS");
    bytes.splice(0x20e..0x210, [0, 2]);
    bytes.splice(0x400..0x400 + version.len(), version.bytes());
    bytes
}

struct World(TempDir);

impl World {
    /// `a.eif`, as every test takes it.
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        fs::write(world.path("kernel"), kernel("6.12.48 #1 SMP")).unwrap();
        archive(&world.path("boot"), &[("init", 0o755, b"init")]);
        world.app(
            "app",
            &[
                ("app/enclave", 0o755, b"enclave"),
                ("app/enclave.toml", 0o644, CONFIG.as_bytes()),
            ],
        );
        world.build("a.eif", "kernel", "console=ttyS0 quiet", &["boot", "app"]);
        world
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn app(&self, name: &str, files: &[(&str, u32, &[u8])]) {
        archive(&self.path(name), files);
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_cloister"))
            .current_dir(&self.0)
            .args(arguments)
            .output()
            .unwrap()
    }

    fn build(&self, out: &str, kernel: &str, cmdline: &str, ramdisks: &[&str]) {
        let mut arguments = vec!["build-eif", "--kernel", kernel, "--cmdline", cmdline];
        for ramdisk in ramdisks {
            arguments.extend(["--ramdisk", ramdisk]);
        }
        arguments.extend(["--out", out]);
        stdout(&self.run(&arguments), 0);
    }

    /// Like `a.eif`, with other files in `app`.
    fn other(&self, files: &[(&str, u32, &[u8])]) {
        self.app("other", files);
        self.build("b.eif", "kernel", "console=ttyS0 quiet", &["boot", "other"]);
    }

    fn measure(&self, arguments: &[&str]) -> Output {
        self.run(&[&["measure", "a.eif"], arguments].concat())
    }

    fn diff(&self, code: i32) -> String {
        stdout(&self.run(&["diff", "a.eif", "b.eif"]), code)
    }

    fn diff_json(&self) -> Value {
        let output = self.run(&["diff", "a.eif", "b.eif", "--format", "json"]);
        serde_json::from_str(&stdout(&output, 1)).unwrap()
    }

    /// A sealed model with that name; its manifest.
    fn sealed(&self, name: &str) -> String {
        let model = self.path("model");
        if !model.exists() {
            fs::create_dir(&model).unwrap();
            fs::write(model.join("config.json"), "{}").unwrap();
            let header = br#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
            let length = (header.len() as u64).to_le_bytes();
            let weights = [&length[..], header, b"w"].concat();
            fs::write(model.join("model.safetensors"), weights).unwrap();
            stdout(&self.run(&["keygen", "--out", "keys"]), 0);
        }
        let arguments = [
            "seal", "model", "--out", name, "--name", name, "--epoch", "1",
        ];
        let keys = [
            "--key-file",
            "keys/data.key",
            "--sign-key",
            "keys/publisher.key.pem",
        ];
        stdout(&self.run(&[&arguments[..], &keys].concat()), 0);
        format!("{name}/manifest.json")
    }
}

fn stdout(output: &Output, code: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(output: &Output, code: i32, about: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.starts_with("error: "), "{text}");
    assert!(output.stdout.is_empty());
    has(&text, about);
}

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

/// By the definition, without the code under test.
fn pcr16(config: &[u8], manifests: &[&[u8]]) -> String {
    let mut text = b"cloister runtime measurement v1\0".to_vec();
    for part in [&[config], manifests].concat() {
        text.extend(Sha256Digest::of(part).as_bytes());
    }
    Pcr::ZERO
        .extend(Sha384Digest::of(&text).as_bytes())
        .to_string()
}

#[test]
fn every_file_is_listed_with_its_digest_and_its_registers() {
    let world = World::new();
    let text = stdout(&world.measure(&["--files"]), 0);
    let digest = Sha256Digest::of(CONFIG.as_bytes()).to_string();
    has(
        &text,
        &[
            "kernel      6.12.48 #1 SMP\n",
            "\nramdisk 1, in PCR0 PCR1\n-rwxr-xr-x            4  ",
            "\nramdisk 2, in PCR0 PCR2\ndrwxr-xr-x            0  -",
            &format!("{digest}  app/enclave.toml\n"),
        ],
    );
    assert!(!stdout(&world.measure(&[]), 0).contains("app/enclave"));
    let json: Value =
        serde_json::from_str(&stdout(&world.measure(&["--format", "json"]), 0)).unwrap();
    assert_eq!(json["kernel"]["version"], "6.12.48 #1 SMP");
    let ramdisk = &json["ramdisks"][1];
    assert_eq!(ramdisk["registers"], serde_json::json!([0, 2]));
    assert_eq!(ramdisk["remarks"], serde_json::json!([]));
    let file = &ramdisk["files"][2];
    assert_eq!(file["path"], "app/enclave.toml");
    assert_eq!(file["mode"], "0644");
    assert_eq!(file["size"], CONFIG.len());
    assert_eq!(file["sha256"], digest);
}

#[test]
fn what_the_kernel_leaves_out_or_replaces_is_said() {
    let world = World::new();
    world.app("evil", &[("init", 0o755, b"evil\x1b[2J")]);
    world.build("evil.eif", "kernel", "", &["boot", "evil"]);
    let text = stdout(&world.run(&["measure", "evil.eif", "--files"]), 0);
    has(
        &text,
        &["! \"init\" replaces the entry of that name in ramdisk 1"],
    );
    fs::write(world.path("xz"), b"\xfd7zXZ\0....").unwrap();
    world.build("xz.eif", "kernel", "", &["boot", "xz"]);
    let output = world.run(&["measure", "xz.eif", "--format", "json"]);
    let json: Value = serde_json::from_str(&stdout(&output, 0)).unwrap();
    assert_eq!(
        json["ramdisks"][1]["not_listed"],
        "compressed with xz, not listed"
    );
    assert_eq!(json["ramdisks"][0]["not_listed"], Value::Null);
    let mut odd = fs::read(world.path("boot")).unwrap();
    odd.push(0);
    fs::write(world.path("odd"), odd).unwrap();
    world.build("odd.eif", "kernel", "", &["odd", "app"]);
    let text = stdout(&world.run(&["measure", "odd.eif", "--files"]), 0);
    has(
        &text,
        &["! the kernel leaves out this archive and all that follows"],
    );
    assert!(!text.contains("app/enclave"));
}

#[test]
fn pcr16_follows_from_configuration_and_manifests() {
    let world = World::new();
    let [chat, embed] = ["chat", "embed"].map(|name| world.sealed(name));
    let bytes = |path: &str| fs::read(world.path(path)).unwrap();
    let models = ["--manifest", &chat, "--manifest", &embed];
    let expected = pcr16(CONFIG.as_bytes(), &[&bytes(&chat), &bytes(&embed)]);
    let text = stdout(&world.measure(&models), 0);
    has(
        &text,
        &[
            &format!("PCR16       {expected}  configuration and models"),
            "model       chat, manifest sha256 ",
        ],
    );
    let output = world.measure(&[&models[..], &["--format", "json"]].concat());
    let json: Value = serde_json::from_str(&stdout(&output, 0)).unwrap();
    assert_eq!(json["pcrs"]["16"], expected);
    let config = Sha256Digest::of(CONFIG.as_bytes()).to_string();
    assert_eq!(json["runtime"]["config_sha256"], config);
    assert_eq!(json["runtime"]["models"][1]["name"], "embed");
    // A gateway's session policy can require it.
    #[derive(serde::Deserialize)]
    struct Policy {
        images: ReferenceValues,
    }
    let text = stdout(
        &world.measure(&[&models[..], &["--format", "gateway"]].concat()),
        0,
    );
    let policy: Policy = toml::from_str(&text).unwrap();
    let [image] = policy.images.images() else {
        panic!("{text}");
    };
    assert_eq!(
        image.registers.keys().copied().collect::<Vec<_>>(),
        [0, 1, 2, 16]
    );
    assert_eq!(image.registers[&16].to_string(), expected);
    has(&text, &["# PCR16: for the policy of a gateway only\n"]);
    // Another file says otherwise.
    let other = "[[models]]\nname = \"chat\"\n";
    fs::write(world.path("other.toml"), other).unwrap();
    let text = stdout(
        &world.measure(&["--manifest", &chat, "--config", "other.toml"]),
        0,
    );
    has(&text, &[&pcr16(other.as_bytes(), &[&bytes(&chat)])]);
}

#[test]
fn refuses_manifests_that_are_not_those_of_the_configuration() {
    let world = World::new();
    let [chat, embed, third] = ["chat", "embed", "third"].map(|name| world.sealed(name));
    for manifests in [
        &[&chat][..],
        &[&embed, &chat],
        &[&chat, &third],
        &[&chat, &embed, &embed],
        &[&chat, &chat],
    ] {
        let arguments: Vec<_> = manifests
            .iter()
            .flat_map(|path| ["--manifest", path])
            .collect();
        refused(
            &world.measure(&arguments),
            64,
            &["--manifest", "chat, embed", "in that order"],
        );
    }
    refused(&world.measure(&["--manifest", "missing"]), 64, &["missing"]);
    refused(&world.measure(&["--manifest", "boot"]), 77, &["boot"]);
    fs::write(world.path("large"), vec![b' '; 600 << 10]).unwrap();
    refused(
        &world.measure(&["--manifest", "large"]),
        77,
        &["large", "larger than"],
    );
}

#[test]
fn refuses_pcr16_where_no_policy_could_require_it() {
    let world = World::new();
    let chat = world.sealed("chat");
    let key = ["--format", "rego", "--key-id", "models/chat/epoch-1"];
    for format in [&["--format", "kms"][..], &key] {
        let output = world.measure(&[&["--manifest", &chat], format].concat());
        refused(&output, 64, &["PCR16", "after the keys were released"]);
    }
    refused(
        &world.measure(&["--files", "--format", "kms"]),
        64,
        &["--files"],
    );
    assert_eq!(
        world.measure(&["--config", "other.toml"]).status.code(),
        Some(64)
    );
}

#[test]
fn refuses_a_configuration_that_no_enclave_would_read() {
    let world = World::new();
    let chat = world.sealed("chat");
    for text in [
        "",
        "models = 3",
        "[[models]]\nepoch = 1\n",
        "[[models]\n",
        "[[models]]\nname = 7\n",
        "\u{0}",
    ] {
        fs::write(world.path("bad.toml"), text).unwrap();
        let output = world.measure(&["--manifest", &chat, "--config", "bad.toml"]);
        refused(&output, 77, &["bad.toml", "not the configuration"]);
    }
    fs::write(world.path("bad.toml"), b"\xff").unwrap();
    let output = world.measure(&["--manifest", &chat, "--config", "bad.toml"]);
    refused(&output, 77, &["bad.toml"]);
    fs::write(world.path("bad.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    let output = world.measure(&["--manifest", &chat, "--config", "bad.toml"]);
    refused(&output, 77, &["bad.toml", "larger than 1048576"]);
    let output = world.measure(&["--manifest", &chat, "--config", "missing.toml"]);
    refused(&output, 64, &["missing.toml"]);
}

#[test]
fn refuses_a_configuration_that_may_be_another_one_in_the_enclave() {
    let world = World::new();
    let chat = world.sealed("chat");
    let refused_inside = |ramdisks: &[&str], about: &[&str]| {
        drop(fs::remove_file(world.path("c.eif")));
        world.build("c.eif", "kernel", "", ramdisks);
        let output = world.run(&["measure", "c.eif", "--manifest", &chat]);
        refused(
            &output,
            77,
            &[&["app/enclave.toml", "--config"], about].concat(),
        );
    };
    refused_inside(&["boot"], &["not there"]);
    // What follows could replace it.
    fs::write(world.path("zstd"), b"\x28\xb5\x2f\xfd....").unwrap();
    refused_inside(&["boot", "app", "zstd"], &["ramdisk 3", "zstd"]);
    let mut link = Vec::new();
    RamdiskWriter::new(&mut link)
        .directory("app", 0o755)
        .and_then(|w| w.symlink("app/enclave.toml", "/etc/other"))
        .and_then(RamdiskWriter::finish)
        .unwrap();
    fs::write(world.path("link"), &link).unwrap();
    refused_inside(&["boot", "link"], &["symbolic link"]);
    let mut elsewhere = Vec::new();
    RamdiskWriter::new(&mut elsewhere)
        .symlink("app", "/etc")
        .and_then(RamdiskWriter::finish)
        .unwrap();
    fs::write(world.path("elsewhere"), &elsewhere).unwrap();
    // Without its directory, it follows the link; the writer would refuse to make that.
    let (name, content) = ("app/enclave.toml\0", "[[models]]");
    let entry = |mode: u32, size: usize, name: &str| {
        let zeros = "0".repeat(8);
        let sizes = format!("{size:08x}{}{:08x}{zeros}", zeros.repeat(4), name.len());
        let head = format!("070701{zeros}{mode:08x}{}{sizes}{name}", zeros.repeat(4));
        format!("{head:\0<width$}", width = head.len().next_multiple_of(4))
    };
    let file = entry(0o100_644, content.len(), name);
    let stray = format!("{file}{content}\0\0{}", entry(0, 0, "TRAILER!!!\0"));
    fs::write(world.path("stray"), stray).unwrap();
    refused_inside(&["elsewhere", "stray"], &["lands elsewhere"]);
    refused_inside(&["boot", "stray"], &["left out by the kernel"]);
    // Under another name the configuration that is there already is replaced: the link leads to its directory.
    let mut alias = Vec::new();
    RamdiskWriter::new(&mut alias)
        .symlink("x", "app")
        .and_then(RamdiskWriter::finish)
        .unwrap();
    fs::write(world.path("alias"), &alias).unwrap();
    let file = entry(0o100_644, content.len(), "x/enclave.toml\0");
    let through = format!("{file}{content}\0\0{}", entry(0, 0, "TRAILER!!!\0"));
    fs::write(world.path("through"), through).unwrap();
    refused_inside(&["boot", "app", "alias", "through"], &["lands elsewhere"]);
    world.app(
        "large",
        &[("app/enclave.toml", 0o644, &vec![b'#'; (1 << 20) + 1])],
    );
    refused_inside(&["boot", "large"], &["1048577 bytes"]);
}

#[test]
fn diff_names_files_modes_and_lines() {
    let world = World::new();
    let config = CONFIG.replace("queue = 4", "queue = 8 # \x1b[2J");
    world.other(&[
        ("app/enclave", 0o555, b"enclave"),
        ("app/enclave.toml", 0o644, config.as_bytes()),
        ("app/new", 0o644, b"new"),
    ]);
    let text = world.diff(1);
    has(
        &text,
        &[
            "ramdisk 2: moves PCR0 PCR2\n",
            "    app/enclave: another mode\n      - -rwxr-xr-x 0:0 7 bytes",
            "    app/enclave.toml: changed\n      the configuration: config_digest of the evidence and PCR16 follow it\n",
            "        -queue = 4\n        +queue = 8 # \\u{1b}[2J\n",
            "    app/new: added\n      + -rw-r--r-- 0:0 3 bytes, sha256 ",
            "differ: PCR0 PCR2; equal: PCR1 PCR8\n",
        ],
    );
    assert!(!text.contains('\x1b'), "{text}");
    let json = world.diff_json();
    assert_eq!(json["equal"], false);
    assert_eq!(json["registers"]["differ"], serde_json::json!([0, 2]));
    assert_eq!(json["changes"][0]["what"], "ramdisk 2");
    let paths: Vec<_> = json["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["app/enclave", "app/enclave.toml", "app/new"]);
    assert_eq!(json["files"][0]["before"]["mode"], "0755");
    assert_eq!(json["files"][1]["lines"][2], "-queue = 4");
    assert_eq!(json["files"][2]["before"], Value::Null);
    assert_eq!(json["files"][2]["change"], "added");
}

#[test]
fn diff_names_words_and_kernels() {
    let world = World::new();
    fs::write(world.path("newer"), kernel("6.12.49\x1b #1 SMP")).unwrap();
    world.build("b.eif", "newer", "console=ttyS0 panic=1", &["boot", "app"]);
    let text = world.diff(1);
    has(
        &text,
        &[
            "kernel: moves PCR0 PCR1\n  - 6.12.48 #1 SMP, 2048 bytes, ",
            "\n  + 6.12.49\\x1b #1 SMP, 2048 bytes, ",
            "    removed: quiet\n    added: panic=1\n",
        ],
    );
    assert_eq!(
        world.diff_json()["command_line"],
        serde_json::json!({"removed": ["quiet"], "added": ["panic=1"]})
    );
    fs::remove_file(world.path("b.eif")).unwrap();
    world.build("b.eif", "kernel", "quiet  console=ttyS0", &["boot", "app"]);
    has(
        &world.diff(1),
        &["the same words: order or white space differs"],
    );
}

#[test]
fn diff_says_when_ramdisks_changed_places() {
    let world = World::new();
    world.build("b.eif", "kernel", "console=ttyS0 quiet", &["app", "boot"]);
    let text = world.diff(1);
    assert!(
        text.starts_with("order of ramdisks: moves PCR0 PCR1 PCR2\n  - 1 2\n  + 2 1\n"),
        "{text}"
    );
    has(&text, &["differ: PCR0 PCR1 PCR2; equal: PCR8\n"]);
    assert_eq!(world.diff_json()["files"], serde_json::json!([]));
}

#[test]
fn diff_says_what_it_cannot_compare() {
    let world = World::new();
    fs::write(world.path("xz"), b"\xfd7zXZ\0....").unwrap();
    world.build("b.eif", "kernel", "console=ttyS0 quiet", &["boot", "xz"]);
    let text = world.diff(1);
    has(&text, &["    + compressed with xz, not listed\n"]);
    assert!(!text.contains("app/enclave"), "{text}");
    assert_eq!(
        world.diff_json()["not_listed"]["after"]["2"],
        "compressed with xz, not listed"
    );
    // The same files in other bytes.
    fs::remove_file(world.path("b.eif")).unwrap();
    let mut padded = fs::read(world.path("app")).unwrap();
    padded.extend([0; 8]);
    fs::write(world.path("padded"), padded).unwrap();
    world.build(
        "b.eif",
        "kernel",
        "console=ttyS0 quiet",
        &["boot", "padded"],
    );
    has(
        &world.diff(1),
        &["    the same files: their order, inode numbers, compression or padding differs\n"],
    );
}

#[test]
fn large_and_binary_files_are_not_compared_by_lines() {
    let world = World::new();
    let lines = "line\n".repeat(2001);
    for content in [
        &b"\0binary"[..],
        b"\xff",
        lines.as_bytes(),
        &vec![b'a'; 70 << 10],
    ] {
        drop(fs::remove_file(world.path("b.eif")));
        world.other(&[
            ("app/enclave", 0o755, b"enclave"),
            ("app/enclave.toml", 0o644, content),
        ]);
        let json = world.diff_json();
        assert_eq!(json["files"][0]["path"], "app/enclave.toml");
        assert_eq!(json["files"][0]["lines"], Value::Null);
    }
    // What is compared is cut off.
    drop(fs::remove_file(world.path("b.eif")));
    let lines = "line\n".repeat(1000);
    world.other(&[
        ("app/enclave", 0o755, b"enclave"),
        ("app/enclave.toml", 0o644, lines.as_bytes()),
    ]);
    has(&world.diff(1), &["lines more\n"]);
}
