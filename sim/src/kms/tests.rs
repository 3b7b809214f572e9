use std::collections::BTreeMap;
use std::slice::from_ref;

use serde_json::{Value, json};

use super::policy::{Decision, KeyPolicy};

const HOST: &str = "arn:aws:iam::111122223333:role/host";

fn facts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn statement(effect: &str, condition: Value) -> Value {
    json!({"Effect": effect, "Principal": {"AWS": HOST}, "Action": ["kms:Decrypt"], "Resource": "*", "Condition": condition})
}

fn policy(statements: &[Value]) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements})
}

fn decide(statements: &[Value], pairs: &[(&str, &str)]) -> Decision {
    KeyPolicy::parse(&policy(statements))
        .unwrap()
        .decide("kms:Decrypt", HOST, &facts(pairs))
}

const PCR0: &str = "kms:recipientattestation:pcr0";

#[test]
fn only_the_named_register_is_allowed_and_its_case_is_as_the_operator_says() {
    let exact = statement(
        "Allow",
        json!({"StringEquals": {"kms:RecipientAttestation:PCR0": "ab"}}),
    );
    let either = statement(
        "Allow",
        json!({"StringEqualsIgnoreCase": {"kms:RecipientAttestation:PCR0": ["cd", "AB"]}}),
    );
    assert_eq!(decide(from_ref(&exact), &[(PCR0, "ab")]), Decision::Allowed);
    assert_eq!(
        decide(from_ref(&exact), &[(PCR0, "AB")]),
        Decision::NotAllowed
    );
    assert_eq!(
        decide(from_ref(&either), &[(PCR0, "ab")]),
        Decision::Allowed
    );
    assert_eq!(
        decide(from_ref(&either), &[(PCR0, "ef")]),
        Decision::NotAllowed
    );
    // Without a document there is no register.
    assert_eq!(decide(&[exact, either], &[]), Decision::NotAllowed);
}

#[test]
fn a_denial_wins_and_a_negated_operator_holds_without_a_document() {
    let all = statement("Allow", json!({}));
    let not = statement(
        "Deny",
        json!({"StringNotEqualsIgnoreCase": {"kms:RecipientAttestation:PCR0": "ab"}}),
    );
    let null = statement(
        "Deny",
        json!({"Null": {"kms:RecipientAttestation:ImageSha384": "true"}}),
    );
    assert_eq!(decide(from_ref(&all), &[]), Decision::Allowed);
    assert_eq!(
        decide(&[all.clone(), not.clone()], &[(PCR0, "ab")]),
        Decision::Allowed
    );
    assert_eq!(
        decide(&[all.clone(), not.clone()], &[(PCR0, "cd")]),
        Decision::Denied
    );
    assert_eq!(decide(&[not, all.clone()], &[]), Decision::Denied);
    assert_eq!(decide(&[all.clone(), null.clone()], &[]), Decision::Denied);
    let image = "kms:recipientattestation:imagesha384";
    assert_eq!(decide(&[all, null], &[(image, "ab")]), Decision::Allowed);
}

#[test]
fn principals_and_actions_are_matched_whole() {
    let allow = |principal: &str, action: &str| {
        let statement = json!({"Effect": "Allow", "Principal": {"AWS": principal}, "Action": action, "Resource": "*"});
        let policy = KeyPolicy::parse(&policy(&[statement])).unwrap();
        policy.decide("kms:Decrypt", HOST, &facts(&[])) == Decision::Allowed
    };
    assert!(allow(HOST, "kms:Decrypt") && allow("*", "kms:*") && allow(HOST, "KMS:decr?pt"));
    assert!(!allow(
        "arn:aws:iam::111122223333:role/host2",
        "kms:Decrypt"
    ));
    assert!(
        !allow(HOST, "kms:Decryp") && !allow(HOST, "kms:Encrypt") && !allow(HOST, "kms:Decrypt?")
    );
}

#[test]
fn what_is_not_simulated_is_refused_and_never_ignored() {
    let refused = |statement: Value| {
        KeyPolicy::parse(&policy(&[statement]))
            .unwrap_err()
            .to_string()
    };
    let with = |change: fn(&mut Value)| {
        let mut statement = statement("Allow", json!({}));
        change(&mut statement);
        statement
    };
    assert!(
        refused(statement(
            "Allow",
            json!({"ArnLike": {"aws:PrincipalArn": "x"}})
        ))
        .contains("ArnLike")
    );
    assert!(
        refused(statement(
            "Allow",
            json!({"StringEquals": {"kms:RecipientAttestation": "x"}})
        ))
        .contains("condition key")
    );
    assert!(
        refused(statement(
            "Allow",
            json!({"StringEquals": {"kms:RecipientAttestation:PCR32": "x"}})
        ))
        .contains("PCR32")
    );
    assert!(
        refused(statement(
            "Allow",
            json!({"StringEquals": {"kms:ViaService": "x"}})
        ))
        .contains("ViaService")
    );
    assert!(refused(statement("Perhaps", json!({}))).contains("Perhaps"));
    assert!(refused(with(|s| s["NotAction"] = "kms:Encrypt".into())).contains("NotAction"));
    assert!(refused(with(|s| s["Resource"] = "arn".into())).contains("resource"));
    assert!(refused(with(|s| s["Principal"] = json!({"Service": "x"}))).contains("principal"));
    assert!(
        refused(with(
            |s| s["Principal"] = json!({"AWS": "arn:aws:iam::111122223333:root"})
        ))
        .contains("IAM")
    );
}
