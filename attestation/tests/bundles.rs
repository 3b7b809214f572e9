//! Evidence bundles: written and read, judged by their own policy and by another, and refused in every part.
#![expect(clippy::unwrap_used, reason = "a test: a panic is a failure")]

use std::sync::LazyLock;
use std::time::Duration;

use attestation::{
    AcceptedModel, Binding, BootId, BundleAudit, BundleError, Error, EvidenceBundle,
    EvidencePolicy, ManifestError, ModelIdentity, ParseBindingError, Pcr, PolicyError,
    ReferenceValues, SessionSubject, Sha256Digest, Step, Subject, Verdict, Verifier,
};
use proptest::prelude::*;
use serde_json::{Value, json};

mod support;
use support::{Genuine, NONCE, PUBLIC_KEY, genuine};

const MANIFEST: &[u8] = br#"{"format":"cloister-sealed-model/1","name":"chat","epoch":7}"#;

static BINDING: LazyLock<Binding> = LazyLock::new(|| Binding {
    config_digest: Sha256Digest::of(b"config"),
    boot_id: BootId::from_bytes([1; 16]),
    subject: Subject::Session(SessionSubject {
        tls_spki_sha256: Sha256Digest::of(PUBLIC_KEY),
        exporter: [2; 32],
        peer_leaf_sha256: Sha256Digest::of(b"caller"),
        spiffe_id: "spiffe://example.org/enclave".into(),
        svid_serial: "0a".into(),
        models: vec![ModelIdentity {
            name: "chat".into(),
            epoch: 7,
            manifest_sha256: Sha256Digest::of(MANIFEST),
            publisher_sha256: Sha256Digest::of(b"publisher"),
        }],
    }),
});

static GENUINE: LazyLock<Genuine<1>> = LazyLock::new(|| genuine(&BINDING.user_data()));

fn policy() -> EvidencePolicy {
    let image = GENUINE.pcrs.iter().take(3).map(|(i, v)| (*i, *v)).collect();
    EvidencePolicy {
        images: ReferenceValues::try_new(vec![image]).unwrap(),
        config_digest: Some(BINDING.config_digest),
        models: vec![AcceptedModel {
            name: "chat".into(),
            min_epoch: 7,
            manifest_sha256: Some(Sha256Digest::of(MANIFEST)),
            publishers: vec![Sha256Digest::of(b"next"), Sha256Digest::of(b"publisher")],
        }],
        max_age_s: Some(60),
    }
}

fn bundle() -> EvidenceBundle {
    EvidenceBundle {
        document: GENUINE.evidence[0].clone(),
        nonce: Some(NONCE.to_vec()),
        public_key: Some(PUBLIC_KEY.to_vec()),
        binding: Some(BINDING.clone()),
        policy: Some(policy()),
        manifests: vec![MANIFEST.to_vec()],
        recorded: Some(GENUINE.now),
    }
}

fn verifier() -> Verifier {
    Verifier::new(GENUINE.anchor.clone())
}

fn audit(bundle: &EvidenceBundle) -> attestation::BundleReport {
    bundle.audit(&verifier(), &BundleAudit::default(), GENUINE.now)
}

/// The first step that refused.
fn refused(bundle: &EvidenceBundle) -> Error {
    let report = audit(bundle);
    assert!(!report.is_accepted());
    let mut errors = report
        .steps
        .into_iter()
        .filter_map(|(step, verdict)| match verdict {
            Verdict::Refused(error) => {
                assert_eq!(error.step(), step);
                Some(error)
            }
            _ => None,
        });
    errors.next().unwrap()
}

fn value() -> Value {
    serde_json::from_str(&bundle().to_json().unwrap()).unwrap()
}

fn read(value: &Value) -> Result<EvidenceBundle, BundleError> {
    EvidenceBundle::from_json(value.to_string().as_bytes())
}

#[test]
fn a_whole_bundle_is_read_as_written_and_accepted() {
    let read = EvidenceBundle::from_json(bundle().to_json().unwrap().as_bytes()).unwrap();
    assert_eq!(read, bundle());
    let report = audit(&read);
    assert!(report.is_accepted(), "{report:?}");
    assert!(
        report
            .steps
            .iter()
            .all(|(_, verdict)| *verdict == Verdict::Passed)
    );
    let steps: Vec<Step> = report.steps.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, Step::ALL);
    assert_eq!(
        (report.config, report.models, report.manifests),
        (Some(Ok(())), Some(Ok(())), Some(Ok(())))
    );
}

#[test]
fn a_document_alone_is_authentic_and_nothing_else_is_claimed() {
    let report = audit(&EvidenceBundle::new(GENUINE.evidence[0].clone()));
    assert!(report.is_accepted());
    let asked = |(_, verdict): &&(Step, Verdict)| *verdict != Verdict::NotAsked;
    assert_eq!(report.steps.iter().filter(asked).count(), 4);
    assert_eq!(
        (report.config, report.models, report.manifests),
        (None, None, None)
    );
}

#[test]
fn every_part_that_does_not_fit_is_refused_at_its_step() {
    let with = |change: fn(&mut EvidenceBundle)| {
        let mut bundle = bundle();
        change(&mut bundle);
        refused(&bundle).step()
    };
    assert_eq!(with(|b| b.nonce = Some(vec![6; 32])), Step::Nonce);
    assert_eq!(with(|b| b.nonce = Some(vec![])), Step::Nonce);
    assert_eq!(with(|b| b.public_key = Some(vec![1])), Step::PublicKey);
    assert_eq!(
        with(|b| b.binding.as_mut().unwrap().boot_id = BootId::from_bytes([9; 16])),
        Step::Binding
    );
    assert_eq!(
        with(|b| {
            let image = [(0, Pcr::ZERO.extend(b"other"))].into();
            b.policy.as_mut().unwrap().images = ReferenceValues::try_new(vec![image]).unwrap();
        }),
        Step::Measurements
    );
    let report = bundle().audit(
        &verifier(),
        &BundleAudit::default(),
        GENUINE.now + Duration::from_secs(61),
    );
    assert!(matches!(
        report.steps.last(),
        Some((Step::Freshness, Verdict::Refused(_)))
    ));
    // What follows a refusal was not reached, and a report with such a step accepts nothing.
    let mut other = bundle();
    other.nonce = Some(vec![6; 32]);
    let rest = audit(&other).steps.split_off(5);
    assert!(
        rest.iter()
            .all(|(_, verdict)| *verdict == Verdict::NotReached),
        "{rest:?}"
    );
}

#[test]
fn a_signature_that_is_not_the_leafs_ends_the_audit_for_everything_after_it() {
    let mut bytes = GENUINE.evidence[0].as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let mut spoiled = bundle();
    spoiled.document = attestation::Evidence::from_bytes(bytes).unwrap();
    assert_eq!(refused(&spoiled), Error::Signature);
}

#[test]
fn the_readers_policy_replaces_the_bundles_own() {
    let mut strict = policy();
    strict.config_digest = Some(Sha256Digest::of(b"another configuration"));
    let asked = BundleAudit {
        policy: Some(&strict),
        ..BundleAudit::default()
    };
    let report = bundle().audit(&verifier(), &asked, GENUINE.now);
    assert_eq!(
        report.config,
        Some(Err(PolicyError::ConfigDigest {
            expected: Sha256Digest::of(b"another configuration"),
            actual: BINDING.config_digest,
        }))
    );
    assert!(!report.is_accepted());
}

#[test]
fn single_registers_are_asked_for_beside_images() {
    let audit = |registers: &[(u8, Pcr)], policy: Option<&EvidencePolicy>| {
        let registers = registers.iter().copied().collect();
        let asked = BundleAudit {
            registers: Some(&registers),
            policy,
            ..BundleAudit::default()
        };
        let document = EvidenceBundle::new(GENUINE.evidence[0].clone());
        document
            .audit(&verifier(), &asked, GENUINE.now)
            .is_accepted()
    };
    let (right, wrong) = (GENUINE.pcrs[&4], Pcr::ZERO.extend(b"other"));
    let images = EvidencePolicy {
        config_digest: None,
        models: vec![],
        ..policy()
    };
    assert!(audit(&[(4, right)], None));
    assert!(audit(&[(4, right)], Some(&images)));
    assert!(!audit(&[(4, wrong)], None));
    assert!(!audit(&[(4, wrong)], Some(&images)));
    assert!(!audit(&[(16, right)], None), "absent");
}

#[test]
fn a_policy_that_asks_more_than_the_bundle_tells_is_not_met() {
    let mut less = bundle();
    less.binding = None;
    less.manifests.clear();
    let report = audit(&less);
    assert_eq!(
        report.config,
        Some(Err(PolicyError::NoBinding {
            what: "config_digest"
        }))
    );
    assert_eq!(
        report.models,
        Some(Err(PolicyError::NoBinding { what: "models" }))
    );
    assert!(!report.is_accepted());
}

#[test]
fn models_and_manifests_are_judged_by_what_the_evidence_names() {
    let models = |change: fn(&mut Vec<AcceptedModel>)| {
        let mut bundle = bundle();
        change(&mut bundle.policy.as_mut().unwrap().models);
        let report = audit(&bundle);
        assert!(!report.is_accepted());
        report.models.unwrap().unwrap_err()
    };
    let name = || "chat".to_owned();
    assert_eq!(
        models(|rules| rules[0].min_epoch = 8),
        PolicyError::ModelEpoch {
            name: name(),
            minimum: 8,
            actual: 7
        }
    );
    assert!(matches!(
        models(|rules| rules[0].manifest_sha256 = Some(Sha256Digest::of(b"other"))),
        PolicyError::ModelManifest { .. }
    ));
    assert_eq!(
        models(|rules| rules[0].publishers.truncate(1)),
        PolicyError::ModelPublisher {
            name: name(),
            actual: Sha256Digest::of(b"publisher")
        }
    );
    assert_eq!(
        models(|rules| rules[0].name = "other".into()),
        PolicyError::ModelMissing {
            name: "other".into()
        }
    );
    let twice = models(|rules| {
        rules.push(AcceptedModel {
            name: "embed".into(),
            ..rules[0].clone()
        })
    });
    assert_eq!(
        twice,
        PolicyError::ModelMissing {
            name: "embed".into()
        }
    );

    let manifests = |manifest: &[u8]| {
        let mut bundle = bundle();
        bundle.manifests = vec![MANIFEST.to_vec(), manifest.to_vec()];
        let report = audit(&bundle);
        assert!(!report.is_accepted());
        report.manifests.unwrap().unwrap_err()
    };
    for other in [&b"{}"[..], b"", &MANIFEST[1..]] {
        assert_eq!(
            manifests(other),
            ManifestError::Unknown {
                position: 1,
                actual: Sha256Digest::of(other)
            }
        );
    }
    let mut unbound = bundle();
    unbound.binding = None;
    assert_eq!(
        audit(&unbound).manifests,
        Some(Err(ManifestError::NoSession))
    );
}

#[test]
fn a_model_that_the_policy_does_not_have_is_refused() {
    let mut binding = BINDING.clone();
    let Subject::Session(session) = &mut binding.subject else {
        unreachable!()
    };
    let first = session.models[0].clone();
    session.models.push(ModelIdentity {
        name: "extra".into(),
        ..first.clone()
    });
    assert_eq!(
        policy().check_models(Some(&binding)),
        Some(Err(PolicyError::ModelUnlisted {
            name: "extra".into()
        }))
    );
    let Subject::Session(session) = &mut binding.subject else {
        unreachable!()
    };
    session.models[1] = first;
    assert_eq!(
        policy().check_models(Some(&binding)),
        Some(Err(PolicyError::ModelTwice {
            name: "chat".into()
        }))
    );
    binding.subject = Subject::SvidIssuance {
        csr_sha256: Sha256Digest::of(b"csr"),
        spki_sha256: Sha256Digest::of(b"spki"),
    };
    assert_eq!(
        policy().check_models(Some(&binding)),
        Some(Err(PolicyError::NotASession))
    );
}

#[test]
fn a_manifest_of_another_name_or_epoch_is_refused() {
    for manifest in [
        &br#"{"name":"chat","epoch":8}"#[..],
        br#"{"name":"other","epoch":7}"#,
        br#"{"name":"chat"}"#,
        br#"{"name":"chat","name":"chat","epoch":7}"#,
        b"not json",
    ] {
        let mut binding = BINDING.clone();
        let Subject::Session(session) = &mut binding.subject else {
            unreachable!()
        };
        session.models[0].manifest_sha256 = Sha256Digest::of(manifest);
        let bundle = EvidenceBundle {
            binding: Some(binding),
            manifests: vec![manifest.to_vec()],
            ..bundle()
        };
        assert_eq!(
            audit(&bundle).manifests,
            Some(Err(ManifestError::Other { position: 0 }))
        );
    }
}

#[test]
fn a_bundle_of_another_version_is_refused_by_its_name() {
    for format in ["cloister-evidence/2", "", "something else"] {
        let mut value = value();
        value["format"] = format.into();
        value["member of a later version"] = json!(1);
        assert_eq!(read(&value), Err(BundleError::Format(format.to_owned())));
    }
}

#[test]
fn a_bundle_that_is_not_one_is_refused_by_the_member() {
    let with = |member: &str, content: Value| {
        let mut value = value();
        value[member] = content;
        read(&value).unwrap_err()
    };
    for member in ["document", "nonce", "public_key"] {
        for text in ["!", "AAA", "AAAA=", "AA==\n", "_-_-"] {
            assert!(
                matches!(with(member, text.into()), BundleError::Member { member: m, .. } if m == member),
                "{member} {text}"
            );
        }
    }
    assert!(matches!(
        with("document", "".into()),
        BundleError::Member { .. }
    ));
    let long = "A".repeat(4 * 16 * 1024);
    assert!(matches!(
        with("document", long.into()),
        BundleError::Member { .. }
    ));
    assert!(matches!(
        with("recorded", "now".into()),
        BundleError::Member {
            member: "recorded",
            ..
        }
    ));
    assert!(matches!(
        with("manifests", json!(["!"])),
        BundleError::Member { .. }
    ));
    assert!(matches!(
        with("manifests", json!(vec![""; 65])),
        BundleError::Size
    ));
    assert!(matches!(
        with("binding", "{}".into()),
        BundleError::Binding(ParseBindingError::Json(_))
    ));
    assert!(matches!(with("extra", json!(1)), BundleError::Json(_)));
    assert!(matches!(with("policy", json!({})), BundleError::Json(_)));
    assert!(matches!(
        with("policy", json!({"images": []})),
        BundleError::Json(_)
    ));
    let zeros = json!({"images": [{"0": "00".repeat(48)}]});
    assert!(matches!(with("policy", zeros), BundleError::Json(_)));
    let mut value = value();
    value.as_object_mut().unwrap().remove("document");
    assert!(matches!(read(&value), Err(BundleError::Json(_))));
    let text = bundle().to_json().unwrap();
    let twice = text.replacen("\"nonce\"", "\"nonce\": \"AAAA\", \"nonce\"", 1);
    assert!(matches!(
        EvidenceBundle::from_json(twice.as_bytes()),
        Err(BundleError::Json(_))
    ));
    let trailing = text + "{}";
    assert!(matches!(
        EvidenceBundle::from_json(trailing.as_bytes()),
        Err(BundleError::Json(_))
    ));
    let spaces = vec![b' '; attestation::MAX_BUNDLE + 1];
    assert_eq!(EvidenceBundle::from_json(&spaces), Err(BundleError::Size));
    let deep = "[".repeat(100_000);
    assert!(matches!(
        EvidenceBundle::from_json(deep.as_bytes()),
        Err(BundleError::Json(_))
    ));
}

#[test]
fn a_bundle_that_could_not_be_read_again_is_not_written() {
    let mut large = bundle();
    large.manifests = vec![vec![0; attestation::MAX_BUNDLE]];
    assert_eq!(large.to_json(), Err(BundleError::Size));
    large.manifests = vec![vec![]; 65];
    assert_eq!(large.to_json(), Err(BundleError::Size));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_no_bundle(text in ".{0,400}") {
        prop_assert!(EvidenceBundle::from_json(text.as_bytes()).is_err());
    }

    #[test]
    fn a_changed_byte_makes_no_other_bundle_acceptable(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let original = bundle();
        let mut json = original.to_json().unwrap().into_bytes();
        let position = position.index(json.len());
        json[position] = byte;
        if let Ok(read) = EvidenceBundle::from_json(&json) {
            let accepted = audit(&read).is_accepted();
            // Only what nobody signed may differ: the time of the recording, and the policy, which is the maker's own word.
            let same = EvidenceBundle { recorded: original.recorded, policy: original.policy.clone(), ..read } == original;
            prop_assert!(!accepted || same, "byte {position} is {byte:#x}");
        }
    }

    #[test]
    fn what_is_written_is_read_back(
        nonce in prop::option::of(prop::collection::vec(any::<u8>(), 0..64)),
        manifests in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..4),
        spiffe_id in ".{0,40}",
        epoch in any::<u64>(),
        seconds in prop::option::of(0..253_402_300_800_u64),
    ) {
        let mut written = bundle();
        written.nonce = nonce;
        written.manifests = manifests;
        written.recorded = seconds.map(|s| std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        let Some(Binding { subject: Subject::Session(session), .. }) = &mut written.binding else { unreachable!() };
        session.spiffe_id = spiffe_id;
        session.models[0].epoch = epoch;
        let json = written.to_json().unwrap();
        prop_assert_eq!(EvidenceBundle::from_json(json.as_bytes()), Ok(written));
    }

    #[test]
    fn an_arbitrary_text_is_no_binding(text in ".{0,400}") {
        prop_assert!(Binding::from_canonical_json(text.as_bytes()).is_err());
    }

    #[test]
    fn a_binding_with_a_changed_byte_is_another_or_none(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = BINDING.canonical_json();
        let position = position.index(text.len());
        text[position] = byte;
        if let Ok(read) = Binding::from_canonical_json(&text) {
            prop_assert_eq!(read.canonical_json(), text);
        }
    }
}
