//! The bill of materials and the provenance: what they say, that they say it always alike, and that others can read it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]
mod support;

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use supply_chain::{Artifact, Build, ErrorKind, provenance, sbom};
use support::{COMMIT, build, crates, digest, root, tool};

/// What is refused for it, and the edit.
type Edit = (&'static str, fn(&mut Build));

fn bom(build: &Build) -> Value {
    serde_json::from_slice(&sbom(build, &crates()).unwrap()).unwrap()
}

fn component<'b>(bom: &'b Value, reference: &str) -> &'b Value {
    let components = bom["components"].as_array().unwrap();
    components
        .iter()
        .find(|c| c["bom-ref"] == reference)
        .unwrap()
}

fn uses<'b>(bom: &'b Value, reference: &str) -> Vec<&'b str> {
    let graph = bom["dependencies"].as_array().unwrap();
    let node = graph.iter().find(|d| d["ref"] == reference).unwrap();
    node["dependsOn"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r.as_str().unwrap())
        .collect()
}

#[test]
fn a_bill_of_materials_names_every_crate_file_and_the_kernel() {
    let bom = bom(&build());
    assert_eq!(bom["specVersion"], "1.6");
    assert_eq!(bom["metadata"]["timestamp"], "2025-11-25T10:00:00Z");
    assert_eq!(
        bom["metadata"]["component"]["hashes"][0]["content"],
        digest("the image").to_string()
    );
    let listed = bom["components"].as_array().unwrap();
    for (name, version) in crates().crates() {
        let found = listed
            .iter()
            .filter(|c| c["name"] == name && c["version"] == version);
        assert_eq!(found.count(), 1, "{name} {version}");
    }
    assert_eq!(
        component(&bom, "ramdisk2:app/enclave")["hashes"][0]["content"],
        digest("app/enclave").to_string()
    );
    let kernel = component(&bom, "kernel");
    assert_eq!(kernel["purl"], "pkg:deb/debian/linux@6.12.57-1?arch=source");
    let source = &kernel["externalReferences"][0]["hashes"][0];
    assert_eq!(
        source["content"],
        digest("linux_6.12.57.orig.tar.xz").to_string()
    );
}

#[test]
fn a_crates_checksum_and_licence_are_those_of_lock_file_and_manifest() {
    let bom = bom(&build());
    let lock: toml::Table = std::fs::read_to_string(root().join("Cargo.lock"))
        .unwrap()
        .parse()
        .unwrap();
    let locked = lock["package"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["name"].as_str() == Some("rustls"))
        .unwrap();
    let version = locked["version"].as_str().unwrap();
    let rustls = component(&bom, &format!("pkg:cargo/rustls@{version}"));
    assert_eq!(
        rustls["hashes"][0]["content"],
        locked["checksum"].as_str().unwrap()
    );
    assert_eq!(rustls["purl"], rustls["bom-ref"]);
    assert_eq!(
        rustls["licenses"][0]["expression"],
        "Apache-2.0 OR ISC OR MIT"
    );
}

#[test]
fn no_member_of_the_workspace_passes_for_a_crate_of_the_registry() {
    let bom = bom(&build());
    let enclave = component(&bom, "workspace:enclave@0.1.0");
    assert_eq!(enclave.get("purl"), None);
    assert_eq!(enclave.get("hashes"), None);
}

#[test]
fn the_graph_leads_from_the_image_to_every_component() {
    let bom = bom(&build());
    assert_eq!(
        uses(&bom, "ramdisk2:app/enclave"),
        ["workspace:enclave@0.1.0"]
    );
    let mut reached = BTreeSet::from(["image"]);
    let mut work = vec!["image"];
    while let Some(reference) = work.pop() {
        let graph = bom["dependencies"].as_array().unwrap();
        let node = graph.iter().find(|d| d["ref"] == reference).unwrap();
        for used in node["dependsOn"].as_array().into_iter().flatten() {
            if reached.insert(used.as_str().unwrap()) {
                work.push(used.as_str().unwrap());
            }
        }
    }
    for listed in bom["components"].as_array().unwrap() {
        assert!(
            reached.contains(listed["bom-ref"].as_str().unwrap()),
            "{listed}"
        );
    }
}

#[test]
fn the_same_build_gives_the_same_bytes_and_another_one_another_serial_number() {
    let first = sbom(&build(), &crates()).unwrap();
    assert_eq!(first, sbom(&build(), &crates()).unwrap());
    let mut shuffled = build();
    shuffled.files.reverse();
    assert_eq!(
        first,
        sbom(&shuffled, &crates()).unwrap(),
        "the order of the list says nothing"
    );
    let mut other = build();
    other.files[1].sha256 = digest("another enclave.toml");
    let (one, two) = (bom(&build()), bom(&other));
    assert_ne!(one["serialNumber"], two["serialNumber"]);
    let serial = one["serialNumber"].as_str().unwrap();
    let digits: Vec<_> = serial
        .strip_prefix("urn:uuid:")
        .unwrap()
        .split('-')
        .collect();
    assert_eq!(
        digits.iter().map(|d| d.len()).collect::<Vec<_>>(),
        [8, 4, 4, 4, 12]
    );
    assert!(
        digits[2].starts_with('8')
            && ['8', '9', 'a', 'b'].contains(&digits[3].chars().next().unwrap())
    );
}

#[test]
fn without_a_date_of_the_source_there_is_none() {
    let mut build = build();
    build.source_date_epoch = None;
    assert_eq!(bom(&build)["metadata"].get("timestamp"), None);
    let statement = provenance(&build, &[]).unwrap();
    assert!(
        !String::from_utf8(statement)
            .unwrap()
            .contains("sourceDateEpoch")
    );
}

#[test]
fn an_independent_reader_finds_the_bill_of_materials_valid() {
    let Some(python) = tool("py/bin/python3") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sbom.cdx.json");
    let check = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let script = root().join("infra/supply-chain/tests/cyclonedx_validate.py");
        let output = Command::new(&python)
            .arg(script)
            .arg(&path)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let ours = sbom(&build(), &crates()).unwrap();
    assert_eq!(check(&ours), (Some(0), String::new()));
    // That it can refuse.
    let mut wrong: Value = serde_json::from_slice(&ours).unwrap();
    wrong["components"][0]["type"] = json!("crate");
    assert_eq!(check(wrong.to_string().as_bytes()).0, Some(1));
}

#[test]
fn a_provenance_says_from_what_how_and_by_whom() {
    let also = [Artifact {
        name: "sbom.cdx.json".into(),
        sha256: digest("sbom"),
    }];
    let bytes = provenance(&build(), &also).unwrap();
    assert_eq!(bytes, provenance(&build(), &also).unwrap());
    let statement: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(
        statement["subject"],
        json!([
            {"name": "app.eif", "digest": {"sha256": digest("the image").to_string()}},
            {"name": "sbom.cdx.json", "digest": {"sha256": digest("sbom").to_string()}},
        ])
    );
    let definition = &statement["predicate"]["buildDefinition"];
    assert_eq!(
        definition["externalParameters"]["config"]["sha256"],
        digest("enclave.toml").to_string()
    );
    assert_eq!(
        definition["externalParameters"]["commandLine"],
        "reboot=k panic=30 init=/init"
    );
    let resources = definition["resolvedDependencies"].as_array().unwrap();
    let by_name = |name: &str| resources.iter().find(|r| r["name"] == name).unwrap();
    assert_eq!(by_name("source")["digest"]["gitCommit"], COMMIT);
    assert_eq!(
        by_name("Cargo.lock")["digest"]["sha256"],
        digest("Cargo.lock").to_string()
    );
    assert_eq!(
        by_name("rustc")["uri"],
        "pkg:generic/rustc@1.95.0%20%2859807616e%202026-04-14%29"
    );
    assert_eq!(
        statement["predicate"]["runDetails"]["builder"]["id"],
        support::BUILDER
    );
}

/// Each breaks one rule; both documents refuse it.
#[test]
fn refuses_a_build_that_would_be_described_wrongly() {
    let cases: &[Edit] = &[
        ("name", |b| b.name = "a/b".into()),
        ("name", |b| b.name = String::new()),
        ("name", |b| b.name = "-x".into()),
        ("version", |b| b.version = "1 0".into()),
        ("image", |b| b.image.name = "/root/build/app.eif".into()),
        ("command_line", |b| b.command_line = "a\nb".into()),
        ("command_line", |b| b.command_line = "x".repeat(2048)),
        ("model_policies", |b| {
            b.model_policies[0].name = "../x".into()
        }),
        ("source.commit", |b| b.source.commit = "main".into()),
        ("source.commit", |b| b.source.commit = COMMIT.to_uppercase()),
        ("source.uri", |b| {
            b.source.uri = Some("git+https://me:secret@code.example/x".into())
        }),
        ("source.uri", |b| b.source.uri = Some("/root/src".into())),
        ("source.uri", |b| {
            b.source.uri = Some("file:///root/src".into())
        }),
        ("kernel.source_uri", |b| {
            b.kernel.source_uri = "http://old.example/linux.tar".into()
        }),
        ("kernel.licence", |b| b.kernel.licence = " ".into()),
        ("builder", |b| b.builder = "my laptop".into()),
        ("tools", |b| {
            b.tools[0].version = "gcc at /usr/bin/gcc".into()
        }),
        ("tools", |b| b.tools[0].version = "1\u{1b}[2J".into()),
        ("files", |b| b.files[0].path = "/app/enclave".into()),
        ("files", |b| b.files[0].path = "app/../init".into()),
        ("files", |b| b.files[0].path = "app//init".into()),
        ("files", |b| b.files[0].ramdisk = 0),
        ("files", |b| b.files[0].mode = 0o100755),
        ("files", |b| {
            let again = b.files[0].clone();
            b.files.push(again);
        }),
    ];
    for (about, edit) in cases {
        let mut build = build();
        edit(&mut build);
        for error in [
            sbom(&build, &crates()).unwrap_err(),
            provenance(&build, &[]).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().starts_with(about), "{about}: {error}");
        }
    }
}

#[test]
fn refuses_a_file_of_a_package_whose_crates_were_not_listed() {
    let mut build = build();
    build.files[2].package = Some("host".into());
    let error = sbom(&build, &crates()).unwrap_err();
    assert!(error.to_string().contains("package host"), "{error}");
}

#[test]
fn a_build_is_read_back_from_its_own_form_only() {
    let text = serde_json::to_string(&build()).unwrap();
    assert_eq!(Build::from_json(text.as_bytes()).unwrap(), build());
    for other in [
        text.replacen('{', "{\"extra\":1,", 1),
        text.replacen("\"version\"", "\"verzion\"", 1),
        text.replacen('{', "{\"name\":\"x\",", 1),
        text.replace("\"app.eif\"", "\"../app.eif\""),
        text[..text.len() - 1].to_owned(),
    ] {
        assert!(Build::from_json(other.as_bytes()).is_err(), "{other}");
    }
}
