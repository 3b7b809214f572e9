//! What may be in a model directory: weights that are only numbers, and text. Everything that a loader could run is refused here,
//! at the owner's desk, where somebody can do something about it.

mod content;
mod list;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use self::content::{MAX_JSON, MAX_TEMPLATE, MAX_TEXT, check_index};
use crate::bom::Facts;
use crate::{Error, gguf, safetensors};

pub(crate) use self::content::Input;

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
    #[error("{0}")]
    Gguf(#[from] gguf::Problem),
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

/// Every file of `dir` that belongs to the model, checked, sorted by path; and what they say of the model.
///
/// # Errors
/// [`Error::Rejected`] for the first file that must not be sealed; nothing is skipped but [`crate::model_signing::IGNORED`].
pub(crate) fn collect(dir: &Path) -> Result<(Vec<Input>, Facts), Error> {
    let mut inputs = Vec::new();
    let mut facts = Facts::default();
    let mut shards = BTreeMap::new();
    let mut indexes = Vec::new();
    let mut weights = false;
    for (path, on_disk) in list::list(dir)? {
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
                let summary = input.safetensors().map_err(unreadable)?.map_err(reject)?;
                facts.count(&summary.elements);
                shards.insert(path.clone(), summary.names);
            }
            Kind::Gguf => {
                let summary = input.gguf().map_err(unreadable)?.map_err(reject)?;
                facts.gguf(summary);
            }
            Kind::ShardIndex => {
                let index = input.json(MAX_JSON).map_err(unreadable)?.map_err(reject)?;
                indexes.push((path.clone(), index));
            }
            Kind::Json if path == "config.json" => {
                let config = input.json(MAX_JSON).map_err(unreadable)?.map_err(reject)?;
                facts.config = Some(config);
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
            Kind::Text => {
                let text = input.text(MAX_TEXT).map_err(unreadable)?.map_err(reject)?;
                if path == "README.md" {
                    facts.card = crate::bom::front_matter(&text);
                }
            }
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
    Ok((inputs, facts))
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
