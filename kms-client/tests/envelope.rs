//! The reader of `CiphertextForRecipient` against real messages, against OpenSSL, and against every way to be slightly wrong.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a failure is the report"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use kms_client::{Envelope, MAX_ENVELOPE, NoEnvelope, OpenError, RecipientKey};
use proptest::prelude::*;

#[path = "support/writer.rs"]
mod writer;
use writer::{Content, Writer};

/// Real messages of the service (RustCrypto/formats, `cms/tests/examples`, Apache-2.0 OR MIT), kept beside the repository. Their
/// private keys are not known.
#[test]
fn real_messages_of_the_service_are_read() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/kms");
    if !vectors.is_dir() {
        eprintln!("skipped: {} is absent", vectors.display());
        return;
    }
    for (number, content) in [(1, 16), (2, 48), (3, 16), (4, 4112)] {
        let path = vectors.join(format!("ciphertext_for_recipient_{number}.ber"));
        let message = std::fs::read(path).unwrap();
        let envelope = Envelope::parse(&message).unwrap();
        assert_eq!(envelope.content_len(), content, "message {number}");
        // Cut anywhere, followed by anything: nothing is left to chance.
        for end in 0..message.len() {
            assert_eq!(Envelope::parse(&message[..end]), Err(NoEnvelope), "{end}");
        }
        for more in [0, 0x30] {
            let longer = [message.as_slice(), &[more]].concat();
            assert_eq!(Envelope::parse(&longer), Err(NoEnvelope));
        }
        // One bit anywhere is refused, or lies in a value that is told or decrypted: key id, key, iv, content.
        let mut free = 0;
        for at in 0..message.len() {
            let mut altered = message.clone();
            altered[at] ^= 1;
            if let Ok(other) = Envelope::parse(&altered) {
                assert_ne!(other, envelope, "byte {at} means nothing");
                free += 1;
            }
        }
        assert_eq!(free, 32 + 256 + 16 + content, "message {number}");
    }
}

/// What the writer of these tests makes is what the service makes, byte for byte.
#[test]
fn the_writer_of_these_tests_has_the_services_form() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/kms");
    if !vectors.is_dir() {
        eprintln!("skipped: {} is absent", vectors.display());
        return;
    }
    for (number, content) in [
        (1, Content::Pieces(1000)),
        (2, Content::Pieces(1000)),
        (3, Content::Primitive),
        (4, Content::Pieces(1000)),
    ] {
        let path = vectors.join(format!("ciphertext_for_recipient_{number}.ber"));
        let message = std::fs::read(path).unwrap();
        let mut writer = Writer::of(&message);
        writer.content = content;
        assert_eq!(writer.write(), message, "message {number}");
    }
}

fn spki_and_key() -> (RecipientKey, Vec<u8>) {
    let key = RecipientKey::generate().unwrap();
    let spki = key.spki_der().to_vec();
    (key, spki)
}

#[test]
fn an_envelope_opens_under_its_key_in_every_form() {
    let (key, spki) = spki_and_key();
    let secret = [7; 32];
    for indefinite in [true, false] {
        for content in [
            Content::Primitive,
            Content::Pieces(1000),
            Content::Pieces(5),
        ] {
            let mut writer = Writer::sealed(&spki, &secret);
            (writer.indefinite, writer.content) = (indefinite, content);
            assert_eq!(**key.open(&writer.write()).unwrap(), secret);
        }
    }
    for length in [0, 1, 15, 16, 17, 4096] {
        let secret = vec![9; length];
        let envelope = Writer::sealed(&spki, &secret).write();
        assert_eq!(**key.open(&envelope).unwrap(), secret, "{length}");
    }
}

#[test]
fn an_envelope_for_another_key_is_refused_before_any_key_is_used() {
    let (key, _) = spki_and_key();
    let (_, other) = spki_and_key();
    let envelope = Writer::sealed(&other, &[7; 32]).write();
    assert_eq!(key.open(&envelope).err(), Some(OpenError::Recipient));
}

#[test]
fn wrong_oaep_and_wrong_padding_look_the_same() {
    let (key, spki) = spki_and_key();
    let good = Writer::sealed(&spki, &[7; 32]);
    let refused = |writer: &Writer| key.open(&writer.write()).err();

    let mut oaep = good.clone();
    oaep.encrypted_key[100] ^= 1;
    assert_eq!(refused(&oaep), Some(OpenError::Decrypt));
    // Another content key, for which OAEP is right: the padding is wrong nearly always, and what comes out never right.
    let outcomes = [(); 8].map(|()| {
        let mut padding = good.clone();
        padding.encrypted_key = Writer::sealed(&spki, &[7; 32]).encrypted_key;
        key.open(&padding.write())
    });
    assert!(
        outcomes
            .iter()
            .all(|o| o.as_ref().ok().is_none_or(|k| ***k != [7; 32]))
    );
    assert!(
        outcomes
            .iter()
            .any(|o| o.as_ref().err() == Some(&OpenError::Decrypt))
    );
    // A content key of another length.
    for length in [0, 16, 24, 31, 33] {
        let mut short = good.clone();
        short.encrypted_key = writer::oaep(&spki, &vec![1; length]);
        assert_eq!(refused(&short), Some(OpenError::Decrypt), "{length}");
    }
    // Larger than the modulus.
    let mut large = good.clone();
    large.encrypted_key = vec![0xff; 256];
    assert_eq!(refused(&large), Some(OpenError::Decrypt));
    // The length of the padding.
    let last = good.ciphertext.len() - 17;
    let mut block = good.clone();
    block.ciphertext[last] ^= 0xff;
    assert_eq!(refused(&block), Some(OpenError::Decrypt));
}

/// Each change leaves well-formed BER that means something else.
#[test]
fn every_other_structure_is_refused() {
    let (key, spki) = spki_and_key();
    let good = Writer::sealed(&spki, &[7; 32]);
    assert!(key.open(&good.write()).is_ok());
    type Change = fn(&mut Writer);
    let changes: &[(&str, Change)] = &[
        ("enveloped data version 0", |w| w.version = 0),
        ("enveloped data version 3", |w| w.version = 3),
        ("recipient version 0", |w| w.recipient_version = 0),
        ("no recipient", |w| w.recipients = 0),
        ("two recipients", |w| w.recipients = 2),
        ("another content type outside", |w| w.outer_type[8] = 2),
        ("another content type inside", |w| w.inner_type[8] = 2),
        ("rsa without oaep", |w| {
            w.key_algorithm = writer::RSA.to_vec()
        }),
        ("oaep with sha-1", |w| {
            w.key_algorithm = writer::OAEP_SHA1.to_vec()
        }),
        ("oaep with a label", |w| {
            w.key_algorithm = writer::OAEP_LABEL.to_vec()
        }),
        ("aes-128", |w| w.cipher[8] = 2),
        ("aes-256-gcm", |w| w.cipher[8] = 46),
        ("a key id of 20 bytes", |w| w.key_id.truncate(20)),
        ("a key id of 33 bytes", |w| w.key_id.push(0)),
        ("an encrypted key of 255 bytes", |w| {
            w.encrypted_key.truncate(255)
        }),
        ("an encrypted key of 257 bytes", |w| w.encrypted_key.push(0)),
        ("an iv of 15 bytes", |w| w.iv.truncate(15)),
        ("an iv of 17 bytes", |w| w.iv.push(0)),
        ("no content", |w| w.ciphertext.clear()),
        ("content that is no whole blocks", |w| {
            w.ciphertext.truncate(17)
        }),
        ("an empty piece", |w| w.content = Content::EmptyPiece),
        ("pieces of pieces", |w| w.content = Content::Nested),
        ("originator info", |w| w.originator_info = true),
        ("unprotected attributes", |w| w.attributes = true),
        ("a trailing byte", |w| w.trailing = vec![0]),
        ("one more end", |w| w.trailing = vec![0, 0]),
        ("absent content", |w| w.content = Content::Absent),
    ];
    for indefinite in [true, false] {
        for (name, change) in changes {
            let mut writer = good.clone();
            writer.indefinite = indefinite;
            change(&mut writer);
            assert_eq!(
                key.open(&writer.write()).err(),
                Some(OpenError::Shape(NoEnvelope)),
                "{name}, indefinite: {indefinite}"
            );
        }
    }
}

#[test]
fn a_message_over_the_services_limit_is_not_read() {
    let (_, spki) = spki_and_key();
    let mut writer = Writer::sealed(&spki, &[7; 32]);
    writer.ciphertext = vec![0; 5600];
    let fits = writer.write();
    assert!(fits.len() < MAX_ENVELOPE && Envelope::parse(&fits).is_ok());
    writer.ciphertext = vec![0; 6144];
    assert_eq!(Envelope::parse(&writer.write()), Err(NoEnvelope));
}

/// A key and a self-signed certificate whose key identifier is the SHA-256 of its public key, as KMS computes it.
fn openssl_recipient(dir: &Path) -> Option<(RecipientKey, PathBuf)> {
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(dir)
            .output()
            .ok()?;
        assert!(
            output.status.success(),
            "openssl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(())
    };
    run(&[
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
        "-out",
        "key.pem",
    ])?;
    run(&[
        "pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-outform", "DER", "-out", "key.der",
    ])?;
    let key = RecipientKey::from_pkcs8(&std::fs::read(dir.join("key.der")).unwrap()).unwrap();
    let id = digest(&SHA256, key.spki_der());
    let id: Vec<String> = id
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let extension = format!("subjectKeyIdentifier={}", id.join(":"));
    run(&[
        "req", "-x509", "-new", "-key", "key.der", "-keyform", "DER", "-subj", "/CN=x", "-days",
        "2", "-addext", &extension, "-out", "cert.pem",
    ])?;
    Some((key, dir.join("cert.pem")))
}

fn openssl_envelope(dir: &Path, secret: &[u8], extra: &[&str]) -> Vec<u8> {
    std::fs::write(dir.join("secret"), secret).unwrap();
    let output = Command::new("openssl")
        .args([
            "cms",
            "-encrypt",
            "-binary",
            "-in",
            "secret",
            "-aes-256-cbc",
            "-keyid",
            "-outform",
            "DER",
        ])
        .args(extra)
        .args([
            "-recip",
            "cert.pem",
            "-keyopt",
            "rsa_padding_mode:oaep",
            "-keyopt",
            "rsa_oaep_md:sha256",
            "-out",
            "out.der",
        ])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::read(dir.join("out.der")).unwrap()
}

#[test]
fn envelopes_of_openssl_open_streamed_and_not() {
    let dir = tempfile::tempdir().unwrap();
    let Some((key, _)) = openssl_recipient(dir.path()) else {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "openssl is missing"
        );
        eprintln!("skipped: openssl is not installed");
        return;
    };
    for secret in [vec![5; 32], vec![6; 4096], vec![]] {
        let whole = openssl_envelope(dir.path(), &secret, &["-noindef"]);
        let streamed = openssl_envelope(dir.path(), &secret, &["-stream"]);
        assert_eq!(whole[..2], [0x30, 0x82], "definite");
        assert_eq!(streamed[..2], [0x30, 0x80], "indefinite");
        for envelope in [whole, streamed] {
            assert_eq!(**key.open(&envelope).unwrap(), secret);
        }
    }
    // And OpenSSL opens what the writer of these tests makes.
    let envelope = Writer::sealed(key.spki_der(), &[8; 32]).write();
    std::fs::write(dir.path().join("ours.der"), envelope).unwrap();
    let output = Command::new("openssl")
        .args([
            "cms", "-decrypt", "-inform", "DER", "-in", "ours.der", "-inkey", "key.der",
            "-keyform", "DER", "-recip", "cert.pem",
        ])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(
        output.stdout,
        [8; 32],
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        prop_assert_eq!(Envelope::parse(&bytes), Err(NoEnvelope));
    }

    /// Whatever is changed anywhere in a right message, it is refused or reads as something else: no byte is ignored.
    #[test]
    fn no_byte_is_ignored(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in 0..3usize, insert in proptest::collection::vec(any::<u8>(), 0..3), indefinite in any::<bool>()) {
        let mut writer = Writer::blank();
        writer.indefinite = indefinite;
        let message = writer.write();
        let envelope = Envelope::parse(&message).unwrap();
        let at = at.index(message.len());
        let mut altered = message.clone();
        altered[at] = value;
        let end = (at + cut).min(altered.len());
        altered.splice(at..end, insert);
        if altered != message {
            prop_assert_ne!(Envelope::parse(&altered), Ok(envelope));
        }
    }
}
