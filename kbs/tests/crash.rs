//! `kill -9` at any moment: what was acknowledged is in the log, the log is whole, and no change is half made.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a failure is the report"
)]

#[allow(dead_code, reason = "each test uses what it needs of it")]
mod support;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use support::{Site, admin_request, kbs, token};

const ROUNDS: u64 = 12;
const WORKERS: usize = 4;

/// One test at a time: a process that is being started holds this one's locks on the other's database for a moment.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Acknowledged {
    stored: BTreeSet<String>,
    released: BTreeSet<String>,
}

fn allow_all(_: &attestation::Pcrs) -> String {
    "package policy\n\nallow := true\n".to_owned()
}

/// Not the same in two runs: the moment of the kill is what varies.
fn random(below: u64) -> u64 {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) % below
}

/// Stores a resource and has it released, under a name that nothing else ever has, again and again.
async fn work(
    site: Arc<Site>,
    name: String,
    bearer: String,
    acknowledged: Arc<Mutex<Acknowledged>>,
) {
    let client = site.client();
    for i in 0.. {
        let path = format!("{name}/key/{i}");
        let url = format!("/kbs/v0/resource/{path}");
        let headers = [("authorization", bearer.as_str())];
        let Some(200) = admin_request(&site, "POST", &url, &headers, &[7; 32]).await else {
            return;
        };
        acknowledged.lock().unwrap().stored.insert(path.clone());
        if client.data_key(&path).await.is_err() {
            return;
        }
        acknowledged.lock().unwrap().released.insert(path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::await_holding_lock,
    reason = "the other test is on another thread"
)]
async fn nothing_acknowledged_is_lost_when_the_broker_is_killed() {
    let _alone = alone();
    let site = Site::new(
        allow_all,
        "[log]\ncheckpoint_entries = 5\ncheckpoint_s = 1\n",
    );
    let public = std::fs::read_to_string(site.path("admin.pub")).unwrap();
    let config = std::fs::read_to_string(&site.config).unwrap();
    let config = format!("admin_public_keys = ['''{public}''']\n{config}");
    std::fs::write(&site.config, config).unwrap();
    let bearer = format!("Bearer {}", token(&site.path("admin.key")));
    let site = Arc::new(site);
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));

    for round in 0..ROUNDS {
        let running = site.serve().await;
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let name = format!("r{round}w{worker}");
                tokio::spawn(work(
                    Arc::clone(&site),
                    name,
                    bearer.clone(),
                    Arc::clone(&acknowledged),
                ))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100 + random(900))).await;
        drop(running); // SIGKILL
        for worker in workers {
            worker.abort();
            worker.await.ok();
        }
        // Half of the times the next broker is the first to look at what is left.
        if round % 2 == 0 {
            check(&site, &acknowledged.lock().unwrap());
        }
    }
    let acknowledged = acknowledged.lock().unwrap();
    check(&site, &acknowledged);
    assert!(
        acknowledged.released.len() >= 20,
        "too little went on to lose anything: {}",
        acknowledged.released.len()
    );
}

fn check(site: &Site, acknowledged: &Acknowledged) {
    let config = site.config();
    let audited = kbs::offline::verify_log(&config, &[]).unwrap();
    assert!(audited.checkpoints > 0);
    let (mut stored, mut released) = (BTreeSet::new(), BTreeSet::new());
    kbs::offline::read_log(&config, |record| {
        let entry = &record.entry;
        match entry.outcome.as_str() {
            "stored" => assert!(stored.insert(entry.path.clone()), "{}", entry.path),
            "released" => {
                released.insert(entry.path.clone());
            }
            "started" | "attested" | "suppressed" | "policy-set" => {}
            other => panic!("{other}: {entry:?}"),
        }
    })
    .unwrap();
    let lost: Vec<_> = acknowledged.released.difference(&released).collect();
    assert!(lost.is_empty(), "released, and in no entry: {lost:?}");
    let lost: Vec<_> = acknowledged.stored.difference(&stored).collect();
    assert!(lost.is_empty(), "stored, and in no entry: {lost:?}");

    // A change and its entry are one transaction: what the log says is there, and nothing else is.
    let database = rusqlite::Connection::open(site.path("kbs.sqlite")).unwrap();
    let mut names = database
        .prepare("SELECT name FROM secret WHERE kind = 'resource'")
        .unwrap();
    let names = names.query_map((), |row| row.get::<_, String>(0)).unwrap();
    let there: BTreeSet<String> = names.map(Result::unwrap).collect();
    assert_eq!(there, stored);
}

#[test]
fn a_rotation_that_is_killed_leaves_a_key_file_that_opens_everything() {
    let _alone = alone();
    let site = Site::new(allow_all, "");
    let config = site.config();
    for i in 0..50 {
        kbs::offline::put_resource(
            &config,
            &format!("models/m{i}/epoch-1"),
            &[7; 32],
            support::now(),
        )
        .unwrap();
    }
    let mut killed = 0;
    for round in 0..25 {
        let mut rotation = kbs()
            .args(["master-key", "rotate", "--config"])
            .arg(&site.config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(random(80_000)));
        rotation.kill().unwrap();
        let ended = rotation.wait_with_output().unwrap();
        assert!(matches!(ended.status.code(), None | Some(0)), "{ended:?}");
        killed += i32::from(!ended.status.success());
        // Every value is opened, and the whole log verified.
        let out = site.path(&format!("backup-{round}"));
        let audited = kbs::offline::backup(&site.config(), &out).unwrap();
        assert!(audited.entries >= 50);
        kbs::offline::verify_log(&site.config(), &[]).unwrap();
        assert!(!site.path("master.key.new").exists());
    }
    assert!(killed > 0, "no rotation was caught in the middle");
}
