//! Envelopes, bundles and build descriptions from anyone: no input may do more than be refused, and nothing here is signed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use supply_chain::{Build, Bundle, Envelope, PublisherKey, Signature};

static KEYS: LazyLock<[PublisherKey; 1]> = LazyLock::new(|| {
    let pem = include_str!("../../../../sealed-model/tests/data/openssl-p256.pub.pem");
    [PublisherKey::from_pem(pem).expect("a key of openssl")]
});

fuzz_target!(|bytes: &[u8]| {
    drop(Signature::parse(bytes));
    drop(Build::from_json(bytes));
    if let Ok(envelope) = Envelope::parse(bytes) {
        assert!(envelope.verify(&*KEYS).is_err());
        let written = envelope.to_bytes().expect("an envelope is written");
        assert_eq!(Envelope::parse(&written).expect("and read"), envelope);
    }
    if let Ok(Bundle::Statement(envelope)) = Bundle::parse(bytes) {
        assert!(envelope.verify(&*KEYS).is_err());
    }
});
