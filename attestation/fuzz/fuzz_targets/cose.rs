//! An arbitrary payload and signature in a true COSE_Sign1 envelope, so that the input need not find the envelope first.
#![no_main]

use std::time::{Duration, SystemTime};

use attestation::{Error, Evidence, StructureError, TrustAnchor, Verifier};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: ([u8; 96], bool, &[u8])| {
    let (signature, tagged, payload) = input;
    let Ok(length) = u16::try_from(payload.len()) else {
        return;
    };
    let mut document = if tagged { vec![0xd2] } else { vec![] };
    document.extend([0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa0]);
    match length {
        0..24 => document.push(0x40 | u8::try_from(length).expect("below 24")),
        24..256 => document.extend([0x58, u8::try_from(length).expect("below 256")]),
        _ => document.extend([&[0x59], &length.to_be_bytes()[..]].concat()),
    }
    document.extend(payload);
    document.extend([0x58, 96]);
    document.extend(signature);
    let Ok(evidence) = Evidence::from_bytes(document) else {
        return;
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800);
    let verdict = Verifier::new(TrustAnchor::aws_nitro()).authenticate(&evidence, now);
    match (evidence.inspect(), verdict) {
        (Err(structure), verdict) => {
            assert_eq!(verdict, Err(Error::Structure(structure)));
            // The envelope is right, so only the payload's own rules can be broken.
            assert_ne!(structure, StructureError::Headers);
        }
        (Ok(_), verdict) => assert!(matches!(verdict, Err(Error::Chain(_)))),
    }
});
