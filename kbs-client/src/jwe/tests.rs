use serde_json::{Value, json};

use super::*;

/// RFC 7518 appendix C: Bob's private key, Alice's ephemeral public key, and what comes out.
#[test]
fn key_derivation_is_that_of_rfc_7518_appendix_c() {
    let private = URL_SAFE_NO_PAD
        .decode("VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw")
        .unwrap();
    let private = agreement::PrivateKey::from_private_key(&ECDH_P256, &private).unwrap();
    let x = URL_SAFE_NO_PAD
        .decode("gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0")
        .unwrap();
    let y = URL_SAFE_NO_PAD
        .decode("SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps")
        .unwrap();
    let point = [&[4][..], &x, &y].concat();
    let peer = agreement::UnparsedPublicKey::new(&ECDH_P256, point);
    let derived = agreement::agree(&private, peer, JweError::EphemeralKey, |secret| {
        let mut out = [0; 16];
        concat_kdf(secret, "A128GCM", b"Alice", b"Bob", &mut out)?;
        Ok(out)
    })
    .unwrap();
    assert_eq!(URL_SAFE_NO_PAD.encode(derived), "VqqN6vgjbSBcIijNcacQGg");
}

/// A JWE to `key` as a broker would make it, with a header of the test's choice.
fn seal(key: &TeeKey, plaintext: &[u8], header: impl FnOnce(&mut Value)) -> Value {
    let cek = [7; 32];
    let mut protected = json!({"alg": key.algorithm(), "enc": "A256GCM"});
    let wrapped = match &key.private {
        Private::P256(private) => {
            let ephemeral = agreement::PrivateKey::generate(&ECDH_P256).unwrap();
            let public = ephemeral.compute_public_key().unwrap();
            let (x, y) = public.as_ref()[1..].split_at(32);
            protected["epk"] = json!({
                "crv": "P-256", "kty": "EC",
                "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            });
            let recipient = private.compute_public_key().unwrap();
            let recipient =
                agreement::UnparsedPublicKey::new(&ECDH_P256, recipient.as_ref().to_vec());
            let mut kek = [0; 32];
            agreement::agree(&ephemeral, recipient, JweError::EphemeralKey, |secret| {
                concat_kdf(secret, ECDH_ES_A256KW, b"", b"", &mut kek)
            })
            .unwrap();
            let mut out = vec![0; 40];
            AesKek::new(&AES_256, &kek)
                .unwrap()
                .wrap(&cek, &mut out)
                .unwrap();
            out
        }
        Private::Rsa(_) => {
            let public = aws_lc_rs::rsa::PublicEncryptingKey::from_der(key.spki_der()).unwrap();
            let public = aws_lc_rs::rsa::OaepPublicEncryptingKey::new(public).unwrap();
            let mut out = vec![0; public.ciphertext_size()];
            public
                .encrypt(&OAEP_SHA256_MGF1SHA256, &cek, &mut out, None)
                .unwrap();
            out
        }
    };
    header(&mut protected);
    let protected = URL_SAFE_NO_PAD.encode(protected.to_string());
    let mut sealed = plaintext.to_vec();
    let tag = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &cek).unwrap())
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key([3; 12]),
            Aad::from(protected.as_bytes()),
            &mut sealed,
        )
        .unwrap();
    json!({
        "protected": protected,
        "encrypted_key": URL_SAFE_NO_PAD.encode(wrapped),
        "iv": URL_SAFE_NO_PAD.encode([3; 12]),
        "ciphertext": URL_SAFE_NO_PAD.encode(sealed),
        "tag": URL_SAFE_NO_PAD.encode(tag),
    })
}

fn opened(jwe: &Value, key: &TeeKey) -> Result<Vec<u8>, JweError> {
    open(jwe.to_string().as_bytes(), key).map(|plaintext| plaintext.to_vec())
}

#[test]
fn both_key_types_open_what_was_sealed_to_them() {
    for key in [
        TeeKey::generate_p256().unwrap(),
        TeeKey::generate_rsa2048().unwrap(),
    ] {
        for plaintext in [&b""[..], b"x", &[9; 4000]] {
            assert_eq!(
                opened(&seal(&key, plaintext, |_| {}), &key).unwrap(),
                plaintext
            );
        }
    }
}

#[test]
fn associated_data_is_the_received_text_and_not_a_new_serialisation() {
    let key = TeeKey::generate_p256().unwrap();
    // Members in another order: a reader that re-serialises gets other octets.
    let jwe = seal(&key, b"secret", |header| {
        let mut members: Vec<_> = header.as_object().unwrap().clone().into_iter().collect();
        members.reverse();
        *header = Value::Object(members.into_iter().collect());
    });
    assert_eq!(opened(&jwe, &key).unwrap(), b"secret");
}

#[test]
fn another_key_does_not_open_it() {
    let (one, other) = (
        TeeKey::generate_p256().unwrap(),
        TeeKey::generate_p256().unwrap(),
    );
    assert_eq!(
        opened(&seal(&one, b"secret", |_| {}), &other),
        Err(JweError::Decrypt)
    );
    let rsa = TeeKey::generate_rsa2048().unwrap();
    assert_eq!(
        opened(&seal(&one, b"secret", |_| {}), &rsa),
        Err(JweError::Algorithm)
    );
}

#[test]
fn a_header_that_we_did_not_ask_for_is_refused() {
    let key = TeeKey::generate_p256().unwrap();
    let set = |path: &'static str, value: Value| {
        seal(&key, b"secret", move |header| {
            *header.pointer_mut(path).unwrap() = value
        })
    };
    let add = |name: &'static str, value: Value| {
        seal(&key, b"secret", move |header| header[name] = value)
    };
    for (jwe, expected) in [
        (set("/alg", json!("ECDH-ES")), JweError::Algorithm),
        (set("/alg", json!("RSA1_5")), JweError::Algorithm),
        (set("/alg", json!("dir")), JweError::Algorithm),
        (set("/enc", json!("A128GCM")), JweError::Encryption),
        (set("/enc", json!("A256CBC-HS512")), JweError::Encryption),
        (add("crit", json!(["exp"])), JweError::Header),
        (add("zip", json!("DEF")), JweError::Header),
        (add("apu", json!("QWxpY2U")), JweError::Header),
        (set("/epk", Value::Null), JweError::EphemeralKey),
        (set("/epk/crv", json!("P-384")), JweError::EphemeralKey),
        (set("/epk/kty", json!("OKP")), JweError::EphemeralKey),
        (
            set("/epk/x", json!(URL_SAFE_NO_PAD.encode([1; 31]))),
            JweError::Length("epk"),
        ),
        (
            set("/epk/x", json!(URL_SAFE_NO_PAD.encode([1; 32]))),
            JweError::EphemeralKey,
        ),
    ] {
        assert_eq!(opened(&jwe, &key), Err(expected));
    }
    let rsa = TeeKey::generate_rsa2048().unwrap();
    let epk = json!({"crv": "P-256", "kty": "EC", "x": "AA", "y": "AA"});
    let jwe = seal(&rsa, b"secret", |header| header["epk"] = epk);
    assert_eq!(opened(&jwe, &rsa), Err(JweError::EphemeralKey));
}

#[test]
fn a_body_that_is_cut_or_stretched_is_refused() {
    let key = TeeKey::generate_p256().unwrap();
    let good = seal(&key, b"secret", |_| {});
    let with = |member: &str, value: Value| {
        let mut jwe = good.clone();
        jwe[member] = value;
        jwe
    };
    for (jwe, expected) in [
        (
            with("tag", json!(URL_SAFE_NO_PAD.encode([0; 12]))),
            JweError::Length("tag"),
        ),
        (
            with("iv", json!(URL_SAFE_NO_PAD.encode([0; 16]))),
            JweError::Length("iv"),
        ),
        (
            with("encrypted_key", json!("")),
            JweError::Length("encrypted_key"),
        ),
        (
            with("ciphertext", json!("=")),
            JweError::Length("ciphertext"),
        ),
        (
            with("tag", json!(URL_SAFE_NO_PAD.encode([0; 16]))),
            JweError::Decrypt,
        ),
        (with("ciphertext", json!("")), JweError::Decrypt),
        (
            with("encrypted_key", json!(URL_SAFE_NO_PAD.encode([0; 40]))),
            JweError::Decrypt,
        ),
        (with("header", json!({})), JweError::Shape),
        (with("aad", json!("AA")), JweError::Shape),
        (with("recipients", json!([])), JweError::Shape),
        (with("protected", json!("e30")), JweError::Header),
        (
            with("protected", json!("A".repeat(MAX_HEADER + 1))),
            JweError::TooLarge,
        ),
        (json!([]), JweError::Shape),
        (json!("a.b.c.d.e"), JweError::Shape),
    ] {
        assert_eq!(opened(&jwe, &key), Err(expected), "{jwe}");
    }
    assert_eq!(
        open(&vec![b' '; MAX_JWE + 1], &key).unwrap_err(),
        JweError::TooLarge
    );
}
