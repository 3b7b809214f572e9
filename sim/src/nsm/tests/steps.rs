//! A document is spoiled in one respect and must fail at exactly the step that looks at it.

use rcgen::{BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use super::*;

// Step 1: structure.

#[test]
fn step_1_a_member_too_many_is_refused() {
    let world = World::new();
    let with = |name: &str, value: ciborium::Value| {
        world.spoiled(|document| document.extra.push((name.to_owned(), value.clone())))
    };
    assert_eq!(
        with("extra", ciborium::Value::Null),
        Err(StructureError::Unknown.into())
    );
    assert_eq!(
        with("nonce", ciborium::Value::Null),
        Err(StructureError::Duplicate { field: "nonce" }.into())
    );
    assert_eq!(
        with("nitrotpm_pcrs", ciborium::Value::Map(vec![])),
        Err(StructureError::NitroTpm.into())
    );
}

#[test]
fn step_1_another_digest_or_algorithm_is_refused() {
    let world = World::new();
    assert_eq!(
        world.spoiled(|d| d.digest = "SHA512".into()),
        Err(StructureError::Digest.into())
    );
    assert_eq!(
        world.spoiled(|d| d.algorithm = coset::iana::Algorithm::ES256),
        Err(StructureError::Headers.into())
    );
}

#[test]
fn step_1_members_out_of_bounds_are_refused() {
    let world = World::new();
    let length = |field| Err(StructureError::Length { field }.into());
    assert_eq!(world.spoiled(|d| d.timestamp_ms = 0), length("timestamp"));
    assert_eq!(world.spoiled(|d| d.pcrs.clear()), length("pcrs"));
    assert_eq!(
        world.spoiled(|d| {
            d.pcrs.insert(32, Pcr::ZERO.extend(b"x"));
        }),
        length("pcrs")
    );
    assert_eq!(world.spoiled(|d| d.cabundle.clear()), length("cabundle"));
    assert_eq!(
        world.spoiled(|d| d.certificate = vec![0x30; 1025]),
        length("certificate")
    );
    assert_eq!(
        world.spoiled(|d| d.user_data = Some(vec![0; 1025])),
        length("user_data")
    );
    assert_eq!(world.spoiled(|d| d.module_id.clear()), length("module_id"));
}

// Step 2: chain.

#[test]
fn step_2_the_aws_root_refuses_a_simulated_document() {
    let world = World::new();
    let aws = Verifier::new(TrustAnchor::aws_nitro());
    let verdict = aws.verify(&world.attest(), &world.expected(), world.now());
    assert_eq!(
        verdict,
        Err(Error::Chain(ChainError::Anchor {
            expected: TrustAnchor::aws_nitro().fingerprint(),
            actual: world.verifier.anchor().fingerprint(),
        }))
    );
    assert!(!world.verifier.anchor().is_aws_nitro());
}

#[test]
fn step_2_another_runs_root_is_refused() {
    let (world, other) = (World::new(), World::new());
    assert!(matches!(
        world.verify(&other.attest()),
        Err(Error::Chain(ChainError::Anchor { .. }))
    ));
}

#[test]
fn step_2_our_root_put_above_a_foreign_chain_is_refused() {
    let (world, other) = (World::new(), World::new());
    let user_data = world.binding.user_data();
    let ours = world
        .nsm
        .document(&request(&user_data))
        .unwrap()
        .0
        .cabundle
        .swap_remove(0);
    let (mut document, leaf) = other.nsm.document(&request(&user_data)).unwrap();
    document.cabundle[0] = ours;
    assert!(path(&world.verify(&document.sign(&leaf).unwrap())));
}

#[test]
fn step_2_a_missing_intermediate_is_refused() {
    let world = World::new();
    for position in 1..4 {
        let verdict = world.spoiled(|document| drop(document.cabundle.remove(position)));
        assert!(path(&verdict), "{position}: {verdict:?}");
    }
    let without_root = world.spoiled(|document| drop(document.cabundle.remove(0)));
    assert!(matches!(
        without_root,
        Err(Error::Chain(ChainError::Anchor { .. }))
    ));
}

#[test]
fn step_2_a_bundle_that_is_not_the_path_in_order_is_refused() {
    let world = World::new();
    let problem = "too many certificates below it";
    assert_eq!(
        world.spoiled(|d| d.cabundle.swap(1, 2)),
        Err(certificate(1, problem))
    );
    assert_eq!(
        world.spoiled(|d| d.cabundle.insert(1, d.cabundle[1].clone())),
        Err(certificate(1, problem))
    );

    // The same where no path length gives it away.
    let world = World::with_edit(|_, params| {
        if matches!(params.is_ca, IsCa::Ca(_)) {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
    });
    assert!(world.spoiled(|_| {}).is_ok());
    let order = Err(Error::Chain(ChainError::Order));
    assert_eq!(world.spoiled(|d| d.cabundle.swap(1, 2)), order);
    assert_eq!(
        world.spoiled(|d| d.cabundle.insert(1, d.cabundle[1].clone())),
        order
    );
}

#[test]
fn step_2_time_outside_the_leafs_validity_is_refused() {
    let world = World::new();
    let evidence = world.attest();
    let start = world.now();
    // Neither the future nor the age of the document is looked at before the chain.
    assert!(validity(&world.verify_at(&evidence, start - 6 * SECOND), 4));
    assert!(world.verify_at(&evidence, start - 5 * SECOND).is_ok());
    let late = start + 3 * HOUR + 4 * SECOND;
    assert_eq!(
        world.verify_at(&evidence, late),
        Err(Error::Chain(ChainError::Validity {
            position: 4,
            not_before: start,
            not_after: late - SECOND,
            at: late,
        }))
    );
}

#[test]
fn step_2_an_expired_intermediate_is_refused() {
    for (position, rank, days) in [
        (3, Rank::Instance, 1),
        (2, Rank::Zonal, 6),
        (1, Rank::Regional, 20),
    ] {
        let world = World::with_edit(|edited, params| {
            if edited != rank && edited != Rank::Root {
                params.not_after += 365 * 24 * HOUR;
            }
        });
        // The certificates began an hour before the world.
        world.pass(days * 24 * HOUR - HOUR);
        assert!(world.spoiled(|_| {}).is_ok(), "{rank:?}");
        world.pass(SECOND);
        assert!(validity(&world.spoiled(|_| {}), position), "{rank:?}");
    }
}

#[test]
fn step_2_an_expired_root_is_refused() {
    let world = World::with_edit(|rank, params| {
        if rank == Rank::Root {
            params.not_after = (SystemTime::UNIX_EPOCH + START).into();
        }
    });
    assert!(world.spoiled(|_| {}).is_ok());
    world.pass(SECOND);
    assert!(validity(&world.spoiled(|_| {}), 0));
}

#[test]
fn step_2_an_authority_that_may_not_sign_certificates_is_refused() {
    for (position, rank) in [(1, Rank::Regional), (2, Rank::Zonal), (3, Rank::Instance)] {
        let world = World::with_edit(|edited, params| {
            if edited == rank {
                params.is_ca = IsCa::ExplicitNoCa;
            }
        });
        assert_eq!(
            world.spoiled(|_| {}),
            Err(certificate(position, "not a CA certificate"))
        );
        let world = World::with_edit(|edited, params| {
            if edited == rank {
                params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            }
        });
        let Err(Error::Chain(refused)) = world.spoiled(|_| {}) else {
            panic!("{rank:?} was accepted")
        };
        let problem = "key usage does not allow signing certificates";
        assert_eq!(refused, ChainError::Certificate { position, problem });
    }
}

#[test]
fn step_2_a_path_longer_than_an_authority_allows_is_refused() {
    let world = World::with_edit(|rank, params| {
        if rank == Rank::Regional {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        }
    });
    assert_eq!(
        world.spoiled(|_| {}),
        Err(certificate(1, "too many certificates below it"))
    );
}

#[test]
fn step_2_a_leaf_that_is_not_for_signing_documents_is_refused() {
    let now = SystemTime::UNIX_EPOCH + START;
    let pki = SimPki::generate(now);
    let copy = SimPki::from_json(&pki.to_json()).unwrap();
    let world = World::with_pki(pki);
    let key_usage =
        |bits: u8| CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 0, bits]);

    assert!(world.with_leaf(&copy, |_| {}).is_ok());
    assert_eq!(
        world.with_leaf(&copy, |leaf| leaf.is_ca =
            IsCa::Ca(BasicConstraints::Constrained(0))),
        Err(certificate(4, "a CA certificate as leaf"))
    );
    assert_eq!(
        world.with_leaf(&copy, |leaf| leaf.custom_extensions.clear()),
        Err(certificate(4, "key usage absent, unreadable or repeated"))
    );
    assert_eq!(
        world.with_leaf(&copy, |leaf| leaf.custom_extensions = vec![key_usage(0x20)]),
        Err(certificate(4, "key usage does not allow signing documents"))
    );
    assert_eq!(
        world.with_leaf(&copy, |leaf| leaf.custom_extensions = vec![key_usage(0x84)]),
        Err(certificate(4, "key usage of a CA on the leaf"))
    );
    assert!(path(&world.with_leaf(&copy, |leaf| {
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    })));
    assert!(path(&world.with_leaf(&copy, |leaf| {
        let mut unknown =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        unknown.set_criticality(true);
        leaf.custom_extensions.push(unknown);
    })));
}

#[test]
fn step_2_a_leaf_issued_by_another_chain_is_refused() {
    let world = World::new();
    let stranger = SimPki::generate(world.now());
    assert!(path(&world.with_leaf(&stranger, |_| {})));
}

// Step 3: signature.

#[test]
fn step_3_a_changed_signature_is_refused() {
    let world = World::new();
    assert_eq!(
        world.spoiled(|d| d.spoil_signature = 1),
        Err(Error::Signature)
    );
}

#[test]
fn step_3_a_document_signed_by_another_leaf_of_the_same_instance_is_refused() {
    let world = World::new();
    let user_data = world.binding.user_data();
    let (document, _) = world.nsm.document(&request(&user_data)).unwrap();
    let (_, other) = world.nsm.document(&request(&user_data)).unwrap();
    assert_eq!(
        world.verify(&document.sign(&other).unwrap()),
        Err(Error::Signature)
    );
}

#[test]
fn step_3_a_changed_payload_is_refused() {
    let world = World::new();
    let mut bytes = world.attest().into_bytes();
    let at = bytes
        .windows(32)
        .position(|window| window == NONCE)
        .unwrap();
    bytes[at] ^= 1;
    assert_eq!(
        world.verify(&Evidence::from_bytes(bytes).unwrap()),
        Err(Error::Signature)
    );
}

// Step 4: not debug.

#[test]
fn step_4_a_debug_enclave_is_refused_whoever_appraises() {
    let world = World::new();
    for index in 0..3 {
        let zero = |d: &mut DocumentBuilder| {
            d.pcrs.insert(index, Pcr::ZERO);
        };
        assert_eq!(world.spoiled(zero), Err(Error::Debug { index }));
        assert_eq!(
            world.spoiled(|d| {
                d.pcrs.remove(&index);
            }),
            Err(Error::Debug { index })
        );

        let user_data = world.binding.user_data();
        let (mut document, leaf) = world.nsm.document(&request(&user_data)).unwrap();
        zero(&mut document);
        let mut expected = world.expected();
        expected.measurements = Appraisal::ByCaller;
        let verdict = world
            .verifier
            .verify(&document.sign(&leaf).unwrap(), &expected, world.now());
        assert_eq!(verdict, Err(Error::Debug { index }));
    }
}

// Step 5: nonce.

#[test]
fn step_5_a_stale_or_absent_nonce_is_refused_with_both_values() {
    let world = World::new();
    for actual in [
        Some(vec![6; 32]),
        Some(NONCE[..31].to_vec()),
        Some([&NONCE[..], &[7]].concat()),
        Some(vec![]),
        None,
    ] {
        assert_eq!(
            world.spoiled(|d| d.nonce = actual.clone()),
            Err(Error::Nonce {
                expected: NONCE[..].into(),
                actual: actual.as_deref().map(Into::into),
            })
        );
    }
}

#[test]
fn step_5_a_challenge_that_anyone_could_guess_is_no_challenge() {
    let world = World::new();
    let user_data = world.binding.user_data();
    let (mut document, leaf) = world.nsm.document(&request(&user_data)).unwrap();
    for length in [0, 15] {
        document.nonce = Some(NONCE[..length].to_vec());
        let mut expected = world.expected();
        expected.nonce = &NONCE[..length];
        let verdict = world
            .verifier
            .verify(&document.sign(&leaf).unwrap(), &expected, world.now());
        assert_eq!(verdict, Err(Error::WeakChallenge { length }));
    }
}

// Step 6: binding.

#[test]
fn step_6_another_or_no_public_key_is_refused_with_both_digests() {
    let world = World::new();
    for actual in [Some(vec![9; 91]), Some(PUBLIC_KEY[..90].to_vec()), None] {
        assert_eq!(
            world.spoiled(|d| d.public_key = actual.clone()),
            Err(Error::PublicKey {
                expected: Sha256Digest::of(&PUBLIC_KEY),
                actual: actual.as_deref().map(Sha256Digest::of),
            })
        );
    }
}

/// Refused at the binding, for this purpose.
fn unbound(verdict: &Result<Claims, Error>, wanted: Purpose) -> bool {
    matches!(verdict, Err(Error::Binding { purpose, .. }) if *purpose == wanted)
}

#[test]
fn step_6_evidence_for_another_purpose_is_refused() {
    let mut world = World::new();
    let subjects = [
        session().subject,
        Subject::KeyRelease {
            runtime_data_sha384: Sha384Digest::of(b"runtime data"),
        },
        Subject::SvidIssuance {
            csr_sha256: Sha256Digest::of(b"csr"),
            spki_sha256: Sha256Digest::of(&PUBLIC_KEY),
        },
    ];
    for made_for in &subjects {
        world.binding.subject = made_for.clone();
        let evidence = world.attest();
        for used_for in &subjects {
            world.binding.subject = used_for.clone();
            let verdict = world.verify(&evidence);
            if made_for == used_for {
                assert!(verdict.is_ok(), "{verdict:?}");
            } else {
                assert!(unbound(&verdict, world.binding.purpose()), "{verdict:?}");
            }
        }
    }
}

#[test]
fn step_6_evidence_of_another_connection_run_configuration_or_model_is_refused() {
    type Change = fn(&mut Binding, &mut SessionSubject);
    let changes: [Change; 9] = [
        |binding, _| binding.config_digest = Sha256Digest::of(b"other"),
        |binding, _| binding.boot_id = BootId::random(),
        |_, session| session.exporter = [9; 32],
        |_, session| session.tls_spki_sha256 = Sha256Digest::of(b"other"),
        |_, session| session.peer_leaf_sha256 = Sha256Digest::of(b"other"),
        |_, session| session.models[0].manifest_sha256 = Sha256Digest::of(b"other"),
        |_, session| session.models[0].publisher_sha256 = Sha256Digest::of(b"other"),
        |_, session| session.models[0].epoch = 2,
        |_, session| session.svid_serial = "02".into(),
    ];
    let mut world = World::new();
    let evidence = world.attest();
    for change in changes {
        world.binding = session();
        let Subject::Session(mut subject) = world.binding.subject.clone() else {
            unreachable!()
        };
        change(&mut world.binding, &mut subject);
        world.binding.subject = Subject::Session(subject);
        assert!(unbound(&world.verify(&evidence), Purpose::Session));
    }
}

#[test]
fn step_6_absent_user_data_is_refused_with_what_was_expected() {
    let world = World::new();
    for actual in [None, Some(vec![])] {
        assert_eq!(
            world.spoiled(|d| d.user_data = actual.clone()),
            Err(Error::Binding {
                purpose: Purpose::Session,
                expected: world.binding.user_data()[..].into(),
                actual: actual.as_deref().map(Into::into),
            })
        );
    }
}

// Step 7: measurements.

#[test]
fn step_7_each_wrong_register_is_refused_with_both_values() {
    let world = World::new();
    let wrong = Pcr::ZERO.extend(b"other image");
    for index in 0..3 {
        let expected = pcrs()[&index];
        assert_eq!(
            world.spoiled(|d| {
                d.pcrs.insert(index, wrong);
            }),
            Err(Error::Measurement {
                index,
                expected,
                actual: Some(wrong)
            })
        );
    }
}

// Step 8: freshness.

#[test]
fn step_8_an_old_document_is_refused() {
    let world = World::new();
    let evidence = world.attest();
    world.pass(MAX_AGE);
    assert!(world.verify(&evidence).is_ok());
    world.pass(SECOND);
    let age = MAX_AGE + SECOND;
    let refused = Error::Freshness(FreshnessError::TooOld {
        age,
        max_age: MAX_AGE,
    });
    assert_eq!(world.verify(&evidence), Err(refused));
}

#[test]
fn step_8_a_document_from_the_future_is_refused() {
    let world = World::new();
    assert!(world.spoiled(|d| d.timestamp_ms += 5_000).is_ok());
    let ahead = Duration::from_millis(5_001);
    assert_eq!(
        world.spoiled(|d| d.timestamp_ms += 5_001),
        Err(Error::Freshness(FreshnessError::Future { ahead }))
    );
}
