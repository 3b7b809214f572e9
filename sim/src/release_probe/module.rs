//! The simulated module that the probe attests with. It outlives a run, so that a broker can be set up for it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use attestation::{Pcr, Pcrs};

use super::Failure;
use crate::nsm::{SimNsm, SimPki};
use crate::stack::Clock;

pub(super) struct Module {
    pub(super) nsm: SimNsm,
    pcrs: Pcrs,
}

impl Module {
    /// The registers that are not zero.
    pub(super) fn registers(&self) -> impl Iterator<Item = (u8, Pcr)> {
        let set = self.pcrs.iter().filter(|(_, pcr)| !pcr.is_zero());
        set.map(|(index, pcr)| (*index, *pcr))
    }
}

/// The module in `path`, made if there is none, and where its root lies.
pub(super) fn open(
    path: &Path,
    registers: &[(u8, Pcr)],
    now: &Clock,
) -> Result<(Module, PathBuf), Failure> {
    let named = |error: &dyn std::fmt::Display| Failure(format!("{}: {error}", path.display()), 64);
    let root = PathBuf::from(format!("{}.root.pem", path.display()));
    let mut pki = match fs::read_to_string(path) {
        Ok(json) => SimPki::from_json(&json).map_err(|error| named(&error))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let pki = SimPki::generate(now());
            write_private(path, pki.to_json().as_bytes())?;
            pki
        }
        Err(error) => return Err(named(&error)),
    };
    // The root is for years, what is below it for days, as on AWS.
    pki.renew(now()).map_err(|error| named(&error))?;
    fs::write(&root, pki.root_pem())
        .map_err(|error| Failure(format!("{}: {error}", root.display()), 69))?;

    let mut pcrs: Pcrs = (0..16).map(|index| (index, Pcr::ZERO)).collect();
    for index in 0..3 {
        pcrs.insert(index, Pcr::ZERO.extend(b"key-release-probe"));
    }
    pcrs.extend(registers.iter().copied());
    let nsm = SimNsm::new(pki, pcrs.clone(), now.clone());
    Ok((Module { nsm, pcrs }, root))
}

/// A file of at most `most` bytes.
pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let named = |problem: String| Failure(format!("{}: {problem}", path.display()), 64);
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|error| named(error.to_string()))?;
    if bytes.len() as u64 > most {
        return Err(named(format!("is larger than {most} bytes")));
    }
    Ok(bytes)
}

/// A new file that only its owner may read.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<(), Failure> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(|error| Failure(format!("{}: {error}", path.display()), 69))
}
