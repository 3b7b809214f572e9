//! GGUF: a whole model in one file. Its metadata is put into the words of a Hugging Face directory, so that one loader reads both,
//! and a refusal names the file's own key.

mod metadata;
mod names;
mod tokenizer;

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read},
    sync::Arc,
};

use gguf::{Keep, Tensor, Value};

use crate::{
    LoadError, ModelFiles,
    weights::{Dtype, Entry, RowOrder},
};

/// As long as a segment of a sealed file, which is opened once for each read.
const READ_BYTES: usize = 1 << 20;

/// A GGUF file whose header was read: what it says, and where its tensors lie.
pub(crate) struct GgufModel {
    pub(crate) file: String,
    architecture: String,
    values: BTreeMap<String, Value>,
    tensors: Vec<Tensor>,
}

impl GgufModel {
    /// The one `.gguf` file of the model, if it has one.
    pub(crate) fn find(files: &dyn ModelFiles) -> Result<Option<Self>, LoadError> {
        let mut found = files.names().into_iter().filter(|name| is_gguf(name));
        let (Some(file), second) = (found.next(), found.next()) else {
            return Ok(None);
        };
        if let Some(second) = second {
            return Err(LoadError::Malformed {
                file: second,
                problem: format!(
                    "a second GGUF file beside {file}; keep one, and join the parts of a split model"
                ),
            });
        }
        let other = files
            .names()
            .into_iter()
            .find(|name| name.ends_with(".safetensors"));
        if let Some(other) = other {
            return Err(LoadError::Malformed {
                file: other,
                problem: format!("weights in two formats: remove it or {file}"),
            });
        }
        Self::read(files, file).map(Some)
    }

    fn read(files: &dyn ModelFiles, file: String) -> Result<Self, LoadError> {
        let len = files
            .len(&file)
            .ok_or_else(|| LoadError::MissingFile { file: file.clone() })?;
        let reader = FileReader {
            files,
            name: &file,
            at: 0,
            len,
        };
        let reader = BufReader::with_capacity(READ_BYTES, reader);
        // The tokenizer and the settings; not the texts about where a model comes from.
        let header = gguf::read(reader, len, &|key| match key.starts_with("general.") {
            true => Keep::Short,
            false => Keep::All,
        });
        let header = match header {
            Ok(header) => header,
            Err(gguf::Problem::Read(source)) => return Err(LoadError::Read { file, source }),
            Err(problem) => {
                return Err(LoadError::Malformed {
                    file,
                    problem: problem.to_string(),
                });
            }
        };
        let mut model = Self {
            file,
            architecture: String::new(),
            values: header.values,
            tensors: header.tensors,
        };
        model.architecture = match model.values.get("general.architecture") {
            Some(Value::Text(name)) => name.clone(),
            _ => return Err(model.field("general.architecture", "missing")),
        };
        Ok(model)
    }

    pub(crate) fn field(&self, key: &str, problem: impl Into<String>) -> LoadError {
        LoadError::Field {
            file: self.file.clone(),
            field: key.into(),
            problem: problem.into(),
        }
    }

    /// Its tensors under the names that they have in safetensors. Heads have `head_dim` rows.
    ///
    /// # Errors
    /// A tensor that no model of this architecture has: leaving it out could change every answer.
    pub(crate) fn entries(&self, head_dim: usize) -> Result<Vec<(String, Entry)>, LoadError> {
        let file: Arc<str> = self.file.as_str().into();
        let entry = |tensor: &Tensor| {
            let refuse = |problem: &str| LoadError::Tensor {
                file: self.file.clone(),
                name: tensor.name.clone(),
                problem: problem.into(),
            };
            let name = names::translate(&self.architecture, &tensor.name)
                .ok_or_else(|| refuse(&format!("not known of {} models", self.architecture)))?;
            let shape = tensor.shape.iter().rev().map(|size| usize::try_from(*size));
            let shape = shape
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_wide| refuse("it is too large"))?;
            let entry = Entry {
                file: Arc::clone(&file),
                dtype: Dtype::of_gguf(tensor.kind.name),
                shape,
                offset: tensor.offset,
                bytes: tensor.len,
                stored_as: Some(tensor.name.clone()),
                rows: match names::is_interleaved(&self.architecture, &name) {
                    true => RowOrder::Interleaved { head_dim },
                    false => RowOrder::AsComputed,
                },
            };
            Ok((name, entry))
        };
        self.tensors.iter().map(entry).collect()
    }

    fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

/// Beside the other files, as safetensors are.
fn is_gguf(name: &str) -> bool {
    !name.contains('/') && name.ends_with(".gguf")
}

struct FileReader<'a> {
    files: &'a dyn ModelFiles,
    name: &'a str,
    at: u64,
    len: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let (buffer, _) = buffer.split_at_mut(buffer.len().min(left));
        if !buffer.is_empty() {
            self.files.read_at(self.name, self.at, buffer)?;
            self.at = self.at.saturating_add(buffer.len() as u64);
        }
        Ok(buffer.len())
    }
}

#[cfg(test)]
mod tests;
