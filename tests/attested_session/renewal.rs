use std::sync::Arc;
use std::time::Duration;

use attestation::ReferenceValues;
use bytes::Bytes;
use gateway::{AttestedSession, Error, Policy, Step, connect};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use tokio::time::{sleep, timeout};

use crate::fake_enclave::{FakeEnclave, HOUR, Respond, SERVER, World, at_once, honest, now};

const SOON: Duration = Duration::from_secs(8);

fn brief(world: &World) -> Policy {
    Policy {
        reattest: Duration::from_secs(2),
        ..world.policy()
    }
}

/// A session whose verdict lasts two seconds, with an enclave that answers like this.
async fn session(world: &Arc<World>, respond: Respond) -> (FakeEnclave, AttestedSession) {
    let enclave = FakeEnclave::start(world, world.svid(SERVER, HOUR), respond).await;
    let session = connect(&world.options(&enclave, brief(world)))
        .await
        .ok()
        .unwrap();
    (enclave, session)
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_verdict_is_renewed_in_band_with_new_nonces() {
    let world = World::new();
    let (enclave, session) = session(&world, honest(&world)).await;
    let first = session.verdict();
    sleep(Duration::from_millis(3600)).await;
    assert!(session.is_usable());
    assert!(session.verdict().until > first.until);
    session.send(get("/v1/models")).await.unwrap();
    let seen = enclave.log.seen.lock().unwrap().clone();
    let mut questions: Vec<_> = seen
        .iter()
        .filter(|seen| seen.path == "/v1/attestation")
        .map(|seen| &seen.body)
        .collect();
    assert!(questions.len() >= 2, "{}", questions.len());
    questions.sort_unstable();
    questions.dedup();
    assert!(questions.len() >= 2, "a nonce was used twice");
    assert_eq!(
        enclave
            .log
            .connections
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
}

#[tokio::test]
async fn a_failed_renewal_cuts_the_session_and_what_is_in_flight() {
    let world = World::new();
    let changed = Arc::clone(&world);
    let respond = at_once(move |asked| {
        changed.answer(asked, |draft| {
            if asked.before > 0 {
                draft.document = Box::new(|document| {
                    document
                        .pcrs
                        .insert(1, attestation::Pcr::ZERO.extend(b"another kernel"));
                });
            }
        })
    });
    let (enclave, session) = session(&world, respond).await;
    let pieces = enclave.log.stream();
    let mut body = session.send(get("/v1/stream")).await.unwrap().into_body();
    pieces.send(Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "one"
    );

    let reason = timeout(SOON, session.ended()).await.unwrap().unwrap();
    assert_eq!(reason.step(), Some(Step::Measurements), "{reason}");
    assert!(body.frame().await.unwrap().is_err(), "the stream was cut");
    assert!(matches!(
        session.send(get("/v1/models")).await,
        Err(Error::Closed | Error::Expired)
    ));
    timeout(SOON, pieces.closed()).await.unwrap();
}

#[tokio::test]
async fn a_busy_enclave_is_asked_again_before_the_verdict_ends() {
    let world = World::new();
    let busy = Arc::clone(&world);
    let respond = at_once(move |asked| match asked.before {
        1 | 2 => (StatusCode::TOO_MANY_REQUESTS, serde_json::json!({})),
        _ => busy.answer(asked, |_| {}),
    });
    let (enclave, session) = session(&world, respond).await;
    sleep(Duration::from_millis(2500)).await;
    assert!(session.is_usable());
    assert!(enclave.log.paths().len() >= 4);
}

#[tokio::test]
async fn a_renewal_that_does_not_come_ends_the_session_with_its_verdict() {
    let world = World::new();
    let silent = Arc::clone(&world);
    let respond: Respond = Arc::new(move |asked| {
        let said = silent.answer(&asked, |_| {});
        Box::pin(async move {
            if asked.before > 0 {
                sleep(HOUR).await;
            }
            said
        })
    });
    let (_enclave, session) = session(&world, respond).await;
    let reason = timeout(SOON, session.ended()).await.unwrap().unwrap();
    assert_eq!(reason.step(), Some(Step::Expiry), "{reason}");
    assert!(!session.is_usable());
}

#[tokio::test]
async fn a_revoked_authority_ends_the_session_at_its_renewal() {
    let world = World::new();
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let options = world.options(&enclave, brief(&world));
    let session = connect(&options).await.ok().unwrap();
    options
        .bundles
        .store(Arc::new(identity::TrustBundles::new()));
    let reason = timeout(SOON, session.ended()).await.unwrap().unwrap();
    assert_eq!(reason.step(), Some(Step::ServerIdentity), "{reason}");
}

#[tokio::test]
async fn a_session_takes_nothing_when_the_clock_says_it_is_over() {
    let world = World::new();
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let ahead = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut options = world.options(&enclave, world.policy());
    let jumped = Arc::clone(&ahead);
    options.now = Arc::new(move || {
        let now = now();
        if jumped.load(std::sync::atomic::Ordering::Relaxed) {
            now + HOUR / 2
        } else {
            now
        }
    });
    let session = connect(&options).await.ok().unwrap();
    assert!(session.is_usable());
    ahead.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(
        session.send(get("/v1/models")).await,
        Err(Error::Expired)
    ));
    assert_eq!(enclave.log.paths(), ["/v1/attestation"]);
}

#[tokio::test]
async fn a_clock_that_passes_the_end_of_the_verdict_cuts_what_is_in_flight() {
    let world = World::new();
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let ahead = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut options = world.options(&enclave, world.policy());
    let jumped = Arc::clone(&ahead);
    // As after a sleep of the machine, in which the monotonic clock stood still.
    options.now = Arc::new(move || {
        let jump = jumped.load(std::sync::atomic::Ordering::Relaxed);
        now() + if jump { HOUR / 4 } else { Duration::ZERO }
    });
    let session = connect(&options).await.ok().unwrap();
    let pieces = enclave.log.stream();
    let mut body = session.send(get("/v1/stream")).await.unwrap().into_body();
    pieces.send(Bytes::from_static(b"one")).await.unwrap();
    body.frame().await.unwrap().unwrap();

    ahead.store(true, std::sync::atomic::Ordering::Relaxed);
    let reason = timeout(SOON, session.ended()).await.unwrap().unwrap();
    assert_eq!(reason.step(), Some(Step::Expiry), "{reason}");
    assert!(body.frame().await.unwrap().is_err(), "the stream was cut");
    timeout(SOON, pieces.closed()).await.unwrap();
}

#[tokio::test]
async fn a_session_ends_when_the_policy_accepts_its_image_no_longer() {
    let world = World::new();
    let enclave = FakeEnclave::start(&world, world.svid(SERVER, HOUR), honest(&world)).await;
    let mut policy = world.policy();
    let mut images = policy.images.images().to_vec();
    images[0].not_after = Some(now() + Duration::from_secs(2));
    policy.images = ReferenceValues::try_from_images(images.clone()).unwrap();
    let session = connect(&world.options(&enclave, policy))
        .await
        .ok()
        .unwrap();
    assert_eq!(Some(session.verdict().until), images[0].not_after);
    let pieces = enclave.log.stream();
    let response = session.send(get("/v1/stream")).await.unwrap();
    timeout(SOON, pieces.closed()).await.unwrap();
    assert!(!session.is_usable());
    // Asking again could not have changed it.
    let questions = enclave.log.paths();
    let questions = questions.iter().filter(|path| *path == "/v1/attestation");
    assert_eq!(questions.count(), 1);
    drop(response);
}

#[tokio::test]
async fn dropping_a_session_cuts_its_connection() {
    let world = World::new();
    let (enclave, session) = session(&world, honest(&world)).await;
    let pieces = enclave.log.stream();
    let response = session.send(get("/v1/stream")).await.unwrap();
    drop(session);
    timeout(SOON, pieces.closed()).await.unwrap();
    drop(response);
}
