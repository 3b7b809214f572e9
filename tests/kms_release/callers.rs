//! Who asks: signatures, credentials, and the way to the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kms_client::{CredentialSource, Error, Kms, KmsConfig, RecipientKey, Roots, Unavailable};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use transport::Endpoint;

use crate::world::{HOST, SECRET, World, arn, context, context_json, credentials, pcrs, principal};

fn unavailable(outcome: Result<kms_client::Secret, Error>) -> Unavailable {
    match outcome {
        Err(Error::Unavailable { reason, .. }) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("released"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_not_signed_like_this_is_refused() {
    let world = World::start().await;
    let body = json!({"KeyId": arn("open"), "Plaintext": STANDARD.encode(SECRET)});
    let (status, _) = world.raw(world.host(), "Encrypt", &body, |_| {}).await;
    assert_eq!(status, 200);
    type Change = fn(&mut Vec<(String, String)>);
    fn set(headers: &mut [(String, String)], name: &str, change: impl FnOnce(&str) -> String) {
        let header = headers.iter_mut().find(|header| header.0 == name).unwrap();
        header.1 = change(&header.1);
    }
    let changes: &[(&str, Change)] = &[
        ("InvalidSignatureException", |h| {
            set(h, "x-body", |body| format!("{body} "))
        }),
        ("InvalidSignatureException", |h| {
            set(h, "x-amz-target", |_| "TrentService.Decrypt".into())
        }),
        ("InvalidSignatureException", |h| {
            set(h, "host", |_| "kms.us-east-1.amazonaws.com".into())
        }),
        ("InvalidSignatureException", |h| {
            set(h, "authorization", |text| {
                text.replace("eu-central-1", "us-east-1")
            })
        }),
        ("InvalidSignatureException", |h| {
            set(h, "authorization", |text| text.replace(";x-amz-target", ""))
        }),
        ("InvalidSignatureException", |h| {
            set(h, "authorization", |text| {
                text.replace(";x-amz-security-token", "")
            })
        }),
        ("IncompleteSignatureException", |h| {
            set(h, "authorization", |text| {
                text.split(", Signature").next().unwrap().into()
            })
        }),
        ("IncompleteSignatureException", |h| {
            set(h, "authorization", |_| "Bearer x".into())
        }),
        ("UnrecognizedClientException", |h| {
            set(h, "authorization", |text| {
                text.replace("ASIAHOST", "ASIANOBODY")
            })
        }),
        ("UnrecognizedClientException", |h| {
            set(h, "x-amz-security-token", |_| "another".into())
        }),
        ("UnrecognizedClientException", |h| {
            h.retain(|header| header.0 != "x-amz-security-token")
        }),
        ("MissingAuthenticationTokenException", |h| {
            h.retain(|header| header.0 != "authorization")
        }),
    ];
    for (number, (kind, change)) in changes.iter().enumerate() {
        let (status, error) = world.raw(world.host(), "Encrypt", &body, change).await;
        assert_eq!(
            (status, error["__type"].as_str().unwrap()),
            (400, *kind),
            "{number}: {error}"
        );
    }
    let thief = sim::kms::Principal {
        secret_access_key: "guessed".to_owned(),
        ..world.host().clone()
    };
    let (_, error) = world.raw(&thief, "Encrypt", &body, |_| {}).await;
    assert_eq!(error["__type"], "InvalidSignatureException");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_credentials_are_refused_and_no_secret_is_in_the_error() {
    let world = World::start().await;
    let ciphertext = world.wrapped("image", &context()).await;
    world.pass(3601);
    let outcome = world
        .client(world.host())
        .decrypt(&world.nsm(pcrs()), &arn("image"), &ciphertext, &context())
        .await;
    let error = outcome.err().unwrap();
    let line = error.to_string();
    assert!(line.contains("ExpiredTokenException"), "{line}");
    assert!(
        !line.contains("secret-of") && !line.contains("a-session"),
        "{line}"
    );
    assert!(!format!("{error:?}").contains("secret-of"));
}

/// A host that hands out this caller's credentials, ending at these times one after the other; counts.
async fn host_of(
    caller: &sim::kms::Principal,
    ends: Vec<&'static str>,
) -> (Endpoint, Arc<AtomicU32>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().to_string());
    let asked = Arc::new(AtomicU32::new(0));
    let (counter, caller) = (Arc::clone(&asked), caller.clone());
    tokio::spawn(async move {
        for end in ends {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"GET /credentials HTTP/1.1\r\n"));
            counter.fetch_add(1, Ordering::SeqCst);
            let body = json!({"Version": 1, "AccessKeyId": caller.access_key_id, "SecretAccessKey": caller.secret_access_key,
                "SessionToken": caller.session_token, "Expiration": end}).to_string();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (endpoint, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_credentials_are_kept_and_asked_for_again_before_they_end() {
    let world = World::start().await;
    let ciphertext = world.wrapped("image", &context()).await;
    // The clock stands at 08:00:00.
    let (endpoint, asked) = host_of(
        world.host(),
        vec!["2027-01-15T08:30:00Z", "2027-01-15T09:00:00Z"],
    )
    .await;
    let client = world.client_with(CredentialSource::host(endpoint));
    let nsm = world.nsm(pcrs());
    let release = async || {
        client
            .decrypt(&nsm, &arn("image"), &ciphertext, &context())
            .await
            .map(|s| s.expose().to_vec())
            .unwrap()
    };
    for (wait, expected) in [(0, 1), (0, 1), (24 * 60, 1), (2 * 60, 2), (60, 2)] {
        world.pass(wait);
        assert_eq!(release().await, SECRET);
        assert_eq!(
            asked.load(Ordering::SeqCst),
            expected,
            "after {wait} s more"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_credentials_is_told_apart_from_a_refusal() {
    let world = World::start().await;
    let client = world.client_with(CredentialSource::host(Endpoint::Tcp(
        "127.0.0.1:9".to_owned(),
    )));
    let reason = unavailable(
        client
            .decrypt(&world.nsm(pcrs()), &arn("image"), b"x", &context())
            .await,
    );
    assert!(matches!(reason, Unavailable::Io(_)), "{reason}");
    assert!(world.kms.events().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_service_is_spoken_to() {
    let world = World::start().await;
    let nsm = world.nsm(pcrs());
    let with = |roots| {
        let source = CredentialSource::Fixed(Arc::new(credentials(world.host())));
        let config = KmsConfig {
            endpoint: world.listen.clone(),
            roots,
            credentials: source,
        };
        Kms::new(config, world.clock()).unwrap()
    };
    // Under Amazon's roots this service is a stranger; under its own, another region is another name.
    let amazon = with(Roots::amazon().unwrap());
    let ours = with(Roots::from_pem(&world.tls.root_pem).unwrap());
    let (here, context) = (arn("image"), context());
    let elsewhere = "arn:aws:kms:us-east-1:111122223333:key/image"
        .parse()
        .unwrap();
    let (first, second) = tokio::join!(
        amazon.decrypt(&nsm, &here, b"x", &context),
        ours.decrypt(&nsm, &elsewhere, b"x", &context)
    );
    for outcome in [first, second] {
        let reason = unavailable(outcome);
        assert!(matches!(reason, Unavailable::Tls(_)), "{reason}");
    }
    assert!(world.kms.events().is_empty(), "something was sent");
    // An expired certificate.
    world.pass(31 * 24 * 3600);
    let reason = unavailable(ours.decrypt(&nsm, &here, b"x", &context).await);
    assert!(matches!(reason, Unavailable::Tls(_)), "{reason}");
}

/// botocore signs, serialises and reads errors as every AWS tool in Python does. Its own clock is the system's, so the service's is too.
const BOTOCORE: &str = r#"
import base64, json, sys
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, roots, document, envelope, image, opened = sys.argv[1:]
def client(id, secret, token=None):
    return botocore.session.get_session().create_client("kms", region_name="eu-central-1", endpoint_url=endpoint, verify=roots,
        aws_access_key_id=id, aws_secret_access_key=secret, aws_session_token=token, config=Config(retries={"max_attempts": 0}))
def refused(call):
    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"]
    raise SystemExit("not refused")

context = {"b": "2", "a": "1 ü"}
owner = client("AKIAPUBLISHER", "secret-of-AKIAPUBLISHER")
host = client("ASIAHOST", "secret-of-ASIAHOST", "a-session/token+of==AWS")
secret = b"0123456789abcdef0123456789abcdef"
wrapped = owner.encrypt(KeyId=image, Plaintext=secret, EncryptionContext=context)
assert wrapped["KeyId"] == image
blob = wrapped["CiphertextBlob"]
assert refused(lambda: host.decrypt(KeyId=image, CiphertextBlob=blob, EncryptionContext=context)) == "AccessDeniedException"
answer = host.decrypt(KeyId=image, CiphertextBlob=blob, EncryptionContext=context,
    Recipient={"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": open(document, "rb").read()})
assert not answer.get("Plaintext"), answer
open(envelope, "wb").write(answer["CiphertextForRecipient"])
made = owner.generate_data_key(KeyId=opened, KeySpec="AES_256", EncryptionContext=context)
again = owner.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext=context)
assert again["Plaintext"] == made["Plaintext"] and len(again["Plaintext"]) == 32
assert refused(lambda: owner.decrypt(CiphertextBlob=made["CiphertextBlob"])) == "InvalidCiphertextException"
thief = client("AKIAPUBLISHER", "guessed")
assert refused(lambda: thief.encrypt(KeyId=image, Plaintext=secret)) == "InvalidSignatureException"
assert refused(lambda: client("AKIANOBODY", "x").encrypt(KeyId=image, Plaintext=secret)) == "UnrecognizedClientException"
assert refused(lambda: owner.encrypt(KeyId="absent", Plaintext=secret)) == "NotFoundException"
print("ok")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_sdk_for_python_speaks_with_the_simulated_service() {
    let python = tests::root().join("target/tools/checkov/bin/python3");
    if !python.is_file() {
        tests::skip("botocore (target/tools/checkov)");
        return;
    }
    let world = World::start_at(tests::clock()).await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let key = RecipientKey::generate().unwrap();
    let document = STANDARD
        .decode(world.document(pcrs(), key.spki_der()))
        .unwrap();
    std::fs::write(path("document"), document).unwrap();
    std::fs::write(path("roots.pem"), &world.tls.root_pem).unwrap();
    std::fs::write(path("peer.py"), BOTOCORE).unwrap();
    let Endpoint::Tcp(address) = &world.listen else {
        panic!()
    };
    let mut command = tokio::process::Command::new(python);
    command
        .arg(path("peer.py"))
        .arg(format!("https://{address}"))
        .args([path("roots.pem"), path("document"), path("envelope")])
        .args([arn("image").as_str(), arn("open").as_str()])
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true");
    let output = tokio::time::timeout(Duration::from_secs(120), command.output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "ok\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        **key.open(&std::fs::read(path("envelope")).unwrap()).unwrap(),
        *SECRET
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_another_time_is_refused() {
    let world = World::start().await;
    let body = json!({"KeyId": arn("open"), "Plaintext": STANDARD.encode(SECRET), "EncryptionContext": context_json()});
    let caller = principal(HOST, "ASIAHOST", Some(("a-session/token+of==AWS", 0)));
    for (seconds, good) in [(299, true), (301, false)] {
        // Signed, then held back.
        let (status, error) = world
            .raw(&caller, "Encrypt", &body, |_| world.pass(seconds))
            .await;
        assert_eq!(status == 200, good, "{seconds}: {error}");
    }
}
