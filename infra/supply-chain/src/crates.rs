//! Which crates are linked into a binary: `cargo metadata` says what there is, the features decide what is used.

mod features;
mod lock;

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{Metadata, Package, PackageId, Source};
use sealed_model::Sha256Digest;

use crate::Error;
use features::Linked;
use lock::Lock;

/// A workspace of a thousand crates has some 5 MB of metadata.
const MAX_METADATA: usize = 64 << 20;
const MAX_PACKAGES: usize = 10_000;

/// The crates that are linked into the given packages' binaries, with what each depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrateGraph {
    roots: BTreeSet<String>,
    crates: BTreeMap<CrateId, Crate>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CrateId {
    pub(crate) name: String,
    pub(crate) version: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Crate {
    /// SPDX expression.
    pub(crate) licence: Option<String>,
    pub(crate) origin: Origin,
    pub(crate) dependencies: BTreeSet<CrateId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A member of the workspace: the source's commit names its content.
    Workspace,
    /// crates.io, with the SHA-256 of the archive that the lock file demands.
    CratesIo(Sha256Digest),
}

impl CrateGraph {
    /// From the output of `cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu` and the
    /// bytes of `Cargo.lock`. `roots` are the workspace's packages that are built together.
    ///
    /// Followed are normal dependencies that this target and the features in force turn on; features are those of a build
    /// of `roots` alone, as with `cargo build -p`. Not in it: procedural macros, build scripts and what only these use,
    /// which run on the builder and are not linked.
    ///
    /// # Errors
    /// [`Error::Input`] where the two do not belong together, or a crate comes from elsewhere than crates.io.
    pub fn from_cargo(metadata: &[u8], lock: &[u8], roots: &[&str]) -> Result<Self, Error> {
        let metadata = parse(metadata)?;
        let lock = Lock::parse(lock)?;
        let packages: BTreeMap<&PackageId, &Package> =
            metadata.packages.iter().map(|p| (&p.id, p)).collect();
        let linked = Linked::resolve(&metadata, &packages, roots)?;
        let mut crates = BTreeMap::new();
        for (id, dependencies) in linked.packages() {
            let package = find(&packages, id)?;
            let described = Crate {
                licence: package.license.as_deref().map(spdx),
                origin: origin(package, &lock)?,
                dependencies: dependencies
                    .iter()
                    .map(|id| Ok(CrateId::of(find(&packages, id)?)))
                    .collect::<Result<_, Error>>()?,
            };
            if crates.insert(CrateId::of(package), described).is_some() {
                return Err(wrong(format!(
                    "{} {} appears twice, from different places",
                    package.name, package.version
                )));
            }
        }
        Ok(Self {
            roots: roots.iter().map(|root| (*root).to_owned()).collect(),
            crates,
        })
    }

    /// Name and version of each crate, sorted.
    pub fn crates(&self) -> impl Iterator<Item = (&str, &str)> {
        self.crates
            .keys()
            .map(|id| (id.name.as_str(), id.version.as_str()))
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&CrateId, &Crate)> {
        self.crates.iter()
    }

    pub(crate) fn origin(&self, id: &CrateId) -> Option<&Origin> {
        self.crates.get(id).map(|found| &found.origin)
    }

    pub(crate) fn root(&self, name: &str) -> Option<&CrateId> {
        self.roots.get(name)?;
        self.crates
            .iter()
            .find(|(id, found)| id.name == name && found.origin == Origin::Workspace)
            .map(|(id, _)| id)
    }
}

impl CrateId {
    fn of(package: &Package) -> Self {
        Self {
            name: package.name.to_string(),
            version: package.version.to_string(),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Metadata, Error> {
    if bytes.len() > MAX_METADATA {
        return Err(Error::TooLarge {
            what: "cargo metadata",
            max: MAX_METADATA as u64,
            actual: bytes.len() as u64,
        });
    }
    let metadata: Metadata =
        serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    if metadata.packages.len() > MAX_PACKAGES {
        return Err(wrong(format!("more than {MAX_PACKAGES} packages")));
    }
    Ok(metadata)
}

fn origin(package: &Package, lock: &Lock) -> Result<Origin, Error> {
    let (name, version) = (package.name.as_str(), package.version.to_string());
    let locked = lock.find(name, &version).ok_or_else(|| {
        wrong(format!(
            "{name} {version} is not in the lock file: make both from one source tree"
        ))
    })?;
    match (&package.source, locked) {
        (None, None) => Ok(Origin::Workspace),
        (Some(source), Some(checksum)) if is_crates_io(source) => Ok(Origin::CratesIo(checksum)),
        (source, _) => Err(wrong(format!(
            "{name} {version} comes from {}: only the workspace and crates.io, with a checksum in the lock file, can be described",
            source
                .as_ref()
                .map_or("a path", |source| source.repr.as_str())
        ))),
    }
}

fn is_crates_io(source: &Source) -> bool {
    source.is_crates_io() || source.repr == "sparse+https://index.crates.io/"
}

/// Old manifests separate alternatives with a slash.
fn spdx(licence: &str) -> String {
    let alternatives: Vec<_> = licence.split('/').map(str::trim).collect();
    alternatives.join(" OR ")
}

fn find<'m>(
    packages: &BTreeMap<&PackageId, &'m Package>,
    id: &PackageId,
) -> Result<&'m Package, Error> {
    packages
        .get(id)
        .copied()
        .ok_or_else(|| wrong(format!("package {id} is named but not described")))
}

fn wrong(problem: String) -> Error {
    Error::input("cargo metadata", problem)
}
