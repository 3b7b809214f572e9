use super::*;

fn binding(subject: Subject) -> Binding {
    Binding {
        config_digest: Sha256Digest::from_bytes([1; 32]),
        boot_id: BootId::from_bytes([2; 16]),
        subject,
    }
}

fn session() -> SessionSubject {
    SessionSubject {
        tls_spki_sha256: Sha256Digest::from_bytes([3; 32]),
        exporter: [4; 32],
        peer_leaf_sha256: Sha256Digest::from_bytes([5; 32]),
        spiffe_id: "spiffe://example.org/enclave".into(),
        svid_serial: "0a1b".into(),
        models: vec![ModelIdentity {
            name: "m".into(),
            epoch: u64::MAX,
            manifest_sha256: Sha256Digest::from_bytes([6; 32]),
            publisher_sha256: Sha256Digest::from_bytes([7; 32]),
        }],
    }
}

fn text(binding: &Binding) -> String {
    String::from_utf8(binding.canonical_json()).unwrap()
}

#[test]
fn a_session_is_written_in_canonical_order_with_its_label() {
    let expected = format!(
        concat!(
            r#"{{"boot_id":"{boot}","config_digest":"{config}","exporter":"{exporter}","#,
            r#""label":"cloister evidence binding: session","#,
            r#""models":[{{"epoch":"18446744073709551615","manifest_sha256":"{manifest}","name":"m","publisher_sha256":"{publisher}"}}],"#,
            r#""peer_leaf_sha256":"{peer}","purpose":"session","role":"server","#,
            r#""spiffe_id":"spiffe://example.org/enclave","svid_serial":"0a1b","tls_spki_sha256":"{spki}","v":2}}"#,
        ),
        boot = "02".repeat(16),
        config = "01".repeat(32),
        exporter = "04".repeat(32),
        manifest = "06".repeat(32),
        peer = "05".repeat(32),
        publisher = "07".repeat(32),
        spki = "03".repeat(32),
    );
    assert_eq!(text(&binding(Subject::Session(session()))), expected);
}

#[test]
fn a_key_release_is_written_in_canonical_order_with_its_label() {
    let release = binding(Subject::KeyRelease {
        runtime_data_sha384: Sha384Digest::from_bytes([7; 48]),
    });
    let expected = format!(
        concat!(
            r#"{{"boot_id":"{boot}","config_digest":"{config}","label":"cloister evidence binding: key-release","#,
            r#""purpose":"key-release","runtime_data_sha384":"{runtime}","v":2}}"#,
        ),
        boot = "02".repeat(16),
        config = "01".repeat(32),
        runtime = "07".repeat(48),
    );
    assert_eq!(text(&release), expected);
    // Computed once with `printf %s "$text" | sha512sum`.
    assert_eq!(hex::encode(release.user_data()), RELEASE_SHA512);
}

const RELEASE_SHA512: &str = "4eebfaf91277cc2683d6872e8ace33e6b187f16a4e89d45a2380ec0373c5732897c693d917ef0d6da4b9fb3ceeee481273aa9863a6aa59a4978abb199d84075b";

#[test]
fn every_member_changes_the_user_data() {
    let base = session();
    let other = Sha256Digest::from_bytes([9; 32]);
    let with = |change: &dyn Fn(&mut SessionSubject)| {
        let mut changed = base.clone();
        change(&mut changed);
        binding(Subject::Session(changed))
    };
    let mut all = vec![
        with(&|_| {}),
        with(&|s| s.tls_spki_sha256 = other),
        with(&|s| s.exporter = [9; 32]),
        with(&|s| s.peer_leaf_sha256 = other),
        with(&|s| s.spiffe_id.push('2')),
        with(&|s| s.svid_serial.push('2')),
        with(&|s| s.models.clear()),
        with(&|s| s.models[0].name.push('2')),
        with(&|s| s.models[0].epoch -= 1),
        with(&|s| s.models[0].manifest_sha256 = other),
        with(&|s| s.models[0].publisher_sha256 = other),
        binding(Subject::SvidIssuance {
            csr_sha256: other,
            spki_sha256: other,
        }),
        binding(Subject::KeyRelease {
            runtime_data_sha384: Sha384Digest::from_bytes([9; 48]),
        }),
    ];
    let mut changed = all[0].clone();
    changed.config_digest = other;
    all.push(changed);
    let mut changed = all[0].clone();
    changed.boot_id = BootId::from_bytes([9; 16]);
    all.push(changed);

    let distinct: std::collections::BTreeSet<_> =
        all.iter().map(|b| b.user_data().to_vec()).collect();
    assert_eq!(distinct.len(), all.len());
}

#[test]
fn text_from_a_peer_cannot_forge_a_member() {
    let mut forged = session();
    forged.spiffe_id = r#"x","role":"client"#.into();
    let json: serde_json::Value =
        serde_json::from_slice(&binding(Subject::Session(forged)).canonical_json()).unwrap();
    assert_eq!(json["role"], "server");
}

fn subjects() -> [Subject; 3] {
    [
        Subject::KeyRelease {
            runtime_data_sha384: Sha384Digest::from_bytes([7; 48]),
        },
        Subject::SvidIssuance {
            csr_sha256: Sha256Digest::from_bytes([8; 32]),
            spki_sha256: Sha256Digest::from_bytes([9; 32]),
        },
        Subject::Session(session()),
    ]
}

#[test]
fn a_text_is_read_back_as_the_binding_that_wrote_it() {
    for subject in subjects() {
        let written = binding(subject);
        let read = Binding::from_canonical_json(&written.canonical_json());
        assert_eq!(read, Ok(written));
    }
}

#[test]
fn a_text_that_lacks_any_member_is_refused() {
    for subject in subjects() {
        let written = text(&binding(subject));
        let whole: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&written).unwrap();
        for member in whole.keys() {
            let mut less = whole.clone();
            less.remove(member);
            let less = serde_json_canonicalizer::to_vec(&less).unwrap();
            assert!(Binding::from_canonical_json(&less).is_err(), "{member}");
        }
    }
}

#[test]
fn a_text_in_another_form_or_with_another_meaning_is_refused() {
    let session = text(&binding(Subject::Session(session())));
    let release = text(&binding(subjects()[0].clone()));
    let not_canonical = Err(ParseBindingError::NotCanonical);
    for (original, from, to) in [
        (&session, r#""v":2"#, r#""v":1"#),
        (&session, r#""v":2"#, r#""v":2 "#),
        (&session, r#""role":"server""#, r#""role":"client""#),
        (&session, "binding: session", "binding: key-release"),
        (
            &session,
            r#""18446744073709551615""#,
            r#""018446744073709551615""#,
        ),
        (&session, r#""18446744073709551615""#, r#""+1""#),
        (
            &session,
            r#""18446744073709551615""#,
            r#""18446744073709551616""#,
        ),
        (&session, r#""0a1b""#, r#""\u0030a1b""#),
        (&session, "0404", "0404".to_uppercase().as_str()),
        (&release, r#","v":2"#, r#","role":"server","v":2"#),
        (&release, r#","v":2"#, r#","svid_serial":"0a","v":2"#),
    ] {
        let changed = original.replacen(from, to, 1);
        if changed != **original {
            assert_eq!(
                Binding::from_canonical_json(changed.as_bytes()),
                not_canonical,
                "{changed}"
            );
        }
    }
    for (from, to) in [
        (r#","v":2"#, r#","v":2,"w":1"#),
        (r#","v":2"#, r#","v":2,"v":2"#),
        (r#","v":2"#, r#","v":-1"#),
        (r#""purpose":"session""#, r#""purpose":"other""#),
        (r#""18446744073709551615""#, "1"),
        ("0404", "04"),
        ("}]", r#","x":1}]"#),
        ("{", "[{"),
    ] {
        let changed = session.replacen(from, to, 1);
        assert_ne!(changed, session);
        assert!(
            matches!(
                Binding::from_canonical_json(changed.as_bytes()),
                Err(ParseBindingError::Json(_))
            ),
            "{changed}"
        );
    }
    let trailing = format!("{session} ");
    assert_eq!(
        Binding::from_canonical_json(trailing.as_bytes()),
        not_canonical
    );
    let long = vec![b' '; 64 * 1024 + 1];
    assert_eq!(
        Binding::from_canonical_json(&long),
        Err(ParseBindingError::Length)
    );
}
