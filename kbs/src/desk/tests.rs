use std::path::Path;
use std::time::UNIX_EPOCH;

use attestation::TrustAnchor;
use axum::body::Body;
use http::StatusCode;

use super::*;
use crate::store::{Checkpoints, MasterKey};

const LIMIT: Duration = Duration::from_secs(10);

fn desk(database: &Path) -> Arc<Desk> {
    Arc::new(Desk {
        store: Store::open(
            database,
            &MasterKey::generate().unwrap(),
            Checkpoints::beside(database),
        )
        .unwrap(),
        sessions: Sessions::new(1),
        challenges: Challenges::new(1),
        verifier: Verifier::new(TrustAnchor::aws_nitro()),
        policy: PolicyEngine::default(),
        tokens: TokenSigner::generate().unwrap(),
        admins: AdminKeys::new([], false).unwrap(),
        issuer: None,
        metrics: Metrics::default(),
        slots: Arc::new(Semaphore::new(1)),
        now: Arc::new(|| UNIX_EPOCH),
    })
}

fn released() -> Granted {
    Granted::logged(
        Outcome::Released,
        Response::new(Body::from("a wrapped key")),
    )
}

#[tokio::test]
async fn what_the_log_does_not_take_does_not_leave() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("kbs.sqlite");
    let desk = desk(&database);
    let answer = Arc::clone(&desk)
        .handle("a/b/c".to_owned(), LIMIT, |_, _| Ok(released()))
        .await;
    assert_eq!(answer.status(), StatusCode::OK);

    let other = rusqlite::Connection::open(&database).unwrap();
    other.execute_batch("DROP TABLE release_log").unwrap();
    let answer = desk
        .handle("a/b/c".to_owned(), LIMIT, |_, _| Ok(released()))
        .await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "2");
    let body = axum::body::to_bytes(answer.into_body(), 4096)
        .await
        .unwrap();
    assert!(!String::from_utf8_lossy(&body).contains("wrapped"));
}

#[tokio::test]
async fn a_decision_that_panics_is_an_answer_and_frees_its_slot() {
    let dir = tempfile::tempdir().unwrap();
    let desk = desk(&dir.path().join("kbs.sqlite"));
    for _ in 0..3 {
        let answer = Arc::clone(&desk)
            .handle("x".to_owned(), LIMIT, |_, _| panic!("a bug"))
            .await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    let answer = desk
        .handle("x".to_owned(), LIMIT, |_, _| Ok(released()))
        .await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_decision_that_takes_too_long_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let desk = desk(&dir.path().join("kbs.sqlite"));
    let slow = |_: &Desk, _: &mut Case| {
        std::thread::sleep(Duration::from_millis(300));
        Ok(released())
    };
    let limit = Duration::from_millis(50);
    let answer = Arc::clone(&desk).handle("x".to_owned(), limit, slow).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    // The next one waits for the slot, which the slow one still holds.
    let answer = desk
        .handle("x".to_owned(), LIMIT, |_, _| Ok(released()))
        .await;
    assert_eq!(answer.status(), StatusCode::OK);
}
