//! Rotation, backup, restore, damage, and databases of before.

use std::fs;

use super::*;

/// A store with a resource, a policy and some entries, and its master key in a file.
struct Kept {
    fixture: Fixture,
    key_file: PathBuf,
}

impl Kept {
    fn new() -> Self {
        let fixture = Fixture::new();
        let key_file = fixture.dir.path().join("master.key");
        fs::write(&key_file, fixture.key.to_hex().as_bytes()).unwrap();
        fs::set_permissions(
            &key_file,
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        let store = fixture.open();
        put(&store, "models/a/epoch-1", b"secret a");
        put(&store, "models/b/epoch-1", b"secret b");
        change(
            &store,
            Outcome::PolicySet,
            Change::put_policy("package policy"),
        )
        .unwrap();
        Self { fixture, key_file }
    }

    fn key(&self) -> MasterKey {
        MasterKey::load(&self.key_file).unwrap()
    }

    fn open(&self) -> Result<Store, StoreError> {
        let database = self.fixture.path();
        finish_rotation(&database, &self.key_file)?;
        Store::open(&database, &self.key(), Checkpoints::beside(&database))
    }

    fn rotate(&self) -> Result<PathBuf, StoreError> {
        let database = self.fixture.path();
        let beside = Checkpoints::beside(&database);
        rotate(&database, &self.key_file, &self.key(), beside, NOW)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.fixture.dir.path().join(name)
    }

    fn check(&self) {
        let store = self.open().unwrap();
        assert_eq!(
            **store.resource("models/a/epoch-1").unwrap().unwrap(),
            *b"secret a"
        );
        assert_eq!(store.policy().unwrap().unwrap(), "package policy");
        store.audit(&[&self.fixture.checkpoint_file()]).unwrap();
    }
}

#[test]
fn rotation_leaves_everything_readable_under_the_new_key_and_nothing_under_the_old() {
    let kept = Kept::new();
    let signer = kept.open().unwrap().log_key().clone();
    let kept_note = kept.file("kept");
    fs::copy(kept.fixture.checkpoint_file(), &kept_note).unwrap();
    let old = kept.rotate().unwrap();
    kept.check();
    let store = kept.open().unwrap();
    assert_eq!(
        store.log_key(),
        &signer,
        "what was signed before verifies after"
    );
    store.audit(&[&kept_note]).unwrap();
    assert_eq!(entries(&store).last().unwrap().entry.outcome, "key-rotated");
    drop(store);
    assert!(matches!(
        kept.fixture.try_open(),
        Err(StoreError::MasterKey)
    ));
    assert_eq!(
        MasterKey::load(&old).unwrap().to_hex(),
        kept.fixture.key.to_hex()
    );
    // Nothing of the old ciphertext is left either: no value there opens under the old key.
    let vault = Vault::new(&kept.fixture.key).unwrap();
    let connection = Connection::open(kept.fixture.path()).unwrap();
    let mut rows = connection
        .prepare("SELECT kind, name, sealed FROM secret")
        .unwrap();
    let rows = rows.query_map((), |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, Vec<u8>>(2)?,
        ))
    });
    for row in rows.unwrap() {
        let (kind, name, sealed) = row.unwrap();
        assert!(vault.open(&kind, &name, sealed).is_none(), "{kind} {name}");
    }
}

#[test]
fn rotation_waits_for_nobody_and_goes_behind_nobodys_back() {
    let kept = Kept::new();
    let store = kept.open().unwrap();
    let error = kept.rotate().unwrap_err().to_string();
    assert!(error.contains("stop the broker first"), "{error}");
    drop(store);
    let alone = Lock::exclusive(&kept.fixture.path()).unwrap();
    let error = kept.open().err().unwrap().to_string();
    assert!(error.contains("try again"), "{error}");
    drop(alone);
    kept.check();
}

#[test]
fn a_rotation_that_stopped_before_its_transaction_never_happened() {
    let kept = Kept::new();
    for new in [
        MasterKey::generate().unwrap().to_hex().to_string(),
        "torn".to_owned(),
    ] {
        fs::write(kept.file("master.key.new"), new).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(kept.file("master.key.new"), mode).unwrap();
        kept.check();
        assert!(!kept.file("master.key.new").exists());
    }
}

#[test]
fn a_rotation_that_stopped_after_its_transaction_is_finished_by_the_next_command() {
    let kept = Kept::new();
    let old = kept.rotate().unwrap();
    // As it was between commit and rename.
    fs::rename(&kept.key_file, kept.file("master.key.new")).unwrap();
    fs::rename(&old, &kept.key_file).unwrap();
    assert!(matches!(
        kept.fixture.try_open(),
        Err(StoreError::MasterKey)
    ));
    kept.check();
    assert!(!kept.file("master.key.new").exists());
}

#[test]
fn a_rotation_whose_keys_both_open_nothing_is_left_alone() {
    let kept = Kept::new();
    for name in ["master.key", "master.key.new"] {
        fs::write(kept.file(name), "0f".repeat(32)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(kept.file(name), mode).unwrap();
    }
    assert!(matches!(kept.open(), Err(StoreError::MasterKey)));
    assert!(kept.file("master.key.new").exists());
}

#[test]
fn a_key_file_that_is_a_link_is_not_rotated() {
    let kept = Kept::new();
    let real = kept.file("real.key");
    fs::rename(&kept.key_file, &real).unwrap();
    std::os::unix::fs::symlink(&real, &kept.key_file).unwrap();
    let error = kept.rotate().unwrap_err().to_string();
    assert!(error.contains("is a link"), "{error}");
    kept.check();
}

#[test]
fn a_value_that_does_not_open_stops_rotation_and_backup() {
    let kept = Kept::new();
    kept.fixture.tamper(
        "UPDATE secret SET sealed = (SELECT sealed FROM secret WHERE name = 'models/a/epoch-1')
         WHERE name = 'models/b/epoch-1'",
    );
    assert!(matches!(kept.rotate(), Err(StoreError::Tampered)));
    let out = kept.file("backup");
    let error = backup(&kept.fixture.path(), &kept.key(), &out).unwrap_err();
    assert!(matches!(error, StoreError::Tampered), "{error}");
    assert!(!out.exists());
    kept.check();
}

/// Moves the database away, as somebody who lost it.
fn lose(kept: &Kept) {
    for suffix in ["", "-wal", "-shm"] {
        let path = PathBuf::from(format!("{}{suffix}", kept.fixture.path().display()));
        let _absent = fs::remove_file(path);
    }
}

fn back(kept: &Kept, from: &Path, accept: bool) -> Result<Restored, StoreError> {
    let database = kept.fixture.path();
    let beside = Checkpoints::beside(&database);
    restore(&database, &kept.key(), from, beside, accept, NOW)
}

#[test]
fn a_backup_of_a_store_in_use_comes_back_whole() {
    let kept = Kept::new();
    let out = kept.file("backup");
    let store = kept.open().unwrap();
    let audited = std::thread::scope(|scope| {
        let store = &store;
        scope.spawn(move || {
            for _ in 0..100 {
                store.log(&released("a/b/c"), NOW).unwrap();
            }
        });
        backup(&kept.fixture.path(), &kept.key(), &out).unwrap()
    });
    drop(store);
    let error = backup(&kept.fixture.path(), &kept.key(), &out).unwrap_err();
    assert!(
        matches!(error, StoreError::File { .. }),
        "overwrites nothing: {error}"
    );
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&out).unwrap());
    assert_eq!(mode & 0o777, 0o600);

    lose(&kept);
    fs::remove_file(kept.fixture.checkpoint_file()).unwrap();
    let restored = back(&kept, &out, false).unwrap();
    assert_eq!((restored.audited, restored.lost), (audited.clone(), 0));
    kept.check();
    let records = entries(&kept.open().unwrap());
    assert_eq!(records.len() as u64, audited.entries + 1);
    assert_eq!(records.last().unwrap().entry.outcome, "restored");
    let leftovers: Vec<_> = fs::read_dir(kept.fixture.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".tmp"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

#[test]
fn nothing_is_restored_over_a_database_or_under_another_key() {
    let kept = Kept::new();
    let out = kept.file("backup");
    backup(&kept.fixture.path(), &kept.key(), &out).unwrap();
    let error = back(&kept, &out, false).unwrap_err().to_string();
    assert!(error.contains("move it away"), "{error}");
    lose(&kept);
    let database = kept.fixture.path();
    let beside = Checkpoints::beside(&database);
    let other = MasterKey::generate().unwrap();
    let error = restore(&database, &other, &out, beside, false, NOW).unwrap_err();
    assert!(matches!(error, StoreError::MasterKey), "{error}");
    assert!(!database.exists());
}

#[test]
fn a_damaged_or_edited_backup_is_not_restored() {
    let kept = Kept::new();
    let out = kept.file("backup");
    backup(&kept.fixture.path(), &kept.key(), &out).unwrap();
    lose(&kept);
    let good = fs::read(&out).unwrap();
    let mut cut = good.clone();
    cut.truncate(good.len() / 2);
    for (bytes, what) in [
        (cut, "damaged"),
        (b"no database at all".to_vec(), "damaged"),
    ] {
        fs::write(&out, bytes).unwrap();
        let error = back(&kept, &out, false).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    fs::write(&out, &good).unwrap();
    let connection = Connection::open(&out).unwrap();
    connection
        .execute_batch(
            "DROP TRIGGER release_log_keeps_values; UPDATE release_log SET path = 'x' WHERE seq = 2",
        )
        .unwrap();
    drop(connection);
    let error = back(&kept, &out, false).unwrap_err().to_string();
    assert!(error.contains("broken at entry 2"), "{error}");
    assert!(!kept.fixture.path().exists());
}

#[test]
fn an_older_backup_is_restored_only_by_whoever_accepts_the_loss() {
    let kept = Kept::new();
    let out = kept.file("backup");
    backup(&kept.fixture.path(), &kept.key(), &out).unwrap();
    let store = kept.open().unwrap();
    for _ in 0..2 {
        store.log(&released("a/b/c"), NOW).unwrap();
    }
    drop(store);
    let newest = fs::read_to_string(kept.fixture.checkpoint_file()).unwrap();
    lose(&kept);
    let error = back(&kept, &out, false).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::OlderBackup {
                entries: 3,
                lost: 2
            }
        ),
        "{error}"
    );
    assert!(!kept.fixture.path().exists());
    assert_eq!(back(&kept, &out, true).unwrap().lost, 2);
    kept.check();
    let reason = entries(&kept.open().unwrap()).pop().unwrap().entry.reason;
    assert!(
        reason
            .unwrap()
            .contains("2 more were signed for and are lost")
    );
    // The evidence of what is lost was not thrown away.
    let evidence = kept.file("kbs.sqlite.checkpoint.before-restore-3");
    assert_eq!(fs::read_to_string(evidence).unwrap(), newest);
}

#[test]
fn a_damaged_database_is_refused_with_the_way_out() {
    let fixture = Fixture::new();
    fs::write(
        fixture.path(),
        "this is no database, whatever it was before",
    )
    .unwrap();
    let error = fixture.try_open().err().unwrap().to_string();
    assert!(error.contains("kbs restore"), "{error}");

    let kept = Kept::new();
    let path = kept.fixture.path();
    drop(kept.open().unwrap());
    let mut bytes = fs::read(&path).unwrap();
    let pages = bytes.len() / 4096;
    bytes[(pages - 1) * 4096..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let checked = Store::inspect(&path, &kept.key()).and_then(|store| store.check_integrity(&path));
    let error = checked.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("kbs restore"), "{error}");
}

/// As the program before wrote it: no checkpoints, no second key, the MAC under a key of the master key's.
#[test]
fn a_database_of_schema_1_goes_on_with_its_chain() {
    let fixture = Fixture::new();
    let connection = Connection::open(fixture.path()).unwrap();
    connection.execute_batch(schema::SCHEMA_1).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    let vault = Vault::new(&fixture.key).unwrap();
    let insert = |kind: Kind, name: &str, value: &[u8]| {
        let sealed = vault.seal(kind.as_str(), name, value).unwrap();
        write(&connection, kind.as_str(), name, &sealed).unwrap();
    };
    insert(Kind::Check, "", CHECK_TEXT);
    insert(Kind::Resource, "models/a/epoch-1", b"secret a");
    let mac = fixture.key.log_mac().unwrap();
    let mac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, mac.as_slice());
    // Its hash, over the columns there were, computed from the documented text.
    let prev = "0".repeat(64);
    let json = format!(
        r#"{{"config_digest":null,"error_type":null,"outcome":"stored","path":"a/b/c","pcr0":null,"pcr1":null,"pcr2":null,"prev":"{prev}","reason":null,"seq":1,"serial":null,"tee_key":null,"time_ms":5}}"#
    );
    let hash = attestation::Sha256Digest::of(json.as_bytes()).to_string();
    let mac = hex::encode(aws_lc_rs::hmac::sign(&mac, hash.as_bytes()));
    connection
        .execute(
            "INSERT INTO release_log (seq, time_ms, outcome, path, prev, hash, mac)
             VALUES (1, 5, 'stored', 'a/b/c', ?1, ?2, ?3)",
            (&prev, &hash, &mac),
        )
        .unwrap();
    drop(connection);
    let store = fixture.open();
    store.log(&released("a/b/c"), NOW).unwrap();
    assert_eq!(
        **store.resource("models/a/epoch-1").unwrap().unwrap(),
        *b"secret a"
    );
    assert_eq!(
        store.audit(&[&fixture.checkpoint_file()]).unwrap().entries,
        2
    );
}

#[test]
fn a_database_whose_keys_were_taken_out_gets_no_new_ones() {
    let fixture = Fixture::new();
    drop(fixture.open());
    fixture.tamper("DELETE FROM secret");
    assert!(matches!(fixture.try_open(), Err(StoreError::Tampered)));
}
