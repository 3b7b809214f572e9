//! The header of a safetensors file: eight bytes of length, then JSON of name, dtype, shape and byte range.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::quantized::GgmlDType;
use serde::Deserialize;

use crate::{LoadError, ModelFiles, fields};

/// A header takes about 120 bytes a tensor; this is room for more than [`MAX_TENSORS`].
const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Mixtures of experts reach some ten thousand.
pub(super) const MAX_TENSORS: usize = 1 << 16;
const MAX_NAME_BYTES: usize = 256;
const MAX_RANK: usize = 8;
const LENGTH_BYTES: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    F16,
    Bf16,
    /// In blocks of a row; computed with as they are.
    Quantized(GgmlDType),
    /// Known to the format but never computed with, such as the position ids that some files carry.
    Other(&'static str),
}

impl Dtype {
    /// Becomes f32.
    pub(super) fn is_dense(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16)
    }

    pub(crate) fn of_gguf(name: &'static str) -> Self {
        match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            "Q8_0" => Self::Quantized(GgmlDType::Q8_0),
            "Q4_K" => Self::Quantized(GgmlDType::Q4K),
            "Q6_K" => Self::Quantized(GgmlDType::Q6K),
            other => Self::Other(other),
        }
    }
}

/// How the rows of a matrix of heads lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// A rotary pair is half a head apart.
    AsComputed,
    /// A rotary pair is two neighbours; put in order while it is read.
    Interleaved { head_dim: usize },
}

/// Where a tensor lies.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) file: Arc<str>,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// From the start of the file.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// Its name in the file, where that is another.
    pub(crate) stored_as: Option<String>,
    pub(crate) rows: RowOrder,
}

impl Entry {
    pub(super) fn refuse(&self, name: &str, problem: String) -> LoadError {
        LoadError::Tensor {
            file: self.file.to_string(),
            name: self.stored_as.as_deref().unwrap_or(name).into(),
            problem,
        }
    }
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

pub(super) fn read(files: &dyn ModelFiles, file: &str) -> Result<Vec<(String, Entry)>, LoadError> {
    let malformed = |problem: String| LoadError::Malformed {
        file: file.into(),
        problem,
    };
    let unreadable = |source| LoadError::Read {
        file: file.into(),
        source,
    };
    let size = files
        .len(file)
        .ok_or_else(|| LoadError::MissingFile { file: file.into() })?;
    let mut length = [0; 8];
    if size < LENGTH_BYTES {
        return Err(malformed("too short for a safetensors file".into()));
    }
    files.read_at(file, 0, &mut length).map_err(unreadable)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES || length > size - LENGTH_BYTES {
        return Err(malformed(format!(
            "header of {length} bytes, the limit is {}",
            MAX_HEADER_BYTES.min(size - LENGTH_BYTES)
        )));
    }
    let mut json =
        vec![0; usize::try_from(length).map_err(|_wide| malformed("header is too large".into()))?];
    files
        .read_at(file, LENGTH_BYTES, &mut json)
        .map_err(unreadable)?;

    let mut raw: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&json)
        .map_err(|error| malformed(format!("header is {}", fields::not_json(&error))))?;
    raw.remove("__metadata__");
    if raw.len() > MAX_TENSORS {
        return Err(malformed(format!(
            "{} tensors, the limit is {MAX_TENSORS}",
            raw.len()
        )));
    }
    let start = LENGTH_BYTES + length;
    let name_of_file: Arc<str> = file.into();
    let mut entries = raw
        .into_iter()
        .map(|(name, value)| entry(&name_of_file, start, &name, value).map(|entry| (name, entry)))
        .collect::<Result<Vec<_>, _>>()?;

    // As the format demands, tensors fill the rest of the file with no gap and no overlap. It also means that no range can
    // be read twice to make more memory than the file has bytes.
    entries.sort_by_key(|(_, entry)| entry.offset);
    let mut end = start;
    for (name, entry) in &entries {
        if entry.offset != end {
            return Err(entry.refuse(
                name,
                "its bytes do not follow those of the tensor before".into(),
            ));
        }
        end = end
            .checked_add(entry.bytes)
            .ok_or_else(|| entry.refuse(name, "its byte range is too far".into()))?;
    }
    if end != size {
        return Err(malformed(format!(
            "{size} bytes, but its tensors end at {end}"
        )));
    }
    Ok(entries)
}

fn entry(
    file: &Arc<str>,
    start: u64,
    name: &str,
    value: serde_json::Value,
) -> Result<Entry, LoadError> {
    if name.len() > MAX_NAME_BYTES {
        return Err(LoadError::Malformed {
            file: file.to_string(),
            problem: "a tensor has too long a name".into(),
        });
    }
    let refuse = |problem: &str| LoadError::Tensor {
        file: file.to_string(),
        name: name.into(),
        problem: problem.into(),
    };
    let raw: RawEntry = serde_json::from_value(value)
        .map_err(|_shown_above| refuse("its header entry is malformed"))?;
    let [begin, end] = raw.data_offsets;
    let bytes = end
        .checked_sub(begin)
        .ok_or_else(|| refuse("its byte range is reversed"))?;
    if raw.shape.len() > MAX_RANK {
        return Err(refuse("it has too many dimensions"));
    }
    let elements = raw
        .shape
        .iter()
        .try_fold(1u64, |product, size| product.checked_mul(*size));
    let (dtype, bits) = match raw.dtype.as_str() {
        "F32" => (Dtype::F32, 32),
        "F16" => (Dtype::F16, 16),
        "BF16" => (Dtype::Bf16, 16),
        "F64" | "I64" | "U64" => (Dtype::Other("a wide number"), 64),
        "I32" | "U32" => (Dtype::Other("an integer"), 32),
        "I16" | "U16" => (Dtype::Other("an integer"), 16),
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" => (Dtype::Other("one byte"), 8),
        _ => return Err(refuse("its dtype is unknown")),
    };
    let expected = elements.and_then(|elements| elements.checked_mul(bits / 8));
    if expected != Some(bytes) {
        return Err(refuse("its byte range does not fit its shape"));
    }
    let shape = raw
        .shape
        .iter()
        .map(|size| usize::try_from(*size))
        .collect::<Result<_, _>>();
    Ok(Entry {
        file: Arc::clone(file),
        dtype,
        shape: shape.map_err(|_wide| refuse("it is too large"))?,
        offset: start
            .checked_add(begin)
            .ok_or_else(|| refuse("its byte range is too far"))?,
        bytes,
        stored_as: None,
        rows: RowOrder::AsComputed,
    })
}
