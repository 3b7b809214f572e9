//! CycloneDX 1.6 (ECMA-424), in JSON: what is in an image.

use std::collections::BTreeSet;

use sealed_model::Sha256Digest;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::build::{Build, ImageFile, Kernel, Tool};
use crate::crates::{Crate, CrateGraph, CrateId, Origin};
use crate::{Error, canonical, purl};

const IMAGE: &str = "image";
const KERNEL: &str = "kernel";

/// The bill of materials of `build`: the crates of `crates`, libraries, the kernel, every file, and what depends on what.
/// The same input gives the same bytes; the serial number is a digest of everything else.
///
/// # Errors
/// [`Error::Input`] where `build` is not in order, or a file names a package that `crates` was not made for.
pub fn sbom(build: &Build, crates: &CrateGraph) -> Result<Vec<u8>, Error> {
    build.check()?;
    let mut components = Vec::new();
    let mut dependencies = Vec::new();

    let libraries: BTreeSet<String> = build.libraries.iter().map(library_ref).collect();
    for (id, found) in crates.entries() {
        components.push(crate_component(id, found));
        let mut uses: BTreeSet<String> = found
            .dependencies
            .iter()
            .map(|used| crate_ref(crates, used))
            .collect();
        // Only what is built as a program is linked with them.
        if crates.root(&id.name) == Some(id) {
            uses.extend(libraries.iter().cloned());
        }
        dependencies.push(json!({"ref": crate_ref(crates, id), "dependsOn": uses}));
    }
    for library in &build.libraries {
        components.push(library_component(library));
        dependencies.push(json!({"ref": library_ref(library)}));
    }
    components.push(kernel_component(&build.kernel));
    dependencies.push(json!({"ref": KERNEL}));
    let mut contents = BTreeSet::from([KERNEL.to_owned()]);
    for file in &build.files {
        components.push(file_component(file));
        let made_of = file
            .package
            .as_deref()
            .map(|name| root(crates, name))
            .transpose()?;
        contents.insert(file_ref(file));
        dependencies.push(json!({"ref": file_ref(file), "dependsOn": made_of.as_slice()}));
    }
    dependencies.push(json!({"ref": IMAGE, "dependsOn": contents}));
    let by = |name: &'static str| move |v: &Value| v.get(name).map(ToString::to_string);
    components.sort_by_cached_key(by("bom-ref"));
    dependencies.sort_by_cached_key(by("ref"));

    let mut bom = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": metadata(build)?,
        "components": components,
        "dependencies": dependencies,
    });
    let serial = Sha256Digest::of(&canonical::bytes(&bom)?).to_uuid_urn();
    if let Some(bom) = bom.as_object_mut() {
        bom.insert("serialNumber".into(), serial.into());
    }
    canonical::bytes(&bom)
}

fn metadata(build: &Build) -> Result<Value, Error> {
    let mut metadata = json!({
        "lifecycles": [{"phase": "build"}],
        "tools": {"components": [{
            "type": "application",
            "name": "cloister",
            "version": env!("CARGO_PKG_VERSION"),
        }]},
        "component": {
            "type": "firmware",
            "bom-ref": IMAGE,
            "name": build.name,
            "version": build.version,
            "hashes": [sha256(&build.image.sha256)],
        },
    });
    if let (Some(seconds), Some(metadata)) = (build.source_date_epoch, metadata.as_object_mut()) {
        metadata.insert("timestamp".into(), timestamp(seconds)?.into());
    }
    Ok(metadata)
}

/// A scanner would take a member of the workspace for the stranger's crate of this name at crates.io: those have no purl.
fn crate_component(id: &CrateId, found: &Crate) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(id, &found.origin),
        "name": id.name,
        "version": id.version,
        "scope": "required",
    });
    if let Some(component) = component.as_object_mut() {
        if let Some(licence) = &found.licence {
            component.insert("licenses".into(), json!([{"expression": licence}]));
        }
        if let Origin::CratesIo(checksum) = &found.origin {
            component.insert("purl".into(), purl::cargo(&id.name, &id.version).into());
            component.insert("hashes".into(), json!([sha256(checksum)]));
        }
    }
    component
}

fn library_component(library: &Tool) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": library_ref(library),
        "name": library.name,
        "version": library.version,
        "purl": purl::generic(&library.name, &library.version),
        "scope": "required",
    });
    if let (Some(licence), Some(component)) = (&library.licence, component.as_object_mut()) {
        component.insert("licenses".into(), json!([{"expression": licence}]));
    }
    component
}

fn kernel_component(kernel: &Kernel) -> Value {
    let mut component = json!({
        "type": "operating-system",
        "bom-ref": KERNEL,
        "name": "linux",
        "version": kernel.version,
        "licenses": [{"expression": kernel.licence}],
        "hashes": [sha256(&kernel.sha256)],
        "externalReferences": [{
            "type": "source-distribution",
            "url": kernel.source_uri,
            "hashes": [sha256(&kernel.source_sha256)],
        }],
    });
    if let Some(component) = component.as_object_mut() {
        if kernel.source_uri.starts_with("pkg:") {
            component.insert("purl".into(), kernel.source_uri.clone().into());
        }
        if let Some(config) = &kernel.config_sha256 {
            let property = json!([{"name": "cloister:config-sha256", "value": config}]);
            component.insert("properties".into(), property);
        }
    }
    component
}

fn file_component(file: &ImageFile) -> Value {
    json!({
        "type": "file",
        "bom-ref": file_ref(file),
        "name": file.path,
        "hashes": [sha256(&file.sha256)],
        "properties": [
            {"name": "cloister:mode", "value": format!("{:04o}", file.mode)},
            {"name": "cloister:ramdisk", "value": file.ramdisk.to_string()},
            {"name": "cloister:size", "value": file.size.to_string()},
        ],
    })
}

fn root(crates: &CrateGraph, name: &str) -> Result<String, Error> {
    let id = crates.root(name).ok_or_else(|| {
        Error::input(
            format!("files: package {}", canonical::shown(name)),
            "is not one of those whose crates were listed",
        )
    })?;
    Ok(crate_ref(crates, id))
}

fn crate_ref(crates: &CrateGraph, id: &CrateId) -> String {
    let workspace = Origin::Workspace;
    reference(id, crates.origin(id).unwrap_or(&workspace))
}

fn reference(id: &CrateId, origin: &Origin) -> String {
    match origin {
        Origin::CratesIo(_) => purl::cargo(&id.name, &id.version),
        Origin::Workspace => format!("workspace:{}@{}", id.name, id.version),
    }
}

fn library_ref(library: &Tool) -> String {
    format!("library:{}@{}", library.name, library.version)
}

fn file_ref(file: &ImageFile) -> String {
    format!("ramdisk{}:{}", file.ramdisk, file.path)
}

fn sha256(digest: &Sha256Digest) -> Value {
    json!({"alg": "SHA-256", "content": digest})
}

fn timestamp(seconds: u64) -> Result<String, Error> {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .ok_or_else(|| Error::input("source_date_epoch", "is after the year 9999"))
}
