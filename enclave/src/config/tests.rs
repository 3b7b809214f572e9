use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::issue::Authority;
use sealed_model::SigningKey;

use super::*;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn now() -> SystemTime {
    UNIX_EPOCH + NOW
}

fn bundle(domain: &str) -> String {
    let domain = TrustDomain::new(domain).unwrap();
    Authority::generate_root(&domain, now(), Duration::from_secs(3600))
        .unwrap()
        .cert_pem()
}

fn publisher() -> String {
    SigningKey::generate().unwrap().public().unwrap().to_pem()
}

/// A complete file; the tests change one thing each.
fn good() -> String {
    format!(
        r#"
spiffe_id = "spiffe://cloister.dev/enclave/demo"

[listen]
serve = "unix:///run/demo/enclave.sock"
control = "unix:///run/demo/control.sock"

[trust]
domain = "cloister.dev"
bundle = """{bundle}"""
callers = ["cloister.dev"]

[broker]
endpoint = "unix:///run/demo/kbs.sock"
spiffe_id = "spiffe://cloister.dev/kbs"

[[models]]
name = "demo"
source = "unix:///run/demo/models.sock"
package = "demo-1"
publishers = ["""{publisher}"""]
min_epoch = 1

[authorization]
policy = """permit(principal, action, resource);"""
"#,
        bundle = bundle("cloister.dev"),
        publisher = publisher(),
    )
}

fn refused(text: &str) -> String {
    match Config::parse(text.as_bytes()) {
        Ok(_) => panic!("accepted"),
        Err(Problem { field, problem }) => format!("{field}: {problem}"),
    }
}

#[test]
fn a_complete_file_is_accepted_and_named_by_its_digest() {
    let text = good();
    let config = Config::parse(text.as_bytes()).ok().unwrap();
    assert_eq!(config.digest, Sha256Digest::of(text.as_bytes()));
    assert_eq!(config.models[0].name, "demo");
    assert_eq!(config.trust.callers.len(), 1);
    assert_eq!(config.limits.max_body_bytes, 1024 * 1024);
    assert!(config.clock_sources.is_empty());
    let other = format!("{text}\n");
    assert_ne!(
        Config::parse(other.as_bytes()).ok().unwrap().digest,
        config.digest
    );
}

#[test]
fn each_mistake_is_named_by_its_field() {
    let cases = [
        (
            "spiffe_id = \"spiffe://cloister.dev/enclave/demo\"",
            "spiffe_id = \"https://x\"",
            "spiffe_id: ",
        ),
        ("dev/enclave/demo\"", "dev\"", "spiffe_id: has no path"),
        (
            "dev/enclave/demo\"",
            "example/enclave/demo\"",
            "spiffe_id: is outside trust.domain",
        ),
        (
            "spiffe://cloister.dev/kbs",
            "spiffe://cloister.dev/enclave/demo",
            "broker.spiffe_id: is this enclave's own",
        ),
        (
            "spiffe://cloister.dev/kbs",
            "spiffe://other.example/kbs",
            "broker.spiffe_id: is outside",
        ),
        (
            "unix:///run/demo/control.sock",
            "unix:///run/demo/enclave.sock",
            "listen.control: is the same endpoint",
        ),
        ("unix:///run/demo/control.sock", "ftp://nowhere", "line "),
        (
            "callers = [\"cloister.dev\"]",
            "callers = []",
            "trust.callers: is empty",
        ),
        (
            "callers = [\"cloister.dev\"]",
            "callers = [\"other.example\"]",
            "trust.callers[0]: has no bundle",
        ),
        (
            "callers = [\"cloister.dev\"]",
            "callers = [\"cloister.dev\", \"cloister.dev\"]",
            "trust.callers[1]: is listed twice",
        ),
        ("BEGIN CERTIFICATE", "BEGIN NOTHING", "trust.bundle: "),
        (
            "BEGIN PUBLIC KEY",
            "BEGIN NOTHING",
            "models[0].publishers[0]: ",
        ),
        ("name = \"demo\"", "name = \"../demo\"", "models[0].name: "),
        (
            "name = \"demo\"",
            "name = \"\"",
            "models[0].name: must have",
        ),
        (
            "package = \"demo-1\"",
            "package = \"a/b\"",
            "models[0].package: ",
        ),
        (
            "min_epoch = 1",
            "min_epoch = 0",
            "models[0].min_epoch: is 0",
        ),
        ("min_epoch = 1", "min_epoch = -1", "line "),
        ("min_epoch = 1", "", "line "),
        (
            "min_epoch = 1",
            "min_epoch = 1\ncheck_segments = 1",
            "line ",
        ),
        (
            "min_epoch = 1",
            "min_epoch = 1\nquantize = \"q4_0\"",
            "models[0].quantize: is neither q8_0 nor q4_k",
        ),
        (
            "permit(principal, action, resource);",
            "permit(principal",
            "authorization.policy: is not a Cedar policy",
        ),
        (
            "permit(principal, action, resource);",
            "",
            "authorization.policy: is empty",
        ),
        ("[listen]", "unknown = 1\n[listen]", "line "),
        (
            "[listen]",
            "clock_sources = [\"\"]\n[listen]",
            "clock_sources: names what is no clock source",
        ),
        (
            "[listen]",
            "clock_sources = [\"tsc\\n\"]\n[listen]",
            "clock_sources: names what is no clock source",
        ),
        (
            "[listen]",
            "clock_sources = [\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\"]\n[listen]",
            "clock_sources: names what is no clock source",
        ),
        ("[listen]", "clock_sources = \"tsc\"\n[listen]", "line "),
        ("min_epoch = 1", "min_epoch = 1\nkey = \"x\"", "line "),
        (
            "[authorization]",
            "[limits]\nqueue = 0\n[authorization]",
            "limits.queue: is 0, must be 1 to",
        ),
        (
            "[authorization]",
            "[limits]\nmax_body_bytes = 99999999999\n[authorization]",
            "limits.max_body_bytes: ",
        ),
        (
            "[authorization]",
            "[limits]\nmax_messages = 0\n[authorization]",
            "limits.max_messages: is 0, must be 1 to",
        ),
        (
            "[authorization]",
            "[limits]\nmax_choices = 129\n[authorization]",
            "limits.max_choices: is 129, must be 1 to",
        ),
        (
            "[authorization]",
            "[limits]\nmax_logit_bias = 5000\n[authorization]",
            "limits.max_logit_bias: is 5000",
        ),
        (
            "[authorization]",
            "[limits]\nmax_stop_strings = 65\n[authorization]",
            "limits.max_stop_strings: is 65",
        ),
        (
            "[authorization]",
            "[limits]\nmax_tools = 1025\n[authorization]",
            "limits.max_tools: is 1025",
        ),
        (
            "[authorization]",
            "[limits]\nmax_schema_bytes = 10\n[authorization]",
            "limits.max_schema_bytes: is 10",
        ),
        (
            "[authorization]",
            "[limits]\nmax_schema_depth = 101\n[authorization]",
            "limits.max_schema_depth: is 101",
        ),
        (
            "[authorization]",
            "[limits]\nmax_grammar_cost = 999\n[authorization]",
            "limits.max_grammar_cost: is 999",
        ),
        (
            "[authorization]",
            "[limits]\nmax_sequences = 0\n[authorization]",
            "limits.max_sequences: is 0",
        ),
        (
            "[authorization]",
            "[limits]\nkv_cache_mib = 0\n[authorization]",
            "limits.kv_cache_mib: is 0",
        ),
        (
            "[authorization]",
            "[limits]\ndeadline_s = 0\n[authorization]",
            "limits.deadline_s: is 0",
        ),
        (
            "[authorization]",
            "[limits]\nqueues = 1\n[authorization]",
            "line ",
        ),
    ];
    let good = good();
    for (from, to, expected) in cases {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from} is not in the file");
        let error = refused(&text);
        assert!(error.starts_with(expected), "{from} -> {to}: {error}");
    }
}

#[test]
fn a_model_name_is_used_once() {
    let good = good();
    let model = &good[good.find("[[models]]").unwrap()..good.find("[authorization]").unwrap()];
    let error = refused(&good.replacen(model, &format!("{model}{model}"), 1));
    assert!(
        error.starts_with("models[1].name: is already taken"),
        "{error}"
    );
}

#[test]
fn no_publisher_means_nobody_vouches_for_the_model() {
    let good = good();
    let start = good.find("publishers = ").unwrap();
    let end = good.find("min_epoch").unwrap();
    let error = refused(&good.replacen(&good[start..end], "publishers = []\n", 1));
    assert!(
        error.starts_with("models[0].publishers: is empty"),
        "{error}"
    );
}

#[test]
fn another_trust_domain_needs_a_bundle_of_its_own() {
    let federated = format!(
        "[[trust.federated]]\ndomain = \"partner.example\"\nbundle = \"\"\"{}\"\"\"\n[broker]",
        bundle("partner.example")
    );
    let good = good().replacen("[\"cloister.dev\"]", "[\"partner.example\"]", 1);
    let config = Config::parse(good.replacen("[broker]", &federated, 1).as_bytes())
        .ok()
        .unwrap();
    assert_eq!(config.trust.callers[0].as_str(), "partner.example");
    let twice = federated.replacen("partner.example", "cloister.dev", 1);
    let error = refused(&good.replacen("[broker]", &twice, 1));
    assert!(
        error.starts_with("trust.federated[0]: names a trust domain that already"),
        "{error}"
    );
}

#[test]
fn a_federated_bundle_may_be_followed_where_its_publisher_is_known() {
    let good = good();
    let with = |more: &str| {
        let federated = format!(
            "[[trust.federated]]\ndomain = \"partner.example\"\nbundle = \"\"\"{}\"\"\"\n\
             [trust.federated.bundle_endpoint]\nendpoint = \"vsock://3:8450\"\n{more}\n[broker]",
            bundle("partner.example")
        );
        good.replacen("[broker]", &federated, 1)
    };
    let parsed = |more: &str| Config::parse(with(more).as_bytes()).ok().unwrap();
    let url = "url = \"https://bundles.partner.example/v1\"\n";
    let spiffe = "spiffe_id = \"spiffe://partner.example/spire/server\"\n";
    let web = format!("roots = \"\"\"{}\"\"\"\n", bundle("web.example"));
    let mut config = parsed(&format!("{url}{spiffe}"));
    let [followed] = config.trust.followed.as_slice() else {
        panic!("not one");
    };
    assert_eq!(followed.endpoint.trust_domain.as_str(), "partner.example");
    assert_eq!(
        followed.endpoint.url.address(),
        "bundles.partner.example:443"
    );
    config.dial_parent(16);
    let dials = config.trust.followed[0].dial.to_string();
    assert_eq!(dials, "vsock://16:8450");
    assert_eq!(parsed(&format!("{url}{web}")).trust.followed.len(), 1);

    let both = format!("{url}{spiffe}{web}");
    for (more, expected) in [
        (url, "must have one of spiffe_id"),
        (&both, "must have one of spiffe_id"),
        (
            &format!("url = \"http://partner.example\"\n{spiffe}"),
            "https url",
        ),
        (
            &format!("url = \"https://a@partner.example\"\n{spiffe}"),
            "https url",
        ),
        (&format!("url = \"/bundle\"\n{spiffe}"), "https url"),
        (
            &format!("{url}spiffe_id = \"spiffe://partner.example\""),
            "names a trust domain",
        ),
        (
            &format!("{url}spiffe_id = \"spiffe://unknown.example/a\""),
            "without a bundle",
        ),
        (&format!("{url}roots = \"none\""), "roots"),
        (&format!("{url}{spiffe}insecure = true"), "unknown field"),
    ] {
        let error = refused(&with(more));
        assert!(error.contains(expected), "{more}: {error}");
    }
}

#[test]
fn a_bundle_may_be_a_jwk_set() {
    use base64::Engine as _;
    let pem = bundle("partner.example");
    let der = identity::pem::certificates(&pem).unwrap().remove(0);
    let x5c = base64::engine::general_purpose::STANDARD.encode(der);
    let jwks = format!(
        "{{\"keys\": [{{\"use\": \"x509-svid\", \"kty\": \"EC\", \"x5c\": [\"{x5c}\"]}}], \"spiffe_sequence\": 4}}"
    );
    let federated = |jwks: &str| {
        let section = "[[trust.federated]]\ndomain = \"partner.example\"\nbundle = \'\'\'";
        good().replacen("[broker]", &format!("{section}{jwks}\'\'\'\n[broker]"), 1)
    };
    let config = Config::parse(federated(&jwks).as_bytes()).ok().unwrap();
    let domain = TrustDomain::new("partner.example").unwrap();
    assert_eq!(config.trust.bundles.sequence(&domain), Some(4));
    let error = refused(&federated("{\"keys\": 1}"));
    assert!(error.starts_with("trust.federated[0].bundle"), "{error}");
}

const BROKER: &str = "[broker]\nendpoint = \"unix:///run/demo/kbs.sock\"\nspiffe_id = \"spiffe://cloister.dev/kbs\"\n";

#[test]
fn several_brokers_may_be_listed_and_each_mistake_is_named_by_its_place() {
    let list = |second: &str| {
        let first = BROKER.replacen("[broker]", "[[broker]]", 1);
        good().replacen(BROKER, &format!("{first}{second}"), 1)
    };
    let second = BROKER
        .replacen("[broker]", "[[broker]]", 1)
        .replacen("kbs.sock", "kbs-2.sock", 1);
    let config = Config::parse(list(&second).as_bytes()).ok().unwrap();
    assert_eq!(config.brokers.len(), 2);
    assert!(config.trustee.is_none());

    let cases = [
        (
            second.replacen("kbs-2.sock", "kbs.sock", 1),
            "broker[1].endpoint: is the endpoint of an earlier",
        ),
        (
            second.replacen("dev/kbs", "dev/enclave/demo", 1),
            "broker[1].spiffe_id: is this enclave's own",
        ),
        (
            second.replacen("cloister.dev/kbs", "other.example/kbs", 1),
            "broker[1].spiffe_id: is outside",
        ),
        (second.repeat(4), "broker: must hold 1 to 4"),
        (second.replacen("spiffe_id", "spiffe", 1), "line "),
    ];
    for (second, expected) in cases {
        let error = refused(&list(&second));
        assert!(error.starts_with(expected), "{error}");
    }
    let none = good().replacen(BROKER, "broker = []\n", 1);
    assert!(!refused(&none).is_empty());
}

#[test]
fn a_trustee_is_known_by_a_host_name_under_a_given_root() {
    let with = |trustee: &str| good().replacen(BROKER, &format!("{BROKER}[trustee]\n{trustee}"), 1);
    let ca = bundle("cloister.dev");
    let right = format!(
        "endpoint = \"unix:///run/demo/trustee.sock\"\nserver_name = \"kbs.example.org\"\nca = \"\"\"{ca}\"\"\"\n"
    );
    let config = Config::parse(with(&right).as_bytes()).ok().unwrap();
    assert!(config.trustee.is_some());
    let cases = [
        (
            right.replacen("kbs.example.org", "not a name", 1),
            "trustee.server_name: ",
        ),
        (
            right.replacen("BEGIN CERTIFICATE", "BEGIN NOTHING", 1),
            "trustee.ca: no readable certificate",
        ),
        (format!("{right}insecure = true\n"), "line "),
        (right.replacen("server_name", "name", 1), "line "),
    ];
    for (trustee, expected) in cases {
        let error = refused(&with(&trustee));
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nonexistent/enclave.toml"))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with("config /nonexistent/enclave.toml: file: cannot be read"),
        "{error}"
    );
}

#[test]
fn an_endless_file_is_not_read_to_its_end() {
    let error = Config::load(Path::new("/dev/zero"))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("is larger than"), "{error}");
}

const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd";

fn with_kms(section: &str, model: &str) -> String {
    good().replace("[[models]]", &format!("{section}\n[[models]]\n{model}"))
}

const SECTION: &str = "[kms]\nendpoint = \"vsock://3:8444\"\ncredentials = \"vsock://3:8445\"";

#[test]
fn a_models_key_comes_from_kms_where_the_file_names_its_key() {
    let config = Config::parse(good().as_bytes()).ok().unwrap();
    assert!(config.kms.is_none() && config.models[0].key == KeySource::Broker);
    let text = with_kms(SECTION, &format!("kms_key_arn = \"{ARN}\""));
    let mut config = Config::parse(text.as_bytes()).ok().unwrap();
    assert_eq!(config.models[0].key, KeySource::Kms(ARN.parse().unwrap()));
    config.dial_parent(2);
    let kms = config.kms.unwrap();
    assert_eq!(kms.endpoint.to_string(), "vsock://2:8444");
    assert_eq!(kms.credentials.to_string(), "vsock://2:8445");
}

#[test]
fn a_key_in_kms_without_a_way_there_is_refused_and_the_other_way_round() {
    let key = format!("kms_key_arn = \"{ARN}\"");
    assert!(refused(&with_kms("", &key)).starts_with("kms: is missing"));
    assert!(refused(&with_kms(SECTION, "")).starts_with("kms: is used by no model"));
    let alias = "kms_key_arn = \"arn:aws:kms:eu-central-1:111122223333:alias/model\"";
    assert!(refused(&with_kms(SECTION, alias)).starts_with("models[0].kms_key_arn: is an alias"));
    let bare = "kms_key_arn = \"1234abcd\"";
    assert!(refused(&with_kms(SECTION, bare)).starts_with("models[0].kms_key_arn: is not the ARN"));
    let same = SECTION.replace("8445", "8444");
    assert!(refused(&with_kms(&same, &key)).starts_with("kms.credentials: is the same"));
    let roots = format!("{SECTION}\nroots = \"none\"");
    assert!(refused(&with_kms(&roots, &key)).starts_with("kms.roots: holds no usable root"));
}

#[test]
fn keys_of_two_regions_are_refused() {
    let text = with_kms(SECTION, &format!("kms_key_arn = \"{ARN}\""));
    let (_, second) = text.split_once("[[models]]").unwrap();
    let (second, _) = second.split_once("[authorization]").unwrap();
    let second = second
        .replace("name = \"demo\"", "name = \"other\"")
        .replace("eu-central-1", "us-east-1");
    let text = text.replace(
        "[authorization]",
        &format!("[[models]]{second}\n[authorization]"),
    );
    let line = refused(&text);
    assert!(
        line.starts_with("models[1].kms_key_arn: is in region us-east-1"),
        "{line}"
    );
}
