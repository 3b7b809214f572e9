//! `cargo +nightly fuzz run certificate`: what passes the leaf rules names a workload; a request that is read asks for one name.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(leaf) = identity::leaf(bytes) {
        assert!(leaf.id.path().len() > 1);
        assert!(identity::other_names(bytes).is_ok());
    }
    if let Ok(request) = identity::issue::csr(bytes) {
        assert!(request.id.path().len() > 1);
        assert!(request.spki_der.len() == 91);
    }
});
