//! What may be in a model directory: weights that are only numbers, and text. Everything that a loader could run is refused here,
//! at the owner's desk, where somebody can do something about it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::Deserialize;
use walkdir::WalkDir;

use crate::layout::MAX_PLAINTEXT;
use crate::safetensors::{self, LENGTH_FIELD};
use crate::{Error, MAX_FILES, name};

/// Version control and download bookkeeping at the top of a model directory: never part of a model, left out silently.
const LEFT_OUT: [&str; 5] = [".git", ".gitattributes", ".gitignore", ".github", ".cache"];

/// The largest published tokenizer takes 33 MB.
const MAX_JSON: u64 = 64 << 20;
const MAX_TEMPLATE: u64 = 1 << 20;
const MAX_TEXT: u64 = 16 << 20;
/// Largest GGUF counts seen are some thousands; a reader allocates by them.
const MAX_GGUF_COUNT: u64 = 1 << 20;

/// Why a file of a model directory is not sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    #[error("it is a link; copy the directory with the files in place (cp -rL)")]
    Link,
    #[error("it is not a regular file")]
    NotRegular,
    #[error("hidden files are not part of a model; remove it")]
    Hidden,
    #[error(
        "its name is unsafe; use ASCII letters, digits, '.', '_', '-', at most 4 folders deep and 240 bytes"
    )]
    Name,
    #[error("pickled weights run code when they are loaded; convert to safetensors and remove it")]
    Pickle,
    #[error("it is code; a model is sealed without any, remove it")]
    Code,
    #[error(
        "only .safetensors, .gguf, .json, chat_template.jinja, vocab.txt, merges.txt, .md and licence texts are sealed; remove it"
    )]
    UnknownKind,
    #[error("{actual} bytes are more than the {max} allowed for its kind")]
    TooLarge { max: u64, actual: u64 },
    #[error("it is not UTF-8 text")]
    NotText,
    #[error("it is not JSON")]
    Json(#[source] serde_json::Error),
    #[error("{0}")]
    Safetensors(#[from] safetensors::Problem),
    #[error("it is not GGUF version 2 or 3 with sane counts")]
    Gguf,
    #[error("it names the shard {shard:?}, which is not there")]
    MissingShard { shard: String },
    #[error("it says tensor {tensor:?} is in {shard:?}, which is not so")]
    MissingTensor { tensor: String, shard: String },
    #[error("tensor {tensor:?} is in {other:?}, too")]
    TensorInTwoShards { tensor: String, other: String },
    #[error("its name differs from {other:?} only in case")]
    SameNameButCase { other: String },
    #[error("it changed while it was sealed")]
    Changed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Safetensors,
    ShardIndex,
    Gguf,
    Json,
    Template,
    Text,
}

/// An accepted file. It is held open from its checks to its encryption, so both see the same file.
pub(crate) struct Input {
    pub(crate) path: String,
    pub(crate) file: File,
    pub(crate) size: u64,
}

/// Every file of `dir` that belongs to the model, checked, sorted by path.
///
/// # Errors
/// [`Error::Rejected`] for the first file that must not be sealed; nothing is skipped but [`LEFT_OUT`].
pub(crate) fn collect(dir: &Path) -> Result<Vec<Input>, Error> {
    let mut inputs = Vec::new();
    let mut shards = BTreeMap::new();
    let mut indexes = Vec::new();
    let mut weights = false;
    for (path, on_disk) in list(dir)? {
        let reject = |reason| Error::Rejected {
            file: path.clone(),
            reason,
        };
        let unreadable = |source| Error::Io {
            action: "read",
            path: on_disk.clone(),
            source,
        };
        let kind = classify(&path).map_err(reject)?;
        let file = File::open(&on_disk).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let input = Input {
            path: path.clone(),
            file,
            size,
        };
        match kind {
            Kind::Safetensors => {
                let names = input.safetensors().map_err(unreadable)?.map_err(reject)?;
                shards.insert(path.clone(), names);
            }
            Kind::Gguf => input.gguf().map_err(unreadable)?.map_err(reject)?,
            Kind::ShardIndex => {
                let index = input.json(MAX_JSON).map_err(unreadable)?.map_err(reject)?;
                indexes.push((path.clone(), index));
            }
            Kind::Json => {
                input
                    .json::<serde::de::IgnoredAny>(MAX_JSON)
                    .map_err(unreadable)?
                    .map_err(reject)?;
            }
            Kind::Template => input
                .text(MAX_TEMPLATE)
                .map_err(unreadable)?
                .map(drop)
                .map_err(reject)?,
            Kind::Text => input
                .text(MAX_TEXT)
                .map_err(unreadable)?
                .map(drop)
                .map_err(reject)?,
        }
        weights |= matches!(kind, Kind::Safetensors | Kind::Gguf);
        inputs.push(input);
    }
    for (path, index) in indexes {
        check_index(&path, index, &shards)
            .map_err(|reason| Error::Rejected { file: path, reason })?;
    }
    if !weights {
        return Err(Error::NoWeights);
    }
    inputs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(inputs)
}

/// Safe relative path and path on disk of every file, links and specials refused.
fn list(dir: &Path) -> Result<Vec<(String, std::path::PathBuf)>, Error> {
    let mut found = Vec::new();
    let mut folded = BTreeMap::new();
    let walk = WalkDir::new(dir)
        .min_depth(1)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| {
            entry.depth() != 1
                || !LEFT_OUT
                    .iter()
                    .any(|left_out| entry.file_name() == *left_out)
        });
    for entry in walk {
        let entry = entry.map_err(|error| Error::Io {
            action: "list",
            path: error.path().unwrap_or(dir).to_owned(),
            source: error
                .into_io_error()
                .unwrap_or_else(|| io::ErrorKind::Other.into()),
        })?;
        let relative = entry.path().strip_prefix(dir).unwrap_or(entry.path());
        let path = relative.to_string_lossy().into_owned();
        let reject = |reason| {
            Err(Error::Rejected {
                file: path.escape_debug().to_string(),
                reason,
            })
        };
        let kind = entry.file_type();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            return reject(Rejection::Hidden);
        }
        if kind.is_symlink() {
            return reject(Rejection::Link);
        }
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            return reject(Rejection::NotRegular);
        }
        if !name::is_safe_path(&path) {
            return reject(Rejection::Name);
        }
        if let Some(other) = folded.insert(path.to_ascii_lowercase(), path.clone()) {
            return reject(Rejection::SameNameButCase { other });
        }
        if found.len() == MAX_FILES {
            return Err(Error::TooManyFiles { max: MAX_FILES });
        }
        found.push((path, entry.into_path()));
    }
    Ok(found)
}

fn classify(path: &str) -> Result<Kind, Rejection> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let (stem, extension) = file.rsplit_once('.').unwrap_or((file, ""));
    Ok(match extension {
        "safetensors" => Kind::Safetensors,
        "gguf" => Kind::Gguf,
        "json" if stem.ends_with(".safetensors.index") => Kind::ShardIndex,
        "json" => Kind::Json,
        "jinja" if stem == "chat_template" => Kind::Template,
        "md" => Kind::Text,
        "txt" if matches!(stem, "vocab" | "merges") || is_notice(stem) => Kind::Text,
        "" if is_notice(stem) => Kind::Text,
        "bin" | "pt" | "pth" | "pkl" | "pickle" | "ckpt" | "joblib" | "npy" | "npz" | "h5" => {
            return Err(Rejection::Pickle);
        }
        "py" | "pyc" | "ipynb" | "sh" | "js" | "so" | "dll" | "dylib" | "a" | "o" | "exe"
        | "wasm" | "jar" => {
            return Err(Rejection::Code);
        }
        _ => return Err(Rejection::UnknownKind),
    })
}

fn is_notice(stem: &str) -> bool {
    let stem = stem.to_ascii_uppercase();
    ["README", "LICENSE", "LICENCE", "NOTICE", "COPYING"].contains(&stem.as_str())
}

/// `*.safetensors.index.json`: which tensor is in which file beside it.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

fn check_index(
    path: &str,
    index: ShardIndex,
    shards: &BTreeMap<String, std::collections::BTreeSet<String>>,
) -> Result<(), Rejection> {
    let folder = path.rfind('/').map_or("", |at| path.split_at(at + 1).0);
    let mut homes: BTreeMap<&str, &str> = BTreeMap::new();
    let listed: std::collections::BTreeSet<&str> =
        index.weight_map.values().map(String::as_str).collect();
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

type Checked<T> = io::Result<Result<T, Rejection>>;

/// What a file's bytes must be. The outer error is the disk's, the inner one the file's.
impl Input {
    fn safetensors(&self) -> Checked<std::collections::BTreeSet<String>> {
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

    fn gguf(&self) -> Checked<()> {
        if self.size > MAX_PLAINTEXT {
            return Ok(Err(self.too_large(MAX_PLAINTEXT)));
        }
        // Magic, version, tensor count, metadata count; little-endian.
        let mut head = [0; 24];
        if self.size < head.len() as u64 {
            return Ok(Err(Rejection::Gguf));
        }
        self.file.read_exact_at(&mut head, 0)?;
        let number = |at: usize, len: usize| {
            let bytes = head.iter().skip(at).take(len).rev();
            bytes.fold(0u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let sane = head.starts_with(b"GGUF")
            && matches!(number(4, 4), 2 | 3)
            && number(8, 8) <= MAX_GGUF_COUNT
            && number(16, 8) <= MAX_GGUF_COUNT;
        Ok(if sane { Ok(()) } else { Err(Rejection::Gguf) })
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, max: u64) -> Checked<T> {
        Ok(match self.text(max)? {
            Ok(text) => serde_json::from_str(&text).map_err(Rejection::Json),
            Err(rejection) => Err(rejection),
        })
    }

    fn text(&self, max: u64) -> Checked<String> {
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

    fn too_large(&self, max: u64) -> Rejection {
        Rejection::TooLarge {
            max,
            actual: self.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_what_is_accepted() {
        for (path, kind) in [
            ("model.safetensors", Kind::Safetensors),
            ("model-00001-of-00002.safetensors", Kind::Safetensors),
            ("model.safetensors.index.json", Kind::ShardIndex),
            ("qwen-q4_k_m.gguf", Kind::Gguf),
            ("tokenizer.json", Kind::Json),
            ("1_Pooling/config.json", Kind::Json),
            ("chat_template.jinja", Kind::Template),
            ("vocab.txt", Kind::Text),
            ("merges.txt", Kind::Text),
            ("LICENSE", Kind::Text),
            ("licence.txt", Kind::Text),
            ("README.md", Kind::Text),
        ] {
            assert_eq!(classify(path).unwrap(), kind, "{path}");
        }
        for path in ["pytorch_model.bin", "model.pt", "optimizer.pkl"] {
            assert!(matches!(classify(path), Err(Rejection::Pickle)), "{path}");
        }
        for path in ["modeling_x.py", "ops.so", "setup.sh", "a.ipynb"] {
            assert!(matches!(classify(path), Err(Rejection::Code)), "{path}");
        }
        for path in [
            "other.jinja",
            "notes.txt",
            "Makefile",
            "x.PY",
            "weights.safetensors.bak",
        ] {
            assert!(
                matches!(classify(path), Err(Rejection::UnknownKind)),
                "{path}"
            );
        }
    }
}
