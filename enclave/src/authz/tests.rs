use super::*;

const MODEL: ModelFacts<'_> = ModelFacts {
    name: "demo",
    kind: "chat",
    epoch: 3,
};

fn id(path: &str) -> SpiffeId {
    SpiffeId::new(format!("spiffe://cloister.dev{path}")).unwrap()
}

fn policy(text: &str) -> Authorization {
    Authorization::new(text).unwrap()
}

#[test]
fn a_permit_names_what_was_permitted() {
    let all = policy("permit(principal, action, resource);");
    assert_eq!(
        all.chat(&id("/app"), MODEL, 10, true).unwrap().resource(),
        "demo"
    );
    assert_eq!(all.embed(&id("/app"), MODEL, 1).unwrap().resource(), "demo");
    assert_eq!(
        all.rerank(&id("/app"), MODEL, 1).unwrap().resource(),
        "demo"
    );
    assert_eq!(all.list(&id("/app"), MODEL).unwrap().resource(), "demo");
    assert_eq!(
        all.attest(&id("/app"), &id("/enclave")).unwrap().resource(),
        "spiffe://cloister.dev/enclave"
    );
}

#[test]
fn evidence_for_one_caller_is_no_permit_for_another() {
    let one = policy(
        r#"permit(principal, action == Action::"attest", resource)
           when { principal.path == "/app" && resource == Enclave::"spiffe://cloister.dev/enclave" };"#,
    );
    let denied = Some(Denied { action: "attest" });
    for _ in 0..2 {
        assert!(one.attest(&id("/app"), &id("/enclave")).is_ok());
        assert_eq!(one.attest(&id("/other"), &id("/enclave")).err(), denied);
        assert_eq!(one.attest(&id("/app"), &id("/second")).err(), denied);
    }
}

#[test]
fn callers_who_asked_for_evidence_take_bounded_memory() {
    let all = policy("permit(principal, action, resource);");
    for number in 0..MAX_PERMITTED + 10 {
        let caller = id(&format!("/app/{number}"));
        all.attest(&caller, &id("/enclave")).unwrap();
    }
    assert_eq!(all.with_permitted(|permitted| permitted.len()), 10);
}

#[test]
fn what_no_policy_permits_is_denied() {
    let chat_only = policy(r#"permit(principal, action == Action::"chat", resource);"#);
    assert!(chat_only.chat(&id("/app"), MODEL, 10, false).is_ok());
    assert_eq!(
        chat_only.embed(&id("/app"), MODEL, 1).err(),
        Some(Denied { action: "embed" })
    );
    assert_eq!(
        chat_only.rerank(&id("/app"), MODEL, 1).err(),
        Some(Denied { action: "rerank" })
    );
    assert_eq!(
        chat_only.list(&id("/app"), MODEL).err(),
        Some(Denied { action: "models" })
    );
    assert_eq!(
        chat_only.attest(&id("/app"), &id("/enclave")).err(),
        Some(Denied { action: "attest" })
    );
    let only_forbids = policy("forbid(principal, action, resource);");
    assert!(only_forbids.chat(&id("/app"), MODEL, 10, false).is_err());
}

#[test]
fn a_policy_sees_the_parts_of_the_callers_id() {
    let cases = [
        (r#"principal.trust_domain == "cloister.dev""#, true),
        (r#"principal.trust_domain == "other.example""#, false),
        (r#"principal.path like "/team/*""#, true),
        (r#"principal.path like "/teams/*""#, false),
        (r#"principal.segments.contains("app")"#, true),
        (r#"principal.segments.contains("/team/app")"#, false),
        (
            r#"principal == Caller::"spiffe://cloister.dev/team/app""#,
            true,
        ),
        (
            r#"principal == Caller::"spiffe://cloister.dev/team""#,
            false,
        ),
    ];
    for (condition, allowed) in cases {
        let policy = policy(&format!(
            "permit(principal, action, resource) when {{ {condition} }};"
        ));
        assert_eq!(
            policy.list(&id("/team/app"), MODEL).is_ok(),
            allowed,
            "{condition}"
        );
    }
}

#[test]
fn a_policy_sees_the_model_and_what_is_asked_of_it() {
    let cases = [
        (r#"resource == Model::"demo""#, true),
        (r#"resource == Model::"other""#, false),
        (r#"resource.kind == "chat" && resource.epoch >= 3"#, true),
        ("resource.epoch > 3", false),
        ("context.max_tokens <= 100", true),
        ("context.max_tokens < 100", false),
        ("context.stream", true),
        ("!context.stream", false),
    ];
    for (condition, allowed) in cases {
        let policy = policy(&format!(
            r#"permit(principal, action == Action::"chat", resource) when {{ {condition} }};"#
        ));
        assert_eq!(
            policy.chat(&id("/app"), MODEL, 100, true).is_ok(),
            allowed,
            "{condition}"
        );
    }
}

#[test]
fn a_forbid_that_cannot_be_evaluated_does_not_let_through() {
    let policy = policy(
        "permit(principal, action, resource);
         forbid(principal, action == Action::\"chat\", resource)
         when { context.max_tokens * 9223372036854775807 > 7 };",
    );
    assert!(policy.chat(&id("/app"), MODEL, 2, false).is_err());
    // 0 times anything does not overflow, and the forbid does not apply.
    assert!(policy.chat(&id("/app"), MODEL, 0, false).is_ok());
}

#[test]
fn a_policy_that_does_not_fit_the_schema_is_refused() {
    let cases = [
        r#"permit(principal, action == Action::"complete", resource);"#,
        "permit(principal, action, resource) when { principal.team == \"x\" };",
        r#"permit(principal == User::"alice", action, resource);"#,
        r#"permit(principal, action == Action::"embed", resource) when { context.max_tokens < 5 };"#,
        r#"permit(principal, action == Action::"chat", resource) when { context.max_tokens == "5" };"#,
    ];
    for text in cases {
        assert!(
            matches!(Authorization::new(text), Err(PolicyError::Schema(_))),
            "{text}"
        );
    }
}

#[test]
fn a_policy_that_is_none_is_refused() {
    assert!(matches!(
        Authorization::new("permit everything"),
        Err(PolicyError::Syntax(_))
    ));
    assert!(matches!(
        Authorization::new(" // nobody\n"),
        Err(PolicyError::Empty)
    ));
    let template = "permit(principal == ?principal, action, resource);";
    assert!(matches!(
        Authorization::new(template),
        Err(PolicyError::Template)
    ));
}

#[test]
fn a_policy_may_bound_how_many_documents_are_ranked() {
    let few = policy(
        r#"permit(principal, action == Action::"rerank", resource) when { context.documents <= 10 };"#,
    );
    assert!(few.rerank(&id("/app"), MODEL, 10).is_ok());
    assert!(few.rerank(&id("/app"), MODEL, 11).is_err());
    assert!(few.embed(&id("/app"), MODEL, 1).is_err());
}
