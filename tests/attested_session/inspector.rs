//! `cloister verify --connect`: the checks of a session by hand, kept for later in a bundle.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::sync::Arc;

use attestation::{AcceptedModel, EvidenceBundle, EvidencePolicy, Pcr, Sha256Digest};
use http::StatusCode;
use identity::issue::new_svid_der;
use identity::{SpiffeId, pem};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::fake_enclave::{
    CALLER, FakeEnclave, HOUR, MODEL, Respond, SERVER, World, at_once, honest, now,
};

/// The inspector's files: its SVID, the trust bundle, the root of evidence and what it accepts.
fn desk(world: &World) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let id = SpiffeId::new(CALLER).unwrap();
    let (chain, key) = new_svid_der(&world.authority, &id, HOUR, now()).unwrap();
    write("svid.pem", &pem::encode_certificates(&chain));
    write("key.pem", &pem::encode_private_key(&key));
    write("ca.pem", &world.authority.cert_pem());
    write("root.pem", &world.pki.root_pem());
    let gateway = world.policy();
    let policy = EvidencePolicy {
        images: gateway.images,
        config_digest: Some(world.config_digest),
        models: vec![AcceptedModel {
            name: MODEL.to_owned(),
            min_epoch: 7,
            manifest_sha256: gateway.models[0].manifest_sha256,
            publishers: gateway.models[0].publishers.clone(),
        }],
        max_age_s: Some(300),
    };
    write("accepted.toml", &toml::to_string(&policy).unwrap());
    dir
}

async fn cloister(desk: &TempDir, arguments: &[&str]) -> Output {
    Command::new(tests::program("cloister"))
        .current_dir(desk.path())
        .arg("verify")
        .args(arguments)
        .output()
        .await
        .unwrap()
}

async fn inspect(desk: &TempDir, enclave: &FakeEnclave, id: &str, more: &[&str]) -> Output {
    let address = enclave.address.to_string();
    let arguments = [
        "--connect",
        &address,
        "--svid",
        "svid.pem",
        "--key",
        "key.pem",
        "--trust-bundle",
        "ca.pem",
        "--server-id",
        id,
        "--root",
        "root.pem",
        "--policy",
        "accepted.toml",
    ];
    cloister(desk, &[&arguments, more].concat()).await
}

fn told(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

async fn refused(world: &Arc<World>, respond: Respond, words: &[&str]) {
    let desk = desk(world);
    let enclave = FakeEnclave::start(world, world.svid(SERVER, HOUR), respond).await;
    let (code, text) = told(&inspect(&desk, &enclave, SERVER, &[]).await);
    assert_eq!(code, Some(77), "{text}");
    for word in words {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    for path in enclave.log.paths() {
        assert_eq!(path, "/v1/attestation", "nothing but the challenge");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_enclave_is_accepted_and_its_bundle_says_so_offline() {
    let world = World::new();
    let desk = desk(&world);
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let output = inspect(&desk, &enclave, SERVER, &["--save", "session.json"]).await;
    let (code, text) = told(&output);
    assert_eq!(code, Some(0), "{text}");
    for word in [
        "accepted: authentic, and nonce, public-key, binding, measurements, freshness, config-digest, models hold",
        "for session",
        SERVER,
        MODEL,
    ] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    drop(enclave);

    // Later, elsewhere, without the enclave: by its own policy, and by one that the reader has.
    let offline = ["session.json", "--root", "root.pem", "--at", "document"];
    let (code, text) = told(&cloister(&desk, &offline).await);
    assert_eq!(code, Some(0), "{text}");
    let policy = fs::read_to_string(desk.path().join("accepted.toml")).unwrap();
    let later = policy.replace("min_epoch = 7", "min_epoch = 8");
    fs::write(desk.path().join("later.toml"), later).unwrap();
    let stricter = [&offline[..], &["--policy", "later.toml"]].concat();
    let (code, text) = told(&cloister(&desk, &stricter).await);
    assert_eq!(code, Some(77), "{text}");
    assert!(text.contains("refused at models"), "{text}");
    // Under AWS's root a simulated bundle is nothing.
    let aws = ["session.json", "--at", "document"];
    let (code, text) = told(&cloister(&desk, &aws).await);
    assert_eq!(code, Some(77), "{text}");
    assert!(text.contains("refused at chain"), "{text}");

    let json = fs::read(desk.path().join("session.json")).unwrap();
    let bundle = EvidenceBundle::from_json(&json).unwrap();
    assert!(bundle.recorded.is_some() && bundle.policy.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_id_is_refused_before_it_is_asked() {
    let world = World::new();
    let desk = desk(&world);
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let other = "spiffe://cloister.test/enclave/other";
    let (code, text) = told(&inspect(&desk, &enclave, other, &[]).await);
    assert_eq!(code, Some(77), "{text}");
    assert!(text.contains("refused at server-identity"), "{text}");
    assert!(enclave.log.paths().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_of_another_connection_key_or_configuration_is_refused_at_its_step() {
    let world = World::new();
    let lying = |edit: fn(&mut crate::fake_enclave::Draft)| {
        let world = Arc::clone(&world);
        at_once(move |asked| world.answer(asked, edit))
    };
    let stale = lying(|draft| draft.nonce = vec![6; 32]);
    refused(&world, stale, &["refused at nonce"]).await;
    let key = lying(|draft| draft.public_key = vec![1; 91]);
    refused(&world, key, &["refused at public-key"]).await;
    let exporter = lying(|draft| {
        let attestation::Subject::Session(session) = &mut draft.binding.subject else {
            unreachable!()
        };
        session.exporter = [0; 32];
    });
    refused(&world, exporter, &["refused at binding"]).await;
    let debug = lying(|draft| {
        draft.document = Box::new(|document| {
            document.pcrs.insert(0, Pcr::ZERO);
        });
    });
    refused(&world, debug, &["refused at debug"]).await;
    let image = lying(|draft| {
        draft.document = Box::new(|document| {
            document.pcrs.insert(0, Pcr::ZERO.extend(b"other"));
        });
    });
    refused(&world, image, &["refused at measurements"]).await;
    let config = lying(|draft| {
        draft.config_digest = Sha256Digest::of(b"drifted");
        draft.binding.config_digest = draft.config_digest;
    });
    refused(&world, config, &["refused at config-digest"]).await;
    let model = lying(|draft| {
        draft.models[0].epoch = 6;
        let attestation::Subject::Session(session) = &mut draft.binding.subject else {
            unreachable!()
        };
        session.models = draft.models.clone();
    });
    refused(&world, model, &["refused at models", "epoch 6"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_none_is_refused_and_a_busy_enclave_is_not() {
    let world = World::new();
    let say = |status: StatusCode, body: Value| at_once(move |_| (status, body.clone()));
    for body in [json!({}), json!([]), json!({"evidence": "!"})] {
        refused(&world, say(StatusCode::OK, body), &["refused at challenge"]).await;
    }
    let long = json!({"evidence": "A".repeat(100_000)});
    refused(&world, say(StatusCode::OK, long), &["refused at challenge"]).await;
    refused(
        &world,
        say(StatusCode::NOT_FOUND, json!({})),
        &["refused at challenge", "404"],
    )
    .await;

    let desk = desk(&world);
    let busy = say(StatusCode::SERVICE_UNAVAILABLE, json!({}));
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), busy).await;
    let (code, text) = told(&inspect(&desk, &enclave, SERVER, &[]).await);
    assert_eq!(
        (code, text.contains("again later")),
        (Some(69), true),
        "{text}"
    );
    drop(enclave);

    // Nobody there; and a key that others can read.
    let closed = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let address = closed.address;
    drop(closed);
    let gone = address.to_string();
    let dial = [
        "--connect",
        &gone,
        "--svid",
        "svid.pem",
        "--key",
        "key.pem",
        "--trust-bundle",
        "ca.pem",
        "--server-id",
        SERVER,
    ];
    let (code, text) = told(&cloister(&desk, &dial).await);
    assert_eq!(code, Some(69), "{text}");
    let key = desk.path().join("key.pem");
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, text) = told(&cloister(&desk, &dial).await);
    assert_eq!(
        (code, text.contains("chmod 600")),
        (Some(64), true),
        "{text}"
    );
}
