use std::time::Duration;

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn pcr(byte: u8) -> Pcr {
    Pcr::from_bytes([byte; 48])
}

fn values(images: &[&[(u8, u8)]]) -> Result<ReferenceValues, ReferenceValuesError> {
    let image = |registers: &&[(u8, u8)]| registers.iter().map(|&(i, v)| (i, pcr(v))).collect();
    ReferenceValues::try_new(images.iter().map(image).collect())
}

#[test]
fn values_that_accept_too_much_are_refused() {
    assert_eq!(values(&[]), Err(ReferenceValuesError::Empty));
    assert_eq!(
        values(&[&[]]),
        Err(ReferenceValuesError::MissingPcr0 { image: 0 })
    );
    assert_eq!(
        values(&[&[(0, 1)], &[(1, 1)]]),
        Err(ReferenceValuesError::MissingPcr0 { image: 1 })
    );
    assert_eq!(
        values(&[&[(0, 0)]]),
        Err(ReferenceValuesError::Zero { image: 0, index: 0 })
    );
    assert_eq!(
        values(&[&[(0, 1), (8, 0)]]),
        Err(ReferenceValuesError::Zero { image: 0, index: 8 })
    );
    assert_eq!(
        values(&[&[(0, 1), (32, 1)]]),
        Err(ReferenceValuesError::NoSuchRegister {
            image: 0,
            index: 32
        })
    );
}

#[test]
fn one_whole_image_must_match() {
    let accepted = values(&[&[(0, 1), (1, 2)], &[(0, 3), (1, 4), (2, 5)]]).unwrap();
    let measured = |list: &[(u8, u8)]| list.iter().map(|&(i, v)| (i, pcr(v))).collect::<Pcrs>();
    assert_eq!(
        accepted.appraise(&measured(&[(0, 1), (1, 2), (4, 9)]), NOW),
        Ok(())
    );
    assert_eq!(
        accepted.appraise(&measured(&[(0, 3), (1, 4), (2, 5)]), NOW),
        Ok(())
    );
    // Registers of two images do not add up to one.
    assert_eq!(
        accepted.appraise(&measured(&[(0, 1), (1, 4), (2, 5)]), NOW),
        Err(Error::Measurement {
            index: 1,
            expected: pcr(2),
            actual: Some(pcr(4))
        })
    );
    assert_eq!(
        accepted.appraise(&measured(&[(0, 1)]), NOW),
        Err(Error::Measurement {
            index: 1,
            expected: pcr(2),
            actual: None
        })
    );
}

#[test]
fn json_has_text_keys_and_survives_a_round_trip() {
    let accepted = values(&[&[(0, 1), (1, 2)], &[(0, 3), (16, 4)]]).unwrap();
    let json = serde_json::to_string(&accepted).unwrap();
    assert!(json.starts_with(r#"[{"0":"0101"#), "{json}");
    assert_eq!(
        serde_json::from_str::<ReferenceValues>(&json).unwrap(),
        accepted
    );
}

#[test]
fn toml_reads_a_list_of_tables() {
    #[derive(Deserialize)]
    struct Policy {
        images: ReferenceValues,
    }
    let one = "01".repeat(48);
    let policy: Policy =
        toml::from_str(&format!(r#"images = [{{ "0" = "{one}", 1 = "{one}" }}]"#)).unwrap();
    assert_eq!(policy.images, values(&[&[(0, 1), (1, 1)]]).unwrap());
}

#[test]
fn json_that_is_ambiguous_is_refused() {
    let one = "01".repeat(48);
    let two = "02".repeat(48);
    for (json, word) in [
        (format!(r#"[{{"0":"{one}","0":"{two}"}}]"#), "twice"),
        (
            format!(r#"[{{"0":"{one}","01":"{two}"}}]"#),
            "not a PCR index",
        ),
        (format!(r#"[{{"+0":"{one}"}}]"#), "not a PCR index"),
        (format!(r#"[{{"PCR0":"{one}"}}]"#), "not a PCR index"),
        (r#"[{"0":"01"}]"#.to_owned(), "96 hex digits"),
        ("[]".to_owned(), "no accepted image"),
    ] {
        let error = serde_json::from_str::<ReferenceValues>(&json)
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{json}: {error}");
    }
}

fn second(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn rollout() -> ReferenceValues {
    let image = |value, not_before: Option<u64>, not_after: Option<u64>| AcceptedImage {
        registers: [(0, pcr(value))].into(),
        not_before: not_before.map(second),
        not_after: not_after.map(second),
    };
    ReferenceValues::try_from_images(vec![image(1, None, Some(200)), image(2, Some(100), None)])
        .unwrap()
}

#[test]
fn in_a_rollout_each_image_counts_in_its_own_time_only() {
    let (old, new) = (Pcrs::from([(0, pcr(1))]), Pcrs::from([(0, pcr(2))]));
    let accepted = rollout();
    for (measured, at, expected) in [
        (&old, 0, true),
        (&old, 199, true),
        (&old, 200, false),
        (&new, 99, false),
        (&new, 100, true),
        (&new, 1_000, true),
    ] {
        let verdict = accepted.appraise(measured, second(at));
        assert_eq!(verdict.is_ok(), expected, "{at}: {verdict:?}");
    }
    assert_eq!(
        accepted.appraise(&old, second(300)),
        Err(Error::ImageWindow {
            image: 0,
            not_before: None,
            not_after: Some(second(200)),
            at: second(300),
        })
    );
    // An image that nobody named is refused for its measurement, whatever the time.
    let other = Pcrs::from([(0, pcr(3))]);
    assert!(matches!(
        accepted.appraise(&other, second(150)),
        Err(Error::Measurement { index: 0, .. })
    ));
}

#[test]
fn the_same_image_with_two_windows_is_accepted_in_either() {
    let image = |from, until| AcceptedImage {
        registers: [(0, pcr(1))].into(),
        not_before: Some(second(from)),
        not_after: Some(second(until)),
    };
    let accepted = ReferenceValues::try_from_images(vec![image(10, 20), image(30, 40)]).unwrap();
    let measured = Pcrs::from([(0, pcr(1))]);
    let at = |time| accepted.appraise(&measured, second(time)).is_ok();
    assert_eq!(
        [9, 10, 19, 20, 30, 39, 40].map(at),
        [false, true, true, false, true, true, false]
    );
}

#[test]
fn a_window_in_which_nothing_lies_is_refused() {
    for (from, until) in [(10, 10), (11, 10)] {
        let image = AcceptedImage {
            registers: [(0, pcr(1))].into(),
            not_before: Some(second(from)),
            not_after: Some(second(until)),
        };
        assert_eq!(
            ReferenceValues::try_from_images(vec![image]),
            Err(ReferenceValuesError::Window { image: 0 })
        );
    }
}

#[test]
fn windows_are_read_and_written_as_rfc_3339() {
    let json = serde_json::to_string(&rollout()).unwrap();
    assert!(
        json.contains(r#""not_after":"1970-01-01T00:03:20Z""#),
        "{json}"
    );
    assert_eq!(
        serde_json::from_str::<ReferenceValues>(&json).unwrap(),
        rollout()
    );
    let one = "01".repeat(48);
    for (member, word) in [
        (r#""not_after":"tomorrow""#, "is not a time"),
        (r#""not_after":"2026-11-20""#, "is not a time"),
        (r#""not_after":"1960-11-20T12:00:00Z""#, "is not a time"),
        (r#""not_after":1"#, "invalid type"),
        (
            r#""not_after":"2026-11-20T12:00:00Z","not_after":"2027-11-20T12:00:00Z""#,
            "twice",
        ),
        (r#""not_later":"2026-11-20T12:00:00Z""#, "not a PCR index"),
        (
            r#""not_before":"2027-11-20T12:00:00Z","not_after":"2026-11-20T12:00:00Z""#,
            "not later",
        ),
    ] {
        let json = format!(r#"[{{"0":"{one}",{member}}}]"#);
        let error = serde_json::from_str::<ReferenceValues>(&json)
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{json}: {error}");
    }
}

#[test]
fn any_set_of_registers_may_be_asked_for() {
    let accepted = values(&[&[(0, 1), (3, 2), (4, 3), (8, 4), (16, 5), (31, 6)]]).unwrap();
    let whole: Pcrs = [(0, 1), (1, 9), (3, 2), (4, 3), (8, 4), (16, 5), (31, 6)]
        .map(|(index, value)| (index, pcr(value)))
        .into();
    assert_eq!(accepted.appraise(&whole, NOW), Ok(()));
    for index in [0, 3, 4, 8, 16, 31] {
        let mut other = whole.clone();
        other.insert(index, pcr(7));
        assert!(
            matches!(accepted.appraise(&other, NOW), Err(Error::Measurement { index: i, .. }) if i == index)
        );
        other.remove(&index);
        assert!(matches!(
            accepted.appraise(&other, NOW),
            Err(Error::Measurement { index: i, actual: None, .. }) if i == index
        ));
    }
}

#[test]
fn an_image_stays_accepted_until_the_last_window_that_it_lies_in_ends() {
    let image = |value, not_before: Option<u64>, not_after: Option<u64>| AcceptedImage {
        registers: [(0, pcr(value))].into(),
        not_before: not_before.map(|seconds| NOW + Duration::from_secs(seconds)),
        not_after: not_after.map(|seconds| NOW + Duration::from_secs(seconds)),
    };
    let until = |images: Vec<AcceptedImage>| {
        let measured: Pcrs = [(0, pcr(1))].into();
        let end = ReferenceValues::try_from_images(images)
            .unwrap()
            .accepted_until(&measured, NOW);
        end.map(|end| end.duration_since(NOW).unwrap().as_secs())
    };
    assert_eq!(until(vec![image(1, None, Some(5))]), Some(5));
    assert_eq!(
        until(vec![image(1, None, Some(5)), image(1, None, Some(9))]),
        Some(9)
    );
    assert_eq!(
        until(vec![image(1, None, None), image(1, None, Some(9))]),
        None
    );
    // Neither another image nor a window that has not begun is of any use.
    let others = [image(2, None, None), image(1, Some(4), None)];
    let images = others.into_iter().chain([image(1, None, Some(5))]);
    assert_eq!(until(images.collect()), Some(5));
}
