//! Documents and chains read by code that is not ours: coset and ciborium for COSE and CBOR, OpenSSL for certificates.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use ciborium::Value;
use coset::{CborSerializable as _, CoseSign1, TaggedCborSerializable as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;

/// What a peer reads in a document.
struct Read {
    certificates: Vec<Vec<u8>>,
    module_id: String,
    timestamp_ms: u64,
    registers: usize,
    signature_holds: bool,
}

/// Parsed and verified by coset and ciborium alone; the signature's curve operations are aws-lc's.
fn read(document: &[u8]) -> Read {
    let sign1 = CoseSign1::from_slice(document)
        .or_else(|_untagged| CoseSign1::from_tagged_slice(document))
        .unwrap();
    let payload: Value = ciborium::from_reader(sign1.payload.as_deref().unwrap()).unwrap();
    let members = payload.into_map().unwrap();
    let member = |name: &str| {
        let found = members.iter().find(|(key, _)| key.as_text() == Some(name));
        found.unwrap().1.clone()
    };
    let bytes = |value: Value| value.into_bytes().unwrap();
    let mut certificates: Vec<_> = member("cabundle").into_array().unwrap();
    certificates.push(member("certificate"));
    let certificates: Vec<_> = certificates.into_iter().map(bytes).collect();
    let (_, leaf) = X509Certificate::from_der(certificates.last().unwrap()).unwrap();
    let point = leaf.public_key().subject_public_key.data.to_vec();
    let verdict = sign1.verify_signature(&[], |signature, signed| {
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point).verify(signed, signature)
    });
    Read {
        module_id: member("module_id").into_text().unwrap(),
        timestamp_ms: member("timestamp")
            .into_integer()
            .unwrap()
            .try_into()
            .unwrap(),
        registers: member("pcrs").into_map().unwrap().len(),
        certificates,
        signature_holds: verdict.is_ok(),
    }
}

/// `openssl verify` at `now` with the first certificate as the only root; not `-x509_strict`, for real leaves have no authority
/// key identifier. None where there is no OpenSSL.
fn openssl(certificates: &[Vec<u8>], now: SystemTime, more: &[&Path]) -> Option<bool> {
    let dir = tempfile::tempdir().unwrap();
    let (leaf, authorities) = certificates.split_last().unwrap();
    let (root, intermediates) = authorities.split_first().unwrap();
    let write = |name: &str, ders: &[&[u8]]| {
        let path = dir.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        for der in ders {
            let der = rustls_pki_types::CertificateDer::from(der.to_vec());
            file.write_all(identity::pem::encode_certificates(&[der]).as_bytes())
                .unwrap();
        }
        path
    };
    let between: Vec<_> = intermediates.iter().map(Vec::as_slice).collect();
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut command = Command::new("openssl");
    command
        .args(["verify", "-no-CApath", "-no-CAstore", "-attime"])
        .arg(seconds.to_string())
        .arg("-CAfile")
        .arg(write("root", &[root]))
        .arg("-untrusted")
        .arg(write("intermediates", &between));
    for list in more {
        command.arg("-CRLfile").arg(list);
    }
    if !more.is_empty() {
        command.arg("-crl_check_all");
    }
    let leaf = write("leaf", &[leaf]);
    match command.arg(leaf).stdin(Stdio::null()).output() {
        Ok(output) => Some(output.status.success()),
        Err(missing) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
            println!("skipped: openssl is not installed");
            None
        }
    }
}

/// Our own verdict on the chain alone: a wrong signature comes after it.
fn chain_holds(verifier: &Verifier, evidence: &Evidence, now: SystemTime) -> bool {
    !matches!(
        verifier.authenticate(evidence, now),
        Err(Error::Chain(_) | Error::Structure(_))
    )
}

#[test]
fn coset_and_openssl_read_and_believe_what_we_make() {
    let world = World::new();
    let evidence = world.attest();
    let read = read(evidence.as_bytes());
    let view = evidence.inspect().unwrap();
    assert!(read.signature_holds);
    assert_eq!(read.module_id, view.module_id);
    assert_eq!((read.registers, read.certificates.len()), (16, 5));
    let made = SystemTime::UNIX_EPOCH + Duration::from_millis(read.timestamp_ms);
    assert_eq!(made, view.timestamp);
    for time in [world.now(), world.now() + 3 * HOUR + 4 * SECOND] {
        let ours = chain_holds(&world.verifier, &evidence, time);
        assert_eq!(ours, time == world.now());
        if let Some(theirs) = openssl(&read.certificates, time, &[]) {
            assert_eq!(theirs, ours, "{time:?}");
        }
    }
}

#[test]
fn openssl_refuses_the_chains_that_we_refuse() {
    type Edit = fn(Rank, &mut rcgen::CertificateParams);
    let edits: [(&str, Edit); 4] = [
        ("not an authority", |rank, params| {
            if rank == Rank::Zonal {
                params.is_ca = rcgen::IsCa::ExplicitNoCa;
            }
        }),
        ("path length", |rank, params| {
            if rank == Rank::Regional {
                params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
            }
        }),
        ("key usage", |rank, params| {
            if rank == Rank::Instance {
                params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
            }
        }),
        ("over", |rank, params| {
            if rank == Rank::Regional {
                params.not_after = (SystemTime::UNIX_EPOCH + START - SECOND).into();
            }
        }),
    ];
    for (name, edit) in edits {
        let world = World::with_edit(edit);
        // Not `attest`, which would renew what has ended.
        let user_data = world.binding.user_data();
        let (document, leaf) = world.nsm.document(&request(&user_data)).unwrap();
        let evidence = document.sign(&leaf).unwrap();
        assert!(
            !chain_holds(&world.verifier, &evidence, world.now()),
            "{name}"
        );
        let certificates = read(evidence.as_bytes()).certificates;
        if let Some(theirs) = openssl(&certificates, world.now(), &[]) {
            assert!(!theirs, "{name}");
        }
    }
}

#[test]
fn openssl_obeys_the_revocation_lists_that_we_obey() {
    let now = SystemTime::UNIX_EPOCH + START;
    // OpenSSL wants a list of every issuer, so here the instance may sign one.
    let pki = SimPki::generate_with(now, &|rank, params| {
        if rank == Rank::Instance {
            params.key_usages.push(rcgen::KeyUsagePurpose::CrlSign);
        }
    })
    .unwrap();
    let lists = SimPki::from_json(&pki.to_json()).unwrap();
    let world = World::with_pki(pki);
    let evidence = world.attest();
    let certificates = read(evidence.as_bytes()).certificates;
    let serial = |position: usize| {
        let (_, certificate) = X509Certificate::from_der(&certificates[position]).unwrap();
        certificate.raw_serial().to_vec()
    };
    for revoked in [None, Some(1), Some(2), Some(3), Some(4)] {
        let dir = tempfile::tempdir().unwrap();
        let ranks = [Rank::Root, Rank::Regional, Rank::Zonal, Rank::Instance];
        let mut paths = Vec::new();
        let mut ours: Option<attestation::RevocationLists> = None;
        for (above, rank) in ranks.into_iter().enumerate() {
            let serials: Vec<_> = revoked
                .filter(|position| *position == above + 1)
                .map(serial)
                .into_iter()
                .collect();
            let der = lists.revoke(rank, revocation_list(now, &serials)).unwrap();
            let path = dir.path().join(format!("{rank:?}"));
            std::fs::write(&path, &der).unwrap();
            paths.push(path);
            let read = attestation::RevocationLists::from_bytes(&der).unwrap();
            ours = Some(match ours {
                None => read,
                Some(all) => all.join(read).unwrap(),
            });
        }
        let anchor = world.verifier.anchor().clone();
        let verifier = Verifier::new(anchor).with_revocation_lists(ours.unwrap());
        let accepted = chain_holds(&verifier, &evidence, now);
        assert_eq!(accepted, revoked.is_none(), "{revoked:?}");
        let paths: Vec<_> = paths.iter().map(AsRef::as_ref).collect();
        if let Some(theirs) = openssl(&certificates, now, &paths) {
            assert_eq!(theirs, accepted, "{revoked:?}");
        }
    }
}

/// Real documents of AWS, each at its own time; the file name has the verdict.
#[test]
fn peers_agree_with_us_on_real_documents() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/nitro");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: no test vectors at {}", folder.display());
        return;
    };
    let aws = Verifier::new(TrustAnchor::aws_nitro());
    let paths = entries.map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.extension().is_some_and(|e| e == "bin")) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let read = read(&bytes);
        let evidence = Evidence::from_bytes(bytes).unwrap();
        let view = evidence.inspect().unwrap();
        let now = evidence.claimed_time().unwrap();
        assert_eq!(view.module_id, read.module_id, "{name}");
        assert_eq!(view.pcrs.len(), read.registers, "{name}");
        assert_eq!(view.certificates.len(), read.certificates.len(), "{name}");
        assert_eq!(
            read.signature_holds,
            !name.contains("bad_signature"),
            "{name}"
        );
        // OpenSSL is given the document's own root here; that a foreign one is not AWS's is for the anchor to say.
        if name.contains("foreign_root") {
            assert!(!chain_holds(&aws, &evidence, now));
            continue;
        }
        assert!(chain_holds(&aws, &evidence, now), "{name}");
        if let Some(theirs) = openssl(&read.certificates, now, &[]) {
            assert!(theirs, "{name}");
            let late = now + 4 * HOUR;
            assert_eq!(
                openssl(&read.certificates, late, &[]),
                Some(false),
                "{name}"
            );
        }
    }
}
