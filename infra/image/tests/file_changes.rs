//! What is said to differ between the files of two images.

mod support;

use image::{FileChange, Lister, Listing, changes, file_changes};
use support::newc::{MODE, Raw, archive, listed};
use support::{packed, read};

fn told(before: &[&[u8]], after: &[&[u8]]) -> Vec<(usize, String, &'static str)> {
    let verb = |change: &FileChange| match (&change.before, &change.after) {
        (None, Some(_)) => "added",
        (Some(_), None) => "removed",
        (Some(_), Some(_)) => "changed",
        (None, None) => "nothing",
    };
    file_changes(&listed(before), &listed(after))
        .iter()
        .map(|change| (change.ramdisk, change.path.clone(), verb(change)))
        .collect()
}

#[test]
fn equal_files_do_not_differ() {
    let (a, b) = (Raw::file("a", b"1"), Raw::file("b", b"2"));
    let one = archive(&[a.clone(), b.clone()]);
    assert_eq!(told(&[&one], &[&one]), []);
    // Their order, inodes and other names for their paths are nobody's business.
    let other = archive(&[b.with(0, 99), Raw::file("./a", b"1")]);
    assert_eq!(told(&[&one], &[&other]), []);
    // Nor is which of them were kept.
    let kept: Vec<Listing> = vec![Lister::new(100).ramdisk(&one[..]).unwrap()];
    assert_eq!(file_changes(&kept, &listed(&[&one])), []);
}

#[test]
fn everything_that_is_said_of_a_file_is_compared() {
    let base = Raw::file("a", b"1");
    let one = archive(std::slice::from_ref(&base));
    for other in [
        Raw::file("a", b"2"),
        Raw::file("a", b"11"),
        base.clone().with(MODE, 0o100_600),
        base.clone().with(2, 7),
        base.clone().with(3, 7),
        base.clone().with(5, 7),
        Raw::symlink("a", "1"),
        Raw::directory("a"),
    ] {
        let expected = [(1, "a".to_owned(), "changed")];
        assert_eq!(told(&[&one], &[&archive(&[other])]), expected);
    }
}

#[test]
fn files_come_and_go_with_their_ramdisk() {
    let a = archive(&[Raw::file("a", b"1")]);
    let b = archive(&[Raw::file("b", b"1")]);
    let of = |ramdisk, path: &str, what| (ramdisk, path.to_owned(), what);
    assert_eq!(
        told(&[&a], &[&b]),
        [of(1, "a", "removed"), of(1, "b", "added")]
    );
    assert_eq!(told(&[&a], &[&a, &b]), [of(2, "b", "added")]);
    assert_eq!(told(&[&a, &b], &[&a]), [of(2, "b", "removed")]);
    // From one ramdisk into another, which other registers cover.
    let both = told(&[&a, &b], &[&b, &a]);
    assert_eq!(both.len(), 4);
}

#[test]
fn of_two_entries_the_later_counts() {
    let twice = archive(&[Raw::file("a", b"1"), Raw::file("a", b"2")]);
    assert_eq!(told(&[&twice], &[&archive(&[Raw::file("a", b"2")])]), []);
    assert_eq!(
        told(&[&twice], &[&archive(&[Raw::file("a", b"1")])]).len(),
        1
    );
}

#[test]
fn a_list_that_is_not_whole_is_not_compared() {
    let a = archive(&[Raw::file("a", b"1")]);
    assert_eq!(told(&[&a], &[b"\xfd7zXZ\0"]), []);
    assert_eq!(told(&[b"garbage"], &[&a]), []);
}

#[test]
fn ramdisks_in_another_order_are_one_change() {
    let image = |ramdisks: &[&[u8]]| read(&packed(b"kernel", "", ramdisks, None).unwrap()).unwrap();
    for (before, after, order, registers) in [
        ([b"a", b"b", b"c"], [b"a", b"c", b"b"], "1 3 2", &[0, 2][..]),
        ([b"a", b"b", b"c"], [b"b", b"a", b"c"], "2 1 3", &[0, 1, 2]),
        ([b"a", b"a", b"b"], [b"b", b"a", b"a"], "3 1 2", &[0, 1, 2]),
    ] {
        let (before, after) = (before.map(|b| &b[..]), after.map(|b| &b[..]));
        let said = changes(&image(&before), &image(&after));
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].what, "order of ramdisks");
        assert_eq!(said[0].after, order);
        assert_eq!(said[0].registers, registers);
    }
    // One that is new is no other order.
    let said = changes(&image(&[b"a", b"b"]), &image(&[b"b", b"c"]));
    assert_eq!(said[0].what, "ramdisk 1");
}
