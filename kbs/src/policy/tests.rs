use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::token::{Claims, NitroClaims, TokenSigner};

fn claims() -> Claims {
    let signer = TokenSigner::generate().unwrap();
    let key = kbs_client::TeeKey::generate_p256().unwrap();
    let key = serde_json::from_value(serde_json::to_value(key.jwk()).unwrap()).unwrap();
    let nitro = NitroClaims {
        pcrs: [("0".to_owned(), attestation::Pcr::from_bytes([0xab; 48]))].into(),
        module_id: "i-0-enc0".to_owned(),
        config_digest: attestation::Sha256Digest::of(b"config"),
        boot_id: attestation::BootId::from_bytes([2; 16]),
        root_sha256: attestation::Sha256Digest::of(b"root"),
    };
    let now: SystemTime = UNIX_EPOCH;
    signer
        .verify(&signer.sign(nitro, key, None, now).unwrap(), now)
        .unwrap()
}

fn allows(rules: &str) -> Result<bool, PolicyError> {
    let policy = format!("package policy\n\nimport rego.v1\n\n{rules}\n");
    let question = Question {
        path: &["models", "demo", "epoch-1"],
        query: &HashMap::from([("a".to_owned(), "b".to_owned())]),
    };
    let decision = PolicyEngine::default().decide(&policy, &claims(), &question)?;
    Ok(decision == Decision::Allowed)
}

#[test]
fn a_policy_sees_measurements_and_path() {
    let measured = "ab".repeat(48);
    assert!(
        allows(&format!(
            r#"default allow := false
            allow if {{
                data.plugin == "resource"
                input.nitro.pcrs["0"] == "{measured}"
                input["tee-pubkey"].kty == "EC"
                concat("/", data["resource-path"]) in {{"models/demo/epoch-1"}}
                data.query.a == "b"
            }}"#
        ))
        .unwrap()
    );
    assert!(!allows(r#"allow if input.nitro.pcrs["0"] == "00""#).unwrap());
    assert!(!allows(r#"allow if data["resource-path"][1] == "other""#).unwrap());
}

#[test]
fn nothing_but_true_is_a_yes() {
    for rules in [
        "",
        "allow := false",
        "allow := 1",
        "allow := \"true\"",
        "allow := {true}",
        "allow := [true]",
        "allow := null",
        "allow if input.absent",
        "deny := true",
    ] {
        assert!(!allows(rules).unwrap(), "{rules}");
    }
    assert!(allows("allow := true").unwrap());
}

#[test]
fn the_default_denies() {
    let question = Question {
        path: &["a", "b", "c"],
        query: &HashMap::new(),
    };
    let decision = PolicyEngine::default().decide(DENY_ALL, &claims(), &question);
    assert_eq!(decision.unwrap(), Decision::Denied(Vec::new()));
}

#[test]
fn a_policy_cannot_reach_the_network_or_a_clock() {
    for call in [
        r#"http.send({"method": "get", "url": "http://127.0.0.1:1/"})"#,
        "time.now_ns()",
        "opa.runtime()",
    ] {
        let outcome = allows(&format!("allow if {{ {call} }}"));
        assert!(
            matches!(
                outcome,
                Err(PolicyError::Evaluate(_) | PolicyError::Parse(_))
            ),
            "{call}"
        );
    }
}

#[test]
fn a_policy_that_runs_for_ever_is_stopped() {
    let outcome = allows(
        "allow if { some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); some k in numbers.range(1, 3000); i + j + k < 0 }",
    );
    assert!(
        matches!(outcome, Err(PolicyError::Evaluate(_))),
        "{outcome:?}"
    );
}

#[test]
fn what_does_not_parse_or_hides_in_another_package_is_not_installed() {
    assert!(matches!(
        check("package policy\n\nallow if {"),
        Err(PolicyError::Parse(_))
    ));
    assert!(matches!(check(""), Err(PolicyError::Parse(_))));
    assert!(matches!(
        check("package other\n\nallow := true"),
        Err(PolicyError::Package(_))
    ));
    let long = format!("package policy\n# {}\n", "x".repeat(MAX_POLICY));
    assert!(matches!(check(&long), Err(PolicyError::Parse(_))));
    check(DENY_ALL).unwrap();
}

#[test]
fn a_replaced_policy_is_in_force_at_once() {
    let engine = PolicyEngine::default();
    let question = Question {
        path: &["a", "b", "c"],
        query: &HashMap::new(),
    };
    let claims = claims();
    let yes = "package policy\nallow := true\n";
    let allows = |policy| engine.decide(policy, &claims, &question).unwrap() == Decision::Allowed;
    assert!(allows(yes));
    assert!(!allows(DENY_ALL));
    assert!(allows(yes));
}

#[test]
fn a_policy_may_say_why_it_denies() {
    let engine = PolicyEngine::default();
    let question = Question {
        path: &["a", "b", "c"],
        query: &HashMap::new(),
    };
    for (reasons, said) in [
        (
            "reasons contains \"b\"\nreasons contains \"a\"",
            vec!["a", "b"],
        ),
        ("reasons := [\"b\", \"a\", 1, null]", vec!["b", "a"]),
        ("reasons := \"text\"", vec![]),
        ("reasons contains \"x\" if input.absent", vec![]),
    ] {
        let policy = format!("package policy\nimport rego.v1\n{reasons}\n");
        let decision = engine.decide(&policy, &claims(), &question).unwrap();
        let said: Vec<_> = said.into_iter().map(str::to_owned).collect();
        assert_eq!(decision, Decision::Denied(said), "{reasons}");
    }
    let many =
        "package policy\nreasons := [sprintf(\"%d\", [i]) | i := numbers.range(1, 100)[_]]\n";
    let Decision::Denied(said) = engine.decide(many, &claims(), &question).unwrap() else {
        panic!()
    };
    assert_eq!(said.len(), MAX_REASONS);
}

mod shipped;
