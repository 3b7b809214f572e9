//! `cargo +nightly fuzz run envelope`: what parses holds whole blocks, and no more than came in.
#![no_main]

use kms_client::Envelope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(envelope) = Envelope::parse(bytes) {
        assert!(envelope.content_len() > 0 && envelope.content_len() % 16 == 0);
        assert!(envelope.content_len() < bytes.len());
    }
});
