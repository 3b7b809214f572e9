use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use kbs_client::TeeKey;
use serde_json::{Value, json};

use crate::broker::{Broker, KEY_ID, SECRET, Setup, other_pcrs, pcrs};
use crate::peer::{Answer, Attempt, Session};

async fn passport(broker: &Broker, key: &TeeKey) -> Answer {
    let session = Session::open(broker).await;
    let body = session.right(&broker.nsm(pcrs()), key).body();
    broker
        .post("/kbs/v0/token", &session.headers(), &body)
        .await
}

fn token(answer: &Answer) -> String {
    answer.json()["token"].as_str().unwrap().to_owned()
}

/// The parts of a JWT, unverified: header, claims.
pub fn parts(token: &str) -> (Value, Value) {
    let mut parts = token.split('.').map(|part| {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap_or_default()
    });
    (parts.next().unwrap(), parts.next().unwrap())
}

pub async fn jwks(broker: &Broker) -> Value {
    let answer = broker.get("/.well-known/jwks.json", &[]).await.ok();
    assert_eq!(answer.headers["content-type"], "application/json");
    answer.json()
}

/// What a stock Trustee makes of it; `None` where the Python peer is not installed.
pub fn trustee(jwks: &Value, token: &str) -> Option<Result<Value, String>> {
    let python = tests::root().join("target/tools/py/bin/python3");
    let there = Command::new(&python)
        .args(["-c", "import jwt, cryptography"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        tests::skip("PyJWT");
        return None;
    }
    let mut peer = Command::new(python)
        .arg(tests::root().join("tests/trustee_peer.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = json!({"jwks": jwks, "token": token, "secret": String::from_utf8_lossy(SECRET)});
    let mut stdin = peer.stdin.take().unwrap();
    stdin.write_all(asked.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = peer.wait_with_output().unwrap();
    Some(if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    })
}

#[tokio::test]
async fn a_passport_names_its_key_and_says_what_was_attested() {
    let broker = Broker::start().await;
    let key = TeeKey::generate_p256().unwrap();
    let answer = passport(&broker, &key).await.ok();
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(!answer.headers.contains_key("set-cookie"));
    let (header, claims) = parts(&token(&answer));
    let set = jwks(&broker).await;
    let kid = &set["keys"][0]["kid"];
    assert_eq!(header, json!({"typ": "JWT", "alg": "ES256", "kid": kid}));
    let now = claims["iat"].as_u64().unwrap();
    assert_eq!(claims["exp"].as_u64().unwrap(), now + 300);
    assert_eq!(claims["iss"], "cloister-kbs");
    assert_eq!(
        claims["tee-pubkey"],
        serde_json::to_value(key.jwk()).unwrap()
    );
    assert_eq!(claims["nitro"]["pcrs"]["0"], json!(pcrs()[&0]));
    assert_eq!(claims["nitro"]["pcrs"].as_object().unwrap().len(), 16);
    assert!(
        claims.get("submods").is_none(),
        "no attestation policy, no trust claims"
    );
    assert!(claims.get("aud").is_none());
    let entry = broker.last_entry();
    assert_eq!(
        (entry.outcome.as_str(), entry.path.as_str()),
        ("attested", "token")
    );
    assert_eq!(entry.pcr0, Some(pcrs()[&0].to_string()));
    assert!(entry.tee_key.is_some());
}

#[tokio::test]
async fn a_stock_trustee_takes_a_passport_and_wraps_to_the_attested_key() {
    let broker = Broker::start().await;
    for key in [
        TeeKey::generate_p256().unwrap(),
        TeeKey::generate_rsa2048().unwrap(),
    ] {
        let token = token(&passport(&broker, &key).await.ok());
        let set = jwks(&broker).await;
        let Some(outcome) = trustee(&set, &token) else {
            return;
        };
        let outcome = outcome.unwrap();
        assert_eq!(outcome["claims"], parts(&token).1);
        assert_eq!(outcome["thumbprints"][0], set["keys"][0]["kid"]);
        let jwe = outcome["jwe"].to_string();
        assert_eq!(**kbs_client::open(jwe.as_bytes(), &key).unwrap(), *SECRET);
        // What wraps with RSA1_5, right as it is otherwise, is not opened.
        let outdated = &outcome["rsa1_5"];
        assert_eq!(
            outdated.is_null(),
            matches!(key.jwk(), kbs_client::Jwk::Ec { .. })
        );
        if !outdated.is_null() {
            let opened = kbs_client::open(outdated.to_string().as_bytes(), &key);
            assert_eq!(opened.err(), Some(kbs_client::JweError::Algorithm));
        }
        // The same token opens here what the policy lets it.
        let bearer = format!("Bearer {token}");
        let answer = broker.resource(KEY_ID, &[("authorization", &bearer)]).await;
        assert_eq!(
            **kbs_client::open(&answer.ok().body, &key).unwrap(),
            *SECRET
        );
    }
}

#[tokio::test]
async fn a_stock_trustee_refuses_what_another_broker_signed_or_somebody_changed() {
    let (broker, other) = (Broker::start().await, Broker::start().await);
    let key = TeeKey::generate_p256().unwrap();
    let token = token(&passport(&broker, &key).await.ok());
    let Some(foreign) = trustee(&jwks(&other).await, &token) else {
        return;
    };
    assert!(foreign.is_err());
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!()
    };
    let mut changed = parts(&token).1;
    changed["nitro"]["pcrs"]["0"] = json!(other_pcrs()[&0]);
    let changed = URL_SAFE_NO_PAD.encode(changed.to_string());
    let none = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#);
    let set = jwks(&broker).await;
    for forged in [
        format!("{header}.{changed}.{signature}"),
        format!("{none}.{claims}."),
        format!("{header}.{claims}."),
    ] {
        assert!(trustee(&set, &forged).unwrap().is_err(), "{forged}");
    }
    assert!(trustee(&set, &token).unwrap().is_ok());
}

#[tokio::test]
async fn the_session_of_a_passport_opens_nothing_here_and_takes_no_second_answer() {
    let broker = Broker::start().await;
    let key = TeeKey::generate_p256().unwrap();
    let session = Session::open(&broker).await;
    let body = session.right(&broker.nsm(pcrs()), &key).body();
    let ask = async |path: &str| broker.post(path, &session.headers(), &body).await;
    ask("/kbs/v0/token").await.ok();
    let answer = broker.resource(KEY_ID, &session.headers()).await;
    broker.assert_refused(&answer, "TokenNotFound");
    for path in ["/kbs/v0/token", "/kbs/v0/attest"] {
        broker.assert_refused(&ask(path).await, "AttestationError");
    }
    // And an attested session gives no passport without new evidence.
    let session = Session::open(&broker).await;
    let body = session.right(&broker.nsm(pcrs()), &key).body();
    session.attest(&broker, &body).await.ok();
    let answer = broker
        .post("/kbs/v0/token", &session.headers(), &body)
        .await;
    broker.assert_refused(&answer, "AttestationError");
}

#[tokio::test]
async fn evidence_that_attest_refuses_gives_no_passport() {
    let broker = Broker::start().await;
    let nsm = broker.nsm(pcrs());
    let key = TeeKey::generate_p256().unwrap();
    let spoiled: [fn(&mut sim::nsm::DocumentBuilder); 4] = [
        |d| d.spoil_signature = 1,
        |d| d.nonce = None,
        |d| d.public_key = None,
        |d| d.pcrs.extend([(0, attestation::Pcr::ZERO)]),
    ];
    for spoil in spoiled {
        let session = Session::open(&broker).await;
        let body = Attempt::with(&nsm, &session.nonce, &key, spoil).body();
        let answer = broker
            .post("/kbs/v0/token", &session.headers(), &body)
            .await;
        broker.assert_refused(&answer, "AttestationError");
        assert_eq!(broker.last_entry().path, "token");
    }
    // RSA1_5 is no key at all here, in whatever evidence.
    let session = Session::open(&broker).await;
    let rsa = TeeKey::generate_rsa2048().unwrap();
    let mut attempt = session.right(&nsm, &rsa);
    attempt.jwk["alg"] = json!("RSA1_5");
    let answer = broker
        .post("/kbs/v0/token", &session.headers(), &attempt.body())
        .await;
    broker.assert_refused(&answer, "AttestationError");
    let answer = broker.post("/kbs/v0/token", &[], &json!({})).await;
    broker.assert_refused(&answer, "AttestationError");
    let answer = broker.get("/kbs/v0/token", &[]).await;
    broker.assert_refused(&answer, "PluginNotFound");
    let large = vec![b' '; 70_000];
    let answer = broker.send(Method::POST, "/kbs/v0/token", &[], large).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_configured_key_signs_and_its_neighbours_are_published() {
    let dir = tempfile::tempdir().unwrap();
    let public = |name: &str| {
        let key = dir.path().join(format!("{name}.key"));
        let run = |args: &[&str]| {
            let output = Command::new("openssl").args(args).output().ok()?;
            output.status.success().then_some(output.stdout)
        };
        let path = key.to_str().unwrap();
        run(&[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
            path,
        ])?;
        String::from_utf8(run(&["pkey", "-in", path, "-pubout"])?).ok()
    };
    let (Some(next), Some(previous)) = (public("next"), public("previous")) else {
        tests::skip("openssl");
        return;
    };
    let broker = Broker::with(Setup {
        token: Some(vec![next, previous]),
        ..Setup::default()
    })
    .await;
    let set = jwks(&broker).await;
    let offline: Value =
        serde_json::from_str(&kbs::offline::jwks(&broker.config()).unwrap()).unwrap();
    assert_eq!(set, offline);
    let kids: Vec<_> = set["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["kid"])
        .collect();
    assert_eq!(kids.len(), 3);
    let token = token(
        &passport(&broker, &TeeKey::generate_p256().unwrap())
            .await
            .ok(),
    );
    assert_eq!(parts(&token).0["kid"], *kids[0]);
    let Some(outcome) = trustee(&set, &token) else {
        return;
    };
    let outcome = outcome.unwrap();
    let thumbprints: Vec<_> = outcome["thumbprints"].as_array().unwrap().iter().collect();
    assert_eq!(thumbprints, kids, "an independent thumbprint of each key");
}

/// The shipped files for a stock Trustee.
fn shipped(name: &str) -> String {
    std::fs::read_to_string(tests::root().join("infra/trustee").join(name)).unwrap()
}

/// As a stock Trustee asks its policy: `input` is the token's claims.
fn decides(policy: &str, claims: &Value, path: &[&str]) -> bool {
    let mut engine = regorus::Engine::new();
    engine
        .add_policy("policy.rego".to_owned(), policy.to_owned())
        .unwrap();
    let data = json!({"plugin": "resource", "resource-path": path, "query": {}});
    engine.add_data(regorus::Value::from(data)).unwrap();
    engine.set_input(regorus::Value::from(claims.clone()));
    let allow = engine.eval_rule("data.policy.allow".to_owned()).unwrap();
    allow == regorus::Value::from(true)
}

#[tokio::test]
async fn the_shipped_policy_for_trustee_decides_on_real_passports() {
    let broker = Broker::start().await;
    let key = TeeKey::generate_p256().unwrap();
    let claims = parts(&token(&passport(&broker, &key).await.ok())).1;
    let path = ["models", "demo", "epoch-1"];
    let shipped = shipped("resource-policy.rego");
    assert!(
        !decides(&shipped, &claims, &path),
        "as shipped it names no image"
    );

    let ours = (0..3).fold(shipped.clone(), |policy, index| {
        let placeholder = format!("<PCR{index}: 96 hex digits>");
        policy.replace(&placeholder, &pcrs()[&index].to_string())
    });
    assert!(!decides(&ours, &claims, &path), "this root is not AWS's");
    let real = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b";
    assert_eq!(
        attestation::TrustAnchor::aws_nitro()
            .fingerprint()
            .to_string(),
        real
    );
    let root = claims["nitro"]["root_sha256"].as_str().unwrap();
    assert!(ours.contains(real));
    let ours = ours.replace(real, root);
    assert!(decides(&ours, &claims, &path));

    for (pointer, value) in [
        ("/nitro/pcrs/0", json!(other_pcrs()[&0])),
        ("/nitro/pcrs/1", json!("")),
        ("/nitro/pcrs/2", Value::Null),
        ("/nitro/root_sha256", json!(real)),
        ("/iss", json!("somebody")),
        ("/nitro", Value::Null),
    ] {
        let mut other = claims.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        assert!(!decides(&ours, &other, &path), "{pointer}");
    }
    for path in [&["other", "demo", "epoch-1"][..], &["models", "demo"], &[]] {
        assert!(!decides(&ours, &claims, path), "{path:?}");
    }
    assert!(!decides(&ours, &json!({}), &path));
}

#[test]
fn the_shipped_configuration_of_trustee_takes_our_keys_and_no_others() {
    let config: toml::Table = shipped("kbs-config.toml").parse().unwrap();
    let tokens = &config["attestation_token"];
    assert_eq!(tokens["insecure_header_jwk"].as_bool(), Some(false));
    let sets = tokens["trusted_jwk_sets"].as_array().unwrap();
    assert!(
        sets.iter()
            .all(|set| set.as_str().unwrap().starts_with("file:///"))
    );
    assert!(tokens.get("trusted_certs_paths").is_none());
    assert!(
        tokens.get("extra_teekey_paths").is_none(),
        "/tee-pubkey is built in"
    );
    assert_eq!(
        config["http_server"]["insecure_http"].as_bool(),
        Some(false)
    );
    let admin = &config["admin"];
    assert_eq!(
        admin["authorization_mode"].as_str(),
        Some("AuthenticatedAuthorization")
    );
    let acls = admin["authorization"]["regex_acl"]["acls"]
        .as_array()
        .unwrap();
    for acl in acls {
        let pattern = acl["allowed_endpoints"].as_str().unwrap();
        assert!(
            pattern.starts_with("^/kbs") && pattern.ends_with('$'),
            "{pattern}"
        );
        assert_eq!(acl["role"].as_str(), Some("admin"));
    }
    let readme = shipped("README.md");
    for file in ["kbs-config.toml", "resource-policy.rego"] {
        assert!(readme.contains(file));
        assert!(Path::new(&tests::root().join("infra/trustee").join(file)).is_file());
    }
}

/// `kbs policy test` sees what the broker sees.
#[tokio::test]
async fn a_dry_run_on_what_was_sent_ends_as_the_release_does() {
    let broker = Broker::start().await;
    let key = TeeKey::generate_p256().unwrap();
    let policy = std::fs::read_to_string(broker.path("resource.rego")).unwrap();
    for (registers, exit) in [(pcrs(), 0), (other_pcrs(), 77)] {
        let session = Session::open(&broker).await;
        let body = session.right(&broker.nsm(registers), &key).body();
        session.attest(&broker, &body).await.ok();
        let released = broker.resource(KEY_ID, &session.headers()).await.status == 200;
        assert_eq!(released, exit == 0);
        for (name, document) in [
            ("attestation.json", body.to_string().into_bytes()),
            (
                "evidence.json",
                body["tee-evidence"]["primary_evidence"]
                    .to_string()
                    .into_bytes(),
            ),
            ("document.bin", document(&body)),
        ] {
            std::fs::write(broker.path(name), document).unwrap();
            let path = |name: &str| broker.path(name).to_str().unwrap().to_owned();
            let arguments = [
                "kbs".to_owned(),
                "policy".to_owned(),
                "test".to_owned(),
                format!("--policy={}", path("resource.rego")),
                format!("--document={}", path(name)),
                format!("--trust-anchor={}", path("root.pem")),
                format!("--resource={KEY_ID}"),
            ];
            assert_eq!(run(&arguments).await, exit, "{name}");
        }
    }
    assert!(policy.contains("allow if"));
    // Another root, and evidence for another key.
    let session = Session::open(&broker).await;
    let mut attempt = session.right(&broker.nsm(pcrs()), &key);
    let other = TeeKey::generate_p256().unwrap();
    attempt.jwk = serde_json::to_value(other.jwk()).unwrap();
    std::fs::write(broker.path("other.json"), attempt.body().to_string()).unwrap();
    let arguments = |anchor: &str, document: &str| {
        let path = |name: &str| broker.path(name).to_str().unwrap().to_owned();
        [
            "kbs".to_owned(),
            "policy".to_owned(),
            "test".to_owned(),
            format!("--policy={}", path("resource.rego")),
            format!("--document={}", path(document)),
            format!("--trust-anchor={anchor}"),
            format!("--resource={KEY_ID}"),
        ]
    };
    let root = broker.path("root.pem").to_str().unwrap().to_owned();
    assert_eq!(run(&arguments("aws-nitro", "document.bin")).await, 77);
    assert_eq!(run(&arguments(&root, "other.json")).await, 77);
    assert_eq!(run(&arguments(&root, "absent.json")).await, 64);
    assert_eq!(run(&arguments(&root, "root.pem")).await, 64);
    assert_eq!(run(&arguments("absent.pem", "document.bin")).await, 64);
}

fn document(body: &Value) -> Vec<u8> {
    let document = &body["tee-evidence"]["primary_evidence"]["document"];
    STANDARD.decode(document.as_str().unwrap()).unwrap()
}

/// The exit code of the program.
async fn run(arguments: &[String]) -> u8 {
    let cli = <kbs::cli::Cli as clap::Parser>::try_parse_from(arguments).unwrap();
    match cli.run(|| std::time::UNIX_EPOCH).await {
        Ok(()) => 0,
        Err(error) => error.exit_code(),
    }
}
