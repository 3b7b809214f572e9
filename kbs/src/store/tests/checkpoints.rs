//! What a checkpoint that was kept elsewhere finds out.

use std::fs;

use super::*;

fn log(store: &Store, entries: usize) {
    for _ in 0..entries {
        store.log(&released("a/b/c"), NOW).unwrap();
    }
}

/// The newest checkpoint in its file.
fn newest(fixture: &Fixture, key: &LogPublicKey) -> u64 {
    let note = fs::read_to_string(fixture.checkpoint_file()).unwrap();
    key.open(&note).unwrap().size
}

#[test]
fn there_is_one_at_the_start_after_so_many_entries_after_a_while_and_at_the_end() {
    let fixture = Fixture::new();
    let often = Checkpoints {
        entries: 10,
        age: Duration::from_millis(300),
        ..Checkpoints::beside(&fixture.path())
    };
    let store = Store::open(&fixture.path(), &fixture.key, often).unwrap();
    let key = store.log_key().clone();
    log(&store, 1);
    assert_eq!(newest(&fixture, &key), 1, "the first of a run");
    log(&store, 10);
    assert_eq!(newest(&fixture, &key), 11, "ten later");
    log(&store, 1);
    assert_eq!(newest(&fixture, &key), 11, "one entry can wait");
    let patience = Duration::from_millis(50);
    let mut waits = 0;
    while newest(&fixture, &key) < 12 {
        std::thread::sleep(patience);
        waits += 1;
        assert!(waits < 200, "but not for ever");
    }
    log(&store, 1);
    store.checkpoint().unwrap();
    assert_eq!(newest(&fixture, &key), 13, "asked for");
    log(&store, 1);
    drop(store);
    assert_eq!(newest(&fixture, &key), 14, "the end");
    let audited = fixture.open().audit(&[&fixture.checkpoint_file()]).unwrap();
    assert_eq!((audited.entries, audited.signed), (14, 14));
    assert_eq!(
        audited.checkpoints, 6,
        "five in the database, one in the file"
    );
}

/// Whoever has the master key can write a whole chain anew: MACs, signatures and all. A checkpoint elsewhere stands.
#[test]
fn a_tail_that_was_cut_and_grown_anew_is_found() {
    let fixture = Fixture::new();
    let store = fixture.open();
    log(&store, 3);
    drop(store);
    let before = fixture.dir.path().join("before");
    fs::copy(fixture.path(), &before).unwrap();
    let store = fixture.open();
    log(&store, 2);
    drop(store);
    let kept = fixture.dir.path().join("kept");
    fs::rename(fixture.checkpoint_file(), &kept).unwrap();

    // An older copy of the file, as a whole.
    fs::copy(&before, fixture.path()).unwrap();
    let store = fixture.open();
    store.audit(&[]).unwrap();
    let error = store.audit(&[&kept]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the release log is broken at entry 4: it is gone: a checkpoint signed a longer log"
    );
    // It grows on, with other entries.
    for _ in 0..5 {
        store.log(&released("x/y/z"), NOW).unwrap();
    }
    store.audit(&[]).unwrap();
    let error = store.audit(&[&kept]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the release log is broken at entry 5: it, or one before, is not what a checkpoint signed"
    );
}

#[test]
fn a_shortened_log_does_not_open_for_writing_while_its_checkpoint_stands() {
    for (sql, what) in [
        (
            "DELETE FROM release_log WHERE seq = 3",
            "signed a longer log",
        ),
        (
            "DELETE FROM release_log WHERE seq = 3; DELETE FROM log_checkpoint",
            "signed a longer log",
        ),
        (
            "DELETE FROM release_log WHERE seq = 1",
            "an entry is missing",
        ),
        (
            "UPDATE release_log SET prev = hash WHERE seq = 2",
            "does not follow",
        ),
        (
            "UPDATE release_log SET hash = upper(hash) WHERE seq = 3",
            "not what a checkpoint signed",
        ),
    ] {
        let fixture = Fixture::new();
        let store = fixture.open();
        log(&store, 3);
        drop(store);
        fixture.tamper(sql);
        let found = fixture.try_open().err().map(|error| error.to_string());
        if sql.contains("upper") {
            // The same octets in other letters: the root stands, the entry's own check does not.
            assert_eq!(found, None);
            assert_eq!(broken(&fixture.open()).what, "it was changed");
            continue;
        }
        assert!(
            found.as_ref().is_some_and(|f| f.contains(what)),
            "{sql}: {found:?}"
        );
        // It can still be looked at.
        Store::inspect(&fixture.path(), &fixture.key).unwrap();
    }
}

#[test]
fn a_checkpoint_file_of_another_log_or_of_nobody_stops_the_broker() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    let store = other.open();
    log(&store, 3);
    drop(store);
    let foreign = fs::read_to_string(other.checkpoint_file()).unwrap();
    for (note, what) in [
        (foreign.as_str(), "another log"),
        ("", "not a checkpoint"),
        ("nonsense\n", "not a checkpoint"),
    ] {
        fs::write(fixture.checkpoint_file(), note).unwrap();
        let error = fixture.try_open().err().unwrap().to_string();
        assert!(error.contains(what), "{error}");
        assert!(error.contains("kbs.sqlite.checkpoint"), "{error}");
    }
}

#[test]
fn an_export_is_verified_with_the_public_key_alone_and_every_edit_is_found() {
    let fixture = Fixture::new();
    let store = fixture.open();
    log(&store, 2);
    store.checkpoint().unwrap();
    log(&store, 3);
    let mut lines = Vec::new();
    let export = store.export(|line| {
        lines.push(line.to_owned());
        Ok(())
    });
    export.unwrap();
    let key = store.log_key().clone();
    let verify = |lines: &[String], files: &[&Path]| {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        audit_export(text.as_bytes(), &key, files)
    };
    let audited = verify(&lines, &[]).unwrap();
    assert_eq!((audited.entries, audited.signed), (5, 2));
    assert_eq!(audited.hash, store.log_head().unwrap().1);
    store.checkpoint().unwrap();
    let kept = fixture.checkpoint_file();
    assert_eq!(verify(&lines, &[&kept]).unwrap().signed, 5);

    let (checkpoints, entries): (Vec<_>, Vec<_>) = lines
        .iter()
        .cloned()
        .partition(|line| line.contains("\"checkpoint\""));
    assert_eq!((checkpoints.len(), entries.len()), (2, 5));
    let with = |entries: Vec<String>| [checkpoints.clone(), entries].concat();
    let broken = |lines: Vec<String>, files: &[&Path]| match verify(&lines, files) {
        Err(StoreError::Log(Broken { seq, what })) => (seq, what),
        other => panic!("{other:?}"),
    };
    let mut changed = entries.clone();
    changed[3] = changed[3].replace("a/b/c", "a/b/d");
    assert_eq!(broken(with(changed), &[]), (4, "it was changed"));
    let mut missing = entries.clone();
    missing.remove(1);
    assert_eq!(broken(with(missing), &[]), (2, "an entry is missing"));
    let mut swapped = entries.clone();
    swapped.swap(2, 3);
    assert_eq!(broken(with(swapped), &[]), (3, "an entry is missing"));
    let mut more = entries.clone();
    more[0] = more[0].replacen("{\"entry\":{", "{\"entry\":{\"note\":1,", 1);
    assert_eq!(
        broken(with(more), &[]),
        (1, "its line is not one of an export")
    );
    // A tail that nobody signed can be cut unseen; what was signed cannot.
    assert_eq!(
        verify(&with(entries[..4].to_vec()), &[]).unwrap().entries,
        4
    );
    let gone = "it is gone: a checkpoint signed a longer log";
    assert_eq!(broken(with(entries[..4].to_vec()), &[&kept]), (5, gone));
    assert_eq!(broken(with(entries[..1].to_vec()), &[]), (2, gone));
    assert_eq!(broken(vec![], &[&kept]), (1, gone));
    // Another broker's key, and another broker's log.
    let stranger = Fixture::new();
    let stranger = stranger.open();
    let foreign = audit_export(lines.join("\n").as_bytes(), stranger.log_key(), &[]);
    assert!(matches!(foreign, Err(StoreError::Checkpoint { .. })));
}

#[test]
fn checkpoints_only_grow() {
    let fixture = Fixture::new();
    let store = fixture.open();
    log(&store, 1);
    let connection = Connection::open(fixture.path()).unwrap();
    for sql in [
        "DELETE FROM log_checkpoint",
        "UPDATE log_checkpoint SET note = ''",
    ] {
        assert!(connection.execute_batch(sql).is_err(), "{sql}");
    }
}
