//! Evidence bundles: what is read can be written and read again, and none that was invented here is accepted.
#![no_main]

use std::time::{Duration, SystemTime};

use attestation::{BundleAudit, EvidenceBundle, TrustAnchor, Verifier};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let Ok(bundle) = EvidenceBundle::from_json(json) else {
        return;
    };
    if let Ok(written) = bundle.to_json() {
        assert_eq!(EvidenceBundle::from_json(written.as_bytes()), Ok(bundle.clone()));
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800);
    let verifier = Verifier::new(TrustAnchor::aws_nitro());
    let report = bundle.audit(&verifier, &BundleAudit::default(), now);
    assert!(!report.is_accepted());
    assert_eq!(report.steps.len(), 9);
});
