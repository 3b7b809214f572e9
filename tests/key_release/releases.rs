use http::{Method, StatusCode};
use kbs_client::TeeKey;

use crate::broker::{Broker, KEY_ID, SECRET, pcrs};
use crate::peer::{Session, config_digest};

#[tokio::test]
async fn an_attested_enclave_gets_its_key() {
    let broker = Broker::start().await;
    let key = broker.client(pcrs()).data_key(KEY_ID).await.unwrap();
    assert_eq!(key.expose(), SECRET);
    assert_eq!(
        broker.outcomes(),
        ["stored", "policy-set", "started", "attested", "released"]
    );
    let entry = broker.last_entry();
    assert_eq!(entry.path, KEY_ID);
    assert_eq!(entry.pcr0, Some(pcrs()[&0].to_string()));
    assert_eq!(entry.pcr1, Some(pcrs()[&1].to_string()));
    assert_eq!(entry.pcr2, Some(pcrs()[&2].to_string()));
    assert_eq!(entry.config_digest, Some(config_digest().to_string()));
    assert_eq!(entry.tee_key.unwrap().len(), 64);
    assert_eq!(entry.error_type, None);
}

#[tokio::test]
async fn elliptic_and_rsa_recipients_get_their_key_by_cookie_and_by_token() {
    let broker = Broker::start().await;
    let nsm = broker.nsm(pcrs());
    for key in [
        TeeKey::generate_p256().unwrap(),
        TeeKey::generate_rsa2048().unwrap(),
    ] {
        let session = Session::open(&broker).await;
        let answer = session
            .attest(&broker, &session.right(&nsm, &key).body())
            .await
            .ok();
        let again = answer.headers["set-cookie"].to_str().unwrap();
        assert!(again.starts_with(&session.cookie), "{again}");
        let token = answer.json()["token"].as_str().unwrap().to_owned();

        let by_cookie = broker.resource(KEY_ID, &session.headers()).await.ok();
        assert_eq!(by_cookie.headers["content-type"], "application/json");
        assert_eq!(**kbs_client::open(&by_cookie.body, &key).unwrap(), *SECRET);

        let bearer = format!("Bearer {token}");
        let by_token = broker
            .resource(KEY_ID, &[("authorization", &bearer)])
            .await
            .ok();
        assert_eq!(**kbs_client::open(&by_token.body, &key).unwrap(), *SECRET);

        // A valid session stands, whatever else comes along.
        let both = [
            ("cookie", session.cookie.as_str()),
            ("authorization", "Bearer nonsense"),
        ];
        broker.resource(KEY_ID, &both).await.ok();
    }
}

#[tokio::test]
async fn unknown_members_of_a_key_are_dropped_as_stock_brokers_do() {
    let broker = Broker::start().await;
    let session = Session::open(&broker).await;
    let key = TeeKey::generate_p256().unwrap();
    let mut attempt = session.right(&broker.nsm(pcrs()), &key);
    attempt.jwk["kid"] = "x".into();
    session.attest(&broker, &attempt.body()).await.ok();
}

#[tokio::test]
async fn what_is_stored_while_the_broker_runs_is_released_by_it() {
    let broker = Broker::start().await;
    let secret = [9; 32];
    kbs::offline::put_resource(
        &broker.config(),
        "models/new/epoch-2",
        &secret,
        broker.now(),
    )
    .unwrap();
    let key = broker
        .client(pcrs())
        .data_key("models/new/epoch-2")
        .await
        .unwrap();
    assert_eq!(key.expose(), secret);
}

#[tokio::test]
async fn health_and_numbers_are_told_on_the_control_endpoint_alone() {
    let broker = Broker::start().await;
    broker.client(pcrs()).data_key(KEY_ID).await.unwrap();
    let transport::Endpoint::Tcp(address) = &broker.control else {
        panic!()
    };
    let address = address.clone();
    let get = async |path: &str| {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = get("/metrics").await;
    assert!(
        metrics.contains("kbs_decisions_total{outcome=\"released\",error=\"\"} 1"),
        "{metrics}"
    );
    assert!(!metrics.contains(KEY_ID));
    assert!(get("/kbs/v0/auth").await.starts_with("HTTP/1.1 404"));
    // Its certificate lives thirty days.
    broker.pass(31 * 24 * 3600);
    assert!(get("/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_main_endpoint_tells_no_numbers() {
    let broker = Broker::start().await;
    assert_eq!(broker.get("/healthz", &[]).await.status, StatusCode::OK);
    for path in ["/metrics", "/readyz", "/", "/kbs"] {
        assert_eq!(
            broker.get(path, &[]).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    assert_eq!(
        broker
            .send(Method::PUT, "/cloister/v0/svid", &[], "")
            .await
            .status,
        405
    );
}
