//! Files, in whatever form they come.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::Path;

use anyhow::anyhow;
use attestation::{Binding, Error, Evidence, EvidenceBundle, EvidencePolicy, MAX_BUNDLE};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::failure::Failure;

/// A certificate, a policy, a binding.
const MAX_SMALL: u64 = 256 * 1024;

/// Revocation lists may be longer than bundles; what reads them has its own limit.
const MAX_READ: u64 = 8 * 1024 * 1024;

pub(super) fn name(path: &Path) -> String {
    match is_stdin(path) {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A document by itself, or a bundle.
pub(super) fn evidence(path: &Path) -> Result<EvidenceBundle, Failure> {
    let bytes = read(path)?;
    let source = name(path);
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        return EvidenceBundle::from_json(&bytes)
            .map_err(|error| Failure::refused(anyhow!("{source}: refused at bundle: {error}")));
    }
    Evidence::from_bytes(decode(bytes))
        .map(EvidenceBundle::new)
        .map_err(|error| super::refused(&source, &Error::from(error)))
}

pub(super) fn policy(path: &Path) -> Result<EvidencePolicy, Failure> {
    let text = text(path)?;
    toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.matches('\n').count() + 1);
        let message = error.message().replace('\n', "; ");
        Failure::usage(anyhow!("{}: line {line}: {message}", path.display()))
    })
}

pub(super) fn binding(path: &Path) -> Result<Binding, Failure> {
    let text = small(path)?;
    // An editor's last newline is no part of the text; anything else is.
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    Binding::from_canonical_json(text)
        .map_err(|error| Failure::usage(anyhow!("{}: {error}", path.display())))
}

pub(super) fn text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(small(path)?)
        .map_err(|_bytes| Failure::usage(anyhow!("{}: not text", path.display())))
}

pub(super) fn small(path: &Path) -> Result<Vec<u8>, Failure> {
    capped(path, MAX_SMALL)
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    const { assert!(MAX_READ > MAX_BUNDLE as u64) };
    capped(path, MAX_READ)
}

fn capped(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let source: Box<dyn Read> = match is_stdin(path) {
        true => Box::new(stdin().lock()),
        false => Box::new(File::open(path).map_err(|error| Failure::io("read", path, error))?),
    };
    let mut bytes = Vec::new();
    source
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io("read", path, error))?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= limit => Ok(bytes),
        _ => Err(Failure::usage(anyhow!(
            "{}: longer than {limit} bytes",
            name(path)
        ))),
    }
}

/// Text in hex or base64 becomes what it encodes; anything else is the document itself.
fn decode(bytes: Vec<u8>) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return bytes;
    };
    let packed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    // Hex first: its digits are base64 digits, too.
    let decoded = hex::decode(&packed)
        .ok()
        .or_else(|| STANDARD.decode(&packed).ok())
        .or_else(|| URL_SAFE_NO_PAD.decode(&packed).ok());
    decoded.unwrap_or(bytes)
}
