//! Cargo's feature resolver, for normal dependencies of one target (Cargo book, "Features", and resolver version 2).
//!
//! `cargo metadata` reports features unified over the whole workspace, its tests included. A binary built on its own has
//! fewer, and what they do not turn on is not in it; so they are worked out here again, from the packages to be built.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;

use cargo_metadata::cargo_platform::Cfg;
use cargo_metadata::{Dependency, DependencyKind, Metadata, Node, Package, PackageId, TargetKind};

use super::{find, wrong};
use crate::Error;

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// `rustc --print cfg --target x86_64-unknown-linux-gnu`, as far as manifests ask for it.
const CFG: &[&str] = &[
    "panic=\"unwind\"",
    "target_abi=\"\"",
    "target_arch=\"x86_64\"",
    "target_endian=\"little\"",
    "target_env=\"gnu\"",
    "target_family=\"unix\"",
    "target_feature=\"fxsr\"",
    "target_feature=\"sse\"",
    "target_feature=\"sse2\"",
    "target_has_atomic",
    "target_has_atomic=\"16\"",
    "target_has_atomic=\"32\"",
    "target_has_atomic=\"64\"",
    "target_has_atomic=\"8\"",
    "target_has_atomic=\"ptr\"",
    "target_os=\"linux\"",
    "target_pointer_width=\"64\"",
    "target_vendor=\"unknown\"",
    "unix",
];

/// What is linked so far.
pub(super) struct Linked<'m> {
    packages: &'m BTreeMap<&'m PackageId, &'m Package>,
    nodes: BTreeMap<&'m PackageId, &'m Node>,
    cfg: Vec<Cfg>,
    states: BTreeMap<&'m PackageId, State<'m>>,
    work: Vec<Work<'m>>,
}

#[derive(Default)]
struct State<'m> {
    features: BTreeSet<String>,
    /// Dependencies in force, by the name the manifest gives them.
    active: BTreeSet<&'m str>,
    /// `name?/feature`, for the day that `name` is turned on.
    waiting: BTreeSet<(String, String)>,
    dependencies: BTreeSet<&'m PackageId>,
}

enum Work<'m> {
    Feature(&'m PackageId, String),
    Dependency(&'m PackageId, &'m Dependency),
}

impl<'m> Linked<'m> {
    pub(super) fn resolve(
        metadata: &'m Metadata,
        packages: &'m BTreeMap<&'m PackageId, &'m Package>,
        roots: &[&str],
    ) -> Result<Self, Error> {
        let resolve = metadata
            .resolve
            .as_ref()
            .ok_or_else(|| wrong("has no resolved graph: leave out --no-deps".into()))?;
        let mut linked = Self {
            packages,
            nodes: resolve.nodes.iter().map(|node| (&node.id, node)).collect(),
            cfg: CFG
                .iter()
                .map(|text| Cfg::from_str(text))
                .collect::<Result<_, _>>()
                .map_err(|_unreachable| Error::Internal("the target's cfg can be parsed"))?,
            states: BTreeMap::new(),
            work: Vec::new(),
        };
        if roots.is_empty() {
            return Err(wrong("no package is named whose crates to list".into()));
        }
        for root in roots {
            let id = metadata
                .workspace_members
                .iter()
                .find(|id| packages.get(id).is_some_and(|p| p.name.as_str() == *root))
                .ok_or_else(|| wrong(format!("the workspace has no package {root}")))?;
            linked.link(id)?;
            linked.work.push(Work::Feature(id, "default".into()));
        }
        while let Some(work) = linked.work.pop() {
            match work {
                Work::Feature(id, feature) => linked.feature(id, feature)?,
                Work::Dependency(id, dependency) => linked.dependency(id, dependency)?,
            }
        }
        Ok(linked)
    }

    /// Each linked package with the linked packages that it uses.
    pub(super) fn packages(
        &self,
    ) -> impl Iterator<Item = (&'m PackageId, &BTreeSet<&'m PackageId>)> {
        self.states.iter().map(|(id, s)| (*id, &s.dependencies))
    }

    fn link(&mut self, id: &'m PackageId) -> Result<(), Error> {
        if self.states.contains_key(id) {
            return Ok(());
        }
        self.states.insert(id, State::default());
        let package = find(self.packages, id)?;
        for dependency in package.dependencies.iter().filter(|d| !d.optional) {
            if self.concerns(dependency) {
                self.work.push(Work::Dependency(id, dependency));
            }
        }
        Ok(())
    }

    /// Turns on a feature as a manifest writes it: `name`, `dep:name`, `name/feature` or `name?/feature`.
    fn feature(&mut self, id: &'m PackageId, feature: String) -> Result<(), Error> {
        if let Some(name) = feature.strip_prefix("dep:") {
            self.activate(id, name)
        } else if let Some((name, feature)) = feature.split_once('/') {
            match name.strip_suffix('?') {
                Some(name) => self.weak(id, name, feature),
                None => {
                    let package = find(self.packages, id)?;
                    if package.features.contains_key(name) {
                        self.work.push(Work::Feature(id, name.to_owned()));
                    }
                    self.activate(id, name)?;
                    self.weak(id, name, feature)
                }
            }
        } else {
            self.named(id, feature)
        }
    }

    fn named(&mut self, id: &'m PackageId, feature: String) -> Result<(), Error> {
        let package = find(self.packages, id)?;
        let Some(turns_on) = package.features.get(&feature) else {
            // Everyone may ask for the default features, of a crate without any, too.
            return match feature.as_str() {
                "default" => Ok(()),
                _ => Err(wrong(format!("{} has no feature {feature}", package.name))),
            };
        };
        if self.state(id)?.features.insert(feature) {
            let more = turns_on.iter().map(|f| Work::Feature(id, f.clone()));
            self.work.extend(more);
        }
        Ok(())
    }

    /// Turns on an optional dependency.
    fn activate(&mut self, id: &'m PackageId, name: &str) -> Result<(), Error> {
        let package = find(self.packages, id)?;
        for dependency in &package.dependencies {
            if known_as(dependency) == name && self.concerns(dependency) {
                self.work.push(Work::Dependency(id, dependency));
            }
        }
        Ok(())
    }

    /// A feature of a dependency, if and when that is in force.
    fn weak(&mut self, id: &'m PackageId, name: &str, feature: &str) -> Result<(), Error> {
        let request = (name.to_owned(), feature.to_owned());
        let state = self.state(id)?;
        let news = state.waiting.insert(request);
        if news && state.active.contains(name) {
            for used in self.resolved(id, name)? {
                self.work.push(Work::Feature(used, feature.to_owned()));
            }
        }
        Ok(())
    }

    fn dependency(&mut self, id: &'m PackageId, dependency: &'m Dependency) -> Result<(), Error> {
        let name = known_as(dependency);
        let used = self.used(id, dependency)?;
        let package = find(self.packages, used)?;
        // It runs in the compiler.
        if package
            .targets
            .iter()
            .any(|t| t.kind.contains(&TargetKind::ProcMacro))
        {
            return Ok(());
        }
        let state = self.state(id)?;
        state.active.insert(name);
        state.dependencies.insert(used);
        let waiting: Vec<_> = state
            .waiting
            .iter()
            .filter(|(waiting, _)| waiting == name)
            .map(|(_, feature)| feature.clone())
            .collect();
        self.link(used)?;
        let default = dependency
            .uses_default_features
            .then(|| "default".to_owned());
        let asked = dependency.features.iter().cloned();
        for feature in default.into_iter().chain(asked).chain(waiting) {
            self.work.push(Work::Feature(used, feature));
        }
        Ok(())
    }

    /// A normal dependency, on this target.
    fn concerns(&self, dependency: &Dependency) -> bool {
        dependency.kind == DependencyKind::Normal
            && dependency
                .target
                .as_ref()
                .is_none_or(|target| target.matches(TRIPLE, &self.cfg))
    }

    fn resolved(&self, id: &'m PackageId, name: &str) -> Result<BTreeSet<&'m PackageId>, Error> {
        let package = find(self.packages, id)?;
        let mut found = BTreeSet::new();
        for dependency in &package.dependencies {
            if known_as(dependency) == name && self.concerns(dependency) {
                let used = self.used(id, dependency)?;
                if self.states.contains_key(used) {
                    found.insert(used);
                }
            }
        }
        Ok(found)
    }

    /// The package that cargo chose for a dependency.
    fn used(&self, id: &PackageId, dependency: &Dependency) -> Result<&'m PackageId, Error> {
        let node = self
            .nodes
            .get(id)
            .ok_or_else(|| wrong(format!("package {id} is not in the resolved graph")))?;
        let fits = |id: &PackageId| {
            self.packages.get(id).is_some_and(|package| {
                package.name.as_str() == dependency.name && dependency.req.matches(&package.version)
            })
        };
        let mut chosen = node.deps.iter().map(|d| &d.pkg).filter(|id| fits(id));
        match (chosen.next(), chosen.next()) {
            (Some(one), None) => Ok(one),
            (found, _) => Err(wrong(format!(
                "{} packages fit {} of {id}: make it with --filter-platform {TRIPLE}",
                if found.is_none() { "no" } else { "several" },
                dependency.name
            ))),
        }
    }

    fn state(&mut self, id: &'m PackageId) -> Result<&mut State<'m>, Error> {
        self.states.get_mut(id).ok_or(Error::Internal(
            "a package is linked before its features are turned on",
        ))
    }
}

fn known_as(dependency: &Dependency) -> &str {
    dependency.rename.as_deref().unwrap_or(&dependency.name)
}
