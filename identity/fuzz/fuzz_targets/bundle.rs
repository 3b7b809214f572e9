//! `cargo +nightly fuzz run bundle`: a bundle that is read holds signing certificates only, and can be put in force.
#![no_main]

use identity::{BundleDocument, TrustBundles, TrustDomain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = BundleDocument::from_jwks(bytes) else {
        return;
    };
    let domain = TrustDomain::new("example.org").expect("a constant");
    let mut bundles = TrustBundles::new();
    // The path validator may be stricter about an anchor than our rules for one; then nothing is trusted.
    if bundles.update(&domain, &document).is_ok() {
        assert_eq!(bundles.certificates(&domain).count(), document.authorities.len());
        assert_eq!(bundles.sequence(&domain), document.sequence);
    }
});
