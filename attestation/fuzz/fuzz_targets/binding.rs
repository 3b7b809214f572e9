//! Text from a peer inside a session's binding stays inside its member: the canonical text is JSON, says what went in,
//! and its canonical form is stable.
#![no_main]

use attestation::{Binding, BootId, ModelIdentity, SessionSubject, Sha256Digest, Subject};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (String, String, String, u64)| {
    let (spiffe_id, svid_serial, name, epoch) = input;
    let digest = Sha256Digest::from_bytes([1; 32]);
    let binding = Binding {
        config_digest: digest,
        boot_id: BootId::from_bytes([2; 16]),
        subject: Subject::Session(SessionSubject {
            tls_spki_sha256: digest,
            exporter: [3; 32],
            peer_leaf_sha256: digest,
            spiffe_id: spiffe_id.clone(),
            svid_serial: svid_serial.clone(),
            models: vec![ModelIdentity {
                name: name.clone(),
                epoch,
                manifest_sha256: digest,
                publisher_sha256: digest,
            }],
        }),
    };
    let text = binding.canonical_json();
    let json: serde_json::Value = serde_json::from_slice(&text).expect("canonical JSON is JSON");
    assert_eq!(json["role"], "server");
    assert_eq!(json["purpose"], "session");
    assert_eq!(json["spiffe_id"], spiffe_id.as_str());
    assert_eq!(json["svid_serial"], svid_serial.as_str());
    assert_eq!(json["models"][0]["name"], name.as_str());
    assert_eq!(json["models"][0]["epoch"], epoch.to_string().as_str());
    assert_eq!(binding.canonical_json(), text);
});
