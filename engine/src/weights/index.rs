//! Which file holds which tensor: one `model.safetensors`, or the shards that an index names.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;

use super::header::{self, Entry, MAX_TENSORS};
use crate::{LoadError, ModelFiles, fields, files};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const MAX_INDEX_BYTES: u64 = 16 << 20;
/// The largest published models have about two hundred.
const MAX_SHARDS: usize = 1024;

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

pub(super) fn open(files: &dyn ModelFiles) -> Result<HashMap<String, Entry>, LoadError> {
    if files.len(SINGLE).is_some() {
        return Ok(header::read(files, SINGLE)?.into_iter().collect());
    }
    let malformed = |problem: String| LoadError::Malformed {
        file: INDEX.into(),
        problem,
    };
    let Some(bytes) = files::read_optional(files, INDEX, MAX_INDEX_BYTES)? else {
        return Err(LoadError::MissingFile {
            file: SINGLE.into(),
        });
    };
    let Index { weight_map } =
        serde_json::from_slice(&bytes).map_err(|error| malformed(fields::not_json(&error)))?;
    if weight_map.len() > MAX_TENSORS {
        return Err(malformed(format!(
            "{} tensors, the limit is {MAX_TENSORS}",
            weight_map.len()
        )));
    }
    let shards: BTreeSet<&String> = weight_map.values().collect();
    if shards.len() > MAX_SHARDS {
        return Err(malformed(format!(
            "{} shards, the limit is {MAX_SHARDS}",
            shards.len()
        )));
    }

    let mut tensors = HashMap::with_capacity(weight_map.len());
    for shard in shards {
        // A name in the model decides which file is opened: it must be one of the model's own, beside the index.
        if shard.contains('/') || !shard.ends_with(".safetensors") {
            return Err(malformed(
                "a shard is not a .safetensors file beside it".into(),
            ));
        }
        for (name, entry) in header::read(files, shard)? {
            if weight_map.get(&name) == Some(shard) {
                tensors.insert(name, entry);
            }
        }
    }
    match weight_map
        .into_keys()
        .find(|name| !tensors.contains_key(name))
    {
        Some(name) => Err(LoadError::MissingTensor { name }),
        None => Ok(tensors),
    }
}
