//! What the bytes of each kind must be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::Deserialize;

use super::Rejection;
use crate::encrypt::Plaintext;
use crate::layout::MAX_PLAINTEXT;
use crate::safetensors::{self, LENGTH_FIELD};
use crate::seal::io_error;
use crate::{Error, Sha256Digest, gguf};

/// The largest published tokenizer takes 33 MB.
pub(super) const MAX_JSON: u64 = 64 << 20;
pub(super) const MAX_TEMPLATE: u64 = 1 << 20;
pub(super) const MAX_TEXT: u64 = 16 << 20;

/// An accepted file. It is held open from its checks to its encryption, so both see the same file.
pub(crate) struct Input {
    pub(crate) path: String,
    pub(crate) file: File,
    pub(crate) size: u64,
}

/// `*.safetensors.index.json`: which tensor is in which file beside it.
#[derive(Deserialize)]
pub(super) struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

pub(super) fn check_index(
    path: &str,
    index: ShardIndex,
    shards: &BTreeMap<String, BTreeSet<String>>,
) -> Result<(), Rejection> {
    let folder = path.rfind('/').map_or("", |at| path.split_at(at + 1).0);
    let mut homes: BTreeMap<&str, &str> = BTreeMap::new();
    let listed: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    for shard in listed {
        let names = shards.get(&format!("{folder}{shard}"));
        for tensor in names.ok_or_else(|| Rejection::MissingShard {
            shard: shard.into(),
        })? {
            if let Some(other) = homes.insert(tensor, shard) {
                return Err(Rejection::TensorInTwoShards {
                    tensor: tensor.clone(),
                    other: format!("{other}, {shard}"),
                });
            }
        }
    }
    for (tensor, shard) in &index.weight_map {
        if homes.get(tensor.as_str()) != Some(&shard.as_str()) {
            return Err(Rejection::MissingTensor {
                tensor: tensor.clone(),
                shard: shard.clone(),
            });
        }
    }
    Ok(())
}

pub(super) type Checked<T> = io::Result<Result<T, Rejection>>;

/// What a file's bytes must be. The outer error is the disk's, the inner one the file's.
impl Input {
    pub(super) fn safetensors(&self) -> Checked<safetensors::Summary> {
        if self.size > MAX_PLAINTEXT {
            return Ok(Err(self.too_large(MAX_PLAINTEXT)));
        }
        if self.size < LENGTH_FIELD {
            return Ok(Err(
                safetensors::Problem::TooShort { actual: self.size }.into()
            ));
        }
        let mut length = [0; 8];
        self.file.read_exact_at(&mut length, 0)?;
        let length = match safetensors::header_len(length, self.size) {
            Ok(length) => length,
            Err(problem) => return Ok(Err(problem.into())),
        };
        let header = self.head(LENGTH_FIELD, length)?;
        Ok(
            safetensors::check_header(&header, self.size - LENGTH_FIELD - length)
                .map_err(Into::into),
        )
    }

    pub(super) fn gguf(&self) -> Checked<gguf::Summary> {
        if self.size > MAX_PLAINTEXT {
            return Ok(Err(self.too_large(MAX_PLAINTEXT)));
        }
        let mut file = &self.file;
        file.rewind()?;
        match gguf::check(BufReader::with_capacity(1 << 16, file), self.size) {
            Err(gguf::Problem::Read(error)) => Err(error),
            other => Ok(other.map_err(Into::into)),
        }
    }

    pub(super) fn json<T: for<'de> Deserialize<'de>>(&self, max: u64) -> Checked<T> {
        Ok(match self.text(max)? {
            Ok(text) => serde_json::from_str(&text).map_err(Rejection::Json),
            Err(rejection) => Err(rejection),
        })
    }

    pub(super) fn text(&self, max: u64) -> Checked<String> {
        if self.size > max {
            return Ok(Err(self.too_large(max)));
        }
        let text = String::from_utf8(self.head(0, self.size)?).ok();
        Ok(text
            .filter(|text| !text.contains('\0'))
            .ok_or(Rejection::NotText))
    }

    /// `len` bytes from `offset` on; callers have bounded `len`.
    fn head(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn changed(&self) -> Error {
        Error::Rejected {
            file: self.path.clone(),
            reason: Rejection::Changed,
        }
    }

    fn too_large(&self, max: u64) -> Rejection {
        Rejection::TooLarge {
            max,
            actual: self.size,
        }
    }
}

impl Plaintext for Input {
    fn path(&self) -> &str {
        &self.path
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.file
            .read_exact_at(buf, offset)
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => self.changed(),
                _ => io_error("read", Path::new(&self.path), source),
            })
    }

    fn accept(&self, _: &Sha256Digest) -> Result<(), Error> {
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(|e| io_error("read", Path::new(&self.path), e))?;
        match metadata.len() == self.size {
            true => Ok(()),
            false => Err(self.changed()),
        }
    }
}
