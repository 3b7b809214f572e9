use std::path::{Path, PathBuf};

use super::*;
use crate::ChainError;
use crate::pcr::Pcr;

/// Real documents beside the project: the verdict is in the file's name. None when the folder is not there.
fn vectors() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/nitro");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no test vectors at {}", folder.display());
    None
}

fn documents(folder: &Path, verdict: &str) -> Vec<(String, Evidence)> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .map(|path| {
            (
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                std::fs::read(&path).unwrap(),
            )
        })
        .filter(|(name, _)| name.starts_with(verdict))
        .map(|(name, bytes)| (name, Evidence::from_bytes(bytes).unwrap()))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!found.is_empty(), "no {verdict}_* in {}", folder.display());
    found
}

/// When the document says it was made; readable before anything is verified.
fn own_time(evidence: &Evidence) -> SystemTime {
    let document = UnverifiedDocument::parse(evidence.as_bytes()).unwrap();
    document.authenticated(SystemTime::UNIX_EPOCH).timestamp
}

fn aws() -> Verifier {
    Verifier::new(TrustAnchor::aws_nitro())
}

#[test]
fn real_documents_named_accept_pass_every_step_at_their_own_time() {
    let Some(folder) = vectors() else { return };
    for (name, evidence) in documents(&folder, "accept") {
        let now = own_time(&evidence);
        let document = aws()
            .authenticate(&evidence, now)
            .unwrap_or_else(|e| panic!("{name}: {e:?}"));
        // Their makers' bindings are not ours, so the later steps are called one by one, with what they carry.
        assert_eq!(not_debug(&document.pcrs), Ok(()), "{name}");
        if let Some(nonce) = document
            .nonce
            .as_deref()
            .filter(|nonce| nonce.len() >= MIN_NONCE)
        {
            assert_eq!(check_nonce(Some(nonce), nonce), Ok(()), "{name}");
        }
        let image = [0, 1, 2].map(|index| (index, document.pcrs[&index]));
        let accepted = ReferenceValues::try_new(vec![image.into()]).unwrap();
        assert_eq!(accepted.appraise(&document.pcrs, now), Ok(()), "{name}");
        assert_eq!(
            check_freshness(document.timestamp, Duration::ZERO, now),
            Ok(()),
            "{name}"
        );

        // PCR4 is the parent instance, extended into an empty register.
        let instance = document.module_id.split("-enc").next().unwrap();
        assert_eq!(
            document.pcrs[&4],
            Pcr::ZERO.extend(instance.as_bytes()),
            "{name}"
        );
        assert!(
            document.leaf_not_after > now
                && document.leaf_not_after < now + Duration::from_secs(3 * 3600 + 3)
        );
        if name.contains("pcr16") {
            assert_eq!(document.pcrs.len(), 17, "{name}");
        }
    }
}

#[test]
fn real_documents_named_reject_fail_at_the_step_in_their_name() {
    let Some(folder) = vectors() else { return };
    for (name, evidence) in documents(&folder, "reject") {
        let now = own_time(&evidence);
        let verdict = aws()
            .authenticate(&evidence, now)
            .and_then(|document| not_debug(&document.pcrs));
        match verdict {
            Err(Error::Debug { index: 0 }) if name.contains("debug") => {}
            Err(Error::Signature) if name.contains("bad_signature") => {}
            Err(Error::Chain(ChainError::Anchor { .. })) if name.contains("foreign_root") => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_real_document_is_refused_outside_its_certificates_validity() {
    let Some(folder) = vectors() else { return };
    for (name, evidence) in documents(&folder, "accept") {
        let now = own_time(&evidence);
        let leaf_end = aws().authenticate(&evidence, now).unwrap().leaf_not_after;
        assert!(aws().authenticate(&evidence, leaf_end).is_ok(), "{name}");
        for wrong in [
            leaf_end + Duration::from_secs(1),
            now - Duration::from_secs(4 * 3600),
        ] {
            assert!(
                matches!(
                    aws().authenticate(&evidence, wrong),
                    Err(Error::Chain(ChainError::Validity { .. }))
                ),
                "{name}"
            );
        }
    }
}

#[test]
fn a_real_document_with_any_payload_byte_changed_is_refused() {
    let Some(folder) = vectors() else { return };
    for (name, evidence) in documents(&folder, "accept") {
        let now = own_time(&evidence);
        // Every byte would take minutes; a prime stride reaches every part of a document.
        for position in (0..evidence.as_bytes().len()).step_by(37) {
            let mut bytes = evidence.as_bytes().to_vec();
            bytes[position] ^= 1;
            let changed = Evidence::from_bytes(bytes).unwrap();
            assert!(
                aws().authenticate(&changed, now).is_err(),
                "{name}: byte {position}"
            );
        }
    }
}

#[test]
fn zero_or_absent_pcr_0_1_or_2_is_debug_mode_and_other_zeros_are_not() {
    let pcrs = |zero: &[u8], absent: &[u8]| -> Pcrs {
        (0..16)
            .filter(|index| !absent.contains(index))
            .map(|index| {
                (
                    index,
                    if zero.contains(&index) {
                        Pcr::ZERO
                    } else {
                        Pcr::ZERO.extend(b"x")
                    },
                )
            })
            .collect()
    };
    assert_eq!(not_debug(&pcrs(&[], &[])), Ok(()));
    assert_eq!(not_debug(&pcrs(&[3, 4, 8], &[5, 15])), Ok(()));
    for index in 0..3 {
        assert_eq!(not_debug(&pcrs(&[index], &[])), Err(Error::Debug { index }));
        assert_eq!(not_debug(&pcrs(&[], &[index])), Err(Error::Debug { index }));
    }
    assert_eq!(
        not_debug(&pcrs(&[0, 1, 2], &[])),
        Err(Error::Debug { index: 0 })
    );
}

#[test]
fn a_nonce_must_be_present_equal_and_long_enough_to_be_a_challenge() {
    let nonce = [7; 32];
    assert_eq!(check_nonce(Some(&nonce), &nonce), Ok(()));
    for (actual, expected) in [
        (None, &nonce[..]),
        (Some(&[][..]), &nonce),
        (Some(&nonce[..31]), &nonce),
        (Some(&nonce), &[8; 32]),
    ] {
        assert_eq!(
            check_nonce(actual, expected),
            Err(Error::Nonce {
                expected: expected.into(),
                actual: actual.map(Into::into)
            })
        );
    }
    for length in [0, 1, 15] {
        let short = &nonce[..length];
        for actual in [None, Some(short), Some(&nonce[..])] {
            assert_eq!(
                check_nonce(actual, short),
                Err(Error::WeakChallenge { length })
            );
        }
    }
}

#[test]
fn age_is_bounded_on_both_sides() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let max_age = Duration::from_secs(60);
    let second = Duration::from_secs(1);
    assert_eq!(check_freshness(now - max_age, max_age, now), Ok(()));
    assert_eq!(check_freshness(now + CLOCK_LEEWAY, max_age, now), Ok(()));
    assert_eq!(
        check_freshness(now - max_age - second, max_age, now),
        Err(FreshnessError::TooOld {
            age: max_age + second,
            max_age
        })
    );
    assert_eq!(
        check_freshness(now + CLOCK_LEEWAY + second, max_age, now),
        Err(FreshnessError::Future {
            ahead: CLOCK_LEEWAY + second
        })
    );
}
