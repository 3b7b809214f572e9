//! With remembered authorities the verdicts are those without, at every step and at every time.

use std::num::NonZeroUsize;

use attestation::ChainCache;

use super::*;

/// The same world with a cache, which has seen a good document.
fn warmed() -> (World, ChainCache) {
    let mut world = World::new();
    let cache = ChainCache::default();
    world.verifier = world.verifier.with_chain_cache(cache.clone());
    assert!(cache.is_empty());
    world.verify(&world.attest()).unwrap();
    assert_eq!(cache.len(), 1);
    (world, cache)
}

/// A verifier with the same root and no memory.
fn cold(world: &World) -> Verifier {
    Verifier::new(world.verifier.anchor().clone())
}

#[test]
fn a_second_document_of_the_machine_is_accepted_by_the_remembered_chain() {
    let (world, cache) = warmed();
    let (first, second) = (world.attest(), world.attest());
    assert_eq!(world.verify(&first), world.verify_cold(&first));
    assert_eq!(world.verify(&second), world.verify_cold(&second));
    assert_eq!(cache.len(), 1, "one machine, one chain");
}

impl World {
    fn verify_cold(&self, evidence: &Evidence) -> Result<Claims, Error> {
        cold(self).verify(evidence, &self.expected(), self.now())
    }
}

#[test]
fn every_spoiled_document_gets_the_same_verdict_with_and_without_memory() {
    type Spoil = fn(&mut DocumentBuilder);
    let spoils: [Spoil; 12] = [
        |d| d.spoil_signature = 1,
        |d| d.nonce = None,
        |d| d.public_key = None,
        |d| d.user_data = None,
        |d| {
            d.pcrs.insert(0, Pcr::ZERO);
        },
        |d| d.timestamp_ms += 60_000,
        |d| d.cabundle.swap(1, 2),
        |d| d.cabundle.insert(1, d.cabundle[1].clone()),
        |d| drop(d.cabundle.remove(3)),
        |d| drop(d.cabundle.remove(0)),
        |d| d.certificate = d.cabundle[3].clone(),
        |d| d.certificate.truncate(600),
    ];
    let (world, cache) = warmed();
    let user_data = world.binding.user_data();
    for (number, spoil) in spoils.into_iter().enumerate() {
        let (mut document, leaf) = world.nsm.document(&request(&user_data)).unwrap();
        spoil(&mut document);
        let evidence = document.sign(&leaf).unwrap();
        let verdict = world.verify(&evidence);
        assert!(verdict.is_err(), "{number}");
        assert_eq!(verdict, world.verify_cold(&evidence), "{number}");
    }
    assert_eq!(cache.len(), 1, "nothing that was refused is remembered");
}

#[test]
fn one_changed_bit_in_any_remembered_authority_is_refused() {
    let (world, cache) = warmed();
    let user_data = world.binding.user_data();
    for position in 0..4 {
        let length = {
            let (document, _) = world.nsm.document(&request(&user_data)).unwrap();
            document.cabundle[position].len()
        };
        for byte in (0..length).step_by(29) {
            let verdict = world.spoiled(|d| d.cabundle[position][byte] ^= 1);
            assert!(
                matches!(verdict, Err(Error::Chain(_))),
                "certificate {position}, byte {byte}: {verdict:?}"
            );
        }
    }
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_remembered_authority_still_ends() {
    let (world, _cache) = warmed();
    // The instance's certificate lasts a day and began an hour before; the module's own renewal is not asked here.
    world.pass(23 * HOUR);
    assert!(world.spoiled(|_| {}).is_ok());
    world.pass(SECOND);
    assert!(validity(&world.spoiled(|_| {}), 3));
}

#[test]
fn a_remembered_authority_is_not_valid_before_its_time() {
    let mut world = World::with_edit(|rank, params| {
        if rank == Rank::Root {
            params.not_before -= 24 * HOUR;
        }
    });
    world.verifier = world.verifier.with_chain_cache(ChainCache::default());
    let evidence = world.attest();
    world.verify(&evidence).unwrap();
    for (before, position) in [
        (6 * SECOND, 4),
        (HOUR + 6 * SECOND, 1),
        (25 * HOUR + 6 * SECOND, 0),
    ] {
        let verdict = world.verify_at(&evidence, world.now() - before);
        assert!(validity(&verdict, position), "{verdict:?}");
    }
}

#[test]
fn a_leaf_is_judged_anew_each_time() {
    let now = SystemTime::UNIX_EPOCH + START;
    let pki = SimPki::generate(now);
    let copy = SimPki::from_json(&pki.to_json()).unwrap();
    let mut world = World::with_pki(pki);
    let cache = ChainCache::default();
    world.verifier = world.verifier.with_chain_cache(cache.clone());
    assert!(world.with_leaf(&copy, |_| {}).is_ok());
    assert_eq!(cache.len(), 1);

    assert_eq!(
        world.with_leaf(&copy, |leaf| leaf.custom_extensions.clear()),
        Err(certificate(4, "key usage absent, unreadable or repeated"))
    );
    assert_eq!(
        world.with_leaf(&copy, |leaf| leaf.is_ca =
            rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0))),
        Err(certificate(4, "a CA certificate as leaf"))
    );
    assert!(validity(
        &world.with_leaf(&copy, |leaf| leaf.not_after = (now - SECOND).into()),
        4
    ));
    // Another machine's leaf below this machine's authorities.
    let stranger = SimPki::generate(now);
    assert!(path(&world.with_leaf(&stranger, |_| {})));
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_remembered_leaf_still_ends_and_another_byte_makes_it_another() {
    let (world, _cache) = warmed();
    let evidence = world.attest();
    world.verify(&evidence).unwrap();
    let after = world.now() + 4 * HOUR;
    assert!(validity(&world.verify_at(&evidence, after), 4));

    let user_data = world.binding.user_data();
    let (document, leaf) = world.nsm.document(&request(&user_data)).unwrap();
    let verify = |document: &DocumentBuilder| world.verify(&document.sign(&leaf).unwrap());
    verify(&document).unwrap();
    for byte in 0..document.certificate.len() {
        let mut spoiled = document.clone();
        spoiled.certificate[byte] ^= 1;
        // Twice: nothing of it was remembered either.
        assert!(verify(&spoiled).is_err(), "byte {byte}");
        assert!(verify(&spoiled).is_err(), "byte {byte}");
    }
    assert!(verify(&document).is_ok());
}

#[test]
fn one_memory_for_two_roots_keeps_them_apart() {
    let cache = ChainCache::default();
    let (mut one, mut two) = (World::new(), World::new());
    one.verifier = one.verifier.with_chain_cache(cache.clone());
    two.verifier = two.verifier.with_chain_cache(cache.clone());
    one.verify(&one.attest()).unwrap();
    two.verify(&two.attest()).unwrap();
    assert_eq!(cache.len(), 2);
    for (verifier, other) in [(&one, &two), (&two, &one)] {
        assert!(matches!(
            verifier.verify(&other.attest()),
            Err(Error::Chain(ChainError::Anchor { .. }))
        ));
    }
}

#[test]
fn the_memory_is_bounded_and_forgetting_changes_no_verdict() {
    let cache = ChainCache::new(NonZeroUsize::MIN);
    let worlds: Vec<World> = (0..3)
        .map(|_| {
            let mut world = World::new();
            world.verifier = world.verifier.with_chain_cache(cache.clone());
            world
        })
        .collect();
    for world in worlds.iter().chain(&worlds) {
        world.verify(&world.attest()).unwrap();
        assert_eq!(cache.len(), 1);
    }
}

#[test]
fn a_chain_with_name_constraints_is_verified_anew_each_time() {
    // What a remembered last authority knows nothing of, must not be forgotten with those above it.
    let mut world = World::with_edit(|rank, params| {
        if rank == Rank::Regional {
            params.name_constraints = Some(rcgen::NameConstraints {
                permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("aws".to_owned())],
                excluded_subtrees: vec![],
            });
        }
    });
    let cache = ChainCache::default();
    world.verifier = world.verifier.with_chain_cache(cache.clone());
    world.verify(&world.attest()).unwrap();
    assert!(cache.is_empty());
}
