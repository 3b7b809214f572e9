//! What went into an image: plain data, from whoever built it.

use sealed_model::Sha256Digest;
use serde::{Deserialize, Serialize};

use crate::Error;

/// One build of one enclave image. The SBOM and the provenance are made from it; neither asks the machine for anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Name of the image, as it is published.
    pub name: String,
    /// Version of the image, as it is published.
    pub version: String,
    /// The image.
    pub image: Artifact,
    /// The kernel's command line, as it is measured.
    pub command_line: String,
    /// SHA-256 of the enclave's configuration file in the image.
    pub config_sha256: Sha256Digest,
    /// The policies of the models that the configuration names, in its order.
    pub model_policies: Vec<Artifact>,
    /// Seconds since 1970 that the build takes for the time, of the source. Nothing else has a date.
    pub source_date_epoch: Option<u64>,
    /// What the crates were compiled for, as `x86_64-unknown-linux-gnu`.
    pub target: String,
    pub source: SourceTree,
    pub kernel: Kernel,
    /// Every regular file in the image's ramdisks.
    pub files: Vec<ImageFile>,
    /// What is linked into the binaries and is no crate: Rust's standard library, a C library.
    pub libraries: Vec<Tool>,
    /// What ran and is not in the image: compiler, linker, archiver.
    pub tools: Vec<Tool>,
    /// URI of who built: the policy of a verifier names it.
    pub builder: String,
}

/// A file that has a name of its own: no path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    pub name: String,
    pub sha256: Sha256Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceTree {
    /// `git+https://…`, without user or password. `None` where the source has not been published.
    pub uri: Option<String>,
    /// 40 or 64 hex digits.
    pub commit: String,
    pub cargo_lock_sha256: Sha256Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// As the kernel says it of itself: `6.12.57`.
    pub version: String,
    /// SPDX expression.
    pub licence: String,
    /// The kernel in the image.
    pub sha256: Sha256Digest,
    /// Its configuration, whole.
    pub config_sha256: Option<Sha256Digest>,
    /// What it was built from: `pkg:deb/debian/linux@6.12.57-1?arch=source`, or where the archive is published.
    pub source_uri: String,
    pub source_sha256: Sha256Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFile {
    /// In the ramdisk, without a leading slash.
    pub path: String,
    /// Counted from 1, as `cloister measure` does.
    pub ramdisk: u8,
    /// Permission bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    pub sha256: Sha256Digest,
    /// The package of the workspace that it was built from.
    pub package: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    pub name: String,
    pub version: String,
    /// SPDX expression.
    pub licence: Option<String>,
}

const MAX_BUILD: usize = 4 << 20;
const MAX_FILES: usize = 10_000;
const MAX_LIST: usize = 100;
const MAX_TEXT: usize = 256;
/// The kernel cuts off what is longer.
const MAX_COMMAND_LINE: usize = 2047;

impl Build {
    /// From the JSON form of this type.
    ///
    /// # Errors
    /// Where it is not that, or [`Self::check`] fails.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        let build: Self = crate::canonical::read("build", bytes, MAX_BUILD)?;
        build.check()?;
        Ok(build)
    }

    /// What both documents rely on: bounded, printable texts without paths of the builder, URIs without a secret.
    ///
    /// # Errors
    /// [`Error::Input`] with the field.
    pub fn check(&self) -> Result<(), Error> {
        for (what, value) in [
            ("name", &self.name),
            ("version", &self.version),
            ("target", &self.target),
            ("kernel.version", &self.kernel.version),
        ] {
            token(what, value)?;
        }
        text("kernel.licence", &self.kernel.licence)?;
        if self.command_line.len() > MAX_COMMAND_LINE
            || self.command_line.chars().any(char::is_control)
        {
            return Err(Error::input(
                "command_line",
                format!("is at most {MAX_COMMAND_LINE} bytes, without control characters"),
            ));
        }
        self.image.check("image")?;
        list("model_policies", &self.model_policies, |policy| {
            policy.check("model_policies")
        })?;
        self.source.check()?;
        uri("kernel.source_uri", &self.kernel.source_uri)?;
        uri("builder", &self.builder)?;
        list("libraries", &self.libraries, |tool| tool.check("libraries"))?;
        list("tools", &self.tools, |tool| tool.check("tools"))?;
        self.check_files()
    }

    fn check_files(&self) -> Result<(), Error> {
        if self.files.len() > MAX_FILES {
            return Err(Error::input("files", format!("are more than {MAX_FILES}")));
        }
        let mut seen = std::collections::BTreeSet::new();
        for file in &self.files {
            let parts = || file.path.split('/');
            let relative = parts().all(|part| !matches!(part, "" | "." | ".."));
            if !relative || file.path.len() > 4096 || file.path.chars().any(char::is_control) {
                return Err(Error::input(
                    format!("files: {:?}", crate::canonical::shown(&file.path)),
                    "is not a path below the root of a ramdisk",
                ));
            }
            if file.ramdisk == 0 || file.mode > 0o7777 {
                return Err(Error::input(
                    format!("files: {}", file.path),
                    "ramdisks are counted from 1, and a mode is at most 7777 (octal)",
                ));
            }
            if !seen.insert((file.ramdisk, &file.path)) {
                return Err(Error::input(
                    format!("files: {}", file.path),
                    "is there twice in one ramdisk",
                ));
            }
        }
        Ok(())
    }
}

impl Artifact {
    pub(crate) fn check(&self, what: &str) -> Result<(), Error> {
        token(&format!("{what}: name"), &self.name)
    }
}

impl SourceTree {
    fn check(&self) -> Result<(), Error> {
        commit("source.commit", &self.commit)?;
        match &self.uri {
            Some(value) => uri("source.uri", value),
            None => Ok(()),
        }
    }
}

impl Tool {
    fn check(&self, what: &str) -> Result<(), Error> {
        token(&format!("{what}: name"), &self.name)?;
        text(&format!("{what}: version"), &self.version)?;
        // A path would tell about the builder, and differ on the next.
        if self.version.contains('/') {
            return Err(Error::input(
                format!("{what}: {}", self.name),
                "a version has no path in it",
            ));
        }
        self.licence
            .as_deref()
            .map_or(Ok(()), |licence| text(&format!("{what}: licence"), licence))
    }
}

/// A Git commit, SHA-1 or SHA-256, in lower case.
pub(crate) fn commit(what: &str, value: &str) -> Result<(), Error> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match matches!(value.len(), 40 | 64) && value.bytes().all(hex) {
        true => Ok(()),
        false => Err(Error::input(
            what,
            "a commit is 40 or 64 hex digits, in lower case",
        )),
    }
}

/// A name or version: what is a path, a line or an option elsewhere is not one here.
pub(crate) fn token(what: &str, value: &str) -> Result<(), Error> {
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+' | b'~');
    let first = value
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    match first && value.len() <= 128 && value.bytes().all(allowed) {
        true => Ok(()),
        false => Err(Error::input(
            what,
            "use 1 to 128 ASCII letters, digits and '.', '_', '-', '+', '~', starting with a letter or digit",
        )),
    }
}

pub(crate) fn text(what: &str, value: &str) -> Result<(), Error> {
    match !value.trim().is_empty()
        && value.len() <= MAX_TEXT
        && !value.chars().any(char::is_control)
    {
        true => Ok(()),
        false => Err(Error::input(
            what,
            format!("is 1 to {MAX_TEXT} bytes, without control characters"),
        )),
    }
}

/// Public: no secret in it, nothing of the builder's file system.
pub(crate) fn uri(what: &str, value: &str) -> Result<(), Error> {
    let problem =
        "use a printable https:, git+https:, pkg: or urn: URI without user, password and fragment";
    let rest = ["https://", "git+https://", "pkg:", "urn:"]
        .iter()
        .find_map(|scheme| value.strip_prefix(scheme))
        .unwrap_or_default();
    let printable = value
        .bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'`' | b'#'));
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let secret = !value.starts_with("pkg:") && authority.contains('@');
    match !rest.is_empty() && printable && !secret && value.len() <= MAX_TEXT {
        true => Ok(()),
        false => Err(Error::input(what, problem)),
    }
}

fn list<T>(what: &str, items: &[T], check: impl Fn(&T) -> Result<(), Error>) -> Result<(), Error> {
    if items.len() > MAX_LIST {
        return Err(Error::input(what, format!("are more than {MAX_LIST}")));
    }
    items.iter().try_for_each(check)
}
