use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use identity::issue::{Authority, new_svid};
use identity::{SpiffeId, Svid, TrustDomain};
use kbs_client::{BrokerFuture, KeyBroker, KeyBytes};
use tokio::sync::Mutex;
use tower::ServiceExt;

use super::*;
use crate::config::Limits;
use crate::keys::Keys;

struct Nobody;

impl KeyBroker for Nobody {
    fn issue_svid<'a>(&'a self, _id: &'a SpiffeId) -> BrokerFuture<'a, Svid> {
        Box::pin(async { Err(kbs_client::Error::Request("nobody")) })
    }

    fn data_key<'a>(&'a self, _id: &'a str) -> BrokerFuture<'a, KeyBytes> {
        Box::pin(async { Err(kbs_client::Error::Request("nobody")) })
    }
}

fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// With an identity that lives for one minute, seen `after` seconds later.
fn health(after: u64) -> Arc<Health> {
    let domain = TrustDomain::new("cloister.dev").unwrap();
    let root = Authority::generate_root(&domain, start(), Duration::from_secs(3600)).unwrap();
    let id = SpiffeId::new("spiffe://cloister.dev/enclave").unwrap();
    let credentials = Arc::new(Credentials::new());
    credentials.install(new_svid(&root, &id, Duration::from_secs(60), start()).unwrap());
    let models = Arc::new(Models::new(Vec::new()));
    let metrics = Arc::new(Metrics::new().unwrap());
    let reload = Reload {
        allowed: false,
        configured: Vec::new(),
        limits: Limits::default(),
        keys: Arc::new(Keys {
            broker: Arc::new(Nobody),
            kms: None,
        }),
        models: Arc::clone(&models),
        metrics: Arc::clone(&metrics),
        now: Arc::new(start),
        one: Mutex::new(()),
    };
    Arc::new(Health {
        credentials,
        models,
        metrics,
        reload,
        draining: AtomicBool::new(false),
        now: Arc::new(move || start() + Duration::from_secs(after)),
    })
}

async fn get_text(health: &Arc<Health>, path: &str) -> (u16, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router(Arc::clone(health)).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn ready_means_a_valid_identity_and_no_shutdown() {
    let fresh = health(1);
    assert_eq!(
        get_text(&fresh, "/readyz").await,
        (200, r#"{"ready":true,"reasons":[]}"#.to_owned())
    );
    fresh.draining.store(true, Ordering::Relaxed);
    let (status, text) = get_text(&fresh, "/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("shutting down"), "{text}");
    let (status, text) = get_text(&health(61), "/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("the identity has expired"), "{text}");
}

#[tokio::test]
async fn the_process_is_alive_also_when_it_is_not_ready() {
    assert_eq!(
        get_text(&health(61), "/healthz").await,
        (200, "ok\n".to_owned())
    );
}

#[tokio::test]
async fn metrics_say_whether_the_enclave_is_ready() {
    assert!(
        get_text(&health(1), "/metrics")
            .await
            .1
            .contains("cloister_ready 1")
    );
    assert!(
        get_text(&health(61), "/metrics")
            .await
            .1
            .contains("cloister_ready 0")
    );
}

#[tokio::test]
async fn there_is_nothing_else() {
    assert_eq!(get_text(&health(1), "/v1/models").await.0, 404);
}

#[tokio::test]
async fn a_reload_is_asked_for_by_post_and_its_refusal_says_why() {
    let health = health(1);
    assert_eq!(get_text(&health, "/reload").await.0, 405);
    let request = Request::post("/reload").body(Body::empty()).unwrap();
    let response = router(health).oneshot(request).await.unwrap();
    assert_eq!(response.status().as_u16(), 403);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert!(
        answer["error"].as_str().unwrap().contains("reload = true"),
        "{answer}"
    );
}
