//! The image that would run on Nitro, booted in an emulated machine: measured before, attested from the inside, served
//! through every program. Needs what `scripts/nitro-emulator setup` builds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use attestation::Pcr;
use bytes::Bytes;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};
use serde_json::{Value, json};
use sim::machine::Fault;
use sim::nsm::SimPki;
use sim::stack::{self, Error, Layout, MachineOptions, Options, Stack, Tee, pack};
use tests::models;
use tokio::sync::{Mutex, MutexGuard};

/// An emulated machine needs both processors of a small computer.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// What the tests need, or `None` where it was not built (which a CI run may not accept).
async fn machine() -> Option<(MachineOptions, MutexGuard<'static, ()>)> {
    let emulator = tests::root().join("target/tools/emulator");
    let parts = tests::root().join("target/image");
    let needed = [
        emulator.join("qemu-system-x86_64"),
        emulator.join("bin/vhost-device-vsock"),
        parts.join("bzImage"),
        parts.join("init"),
        parts.join("enclave"),
        parts.join("host"),
    ];
    for file in needed {
        if !file.exists() {
            tests::skip_with(&file.display().to_string(), "scripts/nitro-emulator setup");
            return None;
        }
    }
    let guard = ONE_AT_A_TIME.lock().await;
    Some((MachineOptions::new(emulator, parts), guard))
}

fn options(machine: MachineOptions, models: Vec<stack::Model>) -> Options {
    let mut options = tests::options(models);
    options.tee = Tee::Machine(machine);
    options
}

async fn ask(stack: &Stack, path: &str, body: &Value) -> Value {
    let endpoint = format!("tcp://127.0.0.1:{}", stack.port());
    let (status, answer) = stack::post_json(&endpoint, path, Bytes::from(body.to_string()))
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(status, 200, "{answer}");
    answer
}

fn log(stack: &Stack, role: &str) -> String {
    std::fs::read_to_string(stack.layout.log(role)).unwrap()
}

/// Starts what cannot start, and gives why.
async fn refused(options: Options) -> String {
    match Stack::start(options).await {
        Ok(_) => panic!("it came up"),
        Err(Error::Ended { role, tail, .. }) => {
            assert_eq!(role, "machine");
            tail
        }
        Err(other) => panic!("{other}"),
    }
}

fn chat() -> Value {
    json!({
        "model": "cloister-demo",
        "messages": [{"role": "user", "content": "What does the host see?"}],
        "temperature": 0,
        "max_tokens": 48,
    })
}

/// Evidence, chat and embeddings through the gateway, against the registers that were told before the boot.
async fn serves(stack: &Stack) {
    let endpoint = format!("tcp://127.0.0.1:{}", stack.port());
    let (status, body) = stack::get(&endpoint, "/cloister/evidence").await.unwrap();
    assert_eq!(status, 200);
    let evidence = String::from_utf8(body.to_vec()).unwrap();
    let signed = (stack.pcrs[&8] != Pcr::ZERO).then_some(8);
    for index in (0..=4).chain(signed) {
        assert!(
            evidence.contains(&stack.pcrs[&index].to_string()),
            "PCR{index}"
        );
    }
    assert!(evidence.contains(&stack.config_digest.to_string()));

    let answer = ask(stack, "/v1/chat/completions", &chat()).await;
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.to_lowercase().contains("ciphertext"), "{text}");

    let request = json!({"model": models::EMBED, "input": "a man is eating"});
    let answer = ask(stack, "/v1/embeddings", &request).await;
    let vector: Vec<f32> = serde_json::from_value(answer["data"][0]["embedding"].clone()).unwrap();
    let norm: f32 = vector.iter().map(|x| x * x).sum();
    assert!((norm - 1.0).abs() < 1e-4);
}

fn both(dir: &Path) -> Vec<stack::Model> {
    let embed = models::both(dir).remove(1);
    vec![models::demo(), embed]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_goes_through_a_booted_image() {
    let Some((machine, _guard)) = machine().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::start(options(machine, both(dir.path())))
        .await
        .unwrap();
    serves(&stack).await;

    // What the machine said on the way, as the host's log has it: outside debug mode the console cannot be read.
    let host = log(&stack, "host");
    assert!(host.contains("init: heartbeat answered by CID 2"), "{host}");
    assert!(host.contains("runtime measurement locked"), "{host}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_with_cid_3_serves_the_same_image() {
    let Some((mut machine, _guard)) = machine().await else {
        return;
    };
    machine.parent_machine = true;
    machine.signer = Some(signer());
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::start(options(machine, both(dir.path())))
        .await
        .unwrap();
    serves(&stack).await;
    assert_ne!(stack.pcrs[&8], Pcr::ZERO, "the image was signed");
    let parent = std::fs::read_to_string(stack.layout.path("parent.log")).unwrap();
    assert!(
        parent.contains("init: heartbeat answered by CID 3"),
        "{parent}"
    );
    stack.stop().await;
}

/// A signer of images, whose certificate is PCR8.
fn signer() -> (String, String) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut params = CertificateParams::default();
    let now = tests::clock()();
    params.not_before = now.into();
    params.not_after = (now + Duration::from_secs(3600)).into();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// Spoils a finished run before its first program starts.
async fn refused_after(
    machine: MachineOptions,
    spoil: impl FnOnce(&Layout) + Send + 'static,
) -> String {
    let mut options = options(machine, vec![models::demo()]);
    options.before_start = Some(Box::new(spoil));
    refused(options).await
}

/// As [`refused_after`], and the reasons in the broker's own release log, which outlives the run.
async fn refused_by_the_broker(
    machine: MachineOptions,
    spoil: impl FnOnce(&Layout) + Send + 'static,
) -> (String, Vec<String>) {
    let kept = tempfile::tempdir().unwrap();
    let dir = kept.path().to_owned();
    let error = refused_after(machine, move |layout| {
        spoil(layout);
        let text = std::fs::read_to_string(layout.config("kbs")).unwrap();
        let mut config: toml::Table = text.parse().unwrap();
        for (field, file) in [
            ("database", "kbs.sqlite"),
            ("master_key_file", "master.key"),
        ] {
            let path = dir.join(file).display().to_string();
            config.insert(field.to_owned(), path.into());
        }
        std::fs::copy(layout.path("master.key"), dir.join("master.key")).unwrap();
        let text = toml::to_string(&config).unwrap();
        std::fs::write(layout.config("kbs"), &text).unwrap();
        std::fs::write(dir.join("kbs.toml"), &text).unwrap();
    })
    .await;
    let config = kbs::Config::load(&kept.path().join("kbs.toml")).unwrap();
    let mut reasons = Vec::new();
    kbs::offline::read_log(&config, |record| {
        reasons.extend(record.entry.reason.clone());
    })
    .unwrap();
    (error, reasons)
}

/// The broker's last word was a refusal, for this reason.
#[track_caller]
fn refused_for(reasons: &[String], expected: &str) {
    let last = reasons.last().map(String::as_str).unwrap_or_default();
    assert!(last.contains(expected), "expected {expected}: {reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_of_configuration_more_and_nothing_is_released() {
    let Some((machine, _guard)) = machine().await else {
        return;
    };
    let again = machine.clone();
    let (error, reasons) = refused_by_the_broker(machine, move |layout| {
        let mut config = std::fs::read(layout.config("enclave")).unwrap();
        config.push(b'\n');
        pack(&again, &config, &layout.path("enclave.eif")).unwrap();
    })
    .await;
    assert!(
        error.contains("the broker issued no identity: the broker refused"),
        "{error}"
    );
    refused_for(
        &reasons,
        "no identity is mapped to this measurement: PCR0 is",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_released_to_no_other_image_even_with_an_identity() {
    let Some((machine, _guard)) = machine().await else {
        return;
    };
    // The identity is given to this image, the key to another one.
    let (error, reasons) = refused_by_the_broker(machine, |layout| {
        let path = layout.path("policy.rego");
        let policy = std::fs::read_to_string(&path).unwrap();
        let at = policy.find("pcrs[\"2\"] == \"").unwrap() + "pcrs[\"2\"] == \"".len();
        let mut bytes = policy.into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        std::fs::write(path, bytes).unwrap();
    })
    .await;
    assert!(
        error.contains("the broker released no key for model cloister-demo: the broker refused"),
        "{error}"
    );
    refused_for(&reasons, "the policy does not allow it");
}

#[tokio::test(flavor = "multi_thread")]
async fn kms_gives_a_booted_image_the_keys_of_its_models() {
    let Some((machine, _guard)) = machine().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(machine, both(dir.path()));
    options.kms = true;
    let stack = Stack::start(options).await.unwrap();
    // The broker has none of them.
    serves(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kms_gives_them_to_no_other_image() {
    let Some((machine, _guard)) = machine().await else {
        return;
    };
    let mut options = options(machine, vec![models::demo()]);
    options.kms = true;
    options.before_start = Some(Box::new(tests::spoil_kms_policy));
    let error = refused(options).await;
    assert!(
        error.contains("KMS released no key for model cloister-demo")
            && error.contains("AccessDeniedException"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_believes_a_module_without_a_true_signature() {
    let Some((machine, _guard)) = machine().await else {
        return;
    };
    for (fault, reason) in [
        (Fault::WrongKey, "the document's signature is wrong"),
        (Fault::ExpiredLeaf, "certificate 4 is valid from"),
        (Fault::MissingIntermediate, "no valid path: UnknownIssuer"),
    ] {
        let mut machine = machine.clone();
        machine.fault = Some(fault);
        let (error, reasons) = refused_by_the_broker(machine, |_| {}).await;
        assert!(
            error.contains("the broker issued no identity: the broker refused"),
            "{fault:?}: {error}"
        );
        refused_for(&reasons, reason);
    }
    // Without a key the module makes documents that are none; init stops on them.
    let mut machine = machine.clone();
    machine.fault = Some(Fault::Unsigned);
    let error = refused_after(machine, |_| {}).await;
    assert!(
        error.contains("secure module gave an unexpected answer to Attestation"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_believes_a_foreign_root() {
    let Some((machine, _guard)) = machine().await else {
        return;
    };
    let (error, reasons) = refused_by_the_broker(machine, |layout| {
        let foreign = SimPki::generate(tests::clock()()).root_pem();
        std::fs::write(layout.path("nitro-root.pem"), foreign).unwrap();
    })
    .await;
    assert!(
        error.contains("the broker issued no identity: the broker refused"),
        "{error}"
    );
    refused_for(&reasons, "do not lead to the trust anchor: the root is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ramdisk_that_overflows_is_refused_by_init() {
    let Some((mut machine, _guard)) = machine().await else {
        return;
    };
    machine.memory_mib = overflowing(&machine.parts);
    let error = refused_after(machine, |_| {}).await;
    assert!(error.contains("give the enclave more memory"), "{error}");
}

/// A root file system takes half of what the loaded ramdisks leave: less than three times their size is too little.
fn overflowing(parts: &Path) -> u32 {
    let size = |name: &str| std::fs::metadata(parts.join(name)).unwrap().len() >> 20;
    3 * u32::try_from(size("enclave") + size("init")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_added_to_the_command_line_weakens_it() {
    let Some((machine, _guard)) = machine().await else {
        return;
    };
    for (append, said) in [
        ("mitigations=off", "started with \"mitigations=off\""),
        ("RUST_LOG=trace", "started with \"RUST_LOG=trace\""),
        // Past init: the program finds no secure module, since nobody mounted /dev; or there is no such program.
        (
            "rdinit=/app/enclave --config /app/enclave.toml",
            "Kernel panic",
        ),
        ("rdinit=/bin/sh", "Kernel panic"),
    ] {
        let mut machine = machine.clone();
        machine.append = append.to_owned();
        let (error, reasons) = refused_by_the_broker(machine, |_| {}).await;
        assert!(error.contains(said), "{append}: {error}");
        // Whatever ended the machine came before anything was asked for.
        let asked = reasons.iter().any(|r| r.contains("valid until"));
        assert!(!asked, "{append}: an identity was issued: {reasons:?}");
    }
}

#[test]
fn the_emulator_s_patches_keep_their_licence() {
    let dir: PathBuf = tests::root().join("infra/qemu/qemu");
    for name in ["nsm-signing.patch", "nsm-kick-race.patch"] {
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        assert!(
            text.starts_with("# SPDX-License-Identifier: GPL-2.0-or-later\n"),
            "{name}"
        );
    }
}
