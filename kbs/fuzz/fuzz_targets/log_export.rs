//! What an auditor reads: the key's text, and an export with its entries and checkpoints. Nothing here can sign, so no
//! checkpoint may count.
#![no_main]

use kbs::LogPublicKey;
use libfuzzer_sys::fuzz_target;

/// Of the documentation of Go's `sumdb/note`; its private half is not here.
const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

fuzz_target!(|text: &str| {
    if let Ok(key) = text.parse::<LogPublicKey>() {
        assert_eq!(key.to_string(), text.trim());
    }
    let Ok(key) = KEY.parse() else { return };
    if let Ok(audited) = kbs::offline::verify_export(text.as_bytes(), &key, &[]) {
        assert_eq!((audited.checkpoints, audited.signed), (0, 0));
    }
});
