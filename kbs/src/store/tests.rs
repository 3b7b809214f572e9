use std::time::{SystemTime, UNIX_EPOCH};

use attestation::{Pcr, Pcrs};

use super::*;
use crate::refusal::Kind as ErrorKind;

struct Fixture {
    dir: tempfile::TempDir,
    key: MasterKey,
}

impl Fixture {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            key: MasterKey::generate().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("kbs.sqlite")
    }

    fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Store, StoreError> {
        Store::open(&self.path(), &self.key, Checkpoints::beside(&self.path()))
    }

    fn checkpoint_file(&self) -> PathBuf {
        Checkpoints::beside(&self.path()).file
    }

    /// Somebody else's hands in the file.
    fn tamper(&self, sql: &str) {
        let connection = Connection::open(self.path()).unwrap();
        connection
            .execute_batch(
                "DROP TRIGGER IF EXISTS release_log_keeps_rows; DROP TRIGGER IF EXISTS release_log_keeps_values;
                 DROP TRIGGER IF EXISTS log_checkpoint_keeps_rows; DROP TRIGGER IF EXISTS log_checkpoint_keeps_values;",
            )
            .unwrap();
        connection.execute_batch(sql).unwrap();
    }
}

fn released(path: &str) -> NewEntry<'_> {
    static FACTS: std::sync::LazyLock<Facts> = std::sync::LazyLock::new(|| Facts {
        pcrs: Some(Pcrs::from([
            (0, Pcr::from_bytes([1; 48])),
            (4, Pcr::from_bytes([4; 48])),
        ])),
        config_digest: Some(attestation::Sha256Digest::of(b"config")),
        tee_key: Some(attestation::Sha256Digest::of(b"key")),
        fresh: true,
        serial: None,
        policy_sha256: Some(attestation::Sha256Digest::of(b"policy")),
        admin: None,
    });
    NewEntry {
        outcome: Outcome::Released,
        error_type: None,
        path,
        facts: &FACTS,
        reason: None,
    }
}

const NOW: SystemTime = UNIX_EPOCH;

impl Store {
    fn log(&self, entry: &NewEntry<'_>, now: SystemTime) -> Result<bool, StoreError> {
        self.commit(entry, None, now)
    }
}

/// A change with its entry, as an administrator's request makes it.
fn change(store: &Store, outcome: Outcome, change: Change) -> Result<(), StoreError> {
    let entry = NewEntry {
        outcome,
        error_type: None,
        path: "models/a/epoch-1",
        facts: &Facts::default(),
        reason: None,
    };
    store
        .commit(&entry, Some(change), NOW)
        .map(|listed| assert!(listed))
}

fn put(store: &Store, path: &str, value: &[u8]) {
    change(store, Outcome::Stored, Change::put_resource(path, value)).unwrap();
}

fn entries(store: &Store) -> Vec<Record> {
    let mut records = Vec::new();
    store
        .read_log(|record| records.push(record.clone()))
        .unwrap();
    records
}

fn broken(store: &Store) -> Broken {
    match store.read_log(|_| {}) {
        Err(StoreError::Log(broken)) => broken,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_stored_comes_back_after_a_restart() {
    let fixture = Fixture::new();
    let store = fixture.open();
    assert!(store.resource("models/a/epoch-1").unwrap().is_none());
    put(&store, "models/a/epoch-1", b"old");
    put(&store, "models/a/epoch-1", b"secret");
    change(
        &store,
        Outcome::PolicySet,
        Change::put_policy("package policy\n"),
    )
    .unwrap();
    drop(store);
    let store = fixture.open();
    assert_eq!(
        **store.resource("models/a/epoch-1").unwrap().unwrap(),
        *b"secret"
    );
    assert_eq!(store.policy().unwrap().unwrap(), "package policy\n");
    let delete = || {
        change(
            &store,
            Outcome::Deleted,
            Change::delete_resource("models/a/epoch-1"),
        )
    };
    delete().unwrap();
    assert!(matches!(delete(), Err(StoreError::Absent)));
    assert!(store.resource("models/a/epoch-1").unwrap().is_none());
}

#[test]
fn the_file_holds_no_secret_in_the_clear_and_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "models/a/epoch-1", b"a very recognisable secret");
    change(
        &store,
        Outcome::PolicySet,
        Change::put_policy("package policy # a very recognisable policy"),
    )
    .unwrap();
    for file in std::fs::read_dir(fixture.dir.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(
            !bytes
                .windows(17)
                .any(|window| window == b"very recognisable"),
            "{path:?}"
        );
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o077,
            0,
            "{path:?}"
        );
    }
}

#[test]
fn another_master_key_opens_nothing() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let other = MasterKey::generate().unwrap();
    assert!(matches!(
        Store::open(
            &fixture.path(),
            &other,
            Checkpoints::beside(&fixture.path())
        ),
        Err(StoreError::MasterKey)
    ));
}

#[test]
fn a_value_moved_to_another_path_does_not_open() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "models/a/epoch-1", b"a");
    put(&store, "models/b/epoch-1", b"b");
    fixture.tamper(
        "UPDATE secret SET sealed = (SELECT sealed FROM secret WHERE name = 'models/a/epoch-1')
         WHERE name = 'models/b/epoch-1'",
    );
    assert!(matches!(
        store.resource("models/b/epoch-1"),
        Err(StoreError::Tampered)
    ));
}

#[test]
fn a_resource_cannot_be_made_the_policy() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "resource-policy", b"package policy\nallow := true");
    fixture.tamper("UPDATE secret SET kind = 'policy' WHERE kind = 'resource'");
    assert!(matches!(store.policy(), Err(StoreError::Tampered)));
}

#[test]
fn a_database_of_another_version_is_refused() {
    let fixture = Fixture::new();
    drop(fixture.open());
    Connection::open(fixture.path())
        .unwrap()
        .pragma_update(None, "user_version", 7)
        .unwrap();
    assert!(matches!(
        fixture.try_open(),
        Err(StoreError::Schema { actual: 7 })
    ));
}

#[test]
fn the_log_is_one_chain_with_everything_known() {
    let fixture = Fixture::new();
    let store = fixture.open();
    store.log(&released("models/a/epoch-1"), NOW).unwrap();
    drop(store);
    let store = fixture.open();
    let refused = NewEntry {
        outcome: Outcome::Refused,
        error_type: Some(ErrorKind::PolicyDeny),
        reason: Some("the policy says no"),
        ..released("models/b/epoch-1")
    };
    store.log(&refused, NOW).unwrap();
    let records = entries(&store);
    let [first, second] = &records[..] else {
        panic!()
    };
    assert_eq!(first.entry.pcr0.as_deref(), Some("01".repeat(48).as_str()));
    assert_eq!(first.entry.pcr1, None);
    assert_eq!(
        first.entry.tee_key,
        Some(attestation::Sha256Digest::of(b"key").to_string())
    );
    assert_eq!(second.entry.error_type.as_deref(), Some("PolicyDeny"));
    assert_eq!(
        first.entry.policy_sha256,
        Some(attestation::Sha256Digest::of(b"policy").to_string())
    );
    assert_eq!(second.entry.prev, first.hash);
    assert_eq!(store.log_head().unwrap(), (2, second.hash.clone()));
}

#[test]
fn the_log_only_grows() {
    let fixture = Fixture::new();
    let store = fixture.open();
    store.log(&released("a/b/c"), NOW).unwrap();
    let connection = Connection::open(fixture.path()).unwrap();
    for sql in [
        "DELETE FROM release_log",
        "UPDATE release_log SET path = ''",
    ] {
        assert!(connection.execute_batch(sql).is_err(), "{sql}");
    }
}

#[test]
fn a_log_that_was_changed_is_found_out() {
    let expected = [
        (
            "UPDATE release_log SET path = 'x/y/z' WHERE seq = 2",
            2,
            "it was changed",
        ),
        (
            "UPDATE release_log SET pcr0 = NULL WHERE seq = 1",
            1,
            "it was changed",
        ),
        (
            "DELETE FROM release_log WHERE seq = 2",
            2,
            "an entry is missing",
        ),
        (
            "DELETE FROM release_log WHERE seq = 1",
            1,
            "an entry is missing",
        ),
        (
            "UPDATE release_log SET prev = hash WHERE seq = 2",
            2,
            "it does not follow the entry before",
        ),
        (
            "UPDATE release_log SET mac = (SELECT mac FROM release_log WHERE seq = 1) WHERE seq = 3",
            3,
            "it was not written by this broker",
        ),
    ];
    for (sql, seq, what) in expected {
        let fixture = Fixture::new();
        let store = fixture.open();
        for path in ["a/a/a", "b/b/b", "c/c/c"] {
            store.log(&released(path), NOW).unwrap();
        }
        fixture.tamper(sql);
        assert_eq!(broken(&store), Broken { seq, what }, "{sql}");
    }
}

#[test]
fn a_stranger_cannot_fill_the_disk_and_is_counted_all_the_same() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let nobody = Facts::default();
    let refused = NewEntry {
        outcome: Outcome::Refused,
        error_type: Some(ErrorKind::AttestationError),
        path: "auth",
        facts: &nobody,
        reason: None,
    };
    for _ in 0..300 {
        store.log(&refused, NOW).unwrap();
    }
    let listed = entries(&store).len();
    assert!((200..300).contains(&listed), "{listed}");
    // Evidence is always listed, whatever strangers do.
    store
        .log(
            &NewEntry {
                outcome: Outcome::Refused,
                ..released("a/b/c")
            },
            NOW,
        )
        .unwrap();
    assert_eq!(entries(&store).last().unwrap().entry.path, "a/b/c");
    std::thread::sleep(Duration::from_millis(1200));
    store.log(&refused, NOW).unwrap();
    let records = entries(&store);
    let counted: Vec<_> = records
        .iter()
        .filter(|r| r.entry.outcome == "suppressed")
        .collect();
    assert!(!counted.is_empty());
}

#[test]
fn what_a_stranger_sent_is_one_short_printable_line() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let path = format!("a\n\x1b[31m\u{202e}{}", "b".repeat(10_000));
    store.log(&released(&path), NOW).unwrap();
    let logged = entries(&store)[0].entry.path.clone();
    assert!(logged.starts_with("a??[31m?bbb"), "{logged}");
    assert_eq!(logged.len(), 256);
}

#[test]
fn a_master_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    let load = |text: &str, mode| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        MasterKey::load(&path).map(|key| key.to_hex().to_string())
    };
    let hex = "0f".repeat(32);
    assert_eq!(load(&format!("{hex}\n"), 0o600), Ok(hex.clone()));
    assert!(load(&hex, 0o640).unwrap_err().contains("set it to 600"));
    for text in [
        "",
        "0f",
        &"0f".repeat(33),
        &"zz".repeat(32),
        &"0f".repeat(100),
    ] {
        assert!(
            load(text, 0o600).unwrap_err().contains("64 hex digits"),
            "{text}"
        );
    }
}

#[test]
fn a_master_key_of_another_user_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    std::fs::write(&path, "0f".repeat(32)).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    if std::os::unix::fs::chown(&path, Some(1234), None).is_err() {
        return eprintln!("skipped: only root can give a file away");
    }
    let error = MasterKey::load(&path).err().unwrap();
    assert!(error.contains("belongs to user 1234"), "{error}");
}

mod changes;
mod checkpoints;
mod upkeep;
