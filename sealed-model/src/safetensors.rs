//! The header of a safetensors file, checked before its bytes are sealed: eight bytes of length, then JSON that says which bytes
//! are which tensor. Stricter than most readers, since a reader that trusts an offset reads another tensor's memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

/// The format's own limit; published models stay below 12 MB.
pub const MAX_HEADER: u64 = 100_000_000;
/// A little-endian u64: the length of the JSON after it.
pub const LENGTH_FIELD: u64 = 8;

/// What is wrong with a header.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    #[error("{actual} bytes are too few for a header")]
    TooShort { actual: u64 },
    #[error("the header claims {claimed} bytes, more than the file or the {MAX_HEADER} allowed")]
    HeaderLength { claimed: u64 },
    #[error("the header does not start with '{{'")]
    Start,
    #[error("the header is not the JSON of safetensors")]
    Json(#[source] serde_json::Error),
    #[error("tensor {tensor:?} is there twice")]
    Duplicate { tensor: String },
    #[error("tensor {tensor:?} has the unknown type {dtype:?}")]
    Dtype { tensor: String, dtype: String },
    #[error("tensor {tensor:?} lies at {begin}..{end}, outside the {data} bytes of data")]
    OutOfRange {
        tensor: String,
        begin: u64,
        end: u64,
        data: u64,
    },
    #[error("tensor {tensor:?} has {actual} bytes, its type and shape need {expected}")]
    Length {
        tensor: String,
        expected: u128,
        actual: u64,
    },
    #[error("tensor {tensor:?} has an absurd shape")]
    Shape { tensor: String },
    #[error("tensor {tensor:?} overlaps the one before it")]
    Overlap { tensor: String },
    #[error("{bytes} bytes before {before} belong to no tensor")]
    Hole { before: String, bytes: u64 },
}

/// How long the JSON is, from the file's first eight bytes and its length.
pub fn header_len(length_field: [u8; 8], file_len: u64) -> Result<u64, Problem> {
    let claimed = u64::from_le_bytes(length_field);
    let room = file_len
        .checked_sub(LENGTH_FIELD)
        .ok_or(Problem::TooShort { actual: file_len })?;
    if claimed > room.min(MAX_HEADER) {
        return Err(Problem::HeaderLength { claimed });
    }
    Ok(claimed)
}

/// What a header says of its file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Of the tensors.
    pub names: BTreeSet<String>,
    /// Elements by type, for example `BF16`.
    pub elements: BTreeMap<String, u64>,
}

/// Checks a header's JSON against the `data` bytes that follow it.
pub fn check_header(json: &[u8], data: u64) -> Result<Summary, Problem> {
    if json.first() != Some(&b'{') {
        return Err(Problem::Start);
    }
    let Header { mut tensors, .. } = serde_json::from_slice(json).map_err(Problem::Json)?;
    let mut summary = Summary::default();
    for (name, tensor) in &tensors {
        let elements = tensor.check(name, data)?;
        let of_type = summary.elements.entry(tensor.dtype.clone()).or_default();
        *of_type = of_type.saturating_add(elements);
        if !summary.names.insert(name.clone()) {
            return Err(Problem::Duplicate {
                tensor: name.clone(),
            });
        }
    }
    tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut at = 0;
    for (name, tensor) in tensors {
        let (begin, end) = tensor.data_offsets;
        if begin < at {
            return Err(Problem::Overlap { tensor: name });
        }
        if begin > at {
            return Err(Problem::Hole {
                before: format!("tensor {name:?}"),
                bytes: begin - at,
            });
        }
        at = end;
    }
    if at != data {
        return Err(Problem::Hole {
            before: "the end".into(),
            bytes: data - at,
        });
    }
    Ok(summary)
}

/// In the order of the JSON, names as often as they occur: a map would hide a second one.
struct Header {
    tensors: Vec<(String, Tensor)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Tensor {
    /// The number of its elements.
    fn check(&self, name: &str, data: u64) -> Result<u64, Problem> {
        let tensor = || name.to_owned();
        let bits = bits(&self.dtype).ok_or_else(|| Problem::Dtype {
            tensor: tensor(),
            dtype: self.dtype.clone(),
        })?;
        let (begin, end) = self.data_offsets;
        if begin > end || end > data {
            return Err(Problem::OutOfRange {
                tensor: tensor(),
                begin,
                end,
                data,
            });
        }
        let expected = self
            .shape
            .iter()
            .try_fold(bits, |product, &dim| product.checked_mul(dim.into()))
            .filter(|bits| bits % 8 == 0)
            .map(|bits| bits / 8)
            .ok_or_else(|| Problem::Shape { tensor: tensor() })?;
        if expected != u128::from(end - begin) {
            return Err(Problem::Length {
                tensor: tensor(),
                expected,
                actual: end - begin,
            });
        }
        // No more than its bits, which a file's length bounds.
        Ok(u64::try_from(expected * 8 / bits).unwrap_or(u64::MAX))
    }
}

fn bits(dtype: &str) -> Option<u128> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = Vec::new();
                let mut metadata = false;
                while let Some(name) = map.next_key::<String>()? {
                    if name != "__metadata__" {
                        tensors.push((name, map.next_value()?));
                        continue;
                    }
                    if std::mem::replace(&mut metadata, true) {
                        return Err(serde::de::Error::duplicate_field("__metadata__"));
                    }
                    map.next_value::<BTreeMap<String, String>>()?;
                }
                Ok(Header { tensors })
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests;
