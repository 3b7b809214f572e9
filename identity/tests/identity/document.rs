use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::issue::new_svid;
use identity::{BundleDocument, Error, MAX_DOCUMENT, TrustBundles};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{HOUR, LooseCa, WORKLOAD, domain, id, now, root};

fn key(der: &[u8]) -> Value {
    json!({"kty": "EC", "use": "x509-svid", "crv": "P-256", "x": "", "y": "", "x5c": [STANDARD.encode(der)]})
}

fn read(document: &Value) -> Result<BundleDocument, Error> {
    BundleDocument::from_jwks(document.to_string().as_bytes())
}

fn one(key: Value) -> usize {
    read(&json!({"keys": [key]})).unwrap().authorities.len()
}

fn refused(document: &Value, expected: &str) {
    let error = read(document).unwrap_err().to_string();
    assert!(error.contains(expected), "{document}: {error}");
}

#[test]
fn reads_what_a_bundle_says() {
    let (one, two) = (LooseCa::new(), LooseCa::new());
    let document = json!({
        "keys": [key(&one.der), {"use": "jwt-svid", "kty": "EC", "kid": "1"}, key(&two.der)],
        "spiffe_sequence": u64::MAX,
        "spiffe_refresh_hint": 600,
        "spiffe_later": {},
    });
    let read = read(&document).unwrap();
    assert_eq!(read.authorities, [one.der.clone(), two.der.clone()]);
    assert_eq!(read.sequence, Some(u64::MAX));
    assert_eq!(read.refresh_hint, Some(Duration::from_secs(600)));
}

#[test]
fn no_keys_is_everything_revoked_and_absent_keys_are_no_bundle() {
    let empty = read(&json!({"keys": []})).unwrap();
    assert!(empty.authorities.is_empty() && empty.sequence.is_none());
    refused(&json!({}), "no jwk set");
    refused(&json!({"keys": null}), "no jwk set");
    refused(&json!({"keys": {}}), "no jwk set");
    let root = root("one.test");
    let svid = new_svid(&root, &id(WORKLOAD), HOUR, now()).unwrap();
    let mut bundles = TrustBundles::from_pem(root.trust_domain(), &root.cert_pem()).unwrap();
    assert!(bundles.verify(svid.chain(), now()).is_ok());
    assert!(bundles.update(root.trust_domain(), &empty).unwrap());
    assert!(matches!(
        bundles.verify(svid.chain(), now()),
        Err(Error::UnknownTrustDomain(_))
    ));
}

#[test]
fn keys_for_other_uses_are_ignored() {
    let der = LooseCa::new().der;
    let with = |name: &str, value: Value| {
        let mut key = key(&der);
        key[name] = value;
        key
    };
    assert_eq!(one(with("use", json!("sig"))), 0);
    assert_eq!(one(with("use", json!("X509-SVID"))), 0);
    assert_eq!(one(with("use", Value::Null)), 0);
    let mut unused = key(&der);
    unused.as_object_mut().unwrap().remove("use");
    assert_eq!(one(unused), 0, "use is missing");
    // An entry for another use may be of a shape that we do not know.
    assert_eq!(one(json!({"use": "wit-svid", "x5c": 7, "kty": {}})), 0);
    assert_eq!(one(with("x5c", json!([]))), 0, "no certificate");
    let mut bare = key(&der);
    bare.as_object_mut().unwrap().remove("x5c");
    assert_eq!(one(bare), 0, "no certificate");
}

#[test]
fn a_key_id_says_nothing_and_the_first_certificate_is_the_one() {
    let (ca, other) = (LooseCa::new().der, LooseCa::new().der);
    let mut with_kid = key(&ca);
    with_kid["kid"] = json!("an id that an x.509 entry should not have");
    assert_eq!(one(with_kid), 1);
    let mut two = key(&ca);
    two["x5c"] = json!([STANDARD.encode(&ca), STANDARD.encode(&other)]);
    let read = read(&json!({"keys": [two]})).unwrap();
    assert_eq!(read.authorities, [ca]);
}

#[test]
fn refuses_what_it_would_have_to_guess() {
    let ca = LooseCa::new();
    for text in [
        "",
        "[]",
        "{\"keys\": [], \"keys\": []}",
        "{\"keys\": []} {}",
        "{\"keys\": [1]}",
    ] {
        assert!(
            BundleDocument::from_jwks(text.as_bytes()).is_err(),
            "{text}"
        );
    }
    let twice = format!(
        "{{\"keys\": [{{\"use\": \"sig\", \"use\": \"x509-svid\", \"kty\": \"EC\", \"x5c\": [\"{}\"]}}]}}",
        STANDARD.encode(&ca.der)
    );
    assert!(BundleDocument::from_jwks(twice.as_bytes()).is_err());
    let mut no_kty = key(&ca.der);
    no_kty.as_object_mut().unwrap().remove("kty");
    refused(&json!({"keys": [no_kty]}), "without kty");
    let mut shape = key(&ca.der);
    shape["x5c"] = json!("MII");
    refused(&json!({"keys": [shape]}), "no list");
    let mut url = key(&ca.der);
    url["x5c"] = json!(["_-_-"]);
    refused(&json!({"keys": [url]}), "not base64");
    refused(
        &json!({"keys": [key(b"noise")]}),
        "not an x.509 certificate",
    );
    refused(&json!({"keys": [], "spiffe_sequence": -1}), "no jwk set");
    refused(&json!({"keys": [], "spiffe_sequence": "1"}), "no jwk set");
    refused(
        &json!({"keys": [], "spiffe_refresh_hint": 1.5}),
        "no jwk set",
    );
    refused(
        &json!({"keys": vec![json!({"use": "sig"}); 300]}),
        "too many keys",
    );
    assert!(matches!(
        BundleDocument::from_jwks(&vec![b' '; MAX_DOCUMENT + 1]),
        Err(Error::Bundle("is too large"))
    ));
}

#[test]
fn one_certificate_that_may_not_sign_refuses_the_whole() {
    let ca = LooseCa::new();
    refused(
        &json!({"keys": [key(&ca.der), key(&ca.leaf(|_| {}))]}),
        "is not a ca",
    );
    let named = ca.below(|params| params.subject_alt_names = vec![crate::support::uri(WORKLOAD)]);
    refused(&json!({"keys": [key(&named.der)]}), "spiffe id with a path");
}

#[test]
fn a_text_is_a_jwk_set_or_pem() {
    let root = root("one.test");
    let pem = BundleDocument::from_text(&root.cert_pem()).unwrap();
    assert_eq!((pem.authorities.len(), pem.sequence), (1, None));
    let jwks = json!({"keys": [key(&root.cert_chain()[0])], "spiffe_sequence": 3}).to_string();
    let jwks = BundleDocument::from_text(&format!("\n  {jwks}")).unwrap();
    assert_eq!(
        (jwks.authorities, jwks.sequence),
        (pem.authorities, Some(3))
    );
    assert!(BundleDocument::from_text("neither").is_err());
    let bundles = TrustBundles::from_text(root.trust_domain(), &root.cert_pem()).unwrap();
    assert_eq!(
        bundles.trust_domains().collect::<Vec<_>>(),
        [root.trust_domain()]
    );
}

fn numbered(ca: &LooseCa, sequence: Option<u64>) -> BundleDocument {
    BundleDocument {
        authorities: vec![ca.der.clone()],
        sequence,
        refresh_hint: None,
    }
}

#[test]
fn a_sequence_never_goes_back() {
    let (old, new) = (LooseCa::new(), LooseCa::new());
    let one = domain("one.test");
    let mut bundles = TrustBundles::new();
    assert!(bundles.update(&one, &numbered(&old, Some(7))).unwrap());
    assert!(
        !bundles.update(&one, &numbered(&old, Some(7))).unwrap(),
        "the same again"
    );
    assert!(bundles.update(&one, &numbered(&new, Some(8))).unwrap());
    for (document, what) in [
        (numbered(&old, Some(7)), "an older one"),
        (numbered(&old, Some(8)), "another one of the same number"),
        (numbered(&old, Some(0)), "zero"),
        (numbered(&old, None), "one that does not count"),
    ] {
        let refused = bundles.update(&one, &document);
        assert!(
            matches!(refused, Err(Error::OlderBundle { held: 8, .. })),
            "{what}"
        );
        assert!(bundles.verify(&[new.leaf(|_| {})], now()).is_ok(), "{what}");
        assert!(
            bundles.verify(&[old.leaf(|_| {})], now()).is_err(),
            "{what}"
        );
    }
    assert_eq!(bundles.sequence(&one), Some(8));
    // Where nothing was counted, counting can begin.
    let two = domain("two.test");
    assert!(bundles.update(&two, &numbered(&old, None)).unwrap());
    assert!(bundles.update(&two, &numbered(&new, None)).unwrap());
    assert!(bundles.update(&two, &numbered(&old, Some(1))).unwrap());
    assert!(bundles.update(&two, &numbered(&new, None)).is_err());
}

#[test]
fn an_update_that_is_refused_changes_nothing_and_touches_no_other_domain() {
    let (ca, other) = (LooseCa::new(), LooseCa::new());
    let (one, two) = (domain("one.test"), domain("two.test"));
    let mut bundles = TrustBundles::new();
    bundles.update(&one, &numbered(&ca, Some(1))).unwrap();
    let broken = BundleDocument {
        authorities: vec![ca.leaf(|_| {})],
        sequence: Some(2),
        refresh_hint: None,
    };
    assert!(bundles.update(&one, &broken).is_err());
    assert!(bundles.verify(&[ca.leaf(|_| {})], now()).is_ok());
    // The other domain's authority vouches for nobody here, whatever its number.
    bundles.update(&two, &numbered(&other, Some(9))).unwrap();
    assert!(bundles.verify(&[other.leaf(|_| {})], now()).is_err());
    assert!(bundles.verify(&[ca.leaf(|_| {})], now()).is_ok());
}

proptest! {
    #[test]
    fn never_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _verdict = BundleDocument::from_jwks(&bytes);
    }

    #[test]
    fn never_panics_on_a_damaged_document(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        use std::sync::LazyLock;
        static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
            json!({"keys": [key(&LooseCa::new().der)], "spiffe_sequence": 1}).to_string().into_bytes()
        });
        let mut text = GOOD.clone();
        let at = at.index(text.len());
        text[at] = byte;
        let _verdict = BundleDocument::from_jwks(&text);
    }
}
