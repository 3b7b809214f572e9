use std::io::Write as _;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn signer() -> LogSigner {
    LogSigner::from_pkcs8(&LogSigner::generate().unwrap()).unwrap()
}

fn tree(size: u8) -> Tree {
    let mut tree = Tree::default();
    for leaf in 0..size {
        tree.push(&[leaf]);
    }
    tree
}

/// From the documentation of Go's `golang.org/x/mod/sumdb/note`, which the format comes from.
#[test]
fn a_note_that_go_signed_verifies_and_not_when_changed() {
    let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let note = "If you think cryptography is the answer to your problem,\n\
                then you don't know what your problem is.\n\
                \n\
                \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    let key: LogPublicKey = key.parse().unwrap();
    assert_eq!(
        key.verify(note).map(|text| text.lines().count()),
        Ok(2),
        "{key}"
    );
    let changed = note.replace("cryptography", "cartography");
    assert_eq!(key.verify(&changed), Err(NoteError::Signature));
    // Signed, and still no checkpoint.
    assert_eq!(key.open(note), Err(NoteError::Form));
}

#[test]
fn what_we_sign_we_read_and_the_key_survives_its_text() {
    let signer = signer();
    let key: LogPublicKey = signer.public().to_string().parse().unwrap();
    assert_eq!(&key, signer.public());
    for size in [0, 1, 2, 7, 200] {
        let tree = tree(size);
        let expected = Checkpoint {
            size: size.into(),
            root: tree.root(),
        };
        assert_eq!(key.open(&signer.sign(&tree)), Ok(expected));
    }
}

#[test]
fn openssl_verifies_our_signature() {
    let signer = signer();
    let note = signer.sign(&tree(3));
    let (text, line) = note.rsplit_once("\n\n").unwrap();
    let signature = STANDARD.decode(line.trim().rsplit(' ').next().unwrap());
    let spki: PublicKeyX509Der<'_> = signer.pair.public_key().as_der().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(bytes).unwrap();
        path
    };
    let run = |text: &[u8]| {
        Command::new("openssl")
            .args(["pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER"])
            .arg("-inkey")
            .arg(file("key", spki.as_ref()))
            .arg("-in")
            .arg(file("text", text))
            .arg("-sigfile")
            .arg(file("signature", &signature.as_ref().unwrap()[4..]))
            .output()
    };
    let Ok(output) = run(format!("{text}\n").as_bytes()) else {
        assert!(std::env::var_os("CI").is_none(), "openssl is absent");
        return eprintln!("skipped: openssl is absent");
    };
    assert!(output.status.success(), "{output:?}");
    assert!(!run(text.as_bytes()).unwrap().status.success());
}

#[test]
fn a_second_signature_does_not_disturb_ours() {
    let (ours, witness) = (signer(), signer());
    let note = ours.sign(&tree(3));
    let other = witness.sign(&tree(3));
    let line = other.rsplit_once("\n\n").unwrap().1;
    assert!(ours.public().open(&format!("{note}{line}")).is_ok());
    let (text, own) = note.rsplit_once("\n\n").unwrap();
    assert!(
        ours.public()
            .open(&format!("{text}\n\n{line}{own}"))
            .is_ok()
    );
    assert_eq!(
        ours.public().open(&format!("{text}\n\n{line}")),
        Err(NoteError::NotOurs)
    );
}

#[test]
fn what_is_no_checkpoint_of_this_log_is_refused() {
    let (ours, other) = (signer(), signer());
    let note = ours.sign(&tree(3));
    let key = ours.public();
    assert_eq!(key.open(&other.sign(&tree(3))), Err(NoteError::NotOurs));
    // Another key under our name.
    let imposter = LogSigner {
        public: LogPublicKey {
            name: key.name.clone(),
            key: other.public.key,
        },
        pair: other.pair,
    };
    assert_eq!(key.open(&imposter.sign(&tree(3))), Err(NoteError::NotOurs));
    for (changed, error) in [
        (note.replacen("\n3\n", "\n2\n", 1), NoteError::Signature),
        (note.replacen("\n3\n", "\n3\r\n", 1), NoteError::Form),
        (note.trim_end().to_owned(), NoteError::Form),
        (note.replace('\u{2014}', "-"), NoteError::Form),
        (note.replace("\n\n", "\n"), NoteError::Form),
        (format!("{note}\n"), NoteError::NotOurs),
        (format!("{note}x\n"), NoteError::Form),
        (String::new(), NoteError::Form),
        ("\n".repeat(MAX_NOTE + 1), NoteError::Form),
    ] {
        assert_eq!(key.open(&changed), Err(error), "{changed:?}");
    }
}

/// Signed by us, so only a bug could make one; the reader is strict all the same.
#[test]
fn a_signed_text_in_another_spelling_is_refused() {
    let ours = signer();
    let name = ours.public.name.clone();
    let root = STANDARD.encode([7; 32]);
    let sign = |text: &str| {
        let signature = ours.pair.sign(text.as_bytes());
        let signature = STANDARD.encode([&ours.public.id()[..], signature.as_ref()].concat());
        format!("{text}\n\u{2014} {name} {signature}\n")
    };
    let open = |text: &str| {
        ours.public
            .open(&sign(text))
            .map(|checkpoint| checkpoint.size)
    };
    assert_eq!(open(&format!("{name}\n3\n{root}\n")), Ok(3));
    assert_eq!(open(&format!("{name}\n3\n{root}\nextension\n")), Ok(3));
    for text in [
        format!("{name}\n03\n{root}\n"),
        format!("{name}\n+3\n{root}\n"),
        format!("{name}\n-3\n{root}\n"),
        format!("{name}\n18446744073709551616\n{root}\n"),
        format!("{name}\n3\n{}\n", STANDARD.encode([7; 31])),
        format!("{name}\n3\n"),
    ] {
        assert_eq!(open(&text), Err(NoteError::Form), "{text:?}");
    }
    assert_eq!(
        open(&format!("another\n3\n{root}\n")),
        Err(NoteError::NotOurs)
    );
}

#[test]
fn a_text_that_is_no_key_is_refused() {
    let key = signer().public().to_string();
    let mut parts = key.splitn(3, '+');
    let [name, id, key] = [(); 3].map(|()| parts.next().unwrap());
    let ecdsa = STANDARD.encode([2; 33]);
    for text in [
        String::new(),
        name.to_owned(),
        format!("{name}+{id}"),
        format!("{name}+00000000+{key}"),
        format!("other+{id}+{key}"),
        format!("+{id}+{key}"),
        format!("a b+{id}+{key}"),
        format!("{name}+{id}+{ecdsa}"),
        format!("{name}+{id}+{key}AAAA"),
    ] {
        assert_eq!(text.parse::<LogPublicKey>(), Err(NoteError::Form), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic_and_never_believed(text in "(\u{2014} |[a-z0-9+/=\n]){0,200}") {
        let key = signer();
        prop_assert!(key.public().open(&text).is_err());
        let _read = text.parse::<LogPublicKey>();
    }

    #[test]
    fn one_changed_byte_is_found(at in 0_usize..400, flip in 1_u8..128) {
        let signer = signer();
        let note = signer.sign(&tree(9));
        let mut bytes = note.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok(changed) = String::from_utf8(bytes) {
            prop_assert!(signer.public().open(&changed).is_err(), "{changed}");
        }
    }
}
