//! What one verification costs: five P-384 signatures and their certificates, two where the authorities were seen before, one where
//! the leaf was, too.
//!
//! Also on a real document of AWS, where `../shared/vectors` lies beside the project.
#![expect(clippy::unwrap_used, reason = "a benchmark: a panic ends it")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use attestation::{
    Appraisal, Binding, BootId, ChainCache, Evidence, Expected, ReferenceValues, Sha256Digest,
    Sha384Digest, Subject, TrustAnchor, Verifier,
};
use criterion::{Criterion, criterion_group, criterion_main};

#[path = "../tests/support/mod.rs"]
mod support;

fn verify(c: &mut Criterion) {
    let binding = Binding {
        config_digest: Sha256Digest::of(b"config"),
        boot_id: BootId::from_bytes([1; 16]),
        subject: Subject::KeyRelease {
            runtime_data_sha384: Sha384Digest::of(b"runtime data"),
        },
    };
    // One leaf more than the smallest memory has room for: each of them is new to it, time and again.
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
    let small = cold
        .clone()
        .with_chain_cache(ChainCache::new(NonZeroUsize::MIN));
    let warm = cold.clone().with_chain_cache(ChainCache::default());
    for (name, verifier) in [
        ("all steps, cold", &cold),
        ("all steps, known authorities, new leaf", &small),
        ("all steps, known authorities and leaf", &warm),
    ] {
        let mut documents = genuine.evidence.iter().cycle();
        c.bench_function(name, |b| {
            b.iter(|| {
                let evidence = documents.next().unwrap();
                verifier
                    .verify(black_box(evidence), &expected, genuine.now)
                    .unwrap()
            });
        });
    }
    c.bench_function("parse", |b| {
        b.iter(|| black_box(&genuine.evidence[0]).claimed_time().unwrap());
    });
    c.bench_function("user data of a binding", |b| {
        b.iter(|| black_box(&binding).user_data())
    });
}

/// Steps 1 to 3, which are all that can be done with a document that was made for others.
fn verify_real(c: &mut Criterion) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/vectors/nitro/accept_indefinite_map_2025.bin");
    let Ok(document) = std::fs::read(&path) else {
        return;
    };
    let evidence = Evidence::from_bytes(document).unwrap();
    let now = evidence.claimed_time().unwrap();
    let cold = Verifier::new(TrustAnchor::aws_nitro());
    let warm = cold.clone().with_chain_cache(ChainCache::default());
    for (name, verifier) in [
        ("real document, cold", &cold),
        ("real document, known authorities and leaf", &warm),
    ] {
        c.bench_function(name, |b| {
            b.iter(|| verifier.authenticate(black_box(&evidence), now).unwrap());
        });
    }
    c.bench_function("real document, parse", |b| {
        b.iter(|| black_box(&evidence).claimed_time().unwrap());
    });
}

criterion_group!(benches, verify, verify_real);
criterion_main!(benches);
