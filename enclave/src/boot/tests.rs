use super::*;

fn identity(name: &str, seed: &[u8]) -> ModelIdentity {
    ModelIdentity {
        name: name.to_owned(),
        epoch: 1,
        manifest_sha256: Sha256Digest::of(seed),
    }
}

#[test]
fn the_runtime_measurement_depends_on_the_configuration_and_on_each_model_in_order() {
    let (a, b) = (identity("a", b"a"), identity("b", b"b"));
    let config = Sha256Digest::of(b"config");
    let base = runtime_measurement(config, &[a.clone(), b.clone()]);
    assert_eq!(base, runtime_measurement(config, &[a.clone(), b.clone()]));
    assert_ne!(
        base,
        runtime_measurement(Sha256Digest::of(b"other"), &[a.clone(), b.clone()])
    );
    assert_ne!(base, runtime_measurement(config, &[b, a.clone()]));
    assert_ne!(base, runtime_measurement(config, &[a]));
}

#[test]
fn the_manifests_date_becomes_seconds() {
    assert_eq!(unix_seconds("1970-01-01T00:01:00Z"), 60);
    assert_eq!(unix_seconds("yesterday"), 0);
    assert_eq!(unix_seconds("1960-01-01T00:00:00Z"), 0);
}
