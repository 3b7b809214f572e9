//! A change and its entry are one transaction, and many of them share a wait for the disk.

use super::*;

fn stored(store: &Store) -> usize {
    let count = "SELECT count(*) FROM secret WHERE kind = 'resource'";
    let count: i64 = store
        .reader()
        .query_row(count, (), |row| row.get(0))
        .unwrap();
    usize::try_from(count).unwrap()
}

#[test]
fn a_change_that_the_log_does_not_take_does_not_happen() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store, "models/a/epoch-1", b"first");
    fixture.tamper(
        "CREATE TRIGGER full BEFORE INSERT ON release_log BEGIN SELECT RAISE(ABORT, 'full'); END;",
    );
    for refused in [
        Change::put_resource("models/b/epoch-1", b"b"),
        Change::put_resource("models/a/epoch-1", b"second"),
        Change::delete_resource("models/a/epoch-1"),
        Change::put_policy("package policy"),
    ] {
        let error = change(&store, Outcome::Stored, refused).unwrap_err();
        assert!(matches!(error, StoreError::NotWritten(_)), "{error}");
    }
    assert_eq!(stored(&store), 1);
    assert_eq!(
        **store.resource("models/a/epoch-1").unwrap().unwrap(),
        *b"first"
    );
    assert_eq!(store.policy().unwrap(), None);
    fixture.tamper("DROP TRIGGER full");
    put(&store, "models/b/epoch-1", b"b");
    assert_eq!(entries(&store).len(), 2);
}

#[test]
fn what_cannot_be_deleted_leaves_no_entry_and_disturbs_nobody() {
    let fixture = Fixture::new();
    let store = fixture.open();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..25 {
                    put(store, &format!("models/{worker}/epoch-{i}"), b"value");
                    let absent = Change::delete_resource("models/no/such");
                    let error = change(store, Outcome::Deleted, absent).unwrap_err();
                    assert!(matches!(error, StoreError::Absent));
                }
            });
        }
    });
    assert_eq!(stored(&store), 100);
    let records = entries(&store);
    assert_eq!(records.len(), 100);
    assert!(
        records
            .iter()
            .all(|record| record.entry.outcome == "stored")
    );
}

#[test]
fn two_processes_append_to_one_chain() {
    let fixture = Fixture::new();
    let (one, other) = (fixture.open(), fixture.open());
    std::thread::scope(|scope| {
        for store in [&one, &other] {
            scope.spawn(move || {
                for _ in 0..50 {
                    store.log(&released("a/b/c"), NOW).unwrap();
                }
            });
        }
    });
    assert_eq!(entries(&one).len(), 100);
    one.audit(&[&fixture.checkpoint_file()]).unwrap();
}

#[test]
fn a_log_that_is_changed_while_in_use_takes_no_more() {
    for sql in [
        "DELETE FROM release_log WHERE seq = 2",
        "DELETE FROM release_log",
        "UPDATE release_log SET hash = prev WHERE seq = 2",
    ] {
        let fixture = Fixture::new();
        let store = fixture.open();
        for _ in 0..2 {
            store.log(&released("a/b/c"), NOW).unwrap();
        }
        fixture.tamper(sql);
        let error = store.log(&released("a/b/c"), NOW).unwrap_err();
        assert!(error.to_string().contains("changed or removed"), "{error}");
    }
}

#[test]
fn an_approval_is_used_once_also_after_a_restart() {
    let fixture = Fixture::new();
    let approval = |id: &str, seconds| Approval {
        id: id.to_owned(),
        until: NOW + Duration::from_secs(seconds),
    };
    let approved = |store: &Store, approvals| {
        let put = Change::put_resource("models/a/epoch-1", b"a").approved(approvals);
        change(store, Outcome::Stored, put)
    };
    let store = fixture.open();
    let pair = vec![approval("alice:1", 60), approval("bob:1", 60)];
    approved(&store, pair.clone()).unwrap();
    drop(store);
    let store = fixture.open();
    for used in [
        pair,
        vec![approval("alice:2", 60), approval("bob:1", 60)],
        vec![approval("alice:3", 60), approval("alice:3", 60)],
    ] {
        let error = approved(&store, used).unwrap_err();
        assert!(matches!(error, StoreError::ApprovalUsed), "{error}");
    }
    // A refused change used up nothing.
    approved(&store, vec![approval("alice:2", 60), approval("bob:2", 60)]).unwrap();
    assert_eq!(entries(&store).len(), 2);
}
