//! Steps 1 to 3 on arbitrary bytes. Nothing here can sign under AWS's root, so nothing may pass, except a real document
//! in the corpus at a time its certificates allow; the time below allows none.
#![no_main]

use std::time::{Duration, SystemTime};

use attestation::{Evidence, TrustAnchor, Verifier};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(evidence) = Evidence::from_bytes(bytes.to_vec()) else {
        return;
    };
    // 2020-01-01: the root is valid, no published document is.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800);
    assert!(
        Verifier::new(TrustAnchor::aws_nitro())
            .authenticate(&evidence, now)
            .is_err()
    );
    // People look at documents that are refused.
    if let Ok(view) = evidence.inspect() {
        assert_eq!(evidence.claimed_time(), Ok(view.timestamp));
        assert!((2..=9).contains(&view.certificates.len()));
        assert!(!view.pcrs.is_empty() && view.pcrs.keys().all(|index| *index < 32));
        drop(attestation::rfc3339(view.timestamp));
    }
});
