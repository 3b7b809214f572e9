//! The header of a GGUF file (ggml, `docs/gguf.md`, versions 2 and 3), checked before its bytes are sealed and again before
//! they are loaded: counts, metadata, then which bytes are which tensor. Stricter than most readers, since a reader that trusts
//! a length or an offset reads another tensor's memory, or takes as much of it as a file claims.

mod reader;
mod tensor;
mod types;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use self::reader::Reader;
use self::tensor::check_layout;

pub use self::tensor::Tensor;
pub use self::types::{TensorType, file_type_name};
pub use self::value::Value;

/// The largest published header, with a vocabulary of 256 k tokens, takes 16 MB.
pub const MAX_HEADER: u64 = 256 << 20;
/// Published models have up to 2,000 tensors and 100 keys.
const MAX_TENSORS: u64 = 1 << 16;
const MAX_KEYS: u64 = 1 << 16;
/// GGUF's own limits.
const MAX_KEY: u64 = 65_535;
const MAX_TENSOR_NAME: u64 = 64;
const MAX_DIMENSIONS: u32 = 4;
/// A chat template or a licence text; tokens are far shorter.
const MAX_STRING: u64 = 16 << 20;
/// Of a string that is kept as [`Keep::Short`], in bytes.
const MAX_SHORT: usize = 1024;
/// Values of an array that is kept. The largest vocabularies have 256 k tokens and twice as many merges.
const MAX_KEPT: u64 = 1 << 21;
const MAX_ALIGNMENT: u32 = 1 << 20;

/// What is wrong with a header.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    #[error("cannot be read")]
    Read(#[source] io::Error),
    #[error("does not start with GGUF")]
    Magic,
    #[error("version {found} is not known, 2 and 3 are (a big-endian file has to be converted)")]
    Version { found: u32 },
    #[error("the file ends within its header")]
    Short,
    #[error("the header is longer than {MAX_HEADER} bytes")]
    HeaderLength,
    #[error("claims {claimed} {what}, more than the {max} allowed")]
    Count {
        what: &'static str,
        claimed: u64,
        max: u64,
    },
    #[error("a {what} of {claimed} bytes is longer than the {max} allowed, or than the file")]
    StringLength {
        what: &'static str,
        claimed: u64,
        max: u64,
    },
    #[error("a {what} is not plain text")]
    Text { what: &'static str },
    #[error("key {key:?} is there twice")]
    DuplicateKey { key: String },
    #[error("key {key:?} has the unknown type {found}")]
    ValueType { key: String, found: u32 },
    #[error("key {key:?} is neither true nor false")]
    Bool { key: String },
    #[error("key {key:?} is not UTF-8")]
    NotUtf8 { key: String },
    #[error("key {key:?} has a number beyond 64 bits with a sign")]
    Number { key: String },
    #[error("general.alignment is not a power of two from 8 to {MAX_ALIGNMENT}")]
    Alignment,
    #[error("there is no tensor in it")]
    Empty,
    #[error("tensor {tensor:?} is there twice")]
    DuplicateTensor { tensor: String },
    #[error("tensor {tensor:?} has the unknown type {found}")]
    TensorType { tensor: String, found: u32 },
    #[error("tensor {tensor:?} has {dimensions} dimensions, more than {MAX_DIMENSIONS} or none")]
    Dimensions { tensor: String, dimensions: u32 },
    #[error("tensor {tensor:?} has an absurd shape, or rows that are no whole blocks of its type")]
    Shape { tensor: String },
    #[error("tensor {tensor:?} starts at {offset}, which is not aligned to {alignment}")]
    Misaligned {
        tensor: String,
        offset: u64,
        alignment: u64,
    },
    #[error("tensor {tensor:?} lies at {offset}..+{len}, outside the {data} bytes of data")]
    OutOfRange {
        tensor: String,
        offset: u64,
        len: u64,
        data: u64,
    },
    #[error("tensor {tensor:?} overlaps the one before it")]
    Overlap { tensor: String },
    #[error("{bytes} bytes before {before} belong to no tensor")]
    Hole { before: String, bytes: u64 },
}

/// What a header says of its model, as far as it is of use.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Strings of at most 1 KiB under `general.`, for example `general.architecture`.
    pub strings: BTreeMap<String, String>,
    /// `general.file_type`: how most of it is quantized; [`file_type_name`] has its name.
    pub file_type: Option<u32>,
    /// Elements by type, for example `Q4_K`.
    pub elements: BTreeMap<&'static str, u64>,
    pub tensors: usize,
}

/// What is kept of the value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Nothing,
    /// One number, or a string of at most 1 KiB that is UTF-8.
    Short,
    All,
}

/// A header that passed.
#[derive(Debug)]
pub struct Header {
    /// What was kept of the metadata.
    pub values: BTreeMap<String, Value>,
    /// As they lie in the file. Together they fill it: no gap but for alignment, no overlap.
    pub tensors: Vec<Tensor>,
}

/// Checks the header that `file`, of `len` bytes, starts with. What it reads and holds is bounded by [`MAX_HEADER`].
///
/// # Errors
/// [`Problem`]: the first thing that is not as the format and its limits demand.
pub fn check(file: impl Read, len: u64) -> Result<Summary, Problem> {
    let header = read(file, len, &|key| match key.starts_with("general.") {
        true => Keep::Short,
        false => Keep::Nothing,
    })?;
    let mut summary = Summary {
        tensors: header.tensors.len(),
        ..Summary::default()
    };
    for tensor in &header.tensors {
        let elements = summary.elements.entry(tensor.kind.name).or_default();
        *elements = elements.saturating_add(tensor.elements);
    }
    for (key, value) in header.values {
        match value {
            Value::Text(text) => {
                summary.strings.insert(key, text);
            }
            Value::Unsigned(number) if key == "general.file_type" => {
                summary.file_type = u32::try_from(number).ok();
            }
            _ => {}
        }
    }
    Ok(summary)
}

/// As [`check`], keeping the metadata that `keep` asks for by its key. An array that is kept takes some three times the bytes that
/// it has in the file.
///
/// # Errors
/// As [`check`], and [`Problem::NotUtf8`], [`Problem::Number`] or [`Problem::Count`] for a value that cannot be kept.
pub fn read(file: impl Read, len: u64, keep: &dyn Fn(&str) -> Keep) -> Result<Header, Problem> {
    let mut reader = Reader::new(file, len);
    if reader.bytes()? != *b"GGUF" {
        return Err(Problem::Magic);
    }
    let version = reader.u32()?;
    if !matches!(version, 2 | 3) {
        return Err(Problem::Version { found: version });
    }
    let count = reader.count("tensors", MAX_TENSORS)?;
    let keys = reader.count("keys", MAX_KEYS)?;
    let (values, alignment) = metadata(&mut reader, keys, keep)?;
    let mut tensors = Vec::new();
    let mut names = BTreeSet::new();
    for _ in 0..count {
        let tensor = Tensor::read(&mut reader)?;
        if !names.insert(tensor.name.clone()) {
            return Err(Problem::DuplicateTensor {
                tensor: tensor.name,
            });
        }
        tensors.push(tensor);
    }
    let start = reader
        .at()
        .checked_next_multiple_of(alignment)
        .ok_or(Problem::Short)?;
    let data = len.checked_sub(start).ok_or(Problem::Short)?;
    check_layout(&mut tensors, data, alignment)?;
    for tensor in &mut tensors {
        tensor.offset = tensor.offset.checked_add(start).ok_or(Problem::Short)?;
    }
    Ok(Header { values, tensors })
}

/// Reads all keys; returns what is kept of them, and the alignment.
fn metadata<R: Read>(
    reader: &mut Reader<R>,
    keys: u64,
    keep: &dyn Fn(&str) -> Keep,
) -> Result<(BTreeMap<String, Value>, u64), Problem> {
    let mut seen = BTreeSet::new();
    let mut values = BTreeMap::new();
    let mut alignment = 32;
    for _ in 0..keys {
        let key = reader.text("key", MAX_KEY)?;
        let kind = reader.u32()?;
        let value = match (key.as_str(), kind) {
            ("general.alignment", types::U32) => {
                alignment = reader.u32()?;
                let sane = alignment.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&alignment);
                if !sane {
                    return Err(Problem::Alignment);
                }
                None
            }
            ("general.alignment", _) => return Err(Problem::Alignment),
            (_, _) => value::read(reader, &key, kind, keep(&key))?,
        };
        if !seen.insert(key.clone()) {
            return Err(Problem::DuplicateKey { key });
        }
        if let Some(value) = value {
            values.insert(key, value);
        }
    }
    Ok((values, alignment.into()))
}

#[cfg(test)]
mod tests;
