//! Which crates are linked, held to what cargo itself says.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]
mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use supply_chain::{CrateGraph, Error};
use support::{cargo_tree, metadata, root, workspace};
use tempfile::TempDir;

fn names(graph: &CrateGraph) -> Vec<String> {
    graph
        .crates()
        .map(|(name, version)| format!("{name} {version}"))
        .collect()
}

#[test]
fn the_enclave_is_linked_with_what_cargo_says() {
    let (metadata, lock) = workspace();
    let roots: &[&[&str]] = &[&["enclave"], &["host"], &["enclave", "host"]];
    for roots in roots {
        let graph = CrateGraph::from_cargo(metadata, lock, roots).unwrap();
        assert_eq!(names(&graph), cargo_tree(root(), roots), "{roots:?}");
    }
}

#[test]
fn what_only_builds_tests_or_macros_use_is_not_linked() {
    let (metadata, lock) = workspace();
    let linked = names(&CrateGraph::from_cargo(metadata, lock, &["enclave"]).unwrap());
    let linked: Vec<_> = linked.iter().filter_map(|l| l.split(' ').next()).collect();
    for there in ["candle-core", "rustls", "aws-lc-sys", "attestation"] {
        assert!(linked.contains(&there), "{there}");
    }
    for absent in [
        "proptest",
        "cc",
        "serde_derive",
        "syn",
        "sim",
        "windows-sys",
    ] {
        assert!(!linked.contains(&absent), "{absent}");
    }
}

/// Members that depend on one another in each way that a manifest can say.
fn small_workspace(manifests: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let members: Vec<_> = manifests.iter().map(|(name, _)| *name).collect();
    let manifest = format!("[workspace]\nresolver = \"3\"\nmembers = {members:?}\n");
    fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
    for (name, rest) in manifests {
        let member = dir.path().join(name);
        fs::create_dir_all(member.join("src")).unwrap();
        fs::write(member.join("src/lib.rs"), "").unwrap();
        let package = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n{rest}"
        );
        fs::write(member.join("Cargo.toml"), package).unwrap();
    }
    let locked = std::process::Command::new(env!("CARGO"))
        .args(["generate-lockfile", "--offline", "--quiet"])
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(locked.success());
    dir
}

fn check(manifests: &[(&str, &str)], expected: &[&str]) {
    let dir = small_workspace(manifests);
    let lock = fs::read(dir.path().join("Cargo.lock")).unwrap();
    let graph = CrateGraph::from_cargo(&metadata(dir.path()), &lock, &["app"]).unwrap();
    let expected: Vec<_> = expected
        .iter()
        .map(|name| format!("{name} 0.1.0"))
        .collect();
    assert_eq!(names(&graph), expected);
    assert_eq!(
        cargo_tree(dir.path(), &["app"]),
        expected,
        "cargo disagrees with the expectation"
    );
}

#[test]
fn an_optional_dependency_is_linked_if_a_feature_in_force_turns_it_on() {
    let a = "[features]\ndefault = [\"one\"]\none = [\"dep:b\"]\ntwo = [\"dep:c\"]\n[dependencies]\nb = { path = \"../b\", optional = true }\nc = { path = \"../c\", optional = true }\n";
    let members = |app| [("app", app), ("a", a), ("b", ""), ("c", "")];
    check(
        &members("[dependencies]\na = { path = \"../a\" }\n"),
        &["a", "app", "b"],
    );
    check(
        &members("[dependencies]\na = { path = \"../a\", default-features = false }\n"),
        &["a", "app"],
    );
    check(
        &members(
            "[dependencies]\na = { path = \"../a\", default-features = false, features = [\"two\"] }\n",
        ),
        &["a", "app", "c"],
    );
}

#[test]
fn a_feature_that_only_another_member_or_a_test_asks_for_is_not_in_force() {
    let a = "[features]\nmore = [\"dep:b\"]\n[dependencies]\nb = { path = \"../b\", optional = true }\n";
    let app = "[dependencies]\na = { path = \"../a\" }\n[dev-dependencies]\nother = { path = \"../other\" }\n";
    let other = "[dependencies]\na = { path = \"../a\", features = [\"more\"] }\n";
    check(
        &[("app", app), ("a", a), ("b", ""), ("other", other)],
        &["a", "app"],
    );
}

#[test]
fn a_weak_feature_waits_for_its_dependency() {
    let a = "[features]\nx = [\"b?/more\"]\ny = [\"dep:b\"]\n[dependencies]\nb = { path = \"../b\", optional = true }\n";
    let b = "[features]\nmore = [\"dep:c\"]\n[dependencies]\nc = { path = \"../c\", optional = true }\n";
    let app = |features: &str| {
        format!("[dependencies]\na = {{ path = \"../a\", features = [{features}] }}\n")
    };
    for (features, expected) in [
        ("\"x\"", &["a", "app"] as &[&str]),
        ("\"y\"", &["a", "app", "b"]),
        ("\"x\", \"y\"", &["a", "app", "b", "c"]),
        ("\"y\", \"x\"", &["a", "app", "b", "c"]),
    ] {
        check(
            &[("app", &app(features)), ("a", a), ("b", b), ("c", "")],
            expected,
        );
    }
}

#[test]
fn a_feature_of_an_optional_dependency_turns_it_on() {
    let a =
        "[features]\nx = [\"b/more\"]\n[dependencies]\nb = { path = \"../b\", optional = true }\n";
    let b = "[features]\nmore = [\"dep:c\"]\n[dependencies]\nc = { path = \"../c\", optional = true }\n";
    let app = "[dependencies]\na = { path = \"../a\", features = [\"x\"] }\n";
    check(
        &[("app", app), ("a", a), ("b", b), ("c", "")],
        &["a", "app", "b", "c"],
    );
}

#[test]
fn renamed_and_target_specific_dependencies_are_followed() {
    let app = "[features]\ndefault = [\"dep:renamed\"]\n[dependencies]\nrenamed = { package = \"a\", path = \"../a\", optional = true }\n\
        [target.'cfg(windows)'.dependencies]\nb = { path = \"../b\" }\n[target.'cfg(unix)'.dependencies]\nc = { path = \"../c\" }\n\
        [target.x86_64-unknown-linux-gnu.dependencies]\nd = { path = \"../d\" }\n[build-dependencies]\ne = { path = \"../e\" }\n";
    check(
        &[
            ("app", app),
            ("a", ""),
            ("b", ""),
            ("c", ""),
            ("d", ""),
            ("e", ""),
        ],
        &["a", "app", "c", "d"],
    );
}

#[test]
fn features_for_another_target_are_not_in_force() {
    let app = "[dependencies]\na = { path = \"../a\" }\n[target.'cfg(windows)'.dependencies]\na = { path = \"../a\", features = [\"more\"] }\n";
    let a = "[features]\nmore = [\"dep:b\"]\n[dependencies]\nb = { path = \"../b\", optional = true }\n";
    check(&[("app", app), ("a", a), ("b", "")], &["a", "app"]);
}

#[test]
fn macros_and_what_only_they_use_are_not_linked() {
    let app = "[dependencies]\nm = { path = \"../m\" }\n";
    let m = "[lib]\nproc-macro = true\n[dependencies]\na = { path = \"../a\" }\n";
    check(&[("app", app), ("m", m), ("a", "")], &["app"]);
}

fn refused(metadata: &[u8], lock: &[u8], roots: &[&str], about: &str) {
    let error = CrateGraph::from_cargo(metadata, lock, roots).unwrap_err();
    assert!(error.to_string().contains(about), "{error}");
}

#[test]
fn refuses_roots_that_are_not_of_the_workspace() {
    let (metadata, lock) = workspace();
    refused(metadata, lock, &["tokio"], "no package tokio");
    refused(metadata, lock, &["enclav"], "no package enclav");
    refused(metadata, lock, &[], "no package is named");
}

#[test]
fn refuses_a_lock_file_of_another_tree() {
    let (metadata, lock) = workspace();
    let text = String::from_utf8(lock.clone()).unwrap();
    let other = text.replace("name = \"candle-core\"", "name = \"candle-kore\"");
    refused(
        metadata,
        other.as_bytes(),
        &["enclave"],
        "not in the lock file",
    );
    let unchecked: String = text
        .lines()
        .filter(|line| !line.starts_with("checksum"))
        .map(|line| format!("{line}\n"))
        .collect();
    refused(
        metadata,
        unchecked.as_bytes(),
        &["enclave"],
        "with a checksum",
    );
    refused(
        metadata,
        &text.as_bytes()[..text.len() / 2],
        &["enclave"],
        "Cargo.lock",
    );
    refused(
        metadata,
        text.replace("version = 4", "version = 5").as_bytes(),
        &["enclave"],
        "\"5\"",
    );
    refused(metadata, b"", &["enclave"], "Cargo.lock");
}

fn edited(edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(&workspace().0).unwrap();
    edit(&mut value);
    serde_json::to_vec(&value).unwrap()
}

#[test]
fn refuses_a_crate_from_anywhere_but_crates_io() {
    let metadata = edited(|value| {
        for package in value["packages"].as_array_mut().unwrap() {
            if package["name"] == "candle-core" {
                package["source"] = json!("git+https://code.example/candle#abc");
            }
        }
    });
    refused(
        &metadata,
        &workspace().1,
        &["enclave"],
        "comes from git+https",
    );
}

#[test]
fn refuses_metadata_that_lacks_its_graph_or_a_package() {
    let lock = &workspace().1;
    let without = edited(|value| value["resolve"] = Value::Null);
    refused(&without, lock, &["enclave"], "no resolved graph");
    let without = edited(|value| {
        value["packages"]
            .as_array_mut()
            .unwrap()
            .retain(|p| p["name"] != "candle-core");
    });
    refused(&without, lock, &["enclave"], "no packages fit candle-core");
    let without = edited(|value| {
        value["resolve"]["nodes"]
            .as_array_mut()
            .unwrap()
            .retain(|n| !n["id"].as_str().unwrap().contains("candle-core"));
    });
    refused(&without, lock, &["enclave"], "not in the resolved graph");
    for text in ["", "{}", "[]", "null"] {
        let error = CrateGraph::from_cargo(text.as_bytes(), lock, &["enclave"]).unwrap_err();
        assert!(matches!(error, Error::Input { .. }), "{error}");
    }
}

#[test]
fn a_path_outside_the_workspace_is_no_error_as_long_as_it_is_locked() {
    // Path dependencies are part of the source tree; the commit names them.
    assert!(Path::new(root()).join("Cargo.lock").is_file());
    check(
        &[
            ("app", "[dependencies]\na = { path = \"../a\" }\n"),
            ("a", ""),
        ],
        &["a", "app"],
    );
}
