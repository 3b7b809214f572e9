//! The program as its operators and auditors use it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a failure is the report"
)]

#[allow(dead_code, reason = "each test uses what it needs of it")]
mod support;

use std::process::Output;

use support::{Site, admin_request, kbs, token};

fn deny_all(_: &attestation::Pcrs) -> String {
    "package policy\n\ndefault allow := false\n".to_owned()
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

#[track_caller]
fn ok(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// One line on standard error, with this code and these words.
#[track_caller]
fn refused(output: Output, code: i32, words: &str) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("error: ") && last.contains(words),
        "{said}"
    );
}

#[test]
fn an_auditor_with_the_public_key_alone_finds_an_edit_and_a_cut_tail() {
    let site = Site::new(deny_all, "");
    let file = |name: &str, content: &str| {
        std::fs::write(site.path(name), content).unwrap();
        site.path(name).display().to_string()
    };
    let secret = file("secret", "0123456789abcdef");
    for path in ["models/a/epoch-1", "models/b/epoch-1", "models/c/epoch-1"] {
        ok(site.kbs(&["resource", "put", path, &secret]));
    }
    let key = ok(site.kbs(&["log", "key"]));
    let export = ok(site.kbs(&["log", "export"]));
    assert!(!export.contains("0123456789abcdef"));
    let kept = std::fs::read_to_string(site.path("kbs.sqlite.checkpoint")).unwrap();
    let kept = file("kept", &kept);
    let verify = |export: &str| {
        let export = file("log.jsonl", export);
        let mut command = kbs();
        command.args(["log", "verify", "--export", &export, "--checkpoint", &kept]);
        command.args(["--key", key.trim()]).output().unwrap()
    };
    let said = ok(verify(&export));
    assert!(said.contains("3 entries, chain unbroken"), "{said}");
    assert!(
        said.contains("the newest signed entry 3, 0 came after it"),
        "{said}"
    );
    let edited = export.replacen("models/b/epoch-1", "models/x/epoch-1", 1);
    refused(verify(&edited), 69, "broken at entry 2: it was changed");
    let mut lines: Vec<&str> = export.lines().collect();
    lines.pop();
    refused(
        verify(&lines.join("\n")),
        69,
        "broken at entry 3: it is gone",
    );
    refused(
        verify(&export.replace("cloister-kbs/", "cloister-kbx/")),
        69,
        "another log",
    );

    let said = ok(site.kbs(&["log", "verify", "--checkpoint", &kept]));
    assert!(said.contains("3 entries"), "{said}");
    let said = ok(site.kbs(&["log", "print"]));
    assert!(
        said.contains("stored models/b/epoch-1 admin=\"command line\""),
        "{said}"
    );
}

#[tokio::test]
async fn a_damaged_database_stops_the_start_with_the_way_out() {
    let site = Site::new(deny_all, "");
    std::fs::write(site.path("kbs.sqlite"), vec![0x5a; 8192]).unwrap();
    refused(
        site.kbs(&["serve"]),
        69,
        "put a backup in its place with `kbs restore`",
    );
    std::fs::remove_file(site.path("kbs.sqlite")).unwrap();
    refused(site.kbs(&["log", "verify"]), 69, "kbs.sqlite");
    assert!(!site.path("kbs.sqlite").exists(), "looking makes nothing");
}

#[tokio::test]
async fn a_running_broker_is_backed_up_but_neither_rotated_nor_restored_over() {
    let site = Site::new(deny_all, "");
    let running = site.serve().await;
    let out = site.path("backup").display().to_string();
    let said = ok(site.kbs(&["backup", "--out", &out]));
    assert!(said.contains("2 entries"), "{said}");
    refused(
        site.kbs(&["master-key", "rotate"]),
        64,
        "stop the broker first",
    );
    refused(
        site.kbs(&["restore", "--from", &out]),
        64,
        "stop the broker first",
    );
    drop(running);
    refused(
        site.kbs(&["restore", "--from", &out]),
        64,
        "move it away first",
    );
    ok(site.kbs(&["master-key", "rotate"]));
    let said = ok(site.kbs(&["log", "verify"]));
    assert!(said.contains("3 entries"), "{said}");
}

#[tokio::test]
async fn under_the_two_person_rule_one_administrator_changes_nothing() {
    let site = Site::new(deny_all, "");
    kbs::init(&site.path("bob")).unwrap();
    let public = |name: &str| std::fs::read_to_string(site.path(name)).unwrap();
    let config = std::fs::read_to_string(&site.config).unwrap();
    let (alice, bob) = (site.path("admin.key"), site.path("bob/admin.key"));
    let rule = format!(
        "two_person = true\n{config}\n[[admin]]\nname = \"alice\"\npublic_key = \"\"\"\n{}\"\"\"\n\
         [[admin]]\nname = \"bob\"\npublic_key = \"\"\"\n{}\"\"\"\n",
        public("admin.pub"),
        public("bob/admin.pub"),
    );
    std::fs::write(&site.config, rule).unwrap();
    let secret = site.path("secret").display().to_string();
    std::fs::write(&secret, [7; 32]).unwrap();
    let approve = |key: &std::path::Path, what: &[&str]| {
        let output = kbs()
            .args(["approve", "--key"])
            .arg(key)
            .args(what)
            .output()
            .unwrap();
        ok(output).trim().to_owned()
    };
    let _running = site.serve().await;
    let path = "/kbs/v0/resource/models/a/epoch-1";
    let put = ["put", "models/a/epoch-1", secret.as_str()];
    let other = ["put", "models/b/epoch-1", secret.as_str()];
    let plain = [token(&alice), token(&bob)];
    let ours = [approve(&alice, &put), approve(&bob, &put)];
    let sha256 = attestation::Sha256Digest::of(&[7; 32]).to_string();
    let unseen = approve(&bob, &["put", "models/a/epoch-1", "--sha256", &sha256]);
    let send = async |first: &str, second: Option<&str>, body: &[u8]| {
        let bearer = format!("Bearer {first}");
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(second.map(|second| ("cloister-approval", second)));
        admin_request(&site, "POST", path, &headers, body).await
    };
    for (first, second) in [
        (&plain[0], None),
        (&plain[0], Some(&plain[1])),
        (&ours[0], None),
        (&ours[0], Some(&ours[0])),
        (&ours[0], Some(&approve(&alice, &put))),
        (&ours[0], Some(&approve(&bob, &other))),
        (&plain[0], Some(&ours[1])),
    ] {
        let status = send(first, second.map(String::as_str), &[7; 32]).await;
        assert_eq!(status, Some(401), "{first} {second:?}");
    }
    assert_eq!(
        send(&ours[0], Some(&ours[1]), &[8; 32]).await,
        Some(401),
        "other bytes"
    );
    assert_eq!(send(&ours[0], Some(&unseen), &[7; 32]).await, Some(200));
    assert_eq!(
        send(&ours[0], Some(&unseen), &[7; 32]).await,
        Some(401),
        "once"
    );
    assert_eq!(
        send(&ours[0], Some(&ours[1]), &[7; 32]).await,
        Some(401),
        "half of it is used up"
    );

    // On the broker's own machine no less.
    let rego = site.path("measured.rego").display().to_string();
    refused(site.kbs(&["policy", "set", &rego]), 64, "two-person rule");
    refused(
        site.kbs(&["resource", "put", "models/a/epoch-1", &secret]),
        64,
        "kbs approve",
    );
    refused(
        site.kbs(&["resource", "delete", "models/a/epoch-1"]),
        64,
        "kbs approve",
    );
    let file = |name: &str, key: &std::path::Path, what: &[&str]| {
        std::fs::write(site.path(name), approve(key, what)).unwrap();
        site.path(name).display().to_string()
    };
    let policy = ["policy", rego.as_str()];
    let (a, b) = (file("a", &alice, &policy), file("b", &bob, &policy));
    let set = |approvals: &[&str]| {
        let mut arguments = vec!["policy", "set", rego.as_str()];
        for approval in approvals {
            arguments.extend(["--approval", approval]);
        }
        site.kbs(&arguments)
    };
    refused(set(&[&a]), 64, "by two keys");
    refused(set(&[&a, &a]), 64, "by two keys");
    ok(set(&[&a, &b]));
    refused(set(&[&a, &b]), 64, "used before");

    // Nor what judges evidence.
    let values = site.path("values").display().to_string();
    std::fs::write(&values, r#"{"svn": 1}"#).unwrap();
    for arguments in [
        &["attestation-policy", "set", rego.as_str()][..],
        &["attestation-policy", "remove"],
        &["reference-value", "set", values.as_str()],
        &["reference-value", "delete", "svn"],
    ] {
        refused(site.kbs(arguments), 64, "two-person rule");
    }
    let both = |what: &[&str]| {
        let pair = [file("a", &alice, what), file("b", &bob, what)];
        pair.map(|file| ["--approval".to_owned(), file]).concat()
    };
    let run = |arguments: &[&str], approvals: &[String]| {
        let approvals = approvals.iter().map(String::as_str);
        site.kbs(
            &arguments
                .iter()
                .copied()
                .chain(approvals)
                .collect::<Vec<_>>(),
        )
    };
    let set = ["reference-value", "set", values.as_str()];
    let approvals = both(&["reference-value", &values]);
    std::fs::write(&values, r#"{"svn": 2}"#).unwrap();
    refused(run(&set, &approvals), 64, "approves another change");
    std::fs::write(&values, r#"{"svn": 1}"#).unwrap();
    ok(run(&set, &approvals));
    let delete = ["reference-value", "delete", "svn"];
    ok(run(&delete, &both(&["reference-value", "--delete", "svn"])));
    let again = both(&["reference-value", "--delete", "svn"]);
    refused(run(&delete, &again), 64, "nothing is stored there");
    let policy = ["attestation-policy", "set", rego.as_str()];
    ok(run(&policy, &both(&["attestation-policy", &rego])));
    let remove = ["attestation-policy", "remove"];
    ok(run(&remove, &both(&["attestation-policy", "--remove"])));

    let mut changes = Vec::new();
    kbs::offline::read_log(&site.config(), |record| {
        let entry = &record.entry;
        if entry.outcome == "started" {
            assert!(
                entry
                    .reason
                    .as_ref()
                    .unwrap()
                    .contains("2 administrators of whom a change needs two")
            );
        } else if entry.outcome != "refused" {
            changes.push((entry.outcome.clone(), entry.admin.clone().unwrap()));
        }
    })
    .unwrap();
    let expected = [
        ("stored", "alice and bob"),
        ("policy-set", "alice and bob on the command line"),
        ("reference-set", "alice and bob on the command line"),
        ("reference-set", "alice and bob on the command line"),
        ("policy-set", "alice and bob on the command line"),
        ("policy-set", "alice and bob on the command line"),
    ];
    assert_eq!(changes, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}
