use super::*;

const GOOD: &str = r#"
listen = "tcp://127.0.0.1:8443"
control = "tcp://127.0.0.1:9443"
database = "kbs.sqlite"
master_key_file = "master.key"
trust_anchor = "aws-nitro"
[tls]
chain = "kbs.pem"
key = "/elsewhere/kbs.key"
"#;

fn load(text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kbs.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path)
}

fn refused(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn relative_paths_start_at_the_file() {
    let config = load(GOOD).unwrap();
    let dir = config.file.parent().unwrap();
    assert_eq!(config.database, dir.join("kbs.sqlite"));
    assert_eq!(config.tls.key, Path::new("/elsewhere/kbs.key"));
    assert_eq!(config.trust_anchor, "aws-nitro");
    let other = load(&GOOD.replace("aws-nitro", "root.pem")).unwrap();
    assert_eq!(
        other.trust_anchor,
        other
            .file
            .parent()
            .unwrap()
            .join("root.pem")
            .display()
            .to_string()
    );
}

#[test]
fn an_unknown_field_is_named_with_its_line() {
    let error = refused(&format!("{GOOD}insecure = true\n"));
    assert!(
        error.contains("kbs.toml: line 10:") && error.contains("insecure"),
        "{error}"
    );
}

#[test]
fn a_missing_field_is_named() {
    for field in [
        "listen",
        "control",
        "database",
        "master_key_file",
        "trust_anchor",
        "tls",
    ] {
        let text: String = match field {
            "tls" => GOOD.split("[tls]").next().unwrap().to_owned(),
            _ => GOOD
                .lines()
                .filter(|l| !l.starts_with(field))
                .map(|l| format!("{l}\n"))
                .collect(),
        };
        let error = refused(&text);
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
}

#[test]
fn values_that_cannot_work_are_refused() {
    let issuer = |ttl: u64, map: &str| {
        format!("{GOOD}[issuer]\nchain = \"a\"\nkey = \"b\"\nttl_s = {ttl}\nmap = [{map}]\n")
    };
    let image = |value: &str| {
        format!(r#"{{ spiffe_id = "spiffe://a/b", images = [{{ "0" = "{value}" }}] }}"#)
    };
    let good = "ab".repeat(48);
    load(&issuer(3600, &image(&good))).unwrap();
    for (text, words) in [
        (issuer(1, &image(&good)), "issuer.ttl_s"),
        (issuer(1_000_000, &image(&good)), "issuer.ttl_s"),
        (issuer(3600, ""), "issuer.map"),
        (issuer(3600, &image(&"00".repeat(48))), "zeros"),
        (issuer(3600, &image("ab")), "96 hex digits"),
        (GOOD.replace(":9443", ":8443"), "control"),
        (
            format!("{GOOD}[limits]\nmax_sessions = 0\n"),
            "limits.max_sessions",
        ),
        (GOOD.replace("tcp://127.0.0.1:8443", "http://x"), "line 2"),
    ] {
        let error = refused(&text);
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn a_file_that_is_named_and_absent_is_named_in_the_error() {
    let config = load(GOOD).unwrap();
    let error = config.svid().err().unwrap().to_string();
    assert!(
        error.contains("tls.chain") && error.contains("kbs.pem"),
        "{error}"
    );
    let error = config.master_key().err().unwrap().to_string();
    assert!(
        error.contains("master_key_file") && error.contains("kbs init"),
        "{error}"
    );
}

#[test]
fn an_error_is_one_line() {
    for text in [
        "",
        "listen = ",
        "\u{0}",
        "[[[",
        GOOD.trim_end_matches("key = \"/elsewhere/kbs.key\"\n"),
    ] {
        assert_eq!(refused(text).lines().count(), 1);
    }
}
