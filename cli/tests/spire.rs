//! `cloister spire-preflight`, as operators run it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const ENCLAVE: &str = "spiffe://example.org/enclave/chat";

fn entry(id: &str, path: &str, more: &Value) -> Value {
    let mut entry = json!({
        "id": id,
        "spiffe_id": {"trust_domain": "example.org", "path": path},
        "parent_id": {"trust_domain": "example.org", "path": "/spire/agent/x509pop/1"},
        "selectors": [{"type": "unix", "value": "uid:1000"}],
        "admin": false,
        "downstream": false,
        "dns_names": [],
    });
    let members = more.as_object().unwrap().clone();
    entry.as_object_mut().unwrap().extend(members);
    entry
}

/// Exit code, what was said on stdout and on stderr.
fn preflight(arguments: &[&str], entries: &Value) -> (i32, String, String) {
    run(
        arguments,
        &json!({"entries": entries, "next_page_token": ""}).to_string(),
    )
}

fn run(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cloister"))
        .arg("spire-preflight")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may refuse its arguments before it reads.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn usual(entries: &Value) -> (i32, String, String) {
    preflight(&["--enclave-id", ENCLAVE, "-"], entries)
}

#[test]
fn accepts_entries_of_others() {
    let (code, said, _) = usual(&json!([
        entry("e1", "/gateway", &json!({})),
        entry("e2", "/broker", &json!({"dns_names": ["kbs.example.org"]})),
        // Other IDs, whatever they look like.
        entry("e3", "/enclave/chat2", &json!({})),
        entry("e4", "/enclave/Chat", &json!({})),
        entry("e5", "/enclave", &json!({})),
    ]));
    assert_eq!(code, 0);
    assert_eq!(
        said,
        format!("5 entries, none of which gives away {ENCLAVE}\n")
    );
}

#[test]
fn refuses_an_agent_that_would_hold_the_enclaves_id() {
    let (code, said, error) = usual(&json!([
        entry("e1", "/gateway", &json!({})),
        entry("bad-1", "/enclave/chat", &json!({})),
    ]));
    assert_eq!(code, 77);
    assert!(said.contains("entry bad-1: spiffe://example.org/enclave/chat is the enclave's: spiffe://example.org/spire/agent/x509pop/1 would make a key for it"), "{said}");
    assert!(
        said.contains("spire-server entry delete -entryID bad-1\n"),
        "{said}"
    );
    assert!(!said.contains("e1"), "{said}");
    assert!(error.starts_with("error: 1 of 2 entries"), "{error}");
}

#[test]
fn lets_the_brokers_agent_alone_have_an_entry_for_the_enclave() {
    let agent = "spiffe://example.org/spire/agent/x509pop/1";
    let arguments = ["--enclave-id", ENCLAVE, "--broker-agent", agent, "-"];
    let own = entry("e1", "/enclave/chat", &json!({}));
    assert_eq!(preflight(&arguments, &json!([own])).0, 0);
    let elsewhere =
        json!({"parent_id": {"trust_domain": "example.org", "path": "/spire/agent/x509pop/2"}});
    let other = entry("e2", "/enclave/chat", &elsewhere);
    let (code, said, _) = preflight(&arguments, &json!([own, other]));
    assert_eq!(code, 77);
    assert!(
        said.contains("entry e2") && !said.contains("entry e1"),
        "{said}"
    );
    // And as an identity, with nothing beside it.
    for more in [
        json!({"dns_names": ["chat.example.org"]}),
        json!({"admin": true}),
        json!({"downstream": true}),
    ] {
        let entry = entry("e1", "/enclave/chat", &more);
        assert_eq!(preflight(&arguments, &json!([entry])).0, 77, "{more}");
    }
}

#[test]
fn refuses_it_in_a_file_that_was_not_created_yet() {
    let text = json!({"entries": [{
        "spiffe_id": ENCLAVE,
        "parent_id": "spiffe://example.org/spire/agent/x509pop/1",
        "selectors": [{"type": "unix", "value": "uid:0"}],
    }]});
    let (code, said, _) = run(&["--enclave-id", ENCLAVE, "-"], &text.to_string());
    assert_eq!(code, 77);
    assert!(said.contains("take it out before it is created"), "{said}");
}

#[test]
fn refuses_the_server_or_an_expired_entry_as_its_holder_too() {
    for more in [
        json!({"parent_id": {"trust_domain": "example.org", "path": "/spire/server"}}),
        json!({"expires_at": "1"}),
        json!({"store_svid": true}),
    ] {
        assert_eq!(
            usual(&json!([entry("e1", "/enclave/chat", &more)])).0,
            77,
            "{more}"
        );
    }
}

#[test]
fn refuses_rights_and_names_that_cover_the_enclave() {
    for (more, says) in [
        (json!({"admin": true}), "may mint certificates for any ID"),
        (json!({"downstream": true}), "gets a CA certificate"),
        (
            json!({"dns_names": ["ok.example.org", "*.example.org"]}),
            "*.example.org, which stands for every name",
        ),
        (json!({"dns_names": ["\u{1b}[2J*"]}), "\\u{1b}[2J*"),
    ] {
        let (code, said, _) = usual(&json!([entry("e1", "/ci", &more)]));
        assert_eq!(code, 77, "{more}");
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn lets_named_issuers_issue_but_not_hold_the_enclaves_id() {
    let arguments = [
        "--enclave-id",
        ENCLAVE,
        "--may-issue",
        "spiffe://example.org/nested",
        "-",
    ];
    let nested = |more: Value| preflight(&arguments, &json!([entry("e1", "/nested", &more)])).0;
    assert_eq!(nested(json!({"downstream": true})), 0);
    assert_eq!(nested(json!({"admin": true})), 0);
    assert_eq!(nested(json!({"admin": true, "dns_names": ["*"]})), 77);
    let other = preflight(
        &arguments,
        &json!([entry("e1", "/other", &json!({"admin": true}))]),
    );
    assert_eq!(other.0, 77);
    let issuer = ["--enclave-id", ENCLAVE, "--may-issue", ENCLAVE, "-"];
    assert_eq!(
        preflight(&issuer, &json!([entry("e1", "/enclave/chat", &json!({}))])).0,
        77
    );
}

#[test]
fn checks_every_enclave_that_was_named() {
    let arguments = [
        "--enclave-id",
        ENCLAVE,
        "--enclave-id",
        "spiffe://example.org/enclave/embed",
        "-",
    ];
    let (code, said, _) = preflight(
        &arguments,
        &json!([entry("e1", "/enclave/embed", &json!({}))]),
    );
    assert_eq!(code, 77, "{said}");
}

#[test]
fn refuses_a_list_that_says_nothing_about_this_server() {
    let foreign = json!({"trust_domain": "example.com", "path": "/spire/agent/x509pop/1"});
    let (code, _, error) = usual(&json!([entry(
        "e1",
        "/gateway",
        &json!({"parent_id": foreign})
    )]));
    assert_eq!(code, 64);
    assert!(
        error.contains("entry 1 is of trust domain example.com"),
        "{error}"
    );
}

#[test]
fn refuses_input_it_cannot_read() {
    for (input, says) in [
        (
            "",
            "is not what spire-server entry show -output json prints",
        ),
        ("No entries found", "is not what spire-server"),
        (
            "{\"entries\": [], \"next_page_token\": \"x\"}",
            "one page of several",
        ),
    ] {
        let (code, _, error) = run(&["--enclave-id", ENCLAVE, "-"], input);
        assert_eq!(code, 64, "{input}");
        assert!(error.contains(says), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
    let (code, _, error) = run(&["--enclave-id", ENCLAVE, "/nowhere/entries.json"], "");
    assert_eq!(
        (code, error.contains("/nowhere/entries.json: cannot read")),
        (64, true),
        "{error}"
    );
}

#[test]
fn refuses_ids_that_name_no_enclave() {
    for id in [
        "example.org/enclave",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/*",
        "spiffe://example.org/spire/server",
        "https://example.org/enclave",
    ] {
        assert_eq!(run(&["--enclave-id", id, "-"], "{}").0, 64, "{id}");
    }
    assert_eq!(run(&["-"], "{}").0, 64);
}
