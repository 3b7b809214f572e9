//! What one verification costs: five P-384 signatures and their certificates.
#![expect(clippy::unwrap_used, reason = "a benchmark: a panic ends it")]

use std::hint::black_box;
use std::time::Duration;

use attestation::{
    Appraisal, Binding, BootId, Expected, ReferenceValues, Sha256Digest, Sha384Digest, Subject,
    Verifier,
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
    let genuine = support::genuine(&binding.user_data());
    let accepted = ReferenceValues::try_new(vec![genuine.pcrs.clone()]).unwrap();
    let verifier = Verifier::new(genuine.anchor);
    let expected = Expected {
        nonce: support::NONCE,
        public_key: support::PUBLIC_KEY,
        binding: &binding,
        measurements: Appraisal::Reference(&accepted),
        max_age: Duration::from_secs(60),
    };
    c.bench_function("verify a document with five certificates", |b| {
        b.iter(|| {
            verifier
                .verify(black_box(&genuine.evidence), &expected, genuine.now)
                .unwrap()
        });
    });
    c.bench_function("user data of a binding", |b| {
        b.iter(|| black_box(&binding).user_data())
    });
}

criterion_group!(benches, verify);
criterion_main!(benches);
