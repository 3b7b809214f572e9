//! Revocation lists in DER and PEM: read or refused, and what is read has an end.
#![no_main]

use attestation::RevocationLists;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(lists) = RevocationLists::from_bytes(bytes) {
        assert!(lists.len() > 0);
        assert!(lists.next_update().is_some());
        let both = lists.clone().join(lists.clone());
        assert!(both.is_ok_and(|both| both.len() == 2 * lists.len()) || lists.len() > 32);
    }
});
