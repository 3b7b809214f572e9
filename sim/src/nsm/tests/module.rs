//! Registers, renewal, keys in JSON and measurements.

use super::*;

#[test]
fn a_register_is_extended_once_and_then_part_of_every_document() {
    let world = World::new();
    let value = world.nsm.extend_and_lock(16, b"model digest").unwrap();
    assert_eq!(value, Pcr::ZERO.extend(b"model digest"));
    assert!(matches!(
        world.nsm.extend_and_lock(16, b"again"),
        Err(AttestError::Locked { index: 16 })
    ));
    assert!(matches!(
        world.nsm.extend_and_lock(0, b"boot"),
        Err(AttestError::Locked { index: 0 })
    ));
    assert!(matches!(
        world.nsm.extend_and_lock(32, b"none"),
        Err(AttestError::NoSuchRegister { index: 32 })
    ));

    let claims = world.verify(&world.attest()).unwrap();
    assert_eq!(claims.pcrs.len(), 17);
    assert_eq!(claims.pcrs[&16], value);
    assert_eq!(claims.pcrs, world.nsm.measurements().unwrap());
}

#[test]
fn a_policy_can_require_what_the_enclave_says_it_serves() {
    use attestation::{RUNTIME_PCR, runtime_measurement};

    let config = Sha256Digest::of(b"config");
    let manifests = || [Sha256Digest::of(b"chat"), Sha256Digest::of(b"embed")];
    let served = runtime_measurement(config, manifests());
    let register = |measured: &[u8]| (RUNTIME_PCR, Pcr::ZERO.extend(measured));
    let mut world = World::new();
    let image = world.accepted.images()[0].registers.clone();
    let requiring = |(index, value): (u8, Pcr)| {
        let mut image = image.clone();
        image.insert(index, value);
        ReferenceValues::try_new(vec![image]).unwrap()
    };

    // Before it is extended, no document has it: a key may not be asked for by a policy that requires it.
    world.accepted = requiring(register(served.as_bytes()));
    assert_eq!(
        world.verify(&world.attest()),
        Err(Error::Measurement {
            index: RUNTIME_PCR,
            expected: register(served.as_bytes()).1,
            actual: None,
        })
    );
    let locked = world
        .nsm
        .extend_and_lock(RUNTIME_PCR, served.as_bytes())
        .unwrap();
    assert_eq!(locked, register(served.as_bytes()).1);
    assert!(world.verify(&world.attest()).is_ok());

    // Another configuration, another model, fewer of them, another order.
    let [chat, embed] = manifests();
    for other in [
        runtime_measurement(Sha256Digest::of(b"other"), manifests()),
        runtime_measurement(config, [chat, chat]),
        runtime_measurement(config, [chat]),
        runtime_measurement(config, [embed, chat]),
    ] {
        world.accepted = requiring(register(other.as_bytes()));
        assert!(matches!(
            world.verify(&world.attest()),
            Err(Error::Measurement {
                index: RUNTIME_PCR,
                ..
            })
        ));
    }
    // Locked: what is loaded later cannot say that it was there at boot.
    assert!(matches!(
        world.nsm.extend_and_lock(RUNTIME_PCR, served.as_bytes()),
        Err(AttestError::Locked { index: RUNTIME_PCR })
    ));
}

#[test]
fn a_request_larger_than_the_module_takes_is_refused() {
    let world = World::new();
    let long = [0; 513];
    for request in [
        AttestationRequest {
            user_data: &long,
            ..request(b"")
        },
        AttestationRequest {
            nonce: &long,
            ..request(b"")
        },
        AttestationRequest {
            public_key: &[0; 1025],
            ..request(b"")
        },
    ] {
        assert!(matches!(
            world.nsm.attest(&request),
            Err(AttestError::RequestTooLarge { .. })
        ));
    }
}

#[test]
fn the_leaf_is_kept_until_shortly_before_its_end_and_then_issued_again() {
    let world = World::new();
    let first = world.verify(&world.attest()).unwrap().leaf_not_after;
    world.pass(2 * HOUR);
    assert_eq!(world.verify(&world.attest()).unwrap().leaf_not_after, first);
    world.pass(HOUR);
    assert_eq!(
        world.verify(&world.attest()).unwrap().leaf_not_after,
        first + 3 * HOUR
    );
}

#[test]
fn a_module_that_runs_for_weeks_still_makes_valid_documents() {
    let world = World::new();
    for _ in 0..60 {
        world.pass(11 * HOUR);
        assert!(world.verify(&world.attest()).is_ok());
    }
}

#[test]
fn randomness_differs_from_call_to_call() {
    let world = World::new();
    let (mut first, mut second) = ([0; 300], [0; 300]);
    world.nsm.random(&mut first).unwrap();
    world.nsm.random(&mut second).unwrap();
    assert_ne!(first, second);
}

#[test]
fn a_chain_read_back_from_json_signs_under_the_same_root() {
    let pki = SimPki::generate(SystemTime::UNIX_EPOCH + START);
    let mut world = World::with_pki(SimPki::from_json(&pki.to_json()).unwrap());
    world.verifier = Verifier::new(TrustAnchor::from_pem(pki.root_pem().as_bytes()).unwrap());
    assert!(world.verify(&world.attest()).is_ok());
}

#[test]
fn broken_json_is_refused_without_quoting_it() {
    let good = SimPki::generate(SystemTime::UNIX_EPOCH + START).to_json();
    for bad in [
        "",
        "[]",
        "{}",
        &good[1..],
        &good.replace("\"key\"", "\"secret\""),
        &good.replace("\"MI", "\"!!"),
        &good.replace("\"MI", "\"AA"),
    ] {
        let error = SimPki::from_json(bad).err().unwrap();
        // Every DER structure of this size starts so in base64.
        let text = format!("{error} {error:?}");
        assert!(!text.contains("MI") && !text.contains("!!"), "{text}");
    }
}

// Measurements.

#[test]
fn a_measurement_follows_the_program_its_configuration_role_and_instance() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    std::fs::write(&one, vec![1; 200_000]).unwrap();
    std::fs::write(&two, vec![2; 200_000]).unwrap();
    let of = |exe, config: &[u8], role, instance| measure(exe, config, role, instance).unwrap();
    let base = of(&one, b"config", "arn:role", "i-1");
    assert_eq!(base.len(), 16);

    let changed = |other: &Pcrs| {
        (0..16)
            .filter(|index| base[index] != other[index])
            .collect::<Vec<u8>>()
    };
    assert_eq!(changed(&of(&one, b"config", "arn:role", "i-1")), [0_u8; 0]);
    assert_eq!(changed(&of(&two, b"config", "arn:role", "i-1")), [0]);
    assert_eq!(changed(&of(&one, b"other", "arn:role", "i-1")), [0, 2]);
    assert_eq!(changed(&of(&one, b"config", "arn:other", "i-1")), [3]);
    assert_eq!(changed(&of(&one, b"config", "arn:role", "i-2")), [4]);

    assert_eq!(base[&4], Pcr::ZERO.extend(b"i-1"));
    assert!(of(&one, b"config", "", "i-1")[&3].is_zero());
    assert!((5..16).all(|index| base[&index].is_zero()));
    assert!(measure(&folder.path().join("none"), b"config", "", "").is_err());
}
