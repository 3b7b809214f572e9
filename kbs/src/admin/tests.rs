use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::*;

struct Admin {
    private: Zeroizing<String>,
    keys: AdminKeys,
}

fn admin() -> Admin {
    let (private, public) = generate_key().unwrap();
    Admin {
        private,
        keys: keys(&[&public]),
    }
}

fn keys(publics: &[&str]) -> AdminKeys {
    AdminKeys::new(publics.iter().map(|public| (None, *public)), false).unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn signed(private: &str, claims: &Value) -> String {
    let key = EncodingKey::from_ed_pem(private.as_bytes()).unwrap();
    encode(&Header::new(Algorithm::EdDSA), claims, &key).unwrap()
}

#[test]
fn a_token_of_a_named_key_opens_until_it_expires() {
    let admin = admin();
    let token = token(&admin.private, None, Duration::from_secs(60), at(1000)).unwrap();
    assert_eq!(admin.keys.check(Some(&token), at(1000)), Ok(()));
    assert_eq!(admin.keys.check(Some(&token), at(1064)), Ok(()));
    assert_eq!(
        admin.keys.check(Some(&token), at(1065)),
        Err(AdminError::Time)
    );
}

#[test]
fn a_second_named_key_is_as_good_as_the_first() {
    let (_, first) = generate_key().unwrap();
    let (private, second) = generate_key().unwrap();
    let keys = keys(&[&first, &second]);
    let token = token(&private, None, Duration::from_secs(60), at(0)).unwrap();
    assert_eq!(keys.check(Some(&token), at(0)), Ok(()));
}

#[test]
fn a_token_that_is_absent_foreign_or_incomplete_is_refused() {
    let (ours, other) = (admin(), admin());
    let check = |token: &str| ours.keys.check(Some(token), at(1000));
    assert_eq!(ours.keys.check(None, at(1000)), Err(AdminError::Absent));
    assert_eq!(check(&"a".repeat(MAX_TOKEN + 1)), Err(AdminError::Absent));
    assert_eq!(check(""), Err(AdminError::NotSigned));
    let good = json!({"role": "admin", "exp": 2000});
    assert_eq!(check(&signed(&ours.private, &good)), Ok(()));
    assert_eq!(
        check(&signed(&other.private, &good)),
        Err(AdminError::NotSigned)
    );
    for (claims, expected) in [
        (json!({"exp": 2000}), AdminError::NotSigned),
        (json!({"role": "admin"}), AdminError::NotSigned),
        (
            json!({"role": "admin", "exp": "2000"}),
            AdminError::NotSigned,
        ),
        (json!({"role": "user", "exp": 2000}), AdminError::Role),
        (json!({"role": "", "exp": 2000}), AdminError::Role),
        (json!({"role": "admin", "exp": 900}), AdminError::Time),
        (
            json!({"role": "admin", "exp": 2000, "nbf": 1100}),
            AdminError::Time,
        ),
    ] {
        assert_eq!(
            check(&signed(&ours.private, &claims)),
            Err(expected),
            "{claims}"
        );
    }
}

#[test]
fn another_algorithm_is_refused_even_with_the_public_key_as_secret() {
    let (_, public) = generate_key().unwrap();
    let keys = keys(&[&public]);
    let key = EncodingKey::from_secret(public.as_bytes());
    let claims = json!({"role": "admin", "exp": 2000});
    let forged = encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    assert_eq!(keys.check(Some(&forged), at(0)), Err(AdminError::NotSigned));
}

#[test]
fn without_keys_nobody_is_an_administrator() {
    let (private, _) = generate_key().unwrap();
    let keys = keys(&[]);
    let token = token(&private, None, Duration::from_secs(60), at(0)).unwrap();
    assert_eq!(keys.check(Some(&token), at(0)), Err(AdminError::NotSigned));
}

#[test]
fn a_text_that_is_no_ed25519_key_and_a_key_listed_twice_are_found_by_their_position() {
    let (_, public) = generate_key().unwrap();
    let (_, other) = generate_key().unwrap();
    let position =
        |keys: &[(Option<&str>, &str)]| AdminKeys::new(keys.iter().copied(), false).err();
    assert_eq!(position(&[(None, &public), (None, "nonsense")]), Some(1));
    assert_eq!(position(&[(None, &public), (None, &public)]), Some(1));
    assert_eq!(
        position(&[(Some("alice"), &public), (Some("bob"), &public)]),
        Some(1),
        "one person under two names"
    );
    assert_eq!(
        position(&[(Some("alice"), &public), (Some("alice"), &other)]),
        Some(1)
    );
    assert_eq!(
        position(&[(Some("alice"), &public), (Some("bob"), &other)]),
        None
    );
}

/// Alice and Bob, with the keys they hold, and a stranger's.
struct Two {
    alice: Zeroizing<String>,
    bob: Zeroizing<String>,
    stranger: Zeroizing<String>,
    keys: AdminKeys,
}

fn two(rule: bool) -> Two {
    let (alice, alice_public) = generate_key().unwrap();
    let (bob, bob_public) = generate_key().unwrap();
    let keys = [
        (Some("alice"), alice_public.as_str()),
        (Some("bob"), bob_public.as_str()),
    ];
    Two {
        alice,
        bob,
        stranger: generate_key().unwrap().0,
        keys: AdminKeys::new(keys, rule).unwrap(),
    }
}

const NOW: u64 = 1000;

fn change(of: &str) -> Sha256Digest {
    Sha256Digest::of(of.as_bytes())
}

fn approve(key: &str, of: &str) -> String {
    let hour = Duration::from_secs(3600);
    token(key, Some(change(of)), hour, at(NOW))
        .unwrap()
        .to_string()
}

fn plain(key: &str) -> String {
    token(key, None, Duration::from_secs(60), at(NOW))
        .unwrap()
        .to_string()
}

#[test]
fn two_keys_that_approve_the_same_bytes_may_change_them() {
    let two = two(true);
    let tokens = [approve(&two.alice, "it"), approve(&two.bob, "it")];
    let authorized = two
        .keys
        .authorize(Some(&tokens[0]), Some(&tokens[1]), change("it"), at(NOW))
        .unwrap();
    assert_eq!(authorized.names, "alice and bob");
    assert_eq!(authorized.approvals.len(), 2);
    assert!(authorized.approvals[0].id.starts_with("alice:"));
    assert!(authorized.approvals[1].id.starts_with("bob:"));
}

#[test]
fn under_the_rule_nothing_less_than_two_approvals_of_the_same_change_is_enough() {
    let two = two(true);
    let (alice, bob) = (approve(&two.alice, "it"), approve(&two.bob, "it"));
    let again = approve(&two.alice, "it");
    let authorize = |first: Option<&str>, second: Option<&str>| {
        two.keys
            .authorize(first, second, change("it"), at(NOW))
            .err()
    };
    use AdminError::{Absent, NotSigned, OtherChange, Second};
    for (first, second, expected) in [
        (None, None, Absent),
        (None, Some(&bob), Absent),
        (Some(&alice), None, Second),
        (Some(&alice), Some(&alice), Second),
        (Some(&alice), Some(&again), Second),
        (Some(&plain(&two.alice)), Some(&plain(&two.bob)), Second),
        (Some(&plain(&two.alice)), Some(&bob), Second),
        (Some(&alice), Some(&plain(&two.bob)), Second),
        (Some(&alice), Some(&approve(&two.bob, "that")), OtherChange),
        (Some(&approve(&two.alice, "that")), Some(&bob), OtherChange),
        (Some(&alice), Some(&approve(&two.stranger, "it")), NotSigned),
    ] {
        let found = authorize(first.map(String::as_str), second.map(String::as_str));
        assert_eq!(found, Some(expected), "{first:?} {second:?}");
    }
    let late = two
        .keys
        .authorize(Some(&alice), Some(&bob), change("it"), at(NOW + 3606));
    assert_eq!(late.err(), Some(AdminError::Time));
}

#[test]
fn an_approval_opens_its_change_and_nothing_else() {
    let two = two(false);
    let alice = approve(&two.alice, "it");
    let authorize = |of| two.keys.authorize(Some(&alice), None, change(of), at(NOW));
    assert_eq!(authorize("it").unwrap().approvals.len(), 1);
    assert_eq!(authorize("that"), Err(AdminError::OtherChange));
    assert_eq!(
        two.keys.may_read(Some(&alice), at(NOW)),
        Err(AdminError::OtherChange)
    );
    assert_eq!(two.keys.may_read(Some(&plain(&two.alice)), at(NOW)), Ok(()));
}

#[test]
fn without_the_rule_a_second_approval_is_refused_rather_than_passed_over() {
    let two = two(false);
    let (alice, bob) = (plain(&two.alice), approve(&two.bob, "it"));
    let authorize = |second| {
        two.keys
            .authorize(Some(&alice), second, change("it"), at(NOW))
    };
    assert_eq!(authorize(None).unwrap().names, "alice");
    assert_eq!(authorize(Some(bob.as_str())), Err(AdminError::TooMany));
}

#[test]
fn an_approval_without_an_id_or_for_longer_than_a_day_is_refused() {
    let two = two(true);
    let bob = approve(&two.bob, "it");
    let digest = change("it").to_string();
    let day = NOW + 24 * 3600;
    for (claims, expected) in [
        (
            json!({"role": "admin", "exp": day, "change": digest, "jti": "1"}),
            None,
        ),
        (
            json!({"role": "admin", "exp": day, "change": digest}),
            Some(AdminError::Unbound),
        ),
        (
            json!({"role": "admin", "exp": day, "change": digest, "jti": ""}),
            Some(AdminError::Unbound),
        ),
        (
            json!({"role": "admin", "exp": day, "change": digest, "jti": "1".repeat(65)}),
            Some(AdminError::Unbound),
        ),
        (
            json!({"role": "admin", "exp": day + 60, "change": digest, "jti": "1"}),
            Some(AdminError::Unbound),
        ),
        (
            json!({"role": "admin", "exp": day, "change": "it", "jti": "1"}),
            Some(AdminError::NotSigned),
        ),
    ] {
        let alice = signed(&two.alice, &claims);
        let found = two
            .keys
            .authorize(Some(&alice), Some(&bob), change("it"), at(NOW));
        assert_eq!(found.err(), expected, "{claims}");
    }
}
