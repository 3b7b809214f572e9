//! Revocation lists that the relying party gives.

use attestation::{ChainCache, RevocationLists, RevocationListsError};
use rcgen::{CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;

/// A world, a second hand on its authorities' keys, and the chain of its next document.
struct Listed {
    world: World,
    pki: SimPki,
    chain: Vec<Vec<u8>>,
}

const ISSUERS: [Rank; 4] = [Rank::Root, Rank::Regional, Rank::Zonal, Rank::Instance];

impl Listed {
    fn new() -> Self {
        Self::with_edit(|_, _| {})
    }

    fn with_edit(edit: impl Fn(Rank, &mut rcgen::CertificateParams)) -> Self {
        let pki = SimPki::generate_with(SystemTime::UNIX_EPOCH + START, &edit).unwrap();
        let copy = SimPki::from_json(&pki.to_json()).unwrap();
        let chain = copy.cabundle();
        Self {
            world: World::with_pki(pki),
            pki: copy,
            chain,
        }
    }

    fn serial(&self, position: usize) -> Vec<u8> {
        let (_, certificate) = X509Certificate::from_der(&self.chain[position]).unwrap();
        certificate.raw_serial().to_vec()
    }

    fn list(&self, issuer: Rank, serials: &[Vec<u8>]) -> Vec<u8> {
        self.list_with(issuer, serials, |_| {})
    }

    fn list_with(
        &self,
        issuer: Rank,
        serials: &[Vec<u8>],
        edit: impl Fn(&mut CertificateRevocationListParams),
    ) -> Vec<u8> {
        let now = self.world.now();
        let mut list = revocation_list(now, serials);
        edit(&mut list);
        self.pki.revoke(issuer, list).unwrap()
    }

    fn verify(&self, lists: &[Vec<u8>]) -> Result<Claims, Error> {
        let lists = lists
            .iter()
            .map(|list| RevocationLists::from_bytes(list).unwrap())
            .reduce(|all, next| all.join(next).unwrap())
            .unwrap();
        let verifier = Verifier::new(self.world.verifier.anchor().clone());
        let verifier = verifier.with_revocation_lists(lists);
        let evidence = self.world.attest();
        verifier.verify(&evidence, &self.world.expected(), self.world.now())
    }
}

fn problem(verdict: &Result<Claims, Error>) -> (usize, &'static str) {
    match verdict {
        Err(Error::Chain(ChainError::RevocationList { position, problem })) => (*position, problem),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_revoked_authority_is_refused_by_its_position() {
    let listed = Listed::new();
    for position in 1..4 {
        let issuer = ISSUERS[position - 1];
        let list = listed.list(issuer, &[vec![1, 2, 3], listed.serial(position)]);
        assert_eq!(
            listed.verify(&[list]),
            Err(Error::Chain(ChainError::Revoked { position }))
        );
    }
}

#[test]
fn lists_that_name_others_change_nothing() {
    let listed = Listed::new();
    let empty = listed.list(Rank::Root, &[]);
    assert!(listed.verify(std::slice::from_ref(&empty)).is_ok());
    // The number of another issuer's certificate means nothing here.
    let other = listed.list(Rank::Regional, &[listed.serial(1)]);
    assert!(listed.verify(&[empty, other]).is_ok());
}

#[test]
fn a_list_of_issuers_that_the_chain_does_not_have_is_not_looked_at() {
    let listed = Listed::new();
    let stranger = Listed::with_edit(|rank, params| {
        let name = format!("stranger {rank:?}");
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
    });
    let der = stranger.list(Rank::Zonal, &[listed.serial(3)]);
    // Lists are made under the usual names; only the key is the stranger's.
    assert_eq!(
        problem(&listed.verify(&[der])),
        (3, "not signed by its issuer")
    );
}

#[test]
fn a_list_signed_by_another_key_is_refused_even_if_it_names_nobody() {
    let (listed, stranger) = (Listed::new(), Listed::new());
    for (position, issuer) in [(1, Rank::Root), (2, Rank::Regional), (3, Rank::Zonal)] {
        let forged = stranger.list(issuer, &[]);
        assert_eq!(
            problem(&listed.verify(&[forged])),
            (position, "not signed by its issuer")
        );
    }
}

#[test]
fn a_list_of_an_issuer_that_may_not_sign_lists_is_refused() {
    let listed = Listed::new();
    let list = listed.list(Rank::Instance, &[]);
    assert_eq!(
        problem(&listed.verify(&[list])),
        (4, "its issuer may not sign one")
    );
}

#[test]
fn a_list_that_has_run_out_or_not_begun_is_refused() {
    let listed = Listed::new();
    let now = listed.world.now();
    for (from, until, current) in [
        (now - 2 * HOUR, now - HOUR, false),
        (now - HOUR, now, false),
        (now - HOUR, now + SECOND, true),
        (now + 5 * SECOND, now + HOUR, true),
        (now + 6 * SECOND, now + HOUR, false),
    ] {
        let list = listed.list_with(Rank::Root, &[], |list| {
            list.this_update = from.into();
            list.next_update = until.into();
        });
        let verdict = listed.verify(&[list]);
        if current {
            assert!(verdict.is_ok(), "{verdict:?}");
        } else {
            assert_eq!(
                verdict,
                Err(Error::Chain(ChainError::RevocationListTime {
                    position: 1,
                    this_update: from,
                    next_update: until,
                    at: now,
                }))
            );
        }
    }
}

#[test]
fn a_list_for_another_part_of_the_certificates_counts_too() {
    // Passing over it would be what an attacker wants.
    let listed = Listed::new();
    let list = listed.list_with(Rank::Root, &[listed.serial(1)], |list| {
        list.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec!["http://elsewhere.invalid/part-7.crl".to_owned()],
            },
            scope: Some(rcgen::CrlScope::UserCertsOnly),
        });
    });
    assert_eq!(
        listed.verify(&[list]),
        Err(Error::Chain(ChainError::Revoked { position: 1 }))
    );
}

#[test]
fn of_two_lists_of_one_issuer_both_count() {
    let listed = Listed::new();
    let (clean, revoking) = (
        listed.list(Rank::Root, &[]),
        listed.list(Rank::Root, &[listed.serial(1)]),
    );
    let revoked = Err(Error::Chain(ChainError::Revoked { position: 1 }));
    assert_eq!(listed.verify(&[clean.clone(), revoking.clone()]), revoked);
    assert_eq!(listed.verify(&[revoking, clean]), revoked);
}

#[test]
fn a_chain_that_was_remembered_is_still_revoked() {
    let listed = Listed::new();
    let cache = ChainCache::default();
    let anchor = || listed.world.verifier.anchor().clone();
    let evidence = listed.world.attest();
    let judge = |verifier: Verifier| {
        verifier.verify(&evidence, &listed.world.expected(), listed.world.now())
    };
    assert!(judge(Verifier::new(anchor()).with_chain_cache(cache.clone())).is_ok());
    assert_eq!(cache.len(), 1);
    let list = listed.list(Rank::Zonal, &[listed.serial(3)]);
    let lists = RevocationLists::from_bytes(&list).unwrap();
    let verifier = Verifier::new(anchor()).with_chain_cache(cache);
    assert_eq!(
        judge(verifier.with_revocation_lists(lists)),
        Err(Error::Chain(ChainError::Revoked { position: 3 }))
    );
}

#[test]
fn pem_with_several_lists_is_read_and_its_next_update_known() {
    let listed = Listed::new();
    let now = listed.world.now();
    let pem = |der: &[u8]| {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN X509 CRL-----\n{body}\n-----END X509 CRL-----\n")
    };
    let soon = listed.list_with(Rank::Zonal, &[], |list| {
        list.next_update = (now + SECOND).into();
    });
    let text = pem(&listed.list(Rank::Root, &[])) + &pem(&soon);
    let lists = RevocationLists::from_bytes(text.as_bytes()).unwrap();
    assert_eq!(lists.len(), 2);
    assert_eq!(lists.next_update(), Some(now + SECOND));
}

#[test]
fn bytes_that_are_no_lists_are_refused_when_read() {
    let listed = Listed::new();
    let good = listed.list(Rank::Root, &[listed.serial(1)]);
    for (bytes, expected) in [
        (vec![], RevocationListsError::Format),
        (b"hello".to_vec(), RevocationListsError::Format),
        (
            listed
                .world
                .verifier
                .anchor()
                .fingerprint()
                .to_string()
                .into_bytes(),
            RevocationListsError::Format,
        ),
        (vec![0x30; 4 * 1024 * 1024 + 1], RevocationListsError::Size),
    ] {
        assert_eq!(RevocationLists::from_bytes(&bytes).err(), Some(expected));
    }
    let refused = |bytes: &[u8]| {
        matches!(
            RevocationLists::from_bytes(bytes),
            Err(RevocationListsError::List { position: 0, .. })
        )
    };
    assert!(refused(&[good.as_slice(), &[0]].concat()), "trailing byte");
    assert!(refused(&listed.chain[0]), "a certificate");
    for length in 1..good.len() {
        assert!(refused(&good[..length]), "cut to {length}");
    }
    let indirect = listed.list_with(Rank::Root, &[], |list| {
        list.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec!["http://list.invalid/".to_owned()],
            },
            scope: None,
        });
    });
    assert!(RevocationLists::from_bytes(&indirect).is_ok());
}
