//! The simulated module against the verifier as shipped.

mod chains;
mod module;
mod peers;
mod revocation;
mod steps;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use attestation::{
    Appraisal, AttestError, AttestationRequest, Attester, Binding, BootId, ChainError, Claims,
    Error, Evidence, Expected, FreshnessError, ModelIdentity, Pcr, Pcrs, Purpose, ReferenceValues,
    SessionSubject, Sha256Digest, Sha384Digest, StructureError, Subject, TrustAnchor, Verifier,
};

use super::*;

const START: Duration = Duration::from_secs(1_900_000_000);
const NONCE: [u8; 32] = [7; 32];
const PUBLIC_KEY: [u8; 91] = [8; 91];
const MAX_AGE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A module, the relying party that accepts it, and the one clock both read.
struct World {
    seconds: Arc<AtomicU64>,
    verifier: Verifier,
    nsm: SimNsm,
    binding: Binding,
    accepted: ReferenceValues,
}

fn pcrs() -> Pcrs {
    (0..16)
        .map(|index| {
            (
                index,
                if index < 5 {
                    Pcr::ZERO.extend(&[index])
                } else {
                    Pcr::ZERO
                },
            )
        })
        .collect()
}

fn session() -> Binding {
    Binding {
        config_digest: Sha256Digest::of(b"config"),
        boot_id: BootId::from_bytes([1; 16]),
        subject: Subject::Session(SessionSubject {
            tls_spki_sha256: Sha256Digest::of(&PUBLIC_KEY),
            exporter: [2; 32],
            peer_leaf_sha256: Sha256Digest::of(b"caller"),
            spiffe_id: "spiffe://example.org/enclave".into(),
            svid_serial: "01".into(),
            models: vec![ModelIdentity {
                name: "demo".into(),
                epoch: 3,
                manifest_sha256: Sha256Digest::of(b"manifest"),
                publisher_sha256: Sha256Digest::of(b"publisher"),
            }],
        }),
    }
}

impl World {
    fn new() -> Self {
        Self::with_pki(SimPki::generate(SystemTime::UNIX_EPOCH + START))
    }

    fn with_pki(pki: SimPki) -> Self {
        let seconds = Arc::new(AtomicU64::new(START.as_secs()));
        let clock = {
            let seconds = seconds.clone();
            Arc::new(move || {
                SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst))
            })
        };
        let image = pcrs().into_iter().filter(|(index, _)| *index < 3).collect();
        Self {
            verifier: Verifier::new(TrustAnchor::from_pem(pki.root_pem().as_bytes()).unwrap()),
            nsm: SimNsm::new(pki, pcrs(), clock),
            seconds,
            binding: session(),
            accepted: ReferenceValues::try_new(vec![image]).unwrap(),
        }
    }

    /// A chain with one certificate spoiled before it was signed.
    fn with_edit(edit: impl Fn(Rank, &mut rcgen::CertificateParams)) -> Self {
        Self::with_pki(SimPki::generate_with(SystemTime::UNIX_EPOCH + START, &edit).unwrap())
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.seconds.load(Ordering::SeqCst))
    }

    fn pass(&self, time: Duration) {
        self.seconds.fetch_add(time.as_secs(), Ordering::SeqCst);
    }

    fn attest(&self) -> Evidence {
        let user_data = self.binding.user_data();
        self.nsm.attest(&request(&user_data)).unwrap()
    }

    fn spoiled(&self, spoil: impl FnOnce(&mut DocumentBuilder)) -> Result<Claims, Error> {
        let user_data = self.binding.user_data();
        let (mut document, leaf) = self.nsm.document(&request(&user_data)).unwrap();
        spoil(&mut document);
        self.verify(&document.sign(&leaf).unwrap())
    }

    /// A document whose leaf certificate was spoiled before it was signed.
    fn with_leaf(
        &self,
        pki: &SimPki,
        edit: impl Fn(&mut rcgen::CertificateParams),
    ) -> Result<Claims, Error> {
        let user_data = self.binding.user_data();
        let (mut document, _) = self.nsm.document(&request(&user_data)).unwrap();
        let leaf = pki.issue_leaf_with("leaf", self.now(), &edit).unwrap();
        document.certificate = leaf.certificate.clone();
        self.verify(&document.sign(&leaf).unwrap())
    }

    fn verify(&self, evidence: &Evidence) -> Result<Claims, Error> {
        self.verify_at(evidence, self.now())
    }

    fn verify_at(&self, evidence: &Evidence, now: SystemTime) -> Result<Claims, Error> {
        self.verifier.verify(evidence, &self.expected(), now)
    }

    fn expected(&self) -> Expected<'_> {
        Expected {
            nonce: &NONCE,
            public_key: &PUBLIC_KEY,
            binding: &self.binding,
            measurements: Appraisal::Reference(&self.accepted),
            max_age: MAX_AGE,
        }
    }
}

fn request(user_data: &[u8]) -> AttestationRequest<'_> {
    AttestationRequest {
        user_data,
        nonce: &NONCE,
        public_key: &PUBLIC_KEY,
    }
}

fn certificate(position: usize, problem: &'static str) -> Error {
    Error::Chain(ChainError::Certificate { position, problem })
}

fn validity(error: &Result<Claims, Error>, at: usize) -> bool {
    matches!(error, Err(Error::Chain(ChainError::Validity { position, .. })) if *position == at)
}

fn path(error: &Result<Claims, Error>) -> bool {
    matches!(error, Err(Error::Chain(ChainError::Path(_))))
}

#[test]
fn a_document_passes_the_verifier_under_its_own_root() {
    let world = World::new();
    let claims = world.verify(&world.attest()).unwrap();
    assert_eq!(claims.pcrs, pcrs());
    assert_eq!(claims.timestamp, world.now());
    assert_eq!(claims.nonce.as_deref(), Some(&NONCE[..]));
    assert_eq!(claims.public_key.as_deref(), Some(&PUBLIC_KEY[..]));
    assert_eq!(
        claims.user_data.as_deref(),
        Some(&world.binding.user_data()[..])
    );
    assert!(claims.module_id.starts_with(INSTANCE_ID));
    assert_eq!(claims.leaf_not_after, world.now() + 3 * HOUR + 3 * SECOND);
}

#[test]
fn both_map_forms_and_both_tag_forms_are_accepted() {
    let world = World::new();
    for (indefinite, tagged) in [(false, false), (false, true), (true, false), (true, true)] {
        let verdict = world.spoiled(|document| {
            document.indefinite = indefinite;
            document.tagged = tagged;
        });
        assert!(verdict.is_ok(), "{indefinite} {tagged}: {verdict:?}");
    }
}

#[test]
fn the_callers_own_appraisal_leaves_measurements_to_the_caller() {
    let world = World::new();
    let mut expected = world.expected();
    let other = ReferenceValues::try_new(vec![[(0, Pcr::ZERO.extend(b"other"))].into()]).unwrap();
    expected.measurements = Appraisal::Reference(&other);
    let evidence = world.attest();
    assert!(matches!(
        world.verifier.verify(&evidence, &expected, world.now()),
        Err(Error::Measurement { index: 0, .. })
    ));
    expected.measurements = Appraisal::ByCaller;
    assert!(
        world
            .verifier
            .verify(&evidence, &expected, world.now())
            .is_ok()
    );
}

#[test]
fn the_chain_has_the_shape_of_a_real_one() {
    let world = World::new();
    let user_data = world.binding.user_data();
    let (document, _) = world.nsm.document(&request(&user_data)).unwrap();
    assert_eq!(document.cabundle.len(), 4);
    for certificate in document.cabundle.iter().chain([&document.certificate]) {
        assert!(
            (400..1024).contains(&certificate.len()),
            "{} bytes",
            certificate.len()
        );
    }
}
