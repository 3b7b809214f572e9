//! PCR16, which the enclave extends by what it serves: told from its configuration and the manifests of its models.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use attestation::{Sha256Digest, runtime_measurement};
use image::{Entry, EntryKind, Listing, Pcr, Remark};
use sealed_model::{MAX_MANIFEST_BYTES, Manifest};
use serde_json::{Value, json};

use crate::failure::Failure;

/// Where images have their configuration.
pub(crate) const CONFIG: &str = "app/enclave.toml";
/// Largest configuration that an enclave reads.
pub(super) const MAX_CONFIG: u32 = 1 << 20;

/// What an enclave will serve.
pub(super) struct Runtime {
    config: Sha256Digest,
    /// Name and digest of the manifest, in the order of the configuration.
    models: Vec<(String, Sha256Digest)>,
}

impl Runtime {
    /// From a configuration file or the one in the image, and one manifest for each of its `[[models]]`, in their order.
    pub(super) fn new(
        config: Option<&Path>,
        listings: &[Listing],
        manifests: &[PathBuf],
    ) -> Result<Self, Failure> {
        let (name, bytes) = match config {
            Some(path) => (path.display().to_string(), read(path, MAX_CONFIG.into())?),
            None => (CONFIG.to_owned(), inside(listings)?),
        };
        let expected = names(&bytes).ok_or_else(|| {
            Failure::refused(anyhow!(
                "{name}: not the configuration of an enclave: no [[models]] with names in it"
            ))
        })?;
        let mut models = Vec::new();
        for path in manifests {
            let bytes = read(path, MAX_MANIFEST_BYTES)?;
            let manifest = Manifest::parse(&bytes).map_err(|error| Failure::model(path, error))?;
            models.push((manifest.name, Sha256Digest::of(&bytes)));
        }
        if !expected.iter().eq(models.iter().map(|(name, _)| name)) {
            let given: Vec<_> = models.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Failure::usage(anyhow!(
                "--manifest: the models of {name} are {}, the manifests given are of {}: give one for each, in that order",
                expected.join(", ").escape_debug(),
                given.join(", ").escape_debug(),
            )));
        }
        let config = Sha256Digest::of(&bytes);
        Ok(Self { config, models })
    }

    pub(super) fn pcr(&self) -> Pcr {
        let manifests = self.models.iter().map(|(_, digest)| *digest);
        Pcr::first(runtime_measurement(self.config, manifests).as_bytes())
    }

    pub(super) fn json(&self) -> Value {
        let models: Vec<_> = self
            .models
            .iter()
            .map(|(name, digest)| json!({"name": name, "manifest_sha256": digest}))
            .collect();
        json!({"config_sha256": self.config, "models": models})
    }

    pub(super) fn config(&self) -> Sha256Digest {
        self.config
    }

    pub(super) fn models(&self) -> &[(String, Sha256Digest)] {
        &self.models
    }
}

/// The configuration in the image. Only from a whole list can be told that no other one replaces it.
fn inside(listings: &[Listing]) -> Result<Vec<u8>, Failure> {
    let refused = |why: String| {
        Failure::refused(anyhow!(
            "{CONFIG} of the image: {why}; give it with --config"
        ))
    };
    for (index, listing) in listings.iter().enumerate() {
        if let Some(stop) = &listing.stopped {
            return Err(refused(format!("ramdisk {}: {stop}", index + 1)));
        }
        let elsewhere = listing.remarks.iter().find(|remark| match remark {
            Remark::NoParent { path, .. } => path == CONFIG,
            // Where a link leads is not followed here: it could lead to the configuration.
            Remark::ThroughLink { .. } => true,
            _ => false,
        });
        if let Some(remark) = elsewhere {
            return Err(refused(remark.to_string()));
        }
    }
    let mut entries = listings.iter().flat_map(|listing| &listing.entries);
    match entries.rfind(|entry| entry.path == CONFIG) {
        None => Err(refused("it is not there".into())),
        Some(Entry {
            kind: EntryKind::File { .. },
            content: Some(content),
            ..
        }) => Ok(content.to_vec()),
        Some(entry) => Err(refused(format!(
            "it is a {} of {} bytes, which is not a file that an enclave reads",
            entry.kind.name(),
            entry.size
        ))),
    }
}

/// The names of `[[models]]`, in their order. The enclave checks the rest.
fn names(config: &[u8]) -> Option<Vec<String>> {
    let table: toml::Table = toml::from_str(std::str::from_utf8(config).ok()?).ok()?;
    let models = table.get("models")?.as_array()?;
    models
        .iter()
        .map(|model| Some(model.get("name")?.as_str()?.to_owned()))
        .collect()
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::io("read", path, error))?;
    if bytes.len() as u64 > limit {
        let path = path.display();
        return Err(Failure::refused(anyhow!(
            "{path}: larger than {limit} bytes"
        )));
    }
    Ok(bytes)
}
