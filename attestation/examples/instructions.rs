//! One task, a given number of times, for a tool that counts instructions: `scripts/instructions` runs it.
#![expect(clippy::unwrap_used, reason = "a measurement: a panic ends it")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Duration;

use attestation::{
    Appraisal, Binding, BootId, ChainCache, Expected, ReferenceValues, Sha256Digest, Sha384Digest,
    Subject, Verifier,
};

#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next().unwrap_or_default();
    let times: usize = arguments.next().unwrap().parse().unwrap();
    let binding = Binding {
        config_digest: Sha256Digest::of(b"config"),
        boot_id: BootId::from_bytes([1; 16]),
        subject: Subject::KeyRelease {
            runtime_data_sha384: Sha384Digest::of(b"runtime data"),
        },
    };
    let genuine = support::genuine::<5>(&binding.user_data());
    let accepted = ReferenceValues::try_new(vec![genuine.pcrs.clone()]).unwrap();
    let expected = Expected {
        nonce: support::NONCE,
        public_key: support::PUBLIC_KEY,
        binding: &binding,
        measurements: Appraisal::Reference(&accepted),
        max_age: Duration::from_secs(60),
    };
    let cold = Verifier::new(genuine.anchor);
    // Room for four leaves, so that one of five is always new; and for all of them.
    let small = cold
        .clone()
        .with_chain_cache(ChainCache::new(NonZeroUsize::MIN));
    let warm = cold.clone().with_chain_cache(ChainCache::default());
    // The first ones fill the memories.
    for evidence in &genuine.evidence {
        small.verify(evidence, &expected, genuine.now).unwrap();
        warm.verify(evidence, &expected, genuine.now).unwrap();
    }
    for evidence in genuine.evidence.iter().cycle().take(times) {
        let evidence = black_box(evidence);
        match task.as_str() {
            "cold" => drop(cold.verify(evidence, &expected, genuine.now).unwrap()),
            "known" => drop(small.verify(evidence, &expected, genuine.now).unwrap()),
            "again" => drop(warm.verify(evidence, &expected, genuine.now).unwrap()),
            "parse" => drop(black_box(evidence.claimed_time().unwrap())),
            other => panic!("cold, known, again or parse, not {other}"),
        }
    }
}
