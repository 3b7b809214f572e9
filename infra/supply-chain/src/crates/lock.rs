use std::collections::BTreeMap;

use sealed_model::Sha256Digest;
use serde::Deserialize;

use crate::Error;

const MAX_LOCK: usize = 16 << 20;

/// `Cargo.lock`: by name and version, the checksum of each crate that has one.
pub(super) struct Lock(BTreeMap<(String, String), Option<Sha256Digest>>);

#[derive(Deserialize)]
struct File {
    version: u32,
    package: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    version: String,
    checksum: Option<Sha256Digest>,
}

impl Lock {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_LOCK {
            return Err(Error::TooLarge {
                what: "Cargo.lock",
                max: MAX_LOCK as u64,
                actual: bytes.len() as u64,
            });
        }
        let file: File =
            toml::from_slice(bytes).map_err(|error| wrong(error.message().to_owned()))?;
        if !matches!(file.version, 3 | 4) {
            return Err(Error::UnknownVersion {
                what: "Cargo.lock",
                found: file.version.to_string(),
                known: "3 and 4",
            });
        }
        let mut packages = BTreeMap::new();
        for entry in file.package {
            let key = (entry.name, entry.version);
            if packages.contains_key(&key) {
                return Err(wrong(format!(
                    "{} {} is locked twice, from different places",
                    key.0, key.1
                )));
            }
            packages.insert(key, entry.checksum);
        }
        Ok(Self(packages))
    }

    /// `None`: not locked. `Some(None)`: without a checksum, as members of a workspace are.
    pub(super) fn find(&self, name: &str, version: &str) -> Option<Option<Sha256Digest>> {
        self.0.get(&(name.to_owned(), version.to_owned())).copied()
    }
}

fn wrong(problem: String) -> Error {
    Error::input("Cargo.lock", problem)
}
