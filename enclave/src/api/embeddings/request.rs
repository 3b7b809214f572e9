//! What an embeddings request may say.

use engine::Input;
use serde::de::MapAccess;

use crate::api::error::ApiError;
use crate::api::inputs::Inputs;
use crate::api::object;

/// The fields as they were sent.
#[derive(Default)]
pub(crate) struct Fields {
    model: Option<String>,
    input: Option<Inputs>,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

impl object::Fields for Fields {
    const NAMES: &'static [&'static str] = &["model", "input", "encoding_format", "dimensions"];

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "model" => self.model = map.next_value()?,
            "input" => self.input = map.next_value()?,
            "encoding_format" => self.encoding_format = map.next_value()?,
            _ => self.dimensions = map.next_value()?,
        }
        Ok(())
    }
}

/// The request, checked.
pub(crate) struct Request {
    pub(crate) model: String,
    pub(crate) input: Vec<Input>,
    pub(crate) encoding: Encoding,
    pub(crate) dimensions: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Float,
    Base64,
}

impl Fields {
    pub(crate) fn check(self, max_inputs: usize) -> Result<Request, ApiError> {
        let model = self.model.ok_or_else(|| ApiError::missing("model"))?;
        let input = self.input.ok_or_else(|| ApiError::missing("input"))?;
        let input = input.check("input", max_inputs)?;
        if self.dimensions == Some(0) {
            return Err(ApiError::invalid(
                "dimensions",
                "`dimensions` must be at least 1",
            ));
        }
        let encoding = match self.encoding_format.as_deref() {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(_) => {
                return Err(ApiError::invalid(
                    "encoding_format",
                    "`encoding_format` is `float` or `base64`",
                ));
            }
        };
        Ok(Request {
            model,
            input,
            encoding,
            dimensions: self.dimensions,
        })
    }
}
