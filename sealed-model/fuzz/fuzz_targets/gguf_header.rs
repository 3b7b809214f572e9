//! `cargo +nightly fuzz run gguf_header`: no header makes the checks panic, and tensors that pass lie in the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealed_model::gguf;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(summary) = gguf::check(bytes, bytes.len() as u64) {
        assert!(summary.tensors > 0);
        // No type stores more than eight elements in a byte.
        assert!(summary.elements.values().sum::<u64>() <= bytes.len() as u64 * 8);
    }
});
