//! `cargo +nightly fuzz run manifest`: a manifest that parses is within its limits and names no file outside.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealed_model::{MAX_FILES, Manifest};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes) {
        assert!(manifest.files.len() <= MAX_FILES);
        assert!(manifest.files.iter().all(|entry| entry.path.split('/').all(|part| part != "..")));
        assert!(manifest.files.iter().all(|entry| !entry.sealed_name().contains('/')));
    }
});
