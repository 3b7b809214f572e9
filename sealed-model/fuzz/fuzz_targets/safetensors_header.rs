//! `cargo +nightly fuzz run safetensors_header`: no header makes the checks panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealed_model::safetensors::{LENGTH_FIELD, check_header, header_len};

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return };
    let Ok(length) = header_len(*length, bytes.len() as u64) else { return };
    let Some(header) = usize::try_from(length).ok().and_then(|length| rest.get(..length)) else {
        panic!("a length that passed lies in the file");
    };
    let data = bytes.len() as u64 - LENGTH_FIELD - length;
    let _names = check_header(header, data);
});
