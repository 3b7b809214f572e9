//! Fields of the JSON files of a model, read with bounds: every refusal names the file and the field.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{LoadError, ModelFiles, files};

/// Configuration files are a few KiB; some tokenizer configurations reach a few hundred.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

pub(crate) struct Fields<'a> {
    file: &'a str,
    /// "rope_scaling." for the fields of an object inside the file.
    path: String,
    map: Map<String, Value>,
    /// What the file itself calls a field, where it has another format.
    keys: BTreeMap<String, String>,
    /// Asked for what is not here.
    rest: Option<Box<Self>>,
}

impl<'a> Fields<'a> {
    pub(crate) fn read(files: &dyn ModelFiles, file: &'a str) -> Result<Self, LoadError> {
        Self::read_optional(files, file)?
            .ok_or_else(|| LoadError::MissingFile { file: file.into() })
    }

    pub(crate) fn read_optional(
        files: &dyn ModelFiles,
        file: &'a str,
    ) -> Result<Option<Self>, LoadError> {
        let Some(bytes) = files::read_optional(files, file, MAX_CONFIG_BYTES)? else {
            return Ok(None);
        };
        let malformed = |problem: String| LoadError::Malformed {
            file: file.into(),
            problem,
        };
        match serde_json::from_slice(&bytes).map_err(|error| malformed(not_json(&error)))? {
            Value::Object(map) => Ok(Some(Self {
                file,
                path: String::new(),
                map,
                keys: BTreeMap::new(),
                rest: None,
            })),
            _ => Err(malformed("not a JSON object".into())),
        }
    }

    /// For a file in another format, whose values are [`set`](Self::set).
    pub(crate) fn empty(file: &'a str) -> Self {
        Self {
            file,
            path: String::new(),
            map: Map::new(),
            keys: BTreeMap::new(),
            rest: None,
        }
    }

    /// A field, and what the file calls it.
    pub(crate) fn set(&mut self, field: &str, key: &str, value: Value) {
        self.keys.insert(field.into(), key.into());
        self.map.insert(field.into(), value);
    }

    /// These fields, and for what they lack those of another file.
    pub(crate) fn or(mut self, rest: Self) -> Self {
        self.rest = Some(Box::new(rest));
        self
    }

    pub(crate) fn file(&self) -> &str {
        self.file
    }

    pub(crate) fn error(&self, field: &str, problem: impl Into<String>) -> LoadError {
        if let Some(rest) = &self.rest
            && !self.has(field)
            && rest.has(field)
        {
            return rest.error(field, problem);
        }
        let key = self.keys.get(field).map_or(field, String::as_str);
        LoadError::Field {
            file: self.file.into(),
            field: format!("{}{key}", self.path),
            problem: problem.into(),
        }
    }

    /// The value of a field; null counts as absent, as the Python libraries write it for "not set".
    pub(crate) fn value(&self, field: &str) -> Option<&Value> {
        match &self.rest {
            Some(rest) if !self.has(field) => rest.value(field),
            _ => self.map.get(field).filter(|value| !value.is_null()),
        }
    }

    fn has(&self, field: &str) -> bool {
        self.map.get(field).is_some_and(|value| !value.is_null())
    }

    /// A whole number from 1 to `max`.
    pub(crate) fn count(&self, field: &str, max: usize) -> Result<usize, LoadError> {
        self.optional_count(field, max)?
            .ok_or_else(|| self.error(field, "missing"))
    }

    pub(crate) fn optional_count(
        &self,
        field: &str,
        max: usize,
    ) -> Result<Option<usize>, LoadError> {
        let Some(value) = self.value(field) else {
            return Ok(None);
        };
        match value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
        {
            Some(number) if (1..=max).contains(&number) => Ok(Some(number)),
            _ => Err(self.error(
                field,
                format!(
                    "expected a whole number from 1 to {max}, found {}",
                    brief(value)
                ),
            )),
        }
    }

    /// A number above 0 and at most `max`.
    pub(crate) fn optional_positive(
        &self,
        field: &str,
        max: f64,
    ) -> Result<Option<f64>, LoadError> {
        let Some(value) = self.value(field) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) if number > 0.0 && number <= max => Ok(Some(number)),
            _ => Err(self.error(
                field,
                format!(
                    "expected a number above 0 and at most {max}, found {}",
                    brief(value)
                ),
            )),
        }
    }

    pub(crate) fn positive(&self, field: &str, max: f64) -> Result<f64, LoadError> {
        self.optional_positive(field, max)?
            .ok_or_else(|| self.error(field, "missing"))
    }

    pub(crate) fn flag(&self, field: &str, default: bool) -> Result<bool, LoadError> {
        match self.value(field) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(self.error(
                field,
                format!("expected true or false, found {}", brief(value)),
            )),
        }
    }

    pub(crate) fn text(&self, field: &str) -> Result<Option<&str>, LoadError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => {
                Err(self.error(field, format!("expected a string, found {}", brief(value))))
            }
        }
    }

    pub(crate) fn object(&self, field: &str) -> Result<Option<Self>, LoadError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                let owner = match &self.rest {
                    Some(rest) if !self.has(field) => rest,
                    _ => self,
                };
                let key = owner.keys.get(field).map_or(field, String::as_str);
                Ok(Some(Self {
                    file: owner.file,
                    path: format!("{}{key}.", owner.path),
                    map: map.clone(),
                    keys: BTreeMap::new(),
                    rest: None,
                }))
            }
            Some(value) => {
                Err(self.error(field, format!("expected an object, found {}", brief(value))))
            }
        }
    }

    /// At most `max` values.
    pub(crate) fn list(&self, field: &str, max: usize) -> Result<Option<&[Value]>, LoadError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::Array(values)) if values.len() <= max => Ok(Some(values)),
            Some(value) => Err(self.error(
                field,
                format!("expected at most {max} values, found {}", brief(value)),
            )),
        }
    }

    /// One token id or a list of them, each below `vocabulary`.
    pub(crate) fn token_ids(&self, field: &str, vocabulary: usize) -> Result<Vec<u32>, LoadError> {
        let values = match self.value(field) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.filter(|id| usize::try_from(*id).is_ok_and(|id| id < vocabulary))
                .ok_or_else(|| {
                    self.error(
                        field,
                        format!(
                            "expected token ids below {vocabulary}, found {}",
                            brief(value)
                        ),
                    )
                })
        };
        values.iter().map(id).collect()
    }
}

/// Where the JSON broke, without quoting the file.
pub(crate) fn not_json(error: &serde_json::Error) -> String {
    format!(
        "not valid JSON at line {} column {}",
        error.line(),
        error.column()
    )
}

/// A value as an error may show it: short, whatever the file holds.
fn brief(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.len() <= 64 => format!("{text:?}"),
        Value::String(_) => "a long string".into(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests;
