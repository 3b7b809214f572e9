//! `cloister seal --kms-key` as its users run it, against a simulated AWS KMS.
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::SystemTime;

use attestation::{Attester, Pcr, Pcrs};
use kms_client::{
    CredentialSource, Credentials, EncryptionContext, KeyArn, Kms, KmsConfig, Roots, WrappedKey,
};
use sealed_model::Sha256Digest;
use sim::kms::{KeySetup, KmsServer, KmsSetup, KmsTls, Principal};
use sim::nsm::{SimNsm, SimPki};
use transport::Endpoint;
use zeroize::Zeroizing;

const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/model";
const PUBLISHER: (&str, &str) = ("AKIAPUBLISHER", "publishers-secret");
const HOST: (&str, &str) = ("AKIAHOST", "hosts-secret");

/// `cloister`, built beside this test.
fn cloister() -> PathBuf {
    let exe = tests::cloister_dev().with_file_name("cloister");
    assert!(
        exe.is_file(),
        "{} is missing: cargo build --release -p cli",
        exe.display()
    );
    exe
}

struct World {
    dir: tempfile::TempDir,
    endpoint: Endpoint,
    pki: SimPki,
}

fn now() -> SystemTime {
    (tests::clock())()
}

impl World {
    /// A model, its keys, and a service whose key the publisher may wrap with and the host unwrap, on any true document.
    async fn new() -> Self {
        let pki = SimPki::generate(now());
        let tls = KmsTls::generate(&["kms.eu-central-1.amazonaws.com"], now()).unwrap();
        let policy = r#"{"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "publisher"}, "Action": "kms:Encrypt", "Resource": "*"},
            {"Effect": "Allow", "Principal": {"AWS": "host"}, "Action": "kms:Decrypt", "Resource": "*",
             "Condition": {"Null": {"kms:RecipientAttestation:ImageSha384": "false"}}}]}"#;
        let principal = |arn: &str, (id, secret): (&str, &str)| Principal {
            arn: arn.to_owned(),
            access_key_id: id.to_owned(),
            secret_access_key: secret.to_owned(),
            session_token: None,
            expiration: None,
        };
        let setup = KmsSetup {
            listen: Endpoint::Tcp("127.0.0.1:0".to_owned()),
            region: "eu-central-1".to_owned(),
            account: "111122223333".to_owned(),
            tls: tls.clone(),
            trust_anchor: pki.root_pem(),
            keys: vec![KeySetup {
                id: "model".to_owned(),
                policy: policy.to_owned(),
            }],
            principals: vec![principal("publisher", PUBLISHER), principal("host", HOST)],
        };
        let server = KmsServer::bind(&setup, Arc::new(now)).await.unwrap();
        let endpoint = server.listen();
        tokio::spawn(server.run(std::future::pending()));
        let dir = tempfile::tempdir().unwrap();
        let world = Self { dir, endpoint, pki };
        std::fs::write(world.path("roots.pem"), &tls.root_pem).unwrap();
        std::fs::create_dir(world.path("model")).unwrap();
        std::fs::write(world.path("model/config.json"), "{}").unwrap();
        let header = br#"{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
        let length = u64::try_from(header.len()).unwrap().to_le_bytes();
        let weights = [&length[..], header, b"\x01\x02\x03\x04"].concat();
        std::fs::write(world.path("model/model.safetensors"), weights).unwrap();
        let made = world.run(&["keygen", "--out", "keys"], None);
        assert_eq!(made.status.code(), Some(0));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, arguments: &[&str], credentials: Option<(&str, &str)>) -> Output {
        let mut command = Command::new(cloister());
        command
            .current_dir(&self.dir)
            .args(arguments)
            .env_clear()
            .env("HOME", self.dir.path());
        if let Some((id, secret)) = credentials {
            command
                .env("AWS_ACCESS_KEY_ID", id)
                .env("AWS_SECRET_ACCESS_KEY", secret);
        }
        command.output().unwrap()
    }

    fn seal(&self, more: &[&str], credentials: Option<(&str, &str)>) -> (Option<i32>, String) {
        let endpoint = self.endpoint.to_string();
        let mut arguments = vec![
            "seal",
            "model",
            "--out",
            "package",
            "--name",
            "demo",
            "--epoch",
            "2",
            "--key-file",
            "keys/data.key",
            "--sign-key",
            "keys/publisher.key.pem",
            "--kms-roots",
            "roots.pem",
        ];
        if !more.contains(&"--kms-endpoint") {
            arguments.extend(["--kms-endpoint", endpoint.as_str()]);
        }
        arguments.extend(more);
        let output = self.run(&arguments, credentials);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!text.contains("secret"), "{text}");
        (output.status.code(), text)
    }

    /// What an enclave gets for the wrapped key in the package.
    async fn unwrapped(&self) -> Vec<u8> {
        let json = std::fs::read(self.path("package/key.kms.json")).unwrap();
        let wrapped = WrappedKey::parse(&json).unwrap();
        assert_eq!(wrapped.key_arn.as_str(), ARN);
        let manifest = std::fs::read(self.path("package/manifest.json")).unwrap();
        let digest = Sha256Digest::of(&manifest).to_string();
        let context = EncryptionContext::model("demo", 2, &digest);
        let secret = Zeroizing::new(HOST.1.to_owned());
        let credentials = Credentials::new(HOST.0.to_owned(), secret, None, None).unwrap();
        let config = KmsConfig {
            endpoint: self.endpoint.clone(),
            roots: Roots::from_pem(&std::fs::read_to_string(self.path("roots.pem")).unwrap())
                .unwrap(),
            credentials: CredentialSource::Fixed(Arc::new(credentials)),
        };
        let kms = Kms::new(config, Arc::new(now)).unwrap();
        let pcrs: Pcrs = (0..3).map(|i| (i, Pcr::ZERO.extend(&[i]))).collect();
        let pki = SimPki::from_json(&self.pki.to_json()).unwrap();
        let nsm: Arc<dyn Attester> = Arc::new(SimNsm::new(pki, pcrs, Arc::new(now)));
        let arn: KeyArn = ARN.parse().unwrap();
        let secret = kms
            .decrypt(&nsm, &arn, &wrapped.ciphertext, &context)
            .await
            .unwrap();
        secret.expose().to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrapped_key_lies_in_the_package_and_opens_for_an_enclave() {
    let world = World::new().await;
    // Credentials from the shared file this time.
    std::fs::create_dir(world.path(".aws")).unwrap();
    let file = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        PUBLISHER.0, PUBLISHER.1
    );
    std::fs::write(world.path(".aws/credentials"), file).unwrap();
    let (code, text) = world.seal(&["--kms-key", ARN], None);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("package/key.kms.json"), "{text}");
    let key = std::fs::read_to_string(world.path("keys/data.key")).unwrap();
    let unwrapped: String = world
        .unwrapped()
        .await
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(unwrapped, key.trim());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said_before_anything_is_sealed() {
    let world = World::new().await;
    let alias = "arn:aws:kms:eu-central-1:111122223333:alias/model";
    for (more, part) in [
        (vec!["--kms-key", ARN], "no AWS credentials"),
        (vec!["--kms-key", alias], "is an alias"),
        (vec!["--kms-key", "model"], "is not the ARN"),
        (vec![], "--kms-key"),
    ] {
        let (code, text) = world.seal(&more, None);
        assert_eq!(code, Some(64), "{text}");
        assert!(text.contains(part), "{text}");
        assert!(!world.path("package").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_wrapped_is_told_with_what_to_do() {
    let world = World::new().await;
    for (more, credentials, code, part) in [
        (vec![], HOST, 77, "AccessDeniedException"),
        (
            vec!["--kms-endpoint", "tcp://127.0.0.1:9"],
            PUBLISHER,
            69,
            "not available",
        ),
    ] {
        let more = [vec!["--kms-key", ARN], more].concat();
        let (actual, text) = world.seal(&more, Some(credentials));
        assert_eq!(actual, Some(code), "{text}");
        assert!(
            text.contains(part) && text.contains("remove it and seal again"),
            "{text}"
        );
        assert!(!world.path("package/key.kms.json").exists());
        std::fs::remove_dir_all(world.path("package")).unwrap();
    }
}

/// The probe, with a module that the service trusts.
fn probe(world: &World, module: &str, credentials: Option<(&str, &str)>) -> (Option<i32>, String) {
    let mut command = Command::new(tests::program("key-release-probe"));
    command
        .current_dir(&world.dir)
        .env_clear()
        .args(["--mode", "kms", "--package", "package", "--ca", "roots.pem"])
        .args(["--url", &world.endpoint.to_string()])
        .args(["--module", module, "--out", "obtained"]);
    if let Some((id, secret)) = credentials {
        command
            .env("AWS_ACCESS_KEY_ID", id)
            .env("AWS_SECRET_ACCESS_KEY", secret);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_has_the_service_decrypt_a_packages_key_and_shows_nothing_of_it() {
    let world = World::new().await;
    let (code, text) = world.seal(&["--kms-key", ARN], Some(PUBLISHER));
    assert_eq!(code, Some(0), "{text}");
    std::fs::write(world.path("module.json"), &*world.pki.to_json()).unwrap();

    // Who may only wrap; a module that the service does not know; nobody at all.
    for (module, credentials, expected) in [
        ("module.json", Some(PUBLISHER), 77),
        ("another.json", Some(HOST), 77),
        ("module.json", None, 64),
    ] {
        let (code, text) = probe(&world, module, credentials);
        assert_eq!(code, Some(expected), "{module}: {text}");
        assert!(!world.path("obtained").exists());
        assert!(!text.contains("secret"), "{text}");
    }

    let (code, text) = probe(&world, "module.json", Some(HOST));
    assert_eq!(code, Some(0), "{text}");
    let obtained = std::fs::read(world.path("obtained")).unwrap();
    assert_eq!(obtained, world.unwrapped().await);
    assert!(text.contains("evidence made"), "{text}");
    assert!(
        !text.contains(&hex::encode(&obtained)) && !text.contains("secret"),
        "{text}"
    );
}
