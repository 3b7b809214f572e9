use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::keys::KeyError;
use super::*;

fn nitro() -> NitroClaims {
    NitroClaims {
        pcrs: BTreeMap::from([("0".to_owned(), Pcr::from_bytes([1; 48]))]),
        module_id: "i-0-enc0".to_owned(),
        config_digest: Sha256Digest::of(b"config"),
        boot_id: BootId::from_bytes([2; 16]),
        root_sha256: Sha256Digest::of(b"root"),
    }
}

fn key() -> TeePublicKey {
    let key = kbs_client::TeeKey::generate_p256().unwrap();
    serde_json::from_value(serde_json::to_value(key.jwk()).unwrap()).unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn sign(signer: &TokenSigner, seconds: u64) -> String {
    signer.sign(nitro(), key(), None, at(seconds)).unwrap()
}

/// SubjectPublicKeyInfo in PEM, as `openssl pkey -pubout` writes it.
fn public_pem(signer: &TokenSigner) -> String {
    let jwk = serde_json::to_value(&signer.jwks().keys[0]).unwrap();
    let key: TeePublicKey = serde_json::from_value(serde_json::json!({
        "kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": jwk["x"], "y": jwk["y"],
    }))
    .unwrap();
    let der = base64::engine::general_purpose::STANDARD.encode(key.spki_der().unwrap());
    format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
}

#[test]
fn a_token_says_for_five_minutes_what_was_signed() {
    let signer = TokenSigner::generate().unwrap();
    let token = sign(&signer, 1000);
    assert_eq!(signer.verify(&token, at(1299)).unwrap().nitro, nitro());
    assert_eq!(signer.verify(&token, at(1300)), Err(TokenError::Expired));
}

#[test]
fn a_token_of_another_signer_or_changed_on_the_way_is_refused() {
    let (ours, other) = (
        TokenSigner::generate().unwrap(),
        TokenSigner::generate().unwrap(),
    );
    let token = sign(&other, 1000);
    assert_eq!(ours.verify(&token, at(1000)), Err(TokenError::NotOurs));

    let token = sign(&ours, 1000);
    let [header, _, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!()
    };
    let claims = URL_SAFE_NO_PAD.encode(r#"{"iss":"cloister-kbs","iat":0,"exp":9999999999}"#);
    assert!(
        ours.verify(&format!("{header}.{claims}.{signature}"), at(1000))
            .is_err()
    );
    let kid = ours.key_id();
    for header in [
        r#"{"alg":"none"}"#.to_owned(),
        format!(r#"{{"alg":"none","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#),
    ] {
        let header = URL_SAFE_NO_PAD.encode(header);
        assert!(
            ours.verify(&format!("{header}.{claims}."), at(1000))
                .is_err()
        );
    }
    assert!(ours.verify("", at(1000)).is_err());
    assert_eq!(
        ours.verify(&"a".repeat(MAX_TOKEN + 1), at(1000)),
        Err(TokenError::TooLong)
    );
}

#[test]
fn a_signature_of_another_key_under_our_key_id_is_refused() {
    let ours = TokenSigner::generate().unwrap();
    let mut forger = TokenSigner::generate().unwrap();
    forger.header.kid = Some(ours.key_id().to_owned());
    let forged = sign(&forger, 1000);
    assert_eq!(ours.verify(&forged, at(1000)), Err(TokenError::NotOurs));
}

#[test]
fn the_header_names_a_published_key_and_brings_none() {
    let signer = TokenSigner::generate().unwrap();
    let token = sign(&signer, 1000);
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap());
    let header: Value = serde_json::from_slice(&header.unwrap()).unwrap();
    assert_eq!(
        header,
        serde_json::json!({"typ": "JWT", "alg": "ES256", "kid": signer.key_id()})
    );
    let jwks = serde_json::to_value(signer.jwks()).unwrap();
    let key = &jwks["keys"][0];
    let members: Vec<_> = key
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    for member in ["kty", "crv", "x", "y", "alg", "use", "kid"] {
        assert!(members.contains(&member), "{key}");
    }
    assert_eq!(members.len(), 7, "{key}");
    assert_eq!(
        (&key["alg"], &key["use"], &key["kid"]),
        (
            &serde_json::json!("ES256"),
            &serde_json::json!("sig"),
            &serde_json::json!(signer.key_id())
        )
    );
}

#[test]
fn a_token_outlives_the_rotation_of_its_key_and_not_its_removal() {
    let (old, new) = (generate_pem().unwrap(), generate_pem().unwrap());
    let before = TokenSigner::from_pem(&old).unwrap();
    let token = sign(&before, 1000);

    let mut after = TokenSigner::from_pem(&new).unwrap();
    after.publish(&public_pem(&before)).unwrap();
    after.publish(&public_pem(&before)).unwrap();
    assert!(after.verify(&token, at(1299)).is_ok());
    assert_eq!(after.jwks().keys.len(), 2, "published once");
    assert_eq!(
        after.jwks().keys[0].common.key_id.as_deref(),
        Some(after.key_id()),
        "the signing key is first"
    );
    assert_ne!(before.key_id(), after.key_id());

    let removed = TokenSigner::from_pem(&new).unwrap();
    assert_eq!(removed.verify(&token, at(1001)), Err(TokenError::NotOurs));
    // The same file gives the same key: a restart breaks no token.
    assert!(
        TokenSigner::from_pem(&old)
            .unwrap()
            .verify(&token, at(1001))
            .is_ok()
    );
}

#[test]
fn what_is_no_p256_key_neither_signs_nor_is_published() {
    let (_, ed25519) = crate::admin::generate_key().unwrap();
    let (ed25519_private, _) = crate::admin::generate_key().unwrap();
    for pem in ["", "nonsense", &ed25519, &ed25519_private] {
        assert_eq!(TokenSigner::from_pem(pem).err(), Some(KeyError::Private));
        let mut signer = TokenSigner::generate().unwrap();
        assert_eq!(signer.publish(pem), Err(KeyError::Public));
        assert_eq!(signer.jwks().keys.len(), 1);
    }
    // A point off the curve.
    let mut signer = TokenSigner::generate().unwrap();
    let pem = public_pem(&signer);
    let der = pem.lines().nth(1).unwrap();
    let mut der = base64::engine::general_purpose::STANDARD
        .decode(der)
        .unwrap();
    der[60] ^= 1;
    let der = base64::engine::general_purpose::STANDARD.encode(der);
    let off = format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n");
    assert_eq!(signer.publish(&off), Err(KeyError::Public));
}

proptest::proptest! {
    #[test]
    fn an_arbitrary_text_is_no_token(text in "[-_.A-Za-z0-9]{0,300}|.{0,100}") {
        let signer = TokenSigner::generate().unwrap();
        proptest::prop_assert!(signer.verify(&text, at(1000)).is_err());
    }

    #[test]
    fn a_token_with_any_character_changed_is_refused(place in 0_usize..10_000, to in "[-_A-Za-z0-9]") {
        let signer = TokenSigner::generate().unwrap();
        let token = sign(&signer, 1000);
        let place = place % token.len();
        let mut changed = token.clone();
        changed.replace_range(place..=place, &to);
        // Two spellings of one signature: the last character of each part has bits that mean nothing.
        let spelled = |token: &str| -> Vec<_> {
            token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part)).collect()
        };
        proptest::prop_assume!(spelled(&changed) != spelled(&token));
        proptest::prop_assert!(signer.verify(&changed, at(1000)).is_err());
    }
}
