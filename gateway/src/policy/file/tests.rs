use super::super::MAX_ALTERNATIVES;
use super::*;

const GOOD: &str = r#"
format = "cloister-gateway-policy/1"
serial = 4
server_ids = ["spiffe://cloister.dev/enclave/demo"]
trust_anchor = "aws-nitro"
images = [{ "0" = "PCR", "1" = "PCR", "2" = "PCR" }]
config_digests = ["DIGEST"]

[fleet]
roles = ["arn:aws:iam::123456789012:role/enclaves"]
instances = ["i-0123456789abcdef0"]

[[models]]
name = "demo"
min_epoch = 3
"#;

fn read_text(text: &str) -> Result<Policy, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.toml");
    let text = text
        .replace("PCR", &"01".repeat(48))
        .replace("DIGEST", &"02".repeat(32));
    std::fs::write(&path, text).unwrap();
    load(&path).map_err(|error| error.to_string())
}

fn refused(from: &str, to: &str, words: &[&str]) {
    assert!(GOOD.contains(from), "{from}");
    let line = read_text(&GOOD.replacen(from, to, 1)).unwrap_err();
    for word in ["policy.toml"].iter().chain(words) {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert!(!line.contains('\n'), "{line}");
}

#[test]
fn reads_a_complete_file_and_fills_in_the_defaults() {
    let policy = read_text(GOOD).unwrap();
    assert_eq!(policy.serial, 4);
    assert!(policy.trust_anchor.is_aws_nitro());
    assert_eq!(policy.reattest, Duration::from_secs(600));
    assert_eq!(policy.max_age, Duration::from_secs(300));
    assert_eq!(policy.models[0].min_epoch, 3);
    // `{ head -c 48 /dev/zero; printf %s i-0123456789abcdef0; } | sha384sum`
    assert_eq!(
        policy.fleet.instances[0].to_string(),
        "d6432900ac1c343cb40286898792c55e962aef0cc35c4910c0c286145b51af19e782cb21cc31a042671d7dfbd398251c"
    );
}

#[test]
fn refuses_another_format_as_such() {
    let later = "format = \"cloister-gateway-policy/2\"\nnews = true\n";
    let line = read_text(later).unwrap_err();
    assert!(
        line.contains("cloister-gateway-policy/2") && line.contains("this gateway knows"),
        "{line}"
    );
    refused("format = \"cloister-gateway-policy/1\"\n", "", &["format"]);
}

#[test]
fn refuses_what_cannot_be_meant() {
    refused("serial = 4", "serial = 0", &["serial", "at least 1"]);
    refused("serial = 4", "serial = -1", &["line 3"]);
    refused("serial", "serail", &["serail"]);
    refused("min_epoch = 3", "", &["min_epoch"]);
    refused(
        "\"aws-nitro\"",
        "\"missing.pem\"",
        &["trust_anchor", "missing.pem", "aws-nitro"],
    );
    refused("enclave/demo", "", &["server_ids"]);
    refused(
        "spiffe://cloister.dev/enclave/demo",
        "cloister.dev",
        &["server_ids"],
    );
    refused(
        "\"spiffe://cloister.dev/enclave/demo\"",
        "",
        &["server_ids", "empty"],
    );
    refused(
        "\"spiffe://cloister.dev/enclave/demo\"",
        "\"spiffe://cloister.dev/enclave/demo\", \"spiffe://other.dev/enclave/demo\"",
        &["server_ids", "two trust domains"],
    );
    refused(
        "{ \"0\" = \"PCR\", \"1\" = \"PCR\", \"2\" = \"PCR\" }",
        "",
        &["image"],
    );
    refused("\"0\" = \"PCR\", ", "", &["PCR0"]);
    refused(
        "\"0\" = \"PCR\"",
        &format!("\"0\" = \"{}\"", "00".repeat(48)),
        &["zeros"],
    );
    refused("DIGEST", "00", &["line 7"]);
    refused("\"DIGEST\"", "", &["config_digests"]);
    refused("name = \"demo\"", "name = \"demo\"\nepoch = 1", &["epoch"]);
    refused("[fleet]", "max_age_s = 0\n[fleet]", &["max_age_s"]);
    refused("[fleet]", "reattest_s = 100000\n[fleet]", &["reattest_s"]);
    let twice = format!("{GOOD}[[models]]\nname = \"demo\"\nmin_epoch = 1\n");
    assert!(read_text(&twice).unwrap_err().contains("demo twice"));
    let missing = load(Path::new("/nowhere/policy.toml")).unwrap_err();
    assert!(missing.to_string().contains("cannot be read"));
}

#[test]
fn refuses_a_parent_that_no_register_could_name() {
    for arn in [
        "arn:aws:iam::123456789012:instance-profile/enclaves",
        "arn:aws:sts::123456789012:assumed-role/enclaves/i-0123",
        "enclaves",
        "",
    ] {
        refused(
            "arn:aws:iam::123456789012:role/enclaves",
            arn,
            &["fleet.roles", "role's own ARN"],
        );
    }
    refused(
        "i-0123456789abcdef0",
        "0123456789abcdef0",
        &["fleet.instances", "i-"],
    );
}

#[test]
fn refuses_a_file_that_is_too_large_to_be_a_policy() {
    let line = read_text(&format!("{GOOD}#{}\n", "x".repeat(300 << 10))).unwrap_err();
    assert!(line.contains("larger than"), "{line}");
    let many = "\"DIGEST\",".repeat(MAX_ALTERNATIVES + 1);
    refused("\"DIGEST\"", &many, &["config_digests", "more than"]);
}

#[test]
fn policies_that_differ_have_different_digests() {
    let digest = |text: &str| read_text(text).unwrap().digest();
    assert_eq!(digest(GOOD), digest(GOOD));
    for (from, to) in [
        ("serial = 4", "serial = 5"),
        ("enclave/demo", "enclave/other"),
        ("\"2\" = \"PCR\"", "\"3\" = \"PCR\""),
        (
            "DIGEST",
            "0303030303030303030303030303030303030303030303030303030303030303",
        ),
        ("role/enclaves", "role/others"),
        ("i-0123456789abcdef0", "i-0123456789abcdef1"),
        ("min_epoch = 3", "min_epoch = 4"),
        ("[fleet]", "max_age_s = 299\n[fleet]"),
        ("[fleet]", "reattest_s = 599\n[fleet]"),
    ] {
        assert_ne!(digest(GOOD), digest(&GOOD.replacen(from, to, 1)), "{to}");
    }
}
