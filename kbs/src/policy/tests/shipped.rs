//! The shipped policies, with an operator's values in place of their placeholders.

use serde_json::{Value as Json, json};

use super::super::*;

const MEASURED: &str = include_str!("../../../policies/measured-images.rego");
const SIGNED: &str = include_str!("../../../policies/measured-signer-role-epoch.rego");

fn pcr(digit: &str) -> String {
    digit.repeat(96)
}

/// What the comments of the files tell an operator to do.
fn filled(policy: &str) -> String {
    let mut policy = policy.to_owned();
    for (index, digit) in [("0", "a"), ("1", "b"), ("2", "c"), ("8", "d"), ("3", "e")] {
        policy = policy.replace(&format!("<PCR{index}: 96 hex digits>"), &pcr(digit));
    }
    assert!(
        !policy.contains('<') || policy.contains("models/<name>"),
        "all filled"
    );
    policy.replace("\"demo\": 1", "\"demo\": 3")
}

fn input() -> Json {
    let mut pcrs = serde_json::Map::new();
    for index in 0..16 {
        pcrs.insert(index.to_string(), json!(pcr("0")));
    }
    for (index, digit) in [("0", "a"), ("1", "b"), ("2", "c"), ("8", "d"), ("3", "e")] {
        pcrs.insert(index.to_owned(), json!(pcr(digit)));
    }
    json!({"nitro": {"pcrs": pcrs}})
}

fn without(register: &str) -> Json {
    let mut input = input();
    input["nitro"]["pcrs"]
        .as_object_mut()
        .unwrap()
        .remove(register);
    input
}

fn with(register: &str, value: String) -> Json {
    let mut input = input();
    input["nitro"]["pcrs"][register] = json!(value);
    input
}

fn ask(policy: &str, input: &Json, path: &str) -> Decision {
    let path: Vec<&str> = path.split('/').collect();
    let question = Question {
        path: &path,
        query: &HashMap::new(),
    };
    PolicyEngine::default()
        .decide(policy, input, &question)
        .unwrap()
}

fn reasons(policy: &str, input: &Json, path: &str) -> Vec<String> {
    match ask(policy, input, path) {
        Decision::Denied(reasons) => reasons,
        Decision::Allowed => panic!("allowed: {input} {path}"),
    }
}

#[test]
fn as_shipped_they_parse_and_release_nothing() {
    for policy in [DENY_ALL, MEASURED, SIGNED] {
        check(policy).unwrap();
        assert_ne!(
            ask(policy, &input(), "models/demo/epoch-3"),
            Decision::Allowed
        );
    }
    check(include_str!("../../../policies/attestation.rego")).unwrap();
}

#[test]
fn they_release_to_what_they_name() {
    for policy in [MEASURED, SIGNED] {
        let policy = filled(policy);
        for path in ["models/demo/epoch-3", "models/demo/epoch-20"] {
            assert_eq!(ask(&policy, &input(), path), Decision::Allowed, "{path}");
        }
    }
}

#[test]
fn each_measured_register_has_to_be_there_and_right() {
    for policy in [MEASURED, SIGNED] {
        let policy = filled(policy);
        for register in ["0", "1", "2"] {
            for input in [
                without(register),
                with(register, pcr("f")),
                with(register, pcr("A")),
                with(register, String::new()),
            ] {
                let said = reasons(&policy, &input, "models/demo/epoch-3");
                assert_eq!(said, ["PCR0, PCR1 and PCR2 are those of no listed image"]);
            }
        }
        reasons(&policy, &json!({}), "models/demo/epoch-3");
    }
}

#[test]
fn registers_of_two_listed_images_do_not_make_one() {
    let mut policy = filled(MEASURED);
    let image = |one: &str, two: &str, three: &str| {
        format!(
            "{{\"0\": \"{}\", \"1\": \"{}\", \"2\": \"{}\"}}",
            pcr(one),
            pcr(two),
            pcr(three)
        )
    };
    policy = policy.replace(
        "images := [",
        &format!(
            "images := [\n{},\n{},",
            image("1", "2", "3"),
            image("4", "5", "6")
        ),
    );
    let mixed = {
        let mut input = with("0", pcr("1"));
        input["nitro"]["pcrs"]["1"] = json!(pcr("5"));
        input["nitro"]["pcrs"]["2"] = json!(pcr("6"));
        input
    };
    reasons(&policy, &mixed, "models/demo/epoch-3");
    assert_eq!(
        ask(&policy, &input(), "models/demo/epoch-3"),
        Decision::Allowed
    );
}

#[test]
fn signer_and_role_have_to_be_listed_and_zeros_never_count() {
    let policy = filled(SIGNED);
    for (register, reason) in [
        ("8", "PCR8 is that of no listed signer"),
        ("3", "PCR3 is that of no listed role"),
    ] {
        for input in [
            without(register),
            with(register, pcr("f")),
            with(register, pcr("0")),
        ] {
            assert_eq!(reasons(&policy, &input, "models/demo/epoch-3"), [reason]);
        }
    }
    let careless = policy
        .replace(&pcr("d"), &pcr("0"))
        .replace(&pcr("e"), &pcr("0"));
    let mut unsigned = with("8", pcr("0"));
    unsigned["nitro"]["pcrs"]["3"] = json!(pcr("0"));
    assert_eq!(
        reasons(&careless, &unsigned, "models/demo/epoch-3"),
        [
            "PCR3 is that of no listed role",
            "PCR8 is that of no listed signer"
        ]
    );
}

#[test]
fn an_epoch_below_the_floor_and_what_is_no_epoch_is_denied() {
    let policy = filled(SIGNED);
    for path in [
        "models/demo/epoch-2",
        "models/demo/epoch-0",
        "models/demo/epoch-03",
        "models/demo/epoch--4",
        "models/demo/epoch-4.5",
        "models/demo/epoch-4e1",
        "models/demo/epoch-0x9",
        "models/demo/epoch-",
        "models/demo/epoch-3 ",
        "models/demo/epoch-99999999999",
        "models/demo/3",
        "models/other/epoch-3",
        "other/demo/epoch-3",
        "models/demo/epoch-3/x",
        "models/demo",
        "",
    ] {
        assert_eq!(reasons(&policy, &input(), path).len(), 1, "{path}");
    }
    let policy = filled(MEASURED);
    for path in [
        "other/demo/epoch-3",
        "models/demo/key",
        "models/demo",
        "models/demo/epoch-3/x",
    ] {
        assert_eq!(reasons(&policy, &input(), path).len(), 1, "{path}");
    }
}
