use std::time::{Duration, SystemTime};

use attestation::{Pcr, Sha256Digest};
use tokio::time::{Instant, sleep};

use crate::broker::{BROKER_ID, Broker, ENCLAVE_ID, pcrs, x509pop};
use crate::server::{PATIENCE, Setup, Spire};

const P256: &rcgen::SignatureAlgorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
/// Any: nobody but the broker's agent asks, and it looks at IDs only.
const SELECTOR: [&str; 2] = ["-selector", "cloister:enclave"];

/// A server with an entry for the enclave below the broker's machine, and the broker.
async fn world(setup: Setup) -> Option<(Spire, Broker, String)> {
    let spire = Spire::with(setup).await?;
    let agent = spire.machine("broker", P256);
    let entry = spire.entry(&agent, ENCLAVE_ID, &SELECTOR).await;
    let mut broker = Broker::new(&spire, &x509pop(&spire, "broker"));
    broker.start().await.unwrap();
    eventually_issued(&broker).await;
    Some((spire, broker, entry))
}

fn denied(result: &Result<identity::Svid, kbs_client::Error>) -> bool {
    matches!(result, Err(kbs_client::Error::Refused { kind }) if kind == "PolicyDeny")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attested_enclave_gets_its_identity_from_spire() {
    let Some((spire, broker, _)) = world(Setup::default()).await else {
        return;
    };
    let svid = broker.issue().await.unwrap();
    let leaf = broker
        .bundles()
        .verify(svid.chain(), SystemTime::now())
        .unwrap();
    assert_eq!(leaf.id.to_string(), ENCLAVE_ID);
    assert_eq!(svid.chain().len(), 2, "below SPIRE's own authority");
    let life = leaf.not_after.duration_since(SystemTime::now()).unwrap();
    assert!(life <= Duration::from_secs(3600), "{life:?}");
    assert_eq!(broker.ready().await.0, 200);

    let entry = broker.last_entry();
    assert_eq!(
        (entry.outcome.as_str(), entry.path.as_str()),
        ("issued", ENCLAVE_ID)
    );
    assert_eq!(entry.serial, Some(leaf.serial.clone()));
    let key = Sha256Digest::of(&leaf.spki_der).to_string();
    assert_eq!(entry.tee_key, Some(key));
    assert_eq!(entry.pcr0, Some(pcrs()[&0].to_string()));

    let next = broker.issue().await.unwrap();
    assert_ne!(
        next.leaf().spki_der,
        leaf.spki_der,
        "every SVID is over a new key"
    );

    // The measurement decides, whatever entries there are.
    let mut other = pcrs();
    other.insert(0, Pcr::ZERO.extend(b"another image"));
    assert!(denied(&broker.issue_to(other, ENCLAVE_ID).await));
    let own = spire.machine("other", P256);
    let id = "spiffe://cloister.dev/other";
    spire.entry(&own, id, &SELECTOR).await;
    assert!(denied(&broker.issue_to(pcrs(), id).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rsa_machine_proves_itself_too() {
    let Some(spire) = Spire::start().await else {
        return;
    };
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    let agent = spire.machine_with("broker", &key.unwrap());
    spire.entry(&agent, ENCLAVE_ID, &SELECTOR).await;
    let mut broker = Broker::new(&spire, &x509pop(&spire, "broker"));
    broker.start().await.unwrap();
    eventually_issued(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_another_operator_is_no_agent() {
    let (Some(spire), Some(other)) = (Spire::start().await, Spire::start().await) else {
        return;
    };
    other.machine("broker", P256);
    for name in ["broker.pem", "broker.key"] {
        std::fs::copy(other.path(name), spire.path(name)).unwrap();
    }
    let error = Broker::new(&spire, &x509pop(&spire, "broker"))
        .start()
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.exit_code(), 69);
    assert!(error.to_string().contains("AttestAgent"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_root_is_not_believed() {
    let (Some(spire), Some(other)) = (Spire::start().await, Spire::start().await) else {
        return;
    };
    spire.machine("broker", P256);
    std::fs::copy(other.path("root.pem"), spire.path("root.pem")).unwrap();
    let error = Broker::new(&spire, &x509pop(&spire, "broker"))
        .start()
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.exit_code(), 69);
    assert!(
        error.to_string().contains("does not lead to the bundle"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_entry_ends_the_issuing_and_a_new_one_resumes_it() {
    let Some((spire, broker, entry)) = world(Setup::default()).await else {
        return;
    };
    broker.issue().await.unwrap();
    spire.delete(&entry).await;
    assert!(denied(&Err(eventually_refused(&broker).await)));
    let reason = broker.last_entry().reason.unwrap();
    assert!(
        reason.contains("has no entry") && reason.contains("entry create"),
        "{reason}"
    );

    let agent = spire.machine("unused", P256);
    spire
        .entry(&agent, "spiffe://cloister.dev/somebody", &SELECTOR)
        .await;
    assert!(denied(&broker.issue().await), "another's entry is not ours");

    let agent = reason
        .split_whitespace()
        .find(|word| word.contains("/spire/agent/"))
        .unwrap();
    spire.entry(agent, ENCLAVE_ID, &SELECTOR).await;
    eventually_issued(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_says_more_than_an_identity_is_refused() {
    for (more, problem) in [
        (&["-dns", "db.example.org"][..], "DNS names"),
        (&["-admin"], "administrator"),
        (&["-downstream"], "downstream"),
    ] {
        let Some(spire) = Spire::start().await else {
            return;
        };
        let agent = spire.machine("broker", P256);
        spire
            .entry(&agent, ENCLAVE_ID, &[&SELECTOR[..], more].concat())
            .await;
        let mut broker = Broker::new(&spire, &x509pop(&spire, "broker"));
        broker.start().await.unwrap();
        let begun = Instant::now();
        loop {
            assert!(denied(&broker.issue().await), "{problem}");
            let reason = broker.last_entry().reason.unwrap();
            if reason.contains(problem) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{reason}");
            sleep(Duration::from_millis(500)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn does_not_start_where_another_agent_would_hold_the_identity() {
    let Some(spire) = Spire::start().await else {
        return;
    };
    let own = spire.machine("broker", P256);
    spire.entry(&own, ENCLAVE_ID, &SELECTOR).await;
    let host = spire.machine("host", P256);
    let bad = spire
        .entry(&host, ENCLAVE_ID, &["-selector", "unix:uid:1000"])
        .await;
    let mut broker = Broker::new(&spire, &x509pop(&spire, "broker"));
    let error = broker.start().await.unwrap_err();
    assert_eq!(error.exit_code(), 77);
    let said = error.to_string();
    assert!(said.contains(&bad) && said.contains(&host), "{said}");
    spire.delete(&bad).await;
    broker.start().await.unwrap();

    // And the same while it runs: the identity is not given to anybody while two could hold it.
    let bad = spire
        .entry(&host, ENCLAVE_ID, &["-selector", "unix:uid:1000"])
        .await;
    assert!(denied(&broker.issue().await));
    assert!(broker.last_entry().reason.unwrap().contains(&bad));
    spire.delete(&bad).await;
    eventually_issued(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_is_this_machines_only_where_the_operator_says_so() {
    let Some(spire) = Spire::start().await else {
        return;
    };
    spire.machine("broker", P256);
    let alias = "spiffe://cloister.dev/machines/broker";
    let server = "spiffe://cloister.dev/spire/server";
    let selector = ["-node", "-selector", "x509pop:subject:cn:broker"];
    spire.entry(server, alias, &selector[1..]).await;
    spire.entry(alias, ENCLAVE_ID, &SELECTOR).await;
    let signer = x509pop(&spire, "broker");
    let error = Broker::new(&spire, &signer).start().await.unwrap_err();
    assert_eq!(error.exit_code(), 77, "{error}");
    let named = format!("[issuer.spire]\naliases = [\"{alias}\"]\n");
    let signer = signer.replace("[issuer.spire]\n", &named);
    let mut broker = Broker::new(&spire, &signer);
    broker.start().await.unwrap();
    eventually_issued(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_in_a_file_serves_where_the_broker_has_no_socket() {
    let Some(spire) = Spire::start().await else {
        return;
    };
    let own = spire.machine("broker", P256);
    spire.entry(&own, ENCLAVE_ID, &SELECTOR).await;
    let file = spire.path("entries.json");
    let socket = format!("entries_socket = \"{}\"", spire.socket());
    let listed = format!("entries_file = \"{}\"", file.display());
    let signer = x509pop(&spire, "broker").replace(&socket, &listed);
    let list = async || {
        let listing = spire.admin(&["entry", "show", "-output", "json"]).await;
        std::fs::write(&file, listing).unwrap();
    };
    let mut broker = Broker::new(&spire, &signer);
    let error = broker.start().await.unwrap_err();
    assert_eq!(error.exit_code(), 64, "no listing: {error}");
    list().await;
    broker.start().await.unwrap();
    eventually_issued(&broker).await;

    let host = spire.machine("host", P256);
    spire.entry(&host, ENCLAVE_ID, &SELECTOR).await;
    list().await;
    assert!(
        denied(&broker.issue().await),
        "the file is read for each signature"
    );
    for bad in [
        "",
        "[]",
        "{\"entries\": [{\"spiffe_id\": 1}]}",
        "{\"entries\": [], \"next_page_token\": \"a\"}",
    ] {
        std::fs::write(&file, bad).unwrap();
        assert!(broker.issue().await.is_err(), "{bad}");
    }
    list().await;
    let old = SystemTime::now() - Duration::from_secs(25 * 3600);
    let listing = std::fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .unwrap();
    listing.set_modified(old).unwrap();
    assert!(broker.issue().await.is_err());
    let reason = broker.last_entry().reason.unwrap();
    assert!(reason.contains("older than a day"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spire_down_and_back() {
    let Some((mut spire, broker, _)) = world(Setup::default()).await else {
        return;
    };
    broker.issue().await.unwrap();
    spire.down().await;
    let refused = broker.issue().await.err().unwrap();
    assert!(
        matches!(refused, kbs_client::Error::Unavailable { .. }),
        "{refused}"
    );
    assert_eq!(broker.ready().await.0, 200, "keys are still released");
    spire.up().await;
    eventually_issued(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn does_not_start_without_the_server() {
    let Some(mut spire) = Spire::start().await else {
        return;
    };
    spire.machine("broker", P256);
    spire.down().await;
    let error = Broker::new(&spire, &x509pop(&spire, "broker"))
        .start()
        .await;
    assert_eq!(error.unwrap_err().exit_code(), 69);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_renews_itself_and_proves_itself_anew_when_it_was_evicted() {
    let setup = Setup {
        agent_ttl: "16s",
        ..Setup::default()
    };
    let Some((spire, broker, _)) = world(setup).await else {
        return;
    };
    let agent = spire.admin(&["agent", "list", "-output", "json"]).await;
    let serial = |list: &str| {
        let list: serde_json::Value = serde_json::from_str(list).unwrap();
        list["agents"][0]["x509svid_serial_number"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let first = serial(&agent);
    assert!(!first.is_empty(), "{agent}");
    // Longer than its first certificate lives.
    let until = Instant::now() + Duration::from_secs(22);
    while Instant::now() < until {
        broker.issue().await.unwrap();
        sleep(Duration::from_millis(500)).await;
    }
    let agent = spire.admin(&["agent", "list", "-output", "json"]).await;
    assert_ne!(serial(&agent), first);

    let list: serde_json::Value = serde_json::from_str(&agent).unwrap();
    let id = format!(
        "spiffe://cloister.dev{}",
        list["agents"][0]["id"]["path"].as_str().unwrap()
    );
    // The broker's client asks again until the agent has proved itself anew.
    spire.admin(&["agent", "evict", "-spiffeID", &id]).await;
    eventually_issued(&broker).await;
    let anew = spire.admin(&["agent", "list", "-output", "json"]).await;
    assert!(
        anew.contains(id.trim_start_matches("spiffe://cloister.dev")),
        "{anew}"
    );
    // Banned is for good.
    spire.admin(&["agent", "ban", "-spiffeID", &id]).await;
    eventually_refused(&broker).await;
    sleep(Duration::from_secs(24)).await;
    broker.issue().await.err().unwrap();
    let (status, said) = broker.ready().await;
    assert_eq!(status, 503);
    assert!(said.contains("spire agent"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_is_spent_and_its_agent_kept() {
    let Some(spire) = Spire::start().await else {
        return;
    };
    let said = spire.admin(&["token", "generate", "-output", "json"]).await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let token = said["value"].as_str().unwrap();
    let agent = format!("spiffe://cloister.dev/spire/agent/join_token/{token}");
    spire.entry(&agent, ENCLAVE_ID, &SELECTOR).await;
    std::fs::write(spire.path("token"), token).unwrap();
    let pop = x509pop(&spire, "broker");
    let (start, _) = pop.split_once("[issuer.spire.x509pop]").unwrap();
    let signer = format!(
        "{start}[issuer.spire.join_token]\nfile = \"{}\"\nstate = \"agent.pem\"\n",
        spire.path("token").display()
    );
    let mut broker = Broker::new(&spire, &signer);
    broker.start().await.unwrap();
    eventually_issued(&broker).await;
    use std::os::unix::fs::PermissionsExt as _;
    let state = broker.path("agent.pem");
    let mode = std::fs::metadata(&state).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    broker.stop().await;
    broker.start().await.unwrap();
    eventually_issued(&broker).await;
    broker.stop().await;
    std::fs::remove_file(&state).unwrap();
    let error = broker.start().await.unwrap_err();
    assert!(
        error.to_string().contains("AttestAgent"),
        "the token is spent: {error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_socket_mints_for_development() {
    let Some(mut spire) = Spire::start().await else {
        return;
    };
    let signer = format!("[issuer.spire_mint]\nsocket = \"{}\"\n", spire.socket());
    let mut broker = Broker::new(&spire, &signer);
    broker.start().await.unwrap();
    let svid = eventually_issued(&broker).await;
    let leaf = broker
        .bundles()
        .verify(svid.chain(), SystemTime::now())
        .unwrap();
    assert_eq!(leaf.id.to_string(), ENCLAVE_ID);
    assert!(denied(&broker.issue_to(pcrs(), BROKER_ID).await));

    // Nobody else may have an entry for it, not even this machine's agent.
    let host = spire.machine("host", P256);
    let bad = spire.entry(&host, ENCLAVE_ID, &SELECTOR).await;
    assert!(denied(&broker.issue().await));
    let error = Broker::new(&spire, &signer).start().await.unwrap_err();
    assert_eq!(error.exit_code(), 77);
    spire.delete(&bad).await;
    broker.issue().await.unwrap();
    spire.down().await;
    broker.issue().await.err().unwrap();
    spire.up().await;
    eventually_issued(&broker).await;
}

/// SPIRE caches entries for some seconds.
async fn eventually_issued(broker: &Broker) -> identity::Svid {
    let begun = Instant::now();
    loop {
        match broker.issue().await {
            Ok(svid) => return svid,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error:?}"),
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn eventually_refused(broker: &Broker) -> kbs_client::Error {
    let begun = Instant::now();
    loop {
        if let Err(error) = broker.issue().await {
            return error;
        }
        assert!(begun.elapsed() < PATIENCE, "it is still issued");
        sleep(Duration::from_millis(500)).await;
    }
}
