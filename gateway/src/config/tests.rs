use super::*;

const GOOD: &str = r#"
listen = "127.0.0.1:8080"
enclave = "tcp://127.0.0.1:7443"
workload_api = "unix:///run/spire/agent.sock"
policy = "policy.toml"
policy_history = "history.json"
"#;

const POLICY: &str = r#"
format = "cloister-gateway-policy/1"
serial = 4
server_ids = ["spiffe://cloister.dev/enclave/demo"]
trust_anchor = "aws-nitro"
images = [{ "0" = "PCR" }]
config_digests = ["DIGEST"]
[[models]]
name = "demo"
min_epoch = 3
"#;

fn policy_text() -> String {
    POLICY
        .replace("PCR", &"01".repeat(48))
        .replace("DIGEST", &"02".repeat(32))
}

fn load(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.toml");
    std::fs::write(dir.path().join("policy.toml"), policy_text()).unwrap();
    std::fs::write(&path, text).unwrap();
    Config::load(&path).map_err(|error| error.to_string())
}

fn refused(from: &str, to: &str, words: &[&str]) {
    assert!(GOOD.contains(from), "{from}");
    let line = load(&GOOD.replacen(from, to, 1)).unwrap_err();
    for word in words {
        assert!(line.contains(word), "{line}");
    }
    assert!(!line.contains('\n'), "{line}");
}

#[test]
fn reads_a_complete_file_and_fills_in_the_defaults() {
    let config = load(GOOD).unwrap();
    assert_eq!(config.limits.in_flight, 60);
    assert_eq!(config.policy.serial, 4);
    assert!(config.history.accepted().is_empty());
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
    refused("listen", "lisen", &["gateway.toml", "line 2", "lisen"]);
    refused(
        "unix:///run",
        "http:///run",
        &["gateway.toml", "workload_api", "unix:///path"],
    );
    refused("policy = \"policy.toml\"", "", &["gateway.toml", "policy"]);
    refused("policy_history = \"history.json\"", "", &["policy_history"]);
    refused(
        "\"policy.toml\"",
        "\"other.toml\"",
        &["other.toml", "cannot be read"],
    );
    refused(
        "policy_history",
        "[limits]\nin_flight = 0\npolicy_history",
        &["policy_history"],
    );
    let limits = load(&format!("{GOOD}[limits]\nin_flight = 0\n")).unwrap_err();
    assert!(limits.contains("limits"), "{limits}");
    assert!(
        Config::load(Path::new("/nowhere/gateway.toml"))
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
}

#[test]
fn refuses_a_policy_that_its_history_does_not_permit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.toml");
    let policy = dir.path().join("policy.toml");
    std::fs::write(&path, GOOD).unwrap();
    std::fs::write(&policy, policy_text()).unwrap();
    let mut config = Config::load(&path).unwrap();
    config
        .history
        .accept(&config.policy, std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    Config::load(&path).unwrap();
    for (text, words) in [
        (
            policy_text().replace("serial = 4", "serial = 3"),
            "goes back",
        ),
        (
            policy_text().replace("min_epoch = 3", "min_epoch = 2"),
            "raise the serial",
        ),
    ] {
        std::fs::write(&policy, text).unwrap();
        let error = Config::load(&path).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.exit_code(), 77);
    }
}
