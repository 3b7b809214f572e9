//! What is read as a binding is, byte for byte, what that binding writes: two texts never mean the same.
#![no_main]

use attestation::Binding;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Ok(binding) = Binding::from_canonical_json(text) {
        assert_eq!(binding.canonical_json(), text);
    }
});
