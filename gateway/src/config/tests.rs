use super::*;

const GOOD: &str = r#"
listen = "127.0.0.1:8080"
enclave = "tcp://127.0.0.1:7443"
workload_api = "unix:///run/spire/agent.sock"
[policy]
server_id = "spiffe://cloister.dev/enclave/demo"
trust_anchor = "aws-nitro"
images = [{ "0" = "PCR", "1" = "PCR", "2" = "PCR" }]
config_digest = "DIGEST"
[[policy.models]]
name = "demo"
min_epoch = 3
"#;

fn load(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.toml");
    let text = text
        .replace("PCR", &"01".repeat(48))
        .replace("DIGEST", &"02".repeat(32));
    std::fs::write(&path, text).unwrap();
    Config::load(&path).map_err(|error| error.to_string())
}

fn refused(from: &str, to: &str, words: &[&str]) {
    assert!(GOOD.contains(from), "{from}");
    let line = load(&GOOD.replacen(from, to, 1)).unwrap_err();
    for word in ["gateway.toml"].iter().chain(words) {
        assert!(line.contains(word), "{line}");
    }
    assert!(!line.contains('\n'), "{line}");
}

#[test]
fn reads_a_complete_file_and_fills_in_the_defaults() {
    let config = load(GOOD).unwrap();
    assert!(config.policy.trust_anchor.is_aws_nitro());
    assert_eq!(config.policy.reattest, Duration::from_secs(600));
    assert_eq!(config.policy.max_age, Duration::from_secs(300));
    assert_eq!(config.limits.in_flight, 60);
    assert_eq!(config.policy.models[0].min_epoch, 3);
}

#[test]
fn refuses_to_listen_where_others_can_reach_it() {
    for address in [
        "0.0.0.0:8080",
        "192.0.2.1:8080",
        "[::]:8080",
        "[2001:db8::1]:1",
    ] {
        refused("127.0.0.1:8080", address, &["listen", "this machine only"]);
    }
    refused(
        "127.0.0.1:8080",
        "localhost:8080",
        &["listen", "127.0.0.1:8080"],
    );
    assert!(load(&GOOD.replace("127.0.0.1:8080", "[::1]:8080")).is_ok());
}

#[test]
fn refuses_what_cannot_be_meant() {
    refused("listen", "lisen", &["line 2", "lisen"]);
    refused("min_epoch = 3", "", &["min_epoch"]);
    refused(
        "\"aws-nitro\"",
        "\"missing.pem\"",
        &["policy.trust_anchor", "missing.pem", "aws-nitro"],
    );
    refused(
        "unix:///run",
        "http:///run",
        &["workload_api", "unix:///path"],
    );
    refused(
        "spiffe://cloister.dev/enclave/demo",
        "spiffe://cloister.dev",
        &["no path"],
    );
    refused(
        "spiffe://cloister.dev/enclave/demo",
        "cloister.dev",
        &["policy.server_id"],
    );
    refused(
        "{ \"0\" = \"PCR\", \"1\" = \"PCR\", \"2\" = \"PCR\" }",
        "",
        &["image"],
    );
    refused("\"0\" = \"PCR\", ", "", &["PCR0"]);
    refused("DIGEST", "00", &["line 9"]);
    refused("name = \"demo\"", "name = \"demo\"\nepoch = 1", &["epoch"]);
    refused("[policy]", "[policy]\nmax_age_s = 0", &["max_age_s"]);
    refused("[policy]", "[policy]\nreattest_s = 100000", &["reattest_s"]);
    refused("[policy]", "[limits]\nin_flight = 0\n[policy]", &["limits"]);
    let twice = format!("{GOOD}[[policy.models]]\nname = \"demo\"\nmin_epoch = 1\n");
    assert!(load(&twice).unwrap_err().contains("demo twice"));
    assert!(
        Config::load(Path::new("/nowhere/gateway.toml"))
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
}

#[test]
fn policies_that_differ_have_different_digests() {
    let digest = |text: &str| load(text).unwrap().policy.digest();
    assert_eq!(digest(GOOD), digest(GOOD));
    assert_ne!(
        digest(GOOD),
        digest(&GOOD.replace("min_epoch = 3", "min_epoch = 4"))
    );
    assert_ne!(
        digest(GOOD),
        digest(&GOOD.replace("DIGEST", &"03".repeat(32)))
    );
}
