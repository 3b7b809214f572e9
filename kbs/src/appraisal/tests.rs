use serde_json::json;

use super::*;

const SHIPPED: &str = include_str!("../../policies/attestation.rego");

fn evidence() -> serde_json::Value {
    let nitro = json!({"pcrs": {"0": "aa", "1": "bb", "2": "cc", "8": "dd"}});
    input(&nitro, Some("nonce"), None)
}

fn ask(policy: &str, references: serde_json::Value) -> Result<Appraisal, PolicyError> {
    let references = references.as_object().unwrap().clone();
    appraise(&PolicyEngine::default(), policy, references, evidence())
}

fn rules(rules: &str) -> Result<Appraisal, PolicyError> {
    let policy = format!("package policy\n\nimport rego.v1\n\n{rules}\n");
    ask(&policy, json!({"svn": ["1"], "deep": {"a": [1, 2]}}))
}

#[test]
fn the_shipped_policy_affirms_what_the_reference_values_name() {
    let image = json!({"0": "aa", "1": "bb", "2": "cc"});
    let affirmed = ask(SHIPPED, json!({"nitro_images": [image]})).unwrap();
    assert_eq!(affirmed.status, Status::Affirming);
    assert_eq!(affirmed.vector[&TrustClaim::Executables], 3);
    assert_eq!(affirmed.vector[&TrustClaim::Hardware], 2);
    assert_eq!(affirmed.vector.get(&TrustClaim::InstanceIdentity), None);

    let signed = json!({"nitro_images": [image], "nitro_signers": ["ee", "dd"]});
    let affirmed = ask(SHIPPED, signed).unwrap();
    assert_eq!(affirmed.status, Status::Affirming);
    assert_eq!(affirmed.vector[&TrustClaim::InstanceIdentity], 2);
}

#[test]
fn the_shipped_policy_warns_of_the_rest() {
    let image = |two: &str| json!({"0": "aa", "1": "bb", "2": two});
    for references in [
        json!({}),
        json!({"nitro_images": []}),
        json!({"nitro_images": [image("other")]}),
        json!({"nitro_images": [{}]}),
        json!({"nitro_images": [{"0": "aa", "1": "bb"}]}),
        json!({"nitro_images": null}),
    ] {
        let appraisal = ask(SHIPPED, references.clone()).unwrap();
        assert_eq!(appraisal.status, Status::Warning, "{references}");
        assert_eq!(appraisal.vector[&TrustClaim::Executables], 33);
    }
    let unsigned = json!({"nitro_images": [image("cc")], "nitro_signers": ["ee"]});
    let appraisal = ask(SHIPPED, unsigned).unwrap();
    assert_eq!(appraisal.status, Status::Contraindicated);
}

#[test]
fn an_appraisal_is_written_as_ear_does() {
    let appraisal = rules(
        r#"
        trust_claims := {"executables": 3, "file-system": 0, "hardware": 97}
        extensions := [{"name": "ear.trustee.identifiers", "key": -18, "value": {"a": 1}}]
    "#,
    );
    let json = serde_json::to_value(appraisal.unwrap()).unwrap();
    assert_eq!(
        json,
        json!({
            "ear.status": "contraindicated",
            "ear.trustworthiness-vector": {"executables": 3, "file-system": 0, "hardware": 97},
            "ear.appraisal-policy-id": "default_cpu",
            "ear.trustee.identifiers": {"a": 1},
        })
    );
    let back: Appraisal = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(back).unwrap(), json);
}

#[test]
fn the_status_is_the_worst_tier() {
    for (claims, status) in [
        ("{\"executables\": 0}", Status::None),
        ("{\"executables\": -1, \"hardware\": 1}", Status::None),
        ("{\"executables\": 2, \"hardware\": 0}", Status::Affirming),
        (
            "{\"executables\": 31, \"hardware\": -32}",
            Status::Affirming,
        ),
        ("{\"executables\": 32, \"hardware\": 2}", Status::Warning),
        ("{\"executables\": -96}", Status::Warning),
        (
            "{\"executables\": 96, \"hardware\": 2}",
            Status::Contraindicated,
        ),
        ("{\"executables\": -97}", Status::Contraindicated),
    ] {
        let appraisal = rules(&format!("trust_claims := {claims}")).unwrap();
        assert_eq!(appraisal.status, status, "{claims}");
    }
}

#[test]
fn a_policy_sees_reference_values_and_null_for_others() {
    let seen = rules(
        r#"
        default executables := 33
        executables := 3 if {
            "1" in query_reference_value("svn")
            query_reference_value("deep").a[1] == 2
            query_reference_value("other") == null
            not "1" in query_reference_value("other")
        }
        trust_claims := {"executables": executables}
    "#,
    );
    assert_eq!(seen.unwrap().vector[&TrustClaim::Executables], 3);
}

#[test]
fn a_policy_without_a_clear_answer_attests_nobody() {
    for rules_text in [
        "",
        "other := 1",
        "trust_claims := {}",
        "trust_claims := 3",
        "trust_claims := [3]",
        "trust_claims := null",
        "trust_claims := {\"executables\": 3} if input.absent",
        "trust_claims := {\"executables\": \"3\"}",
        "trust_claims := {\"executables\": 3.5}",
        "trust_claims := {\"executables\": 128}",
        "trust_claims := {\"executables\": -129}",
        "trust_claims := {\"executable\": 3}",
        "trust_claims := {\"file_system\": 3}",
        "trust_claims := {\"executables\": 3}\ntrust_claims := {\"executables\": 4}",
        "trust_claims := {\"executables\": 3}\nextensions := 1",
        "trust_claims := {\"executables\": 3}\nextensions := [{\"name\": \"a\"}]",
        "trust_claims := {\"executables\": 3}\nextensions := [{\"name\": \"ear.status\", \"key\": 1, \"value\": \"none\"}]",
        "trust_claims := {\"executables\": 3}\nextensions := [{\"name\": \"a\", \"key\": 1, \"value\": 1}, {\"name\": \"a\", \"key\": 2, \"value\": 1}]",
        "trust_claims := {\"executables\": unknown_function(1)}",
        "trust_claims := {\"executables\": x} if { some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); some k in numbers.range(1, 3000); i + j + k < 0; x := 3 }",
    ] {
        assert!(rules(rules_text).is_err(), "{rules_text}");
    }
}
