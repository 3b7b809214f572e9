//! A list of measurements from anyone: without a trusted key nothing is believed, with one only the bytes that we would write.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use supply_chain::{MeasurementLog, PublisherKey};

static KEYS: LazyLock<[PublisherKey; 1]> = LazyLock::new(|| {
    let pem = include_str!("../../../../sealed-model/tests/data/openssl-p256.pub.pem");
    [PublisherKey::from_pem(pem).expect("a key of openssl")]
});

fuzz_target!(|bytes: &[u8]| {
    assert!(MeasurementLog::read(bytes, &[]).is_err());
    if let Ok(log) = MeasurementLog::read(bytes, &*KEYS) {
        assert_eq!(log.to_bytes().expect("a list is written"), bytes);
    }
});
