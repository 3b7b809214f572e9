//! `cargo +nightly fuzz run model_card`: no text makes the reader of front matter panic, and its values are short plain lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealed_model::front_matter;

fuzz_target!(|text: &str| {
    let values: Vec<String> = front_matter(text).into_values().flatten().collect();
    assert!(values.iter().all(|value| value.len() <= 200 && !value.chars().any(char::is_control)));
});
