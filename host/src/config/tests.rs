use std::path::Path;

use super::Config;

const GOOD: &str = r#"
control = "tcp://127.0.0.1:9100"
enclave_control = "unix:///run/x/control.sock"
[relay]
listen = "tcp://0.0.0.0:7443"
enclave = "vsock://16:7443"
[[egress]]
class = "key-release"
listen = "vsock://any:8443"
target = "kbs.example.org:8443"
[models]
listen = "vsock://any:8000"
root = "packages"
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/cloister/host.toml")).map_err(|e| e.to_string())
}

/// `GOOD` with `from` replaced by `to` is refused, in one line that contains each of `parts`.
fn refused(from: &str, to: &str, parts: &[&str]) {
    assert!(GOOD.contains(from), "{from}");
    let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
    assert!(error.starts_with("/etc/cloister/host.toml:"), "{error}");
    assert!(!error.contains('\n'), "{error}");
    for part in parts {
        assert!(error.contains(part), "{error} lacks {part}");
    }
}

#[test]
fn takes_a_good_file_and_resolves_its_paths() {
    let config = parse(GOOD).unwrap();
    assert_eq!(
        config.models.unwrap().root,
        Path::new("/etc/cloister/packages")
    );
    assert_eq!(config.relay.limits.max_connections, 512);
    assert_eq!(config.limits.drain_s, 25);
}

#[test]
fn names_file_line_and_field() {
    refused("[relay]", "[relai]", &["host.toml:4:", "relai"]);
    refused(
        "target =",
        "targets =",
        &["host.toml:10:", "targets", "target"],
    );
    refused("control = ", "", &["host.toml:2:"]);
    refused("class = \"key-release\"\n", "", &["missing field", "class"]);
    refused(
        "vsock://16:7443",
        "16:7443",
        &["host.toml:6:", "not an endpoint", "vsock://CID:PORT"],
    );
}

#[test]
fn refuses_values_that_cannot_work() {
    let class = "class = \"key-release\"";
    refused(
        class,
        "class = \"Key Release\"",
        &["egress[0].class", "a-z"],
    );
    refused(class, "class = \"relay\"", &["egress[0].class", "taken"]);
    let target = "kbs.example.org:8443";
    refused(
        target,
        "kbs.example.org",
        &["egress[0].target", "host:port"],
    );
    refused(target, "0.0.0.0:8443", &["egress[0].target", "connected"]);
    refused(target, "kbs.example.org:0", &["egress[0].target"]);
    refused(target, "tcp://kbs.example.org:1", &["egress[0].target"]);
    refused(target, "", &["egress[0].target"]);
    refused(
        "class = \"key-release\"",
        "class = \"key-release\"\nlimits = { max_connections = 0, idle_s = 1, lifetime_s = 1 }",
        &["egress[0].limits.max_connections", "1 to 65536"],
    );
    refused(
        "[models]",
        "[limits]\ndrain_s = 99999999\n[models]",
        &["limits.drain_s", "seconds"],
    );
}

#[test]
fn refuses_to_open_egress_or_models_to_the_network() {
    let open = "open to the network";
    refused(
        "vsock://any:8443",
        "tcp://0.0.0.0:8443",
        &["egress[0].listen", open],
    );
    refused(
        "vsock://any:8443",
        "tcp://10.0.0.1:8443",
        &["egress[0].listen", open],
    );
    refused(
        "vsock://any:8000",
        "tcp://[::]:8000",
        &["models.listen", open],
    );
    assert!(parse(&GOOD.replace("vsock://any:8443", "tcp://[::1]:8443")).is_ok());
}

#[test]
fn refuses_one_endpoint_for_two_purposes() {
    refused(
        "vsock://any:8000",
        "vsock://any:8443",
        &["models.listen", "egress[0].listen"],
    );
    refused(
        "tcp://0.0.0.0:7443",
        "tcp://127.0.0.1:9100",
        &["relay.listen", "control"],
    );
}

#[test]
fn names_a_file_that_cannot_be_read() {
    let error = Config::load(Path::new("/nonexistent/host.toml")).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/host.toml: "));
}

#[test]
fn egress_may_lead_to_another_host_over_vsock() {
    for target in ["vsock://2:8443", "unix:///run/kbs.sock"] {
        let text = GOOD.replacen("kbs.example.org:8443", target, 1);
        parse(&text).unwrap();
    }
    refused(
        "kbs.example.org:8443",
        "vsock://2",
        &["egress[0].target", "is no target"],
    );
    refused(
        "kbs.example.org:8443",
        "http://kbs",
        &["egress[0].target", "is no target"],
    );
}

#[test]
fn what_the_enclave_says_arrives_on_no_network_address() {
    let boot = |line: &str| parse(&format!("{GOOD}\n[boot]\n{line}\n"));
    boot("console = \"vsock://any:9001\"").unwrap();
    boot("heartbeat = \"vsock://any:9000\"").unwrap();
    for (line, problem) in [
        ("console = \"tcp://0.0.0.0:9001\"", "boot.console"),
        ("heartbeat = \"tcp://0.0.0.0:9000\"", "boot.heartbeat"),
        (
            "console = \"vsock://any:8000\"",
            "already used by models.listen",
        ),
        ("consol = \"vsock://any:9001\"", "consol"),
    ] {
        let error = boot(line).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
}
