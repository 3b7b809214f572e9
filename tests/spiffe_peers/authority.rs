//! The development authority as go-spiffe sees it. (As the spiffe crate sees it: the authority's own tests.)

use std::time::Duration;

use crate::peer::{Domain, HOUR, Peer, ask, entries};

#[tokio::test]
async fn go_spiffe_gets_every_identity_and_the_bundle() {
    let ids = ["spiffe://one.test/a", "spiffe://one.test/b"];
    let domain = Domain::start("one.test", &ids, HOUR).await;
    let Some(said) = ask(&["x509", &domain.socket]).await else {
        return;
    };
    let svids = said[0]["svids"].as_array().unwrap();
    let got: Vec<_> = svids
        .iter()
        .map(|svid| svid["id"].as_str().unwrap())
        .collect();
    assert_eq!(got, ids, "the first one is the default");
    assert_eq!(said[0]["bundles"], serde_json::json!({"one.test": 1}));
}

#[tokio::test]
async fn go_spiffe_sees_rotation_and_redaction() {
    let ids = ["spiffe://one.test/a", "spiffe://one.test/b"];
    let domain = Domain::start("one.test", &ids, Duration::from_secs(8)).await;
    let Some(mut peer) = Peer::start(&["watch", &domain.socket]) else {
        return;
    };
    let first = peer.said().await;
    let second = peer.said().await;
    assert_eq!(second["svids"].as_array().unwrap().len(), 2, "{second}");
    assert_ne!(
        first["svids"][0]["serial"], second["svids"][0]["serial"],
        "rotated"
    );
    assert!(second["svids"][0]["not_after"].as_i64() > first["svids"][0]["not_after"].as_i64());

    domain.entries.send_replace(entries(&ids[1..]));
    let mut third = peer.said().await;
    if third["svids"].as_array().unwrap().len() == 2 {
        third = peer.said().await; // it rotated once more before
    }
    let left = third["svids"].as_array().unwrap();
    assert_eq!(
        (left.len(), &left[0]["id"]),
        (1, &serde_json::json!(ids[1]))
    );

    domain.entries.send_replace(Vec::new());
    let mut last = peer.said().await;
    if last["error"].is_null() {
        last = peer.said().await;
    }
    let error = last["error"].as_str().unwrap();
    assert!(error.contains("PermissionDenied"), "{error}");
}

#[tokio::test]
async fn go_spiffe_is_told_that_there_are_no_jwts() {
    let domain = Domain::start("one.test", &["spiffe://one.test/a"], HOUR).await;
    let Some(said) = ask(&["jwt", &domain.socket, "somebody"]).await else {
        return;
    };
    let error = said[0]["error"].as_str().unwrap();
    assert!(error.contains("Unimplemented"), "{error}");
}

/// What stands in `:authority` on a unix socket is the client's choice, and no standard's. HTTP/2 libraries hold it to a host's
/// syntax, this one too: a socket's path in it, as some gRPC clients send it, never reaches the service.
#[tokio::test]
async fn an_authority_that_is_no_host_is_refused_by_http_and_every_host_is_the_same() {
    let domain = Domain::start("one.test", &["spiffe://one.test/a"], HOUR).await;
    for authority in ["localhost", "spire-agent", "one.test:443"] {
        let Some(said) = ask(&["x509", &domain.socket, authority]).await else {
            return;
        };
        assert!(said[0]["svids"].is_array(), "{authority}: {said:?}");
    }
    for authority in [
        "%2Frun%2Fspire%2Fagent.sock",
        "/run/spire/agent.sock",
        "spiffe://one.test/a",
    ] {
        let said = ask(&["x509", &domain.socket, authority]).await.unwrap();
        assert!(said[0]["error"].is_string(), "{authority}: {said:?}");
    }
}
