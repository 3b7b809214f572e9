//! `cargo +nightly fuzz run model_signature`: no bundle, and no statement that a trusted key signed, makes the reader panic;
//! what passes names files of one directory only.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use sealed_model::dsse::{Envelope, IN_TOTO};
use sealed_model::sigstore::{self, Content};
use sealed_model::{PublisherKey, SignedModel, SigningKey};

static KEYS: OnceLock<(SigningKey, [PublisherKey; 1])> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let (signer, trusted) = KEYS.get_or_init(|| {
        let signer = SigningKey::generate().unwrap();
        let public = signer.public().unwrap();
        (signer, [public])
    });
    assert!(SignedModel::verify(bytes, trusted).is_err(), "nobody signed it");
    let envelope = Envelope::sign(IN_TOTO, bytes, signer).unwrap();
    let bundle = sigstore::write(String::new(), Content::Envelope(envelope)).unwrap();
    if let Ok((model, _)) = SignedModel::verify(&bundle, trusted) {
        assert!(model.files().len() > 0);
        assert!(model.files().all(|(path, _)| path.split('/').all(|part| !matches!(part, "" | "." | ".."))));
    }
});
