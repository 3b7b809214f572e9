//! The whole service with SPIRE in the place of the development authority and of the broker's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use sim::stack::{self, Layout, Options, Stack};
use tests::models;
use tokio::time::{Instant, sleep};

use crate::server::{PATIENCE, Setup, Spire, this_user};

const ENCLAVE_ID: &str = stack::ENCLAVE_ID;
const GATEWAY_ID: &str = stack::GATEWAY_ID;
/// Seconds; renewed at half of it.
const SHORT: &str = "24";

fn edit(layout: &Layout, role: &str, change: impl FnOnce(&mut toml::Table)) {
    let path = layout.config(role);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut table: toml::Table = toml::from_str(&text).unwrap();
    change(&mut table);
    std::fs::write(&path, toml::to_string(&table).unwrap()).unwrap();
}

/// Options of a run whose identities come from `spire`: the gateway's from the agent at `workload_api`, the enclave's through the
/// broker on the machine "broker".
fn options(spire: &Spire, models: Vec<stack::Model>, workload_api: String) -> Options {
    let mut options = tests::options(models);
    options.root = Some((spire.root.cert_pem(), spire.root.key_pem().unwrap()));
    let at = |name: &str| spire.path(name).display().to_string();
    let signer = toml::toml! {
        aliases = []
    };
    let mut signer: toml::Table = signer;
    signer.insert(
        "server".into(),
        format!("tcp://127.0.0.1:{}", spire.port).into(),
    );
    signer.insert("bundle".into(), at("root.pem").into());
    signer.insert("entries_socket".into(), spire.socket().into());
    let mut pop = toml::Table::new();
    pop.insert("chain".into(), at("broker.pem").into());
    pop.insert("key".into(), at("broker.key").into());
    signer.insert("x509pop".into(), pop.into());
    options.before_start = Some(Box::new(move |layout| {
        edit(layout, "kbs", |kbs| {
            let issuer = kbs["issuer"].as_table_mut().unwrap();
            issuer.remove("chain");
            issuer.remove("key");
            issuer.insert("spire".into(), signer.into());
        });
        edit(layout, "gateway", |gateway| {
            gateway.insert("workload_api".into(), workload_api.into());
        });
    }));
    options
}

fn ask() -> Bytes {
    let body = json!({
        "model": models::CHAT,
        "messages": [{"role": "user", "content": "who can see the prompt ?"}],
        "max_tokens": 8,
        "temperature": 0,
    });
    body.to_string().into()
}

async fn answered(stack: &Stack) -> (u16, Bytes) {
    let endpoint = format!("tcp://127.0.0.1:{}", stack.port());
    stack::post_json(&endpoint, "/v1/chat/completions", ask())
        .await
        .unwrap()
}

async fn eventually(what: &str, stack: &Stack, wanted: fn(u16) -> bool) {
    let begun = Instant::now();
    loop {
        let (status, body) = answered(stack).await;
        if wanted(status) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {status} {body:?}");
        sleep(Duration::from_millis(300)).await;
    }
}

async fn metric(stack: &Stack, name: &str) -> f64 {
    let (_, text) = stack::get(&stack.layout.control("enclave"), "/metrics")
        .await
        .unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.unwrap_or("0").trim().parse().unwrap()
}

fn serials(stack: &Stack, role: &str, says: &str) -> Vec<String> {
    let log = std::fs::read_to_string(stack.layout.log(role)).unwrap();
    let lines = log.lines().filter(|line| line.contains(says));
    let serial = |line: &str| {
        let (_, rest) = line.split_once("serial=").unwrap();
        rest.split_whitespace()
            .next()
            .unwrap()
            .trim_matches('"')
            .to_owned()
    };
    lines.map(serial).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_rotate_while_questions_are_asked_and_none_is_lost() {
    let Some(mut spire) = Spire::start().await else {
        return;
    };
    let broker = spire.machine("broker", &rcgen::PKCS_ECDSA_P256_SHA256);
    spire
        .entry(
            &broker,
            ENCLAVE_ID,
            &["-selector", "cloister:enclave", "-x509SVIDTTL", SHORT],
        )
        .await;
    let (agent, workload_api) = spire.agent("gateways").await;
    let user = this_user();
    let gateway = ["-selector", user.as_str(), "-x509SVIDTTL", SHORT];
    let entry = spire.entry(&agent, GATEWAY_ID, &gateway).await;
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::start(options(&spire, models::both(dir.path()), workload_api))
        .await
        .unwrap();
    assert_eq!(answered(&stack).await.0, 200);
    let endpoint = format!("tcp://127.0.0.1:{}", stack.port());
    let (_, evidence) = stack::get(&endpoint, "/cloister/evidence").await.unwrap();
    assert!(
        String::from_utf8(evidence.to_vec())
            .unwrap()
            .contains(ENCLAVE_ID)
    );

    // Rotation: longer than any of these certificates lives, without a pause and without a failure.
    let over = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU32::new(0));
    let asking = {
        let (over, asked) = (Arc::clone(&over), Arc::clone(&asked));
        tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let got = stack::post_json(&endpoint, "/v1/chat/completions", ask()).await;
                let (status, body) = got.unwrap();
                assert_eq!(status, 200, "after {asked:?}: {body:?}");
                asked.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let begun = Instant::now();
    // Longer than any certificate of the start lives: whoever had not rotated would be out by then.
    let long = Duration::from_secs(40);
    while begun.elapsed() < long || serials(&stack, "enclave", "identity renewed").len() < 3 {
        assert!(
            !asking.is_finished(),
            "a question was lost: {:?}",
            asking.await
        );
        assert!(begun.elapsed() < PATIENCE, "no rotation");
        sleep(Duration::from_millis(200)).await;
    }
    over.store(true, Ordering::SeqCst);
    asking.await.unwrap();
    assert!(asked.load(Ordering::SeqCst) > 50);
    let mut seen = serials(&stack, "enclave", "identity renewed");
    let renewals = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), renewals, "each is another certificate");
    assert_eq!(
        metric(&stack, r#"cloister_svid_renewals_total{outcome="failed"}"#).await,
        0.0
    );

    // The gateway's entry deleted: its identity is withdrawn, and it asks nobody any more. Given again: it goes on.
    spire.delete(&entry).await;
    eventually("withdrawn", &stack, |status| status != 200).await;
    let entry = spire.entry(&agent, GATEWAY_ID, &gateway).await;
    eventually("given again", &stack, |status| status == 200).await;
    spire.delete(&entry).await;
    spire
        .entry(&agent, GATEWAY_ID, &["-selector", user.as_str()])
        .await;
    eventually("with a long life", &stack, |status| status == 200).await;

    // SPIRE down: what is in force goes on until its end, then the enclave accepts nobody and says so. Back: all is well again,
    // and no program was started anew.
    spire.down().await;
    assert_eq!(answered(&stack).await.0, 200);
    let control = stack.layout.control("enclave");
    let begun = Instant::now();
    loop {
        let (status, said) = stack::get(&control, "/readyz").await.unwrap();
        if status == 503 {
            let said: Value = serde_json::from_slice(&said).unwrap();
            assert_eq!(said["reasons"], json!(["the identity has expired"]));
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "still ready");
        sleep(Duration::from_millis(300)).await;
    }
    assert_ne!(answered(&stack).await.0, 200);
    assert!(metric(&stack, r#"cloister_svid_renewals_total{outcome="failed"}"#).await > 0.0);
    spire.up().await;
    eventually("spire is back", &stack, |status| status == 200).await;
    let (status, _) = stack::get(&control, "/readyz").await.unwrap();
    assert_eq!(status, 200);
    for program in [&stack.gateway, &stack.enclave, &stack.kbs] {
        assert!(program.id().is_some());
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_no_selector_fits_gets_no_identity_and_says_so() {
    let Some(mut spire) = Spire::start().await else {
        return;
    };
    let broker = spire.machine("broker", &rcgen::PKCS_ECDSA_P256_SHA256);
    spire
        .entry(&broker, ENCLAVE_ID, &["-selector", "cloister:enclave"])
        .await;
    let (agent, workload_api) = spire.agent("gateways").await;
    spire
        .entry(&agent, GATEWAY_ID, &["-selector", "unix:uid:4242"])
        .await;
    let dir = tempfile::tempdir().unwrap();
    let started = Stack::start(options(&spire, models::both(dir.path()), workload_api)).await;
    let Err(error) = started else {
        panic!("it started without an identity");
    };
    let said = error.to_string();
    assert!(said.contains("gateway ended with exit code 69"), "{said}");
    assert!(said.contains("workload api"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_without_an_entry_does_not_come_up() {
    let Some(mut spire) = Spire::start().await else {
        return;
    };
    spire.machine("broker", &rcgen::PKCS_ECDSA_P256_SHA256);
    let (_, workload_api) = spire.agent("gateways").await;
    let dir = tempfile::tempdir().unwrap();
    let started = Stack::start(options(&spire, models::both(dir.path()), workload_api)).await;
    let Err(error) = started else {
        panic!("it started without an identity");
    };
    let said = error.to_string();
    assert!(said.contains("enclave ended with exit code 77"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_of_another_organisation_is_served_under_its_own_bundle() {
    let endpoint = r#"federation {
        bundle_endpoint {
            address = "127.0.0.1"
            port = BUNDLE_PORT
            refresh_hint = "10s"
            profile "https_spiffe" {}
        }
    }"#;
    let partner = Setup {
        trust_domain: "partner.example",
        federation: endpoint.to_owned(),
        ..Setup::default()
    };
    let (Some(spire), Some(mut partner)) = (Spire::start().await, Spire::with(partner).await)
    else {
        return;
    };
    let broker = spire.machine("broker", &rcgen::PKCS_ECDSA_P256_SHA256);
    spire
        .entry(&broker, ENCLAVE_ID, &["-selector", "cloister:enclave"])
        .await;
    // The partner's server knows our bundle, and gives it to its gateway.
    let ours = spire.path("root.pem");
    let ours = [
        "bundle",
        "set",
        "-id",
        "spiffe://cloister.dev",
        "-path",
        ours.to_str().unwrap(),
    ];
    partner.admin(&ours).await;
    let (agent, workload_api) = partner.agent("gateways").await;
    let user = this_user();
    let federated = [
        "-selector",
        user.as_str(),
        "-federatesWith",
        "spiffe://cloister.dev",
    ];
    partner
        .entry(&agent, "spiffe://partner.example/gateway", &federated)
        .await;

    let dir = tempfile::tempdir().unwrap();
    let mut options = options(&spire, models::both(dir.path()), workload_api);
    let section = json!([{
        "domain": "partner.example",
        "bundle": partner.root.cert_pem(),
        "bundle_endpoint": {
            "endpoint": format!("tcp://127.0.0.1:{}", partner.bundle_port),
            "url": format!("https://localhost:{}/", partner.bundle_port),
            "spiffe_id": "spiffe://partner.example/spire/server",
        },
    }]);
    options.amend = Some(Box::new(move |enclave| {
        enclave["trust"]["federated"] = section;
        enclave["trust"]["callers"] = json!(["partner.example"]);
    }));
    options.policy = Some(
        r#"permit (principal, action, resource) when { principal.trust_domain == "partner.example" };"#.to_owned(),
    );
    let stack = Stack::start(options).await.unwrap();
    assert_eq!(answered(&stack).await.0, 200);
    // The measured bundle had no number; the published one has, and none with a smaller one can follow it.
    let begun = Instant::now();
    let renewed = || {
        std::fs::read_to_string(stack.layout.log("enclave"))
            .unwrap()
            .contains("bundle renewed")
    };
    while !renewed() {
        assert!(begun.elapsed() < PATIENCE, "the bundle was not fetched");
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(answered(&stack).await.0, 200);
    let log = std::fs::read_to_string(stack.layout.log("enclave")).unwrap();
    assert!(!log.contains("bundle not renewed"), "{log}");
    stack.stop().await;
}
