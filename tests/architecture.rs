//! Who may know what: the arrows between the crates, held over `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Every arrow that may exist between members. An arrow that is not here needs a reason, and a line here.
const ARROWS: &[(&str, &[&str])] = &[
    ("attestation", &[]),
    ("identity", &[]),
    ("gguf", &[]),
    ("sealed-model", &["gguf"]),
    ("transport", &[]),
    // Neither knows the other; a sealed model comes to the engine as files.
    ("engine", &["gguf"]),
    ("kbs-client", &["attestation", "identity", "transport"]),
    ("kms-client", &["attestation", "identity", "transport"]),
    (
        "enclave",
        &[
            "attestation",
            "engine",
            "identity",
            "kbs-client",
            "kms-client",
            "sealed-model",
            "transport",
        ],
    ),
    // It cannot name evidence, a prompt or a key.
    ("host", &["transport"]),
    ("gateway", &["attestation", "identity", "transport"]),
    ("kbs", &["attestation", "identity", "transport"]),
    ("image", &[]),
    ("image-builder", &["image", "init"]),
    // PID 1: the secure module, and the files of its own image.
    ("init", &["attestation"]),
    // The keys that sign manifests also sign images; it sees no model.
    ("supply-chain", &["sealed-model"]),
    (
        "cli",
        &[
            "attestation",
            "identity",
            "image",
            "image-builder",
            "kms-client",
            "sealed-model",
            "supply-chain",
            "transport",
        ],
    ),
];

/// The members that stand beside the product and may know everything.
const BESIDE: &[&str] = &["sim", "tests"];

fn members() -> Vec<Package> {
    let metadata = MetadataCommand::new()
        .manifest_path(tests::root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap();
    metadata.packages
}

fn arrows(package: &Package, kind: Option<DependencyKind>) -> BTreeSet<String> {
    package
        .dependencies
        .iter()
        .filter(|d| d.path.is_some() && kind.is_none_or(|k| d.kind == k))
        .map(|d| d.name.clone())
        .collect()
}

#[test]
fn every_arrow_between_crates_is_a_listed_one() {
    let allowed: BTreeMap<_, BTreeSet<_>> = ARROWS
        .iter()
        .map(|(from, to)| (*from, to.iter().copied().collect()))
        .collect();
    for package in members() {
        let name = package.name.as_str();
        if BESIDE.contains(&name) {
            continue;
        }
        let allowed = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the list of arrows"));
        for to in arrows(&package, Some(DependencyKind::Normal)) {
            assert!(allowed.contains(to.as_str()), "{name} may not know {to}");
        }
    }
}

#[test]
fn nothing_shipped_depends_on_the_simulator() {
    for package in members() {
        if BESIDE.contains(&package.name.as_str()) {
            continue;
        }
        for beside in BESIDE {
            assert!(
                !arrows(&package, Some(DependencyKind::Normal)).contains(*beside)
                    && !arrows(&package, Some(DependencyKind::Build)).contains(*beside),
                "{} depends on {beside}",
                package.name
            );
        }
    }
}

#[test]
fn host_and_enclave_never_know_each_other() {
    let members = members();
    let find = |name: &str| members.iter().find(|p| p.name.as_str() == name).unwrap();
    assert!(!arrows(find("host"), None).contains("enclave"));
    assert!(!arrows(find("enclave"), None).contains("host"));
}

#[test]
fn no_shipped_crate_has_a_feature_that_weakens_it() {
    for package in members() {
        for feature in package.features.keys() {
            assert!(
                !["mock", "sim", "test", "insecure", "dev", "danger"]
                    .iter()
                    .any(|word| feature.contains(word)),
                "{} has a feature {feature}",
                package.name
            );
        }
    }
}

#[test]
fn the_enclave_speaks_tls_1_3_only() {
    // Features of the enclave's own graph, without unification with the other members.
    let output = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--quiet", "--offline", "-p", "enclave", "-e"])
        .args(["normal,features", "-i", "rustls", "--manifest-path"])
        .arg(tests::root().join("Cargo.toml"))
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("rustls v"), "{tree}");
    assert!(!tree.contains("feature \"tls12\""), "{tree}");
}

#[test]
fn the_enclave_has_no_grpc_and_the_host_neither() {
    // A Workload API client would bring keys that were not made inside; whoever needs one names spiffe's feature for it.
    for (package, absent) in [
        ("enclave", ["tonic", "prost", "spiffe-rustls"]),
        ("host", ["tonic", "prost", "spiffe"]),
    ] {
        let output = std::process::Command::new(env!("CARGO"))
            .args([
                "tree",
                "--quiet",
                "--offline",
                "-p",
                package,
                "-e",
                "normal",
            ])
            .args(["--prefix", "none", "--format", "{p}", "--manifest-path"])
            .arg(tests::root().join("Cargo.toml"))
            .output()
            .unwrap();
        let tree = String::from_utf8(output.stdout).unwrap();
        assert!(tree.contains("tokio v"), "{tree}");
        for name in absent {
            let found = tree
                .lines()
                .any(|line| line.starts_with(&format!("{name} v")));
            assert!(!found, "{package} depends on {name}");
        }
    }
}

#[test]
fn every_member_is_explained_in_one_line() {
    let manifest = std::fs::read_to_string(tests::root().join("Cargo.toml")).unwrap();
    for package in members() {
        let line = manifest
            .lines()
            .find(|l| {
                let path = l
                    .trim_start()
                    .strip_prefix('"')
                    .and_then(|l| l.split('"').next());
                path.is_some_and(|path| path.rsplit('/').next() == Some(package.name.as_str()))
            })
            .unwrap_or_else(|| panic!("{} is not a member", package.name));
        assert!(line.contains('#'), "{} has no comment", package.name);
    }
}

/// The table of attacks is a promise about tests: each row names at least one, and each that is named is there.
#[test]
fn every_attack_of_the_threat_model_names_a_test_that_exists() {
    let text = std::fs::read_to_string(tests::root().join("docs/threat-model.md")).unwrap();
    let (_, rest) = text.split_once("## Attacks and what stops them").unwrap();
    let (table, _) = rest.split_once("\n## ").unwrap();
    let rows: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .collect();
    assert!(rows.len() > 30, "{}", rows.len());
    for row in rows {
        let named = row.rsplit('|').nth(1).unwrap();
        let references: Vec<_> = named
            .split('`')
            .filter(|part| part.contains("::"))
            .collect();
        assert!(!references.is_empty(), "no test is named: {row}");
        for reference in references {
            let (file, test) = reference.split_once("::").unwrap();
            let source = std::fs::read_to_string(tests::root().join(file))
                .unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(
                source.contains(&format!("fn {test}(")),
                "{reference} is not there"
            );
        }
    }
}
