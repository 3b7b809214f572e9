//! The list of files in an image's application ramdisk, and their check from the inside.
//!
//! A ramdisk that does not fit into half of the machine's memory is unpacked as far as it goes, the kernel says so on the
//! console, **and boots on**: registers are intact, since the image was measured before, but files are cut off or full of
//! holes. The host chooses the memory. So nothing is started that was not read back and compared.
//!
//! ```text
//! cloister files v1
//! <SHA-256, hex> <size, decimal> <mode, octal> <path>      one line a file, sorted by path, without duplicates
//! end <number of files> <SHA-256 of all bytes before this line, hex>
//! ```
//! The last line notices a list that was itself cut off. Nothing here protects from somebody who can change the image:
//! that is what measurements are for.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256, digest};

/// Where the list lies, below the ramdisk's root.
pub const LIST: &str = "app/manifest";

const HEAD: &str = "cloister files v1";
/// More than `MAX_FILES` lines of the longest paths would be; a longer list was not made by [`render`].
const MAX_LIST: u64 = 1 << 20;
const MAX_FILES: usize = 4096;
const MAX_PATH: usize = 200;
const CHUNK: usize = 128 << 10;

/// One file of the application ramdisk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Relative to the root, below `app/`.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    pub sha256: [u8; 32],
}

/// Why the list, or what it lists, is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
    /// The list is not one of ours, or was cut off.
    #[error("the image's list of files is damaged at line {line}: {problem}")]
    List { line: usize, problem: &'static str },
    #[error("{path} has {actual} bytes, expected {expected}: {HINT}")]
    Size {
        path: String,
        expected: u64,
        actual: u64,
    },
    #[error("{path} has SHA-256 {actual}, expected {expected}: {HINT}")]
    Digest {
        path: String,
        expected: String,
        actual: String,
    },
    #[error("{path} has mode {actual:o}, expected {expected:o}")]
    Mode {
        path: String,
        expected: u32,
        actual: u32,
    },
    #[error("{path} is not in the image's list of files")]
    Unlisted { path: String },
    #[error("{path} is no regular file")]
    NotAFile { path: String },
}

/// What it means nearly always: the image was measured before it was unpacked.
const HINT: &str =
    "the ramdisk did not fit, give the enclave more memory (4 times the image's size)";

/// Writes the list of `files`.
///
/// # Errors
/// The problem with a path, or with their number; [`parse`] takes whatever this writes.
pub fn render(mut files: Vec<Listed>) -> Result<String, FilesError> {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut text = format!("{HEAD}\n");
    for file in &files {
        let Listed {
            path, size, mode, ..
        } = file;
        let sha256 = hex::encode(file.sha256);
        // Writing to a string cannot fail.
        writeln!(text, "{sha256} {size} {mode:o} {path}").ok();
    }
    let whole = hex::encode(digest(&SHA256, text.as_bytes()));
    writeln!(text, "end {} {whole}", files.len()).ok();
    parse(text.as_bytes()).map(|_| text)
}

/// Reads a list, whole or not at all.
///
/// # Errors
/// [`FilesError::List`] with the line.
pub fn parse(bytes: &[u8]) -> Result<Vec<Listed>, FilesError> {
    let at = |line: usize, problem| FilesError::List { line, problem };
    if bytes.len() as u64 > MAX_LIST {
        return Err(at(1, "it is larger than 1 MiB"));
    }
    let text = std::str::from_utf8(bytes).or(Err(at(1, "it is not text")))?;
    let body = text
        .strip_suffix('\n')
        .ok_or(at(1, "its last line is cut off"))?;
    let (before, end) = body.rsplit_once('\n').ok_or(at(1, "it has no last line"))?;
    let mut lines = before.split('\n');
    if lines.next() != Some(HEAD) {
        return Err(at(1, "it is of an unknown version"));
    }
    let mut files: Vec<Listed> = Vec::new();
    for (index, line) in lines.enumerate() {
        let number = index + 2;
        if files.len() == MAX_FILES {
            return Err(at(number, "it lists too many files"));
        }
        let file = listed(line).map_err(|problem| at(number, problem))?;
        if files.last().is_some_and(|last| last.path >= file.path) {
            return Err(at(number, "paths are not sorted, or one stands twice"));
        }
        files.push(file);
    }
    let number = files.len() + 2;
    // The digest covers the newline before the last line too.
    let covered = bytes.get(..=before.len()).unwrap_or_default();
    let whole = hex::encode(digest(&SHA256, covered));
    if end != format!("end {} {whole}", files.len()) {
        return Err(at(number, "its last line does not match what is before it"));
    }
    Ok(files)
}

fn listed(line: &str) -> Result<Listed, &'static str> {
    let mut words = line.splitn(4, ' ');
    let mut next = || words.next().ok_or("a word is missing");
    let (sha256, size, mode, path) = (next()?, next()?, next()?, next()?);
    let mut digest = [0; 32];
    hex::decode_to_slice(sha256, &mut digest).or(Err("the digest is not SHA-256 in hex"))?;
    // Round trips refuse signs, leading zeros and upper case.
    let size_value: u64 = size.parse().or(Err("the size is no number"))?;
    let mode_value = u32::from_str_radix(mode, 8).or(Err("the mode is no octal number"))?;
    if size_value.to_string() != size
        || format!("{mode_value:o}") != mode
        || hex::encode(digest) != sha256
    {
        return Err("a number is not written the one way");
    }
    if mode_value > 0o7777 {
        return Err("the mode is more than permission bits");
    }
    check_path(path)?;
    Ok(Listed {
        path: path.to_owned(),
        size: size_value,
        mode: mode_value,
        sha256: digest,
    })
}

fn check_path(path: &str) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let part =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
    if path.len() > MAX_PATH {
        return Err("the path is too long");
    }
    if path == LIST {
        return Err("the list names itself");
    }
    match path.strip_prefix("app/") {
        Some(rest) if rest.split('/').all(part) => Ok(()),
        _ => Err("the path is not a plain one below app/"),
    }
}

/// Checks that `root` holds exactly what its list says: reads the list, then every file, then looks for others.
///
/// # Errors
/// The first thing that does not hold, by name.
pub fn check(root: &Path) -> Result<Vec<Listed>, FilesError> {
    let mut bytes = Vec::new();
    File::open(root.join(LIST))
        .and_then(|file| file.take(MAX_LIST + 1).read_to_end(&mut bytes))
        .map_err(|source| FilesError::Io {
            path: LIST.to_owned(),
            source,
        })?;
    let files = parse(&bytes)?;
    for file in &files {
        check_file(root, file)?;
    }
    refuse_others(root, "app", &files)?;
    Ok(files)
}

fn check_file(root: &Path, expected: &Listed) -> Result<(), FilesError> {
    let path = expected.path.clone();
    let io = |source| FilesError::Io {
        path: expected.path.clone(),
        source,
    };
    let at = root.join(&path);
    let metadata = fs::symlink_metadata(&at).map_err(io)?;
    if !metadata.is_file() {
        return Err(FilesError::NotAFile { path });
    }
    if metadata.len() != expected.size {
        return Err(FilesError::Size {
            path,
            expected: expected.size,
            actual: metadata.len(),
        });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode != expected.mode {
        return Err(FilesError::Mode {
            path,
            expected: expected.mode,
            actual: mode,
        });
    }
    let mut file = File::open(&at).map_err(io)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = file.read(&mut buffer).map_err(io)?;
        if read == 0 {
            break;
        }
        context.update(buffer.get(..read).unwrap_or_default());
    }
    let actual = context.finish();
    if actual.as_ref() != expected.sha256 {
        return Err(FilesError::Digest {
            path,
            expected: hex::encode(expected.sha256),
            actual: hex::encode(actual),
        });
    }
    Ok(())
}

/// `directory` is relative; paths in it are plain, as those of the list.
fn refuse_others(root: &Path, directory: &str, files: &[Listed]) -> Result<(), FilesError> {
    let io = |source| FilesError::Io {
        path: directory.to_owned(),
        source,
    };
    for entry in fs::read_dir(root.join(directory)).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
        let below = format!("{path}/");
        if entry.file_type().map_err(io)?.is_dir() {
            // An empty directory, or one of nothing listed, is no harm but no part of the image either.
            if !files.iter().any(|file| file.path.starts_with(&below)) {
                return Err(FilesError::Unlisted { path });
            }
            refuse_others(root, &path, files)?;
        } else if path != LIST && !files.iter().any(|file| file.path == path) {
            return Err(FilesError::Unlisted { path });
        }
    }
    Ok(())
}
