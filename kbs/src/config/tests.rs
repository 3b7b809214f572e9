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
        (
            format!("{GOOD}[log]\ncheckpoint_entries = 0\n"),
            "log.checkpoint_entries",
        ),
        (
            format!("{GOOD}[log]\ncheckpoint_s = 0\n"),
            "log.checkpoint_s",
        ),
        (format!("two_person = true\n{GOOD}"), "two_person"),
        (
            format!("two_person = true\n{GOOD}{}", admin("alice", "any")),
            "two_person",
        ),
        (GOOD.replace("tcp://127.0.0.1:8443", "http://x"), "line 2"),
    ] {
        let error = refused(&text);
        assert!(error.contains(words), "{words}: {error}");
    }
}

fn admin(name: &str, public: &str) -> String {
    format!("[[admin]]\nname = \"{name}\"\npublic_key = '''{public}'''\n")
}

#[test]
fn administrators_have_plain_names_and_a_key_each() {
    let key = || crate::admin::generate_key().unwrap().1;
    let (one, other) = (key(), key());
    let found = |admins: &[(&str, &str)]| {
        let admins: String = admins.iter().map(|(name, key)| admin(name, key)).collect();
        let config = load(&format!("two_person = true\n{GOOD}{admins}")).unwrap();
        config.admin_keys().err().map(|error| error.to_string())
    };
    assert_eq!(found(&[("alice", &one), ("bob@example.org", &other)]), None);
    for (admins, field) in [
        ([("alice", one.as_str()), ("bob", &one)], "admin[1]"),
        ([("alice", &one), ("alice", &other)], "admin[1]"),
        ([("alice", "no key"), ("bob", &other)], "admin[0]"),
        (
            [("alice and bob", &one), ("carol", &other)],
            "admin[0].name",
        ),
        ([("", &one), ("carol", &other)], "admin[0].name"),
    ] {
        let error = found(&admins).unwrap();
        assert!(error.contains(field), "{field}: {error}");
    }
}

#[test]
fn the_checkpoint_file_is_beside_the_database_unless_it_is_named() {
    let config = load(GOOD).unwrap();
    let dir = config.file.parent().unwrap();
    assert_eq!(config.checkpoints().file, dir.join("kbs.sqlite.checkpoint"));
    let config = load(&format!("{GOOD}[log]\ncheckpoint_file = \"kept/newest\"\n")).unwrap();
    let dir = config.file.parent().unwrap();
    assert_eq!(config.checkpoints().file, dir.join("kept/newest"));
    assert_eq!(config.checkpoints().entries, 1000);
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

mod token {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::token;

    /// A broker's folder with these files, the private one in `mode`.
    fn signer(key: &str, mode: u32, publish: &str) -> Result<Vec<String>, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("token.key"), key).unwrap();
        std::fs::set_permissions(path("token.key"), Permissions::from_mode(mode)).unwrap();
        std::fs::write(path("next.pub"), publish).unwrap();
        let names = if publish.is_empty() {
            "[]"
        } else {
            "[\"next.pub\"]"
        };
        let text = format!("{GOOD}\n[token]\nkey = \"token.key\"\npublish = {names}\n");
        std::fs::write(path("kbs.toml"), text).unwrap();
        let signer = Config::load(&path("kbs.toml"))?.token_signer()?;
        let keys = signer.jwks().keys.iter();
        Ok(keys.map(|key| key.common.key_id.clone().unwrap()).collect())
    }

    #[test]
    fn without_a_configured_key_each_start_makes_its_own() {
        let config = load(GOOD).unwrap();
        let (one, two) = (
            config.token_signer().unwrap(),
            config.token_signer().unwrap(),
        );
        assert_ne!(one.key_id(), two.key_id());
        assert_eq!(one.jwks().keys.len(), 1);
    }

    #[test]
    fn a_configured_key_is_the_same_at_each_start() {
        let key = token::generate_pem().unwrap();
        assert_eq!(
            signer(&key, 0o600, "").unwrap(),
            signer(&key, 0o400, "").unwrap()
        );
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_none_stops_the_start() {
        let key = token::generate_pem().unwrap();
        let refused =
            |key: &str, mode, publish| signer(key, mode, publish).unwrap_err().to_string();
        for mode in [0o640, 0o604, 0o644] {
            let error = refused(&key, mode, "");
            assert!(
                error.contains("token.key: ") && error.contains("set it to 600"),
                "{error}"
            );
        }
        assert!(refused("nonsense", 0o600, "").contains("is not a P-256 key"));
        let error = refused(&key, 0o600, "nonsense");
        assert!(
            error.contains("token.publish") && error.contains("next.pub"),
            "{error}"
        );
        // The private half of a neighbour does not belong here, nor on this machine.
        let other = token::generate_pem().unwrap();
        assert!(refused(&key, 0o600, &other).contains("is not a P-256 public key"));
        let missing = format!("{GOOD}\n[token]\nkey = \"absent.key\"\n");
        let error = load(&missing).unwrap().token_signer().err().unwrap();
        assert!(error.to_string().contains("cannot be read"), "{error}");
        let many = format!("{GOOD}\n[token]\nkey = \"k\"\npublish = {:?}\n", ["p"; 9]);
        let error = load(&many).unwrap().token_signer().err().unwrap();
        assert!(error.to_string().contains("more than 8"), "{error}");
        assert!(load(&format!("{GOOD}\n[token]\nkeys = []\n")).is_err());
    }
}

fn signer(more: &str) -> String {
    let image = format!("{{\"0\" = \"{}\"}}", "ab".repeat(48));
    format!(
        "{GOOD}[issuer]\nttl_s = 3600\n\
         map = [{{spiffe_id = \"spiffe://example.org/e\", images = [{image}]}}]\n{more}"
    )
}

const SPIRE: &str =
    "[issuer.spire]\nserver = \"tcp://spire.example.org:8081\"\nbundle = \"root.pem\"\n";
const SOCKET: &str = "entries_socket = \"unix:///run/spire/api.sock\"\n";
const POP: &str = "[issuer.spire.x509pop]\nchain = \"machine.pem\"\nkey = \"machine.key\"\n";
const TOKEN: &str = "[issuer.spire.join_token]\nfile = \"token\"\nstate = \"agent.pem\"\n";
const MINT: &str = "[issuer.spire_mint]\nsocket = \"unix:///run/spire/api.sock\"\n";

#[test]
fn one_signer_and_no_more() {
    let agent = format!("{SPIRE}{SOCKET}{POP}");
    let config = load(&signer(&agent)).unwrap();
    let spire = config.issuer.as_ref().unwrap().spire.as_ref().unwrap();
    let dir = config.file.parent().unwrap();
    assert_eq!(spire.bundle, dir.join("root.pem"));
    assert_eq!(spire.x509pop.as_ref().unwrap().key, dir.join("machine.key"));
    load(&signer(&format!("{SPIRE}{SOCKET}{TOKEN}"))).unwrap();
    load(&signer(&format!(
        "{SPIRE}entries_file = \"e.json\"\n{TOKEN}"
    )))
    .unwrap();
    load(&signer(MINT)).unwrap();
    let builtin = "chain = \"ca.pem\"\nkey = \"ca.key\"\n";
    let both = signer(&agent).replace("ttl_s = 3600\n", &format!("ttl_s = 3600\n{builtin}"));
    for text in [
        signer(""),
        signer(&format!("{agent}{MINT}")),
        both,
        signer("").replace("ttl_s = 3600\n", "ttl_s = 3600\nchain = \"ca.pem\"\n"),
    ] {
        assert!(refused(&text).contains("one signer"), "{}", refused(&text));
    }
}

#[test]
fn spire_needs_one_proof_and_one_view_of_the_entries() {
    for (more, expected) in [
        (format!("{SPIRE}{SOCKET}"), "one proof of the machine"),
        (
            format!("{SPIRE}{SOCKET}{POP}{TOKEN}"),
            "one proof of the machine",
        ),
        (
            format!("{SPIRE}{POP}"),
            "one of entries_socket and entries_file",
        ),
        (
            format!("{SPIRE}{SOCKET}entries_file = \"e\"\n{POP}"),
            "one of entries_socket and entries_file",
        ),
        (
            format!("{SPIRE}entries_socket = \"tcp://127.0.0.1:1\"\n{POP}"),
            "entries_socket: has to be unix:///PATH",
        ),
        (
            MINT.replace("unix:///run/spire/api.sock", "tcp://127.0.0.1:1"),
            "has to be unix:///PATH",
        ),
        (
            format!("{SPIRE}{SOCKET}insecure_bootstrap = true\n{POP}"),
            "unknown field",
        ),
    ] {
        let error = refused(&signer(&more));
        assert!(error.contains(expected), "{more}: {error}");
    }
}
