//! What a rerank request may say.

use std::fmt;

use engine::Text;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use crate::api::error::ApiError;
use crate::api::object::{self, Asked, Prompt};

/// The fields as they were sent.
#[derive(Default)]
pub(crate) struct Fields {
    model: Option<String>,
    query: Option<Prompt>,
    documents: Option<Documents>,
    top_n: Option<usize>,
    return_documents: Option<bool>,
    raw_scores: Option<bool>,
    truncate: Asked,
    max_chunks_per_doc: Asked,
    rank_fields: Asked,
}

impl object::Fields for Fields {
    const NAMES: &'static [&'static str] = &[
        "model",
        "query",
        "documents",
        "top_n",
        "return_documents",
        "raw_scores",
        "truncate",
        "max_chunks_per_doc",
        "rank_fields",
    ];

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "model" => self.model = map.next_value()?,
            "query" => self.query = map.next_value()?,
            "documents" => self.documents = map.next_value()?,
            "top_n" => self.top_n = map.next_value()?,
            "return_documents" => self.return_documents = map.next_value()?,
            "raw_scores" => self.raw_scores = map.next_value()?,
            "truncate" => self.truncate = map.next_value()?,
            "max_chunks_per_doc" => self.max_chunks_per_doc = map.next_value()?,
            _ => self.rank_fields = map.next_value()?,
        }
        Ok(())
    }
}

/// The request, checked.
pub(crate) struct Request {
    pub(crate) model: String,
    pub(crate) query: Text,
    pub(crate) documents: Vec<Text>,
    /// How many are wanted back.
    pub(crate) top: usize,
    pub(crate) with_text: bool,
    pub(crate) raw: bool,
}

impl Fields {
    pub(crate) fn check(self, max_documents: usize) -> Result<Request, ApiError> {
        let model = self.model.ok_or_else(|| ApiError::missing("model"))?;
        let Prompt(query) = self.query.ok_or_else(|| ApiError::missing("query"))?;
        if query.expose().is_empty() {
            return Err(ApiError::invalid("query", "`query` is empty"));
        }
        let documents = self
            .documents
            .ok_or_else(|| ApiError::missing("documents"))?;
        let documents = match documents {
            Documents::Texts(texts) if texts.len() <= max_documents => texts,
            _ => {
                let message = format!("`documents` holds more than {max_documents} texts");
                return Err(ApiError::invalid("documents", message));
            }
        };
        if documents.is_empty() {
            return Err(ApiError::invalid("documents", "`documents` is empty"));
        }
        if documents.iter().any(|text| text.expose().is_empty()) {
            let message = "`documents` holds an empty text";
            return Err(ApiError::invalid("documents", message));
        }
        let top = self.top_n.unwrap_or(documents.len());
        if top == 0 {
            return Err(ApiError::invalid("top_n", "`top_n` must be at least 1"));
        }
        // A text that is too long is refused, never cut.
        for (field, Asked(asked)) in [
            ("truncate", self.truncate),
            ("max_chunks_per_doc", self.max_chunks_per_doc),
            ("rank_fields", self.rank_fields),
        ] {
            if asked {
                return Err(ApiError::unsupported(field));
            }
        }
        Ok(Request {
            model,
            query,
            documents,
            top,
            with_text: self.return_documents.unwrap_or(false),
            raw: self.raw_scores.unwrap_or(false),
        })
    }
}

/// No model takes more at once, whatever the configuration says.
const MOST_DOCUMENTS: usize = 2048;

enum Documents {
    Texts(Vec<Text>),
    TooMany,
}

impl<'de> Deserialize<'de> for Documents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(DocumentsVisitor)
    }
}

struct DocumentsVisitor;

impl<'de> Visitor<'de> for DocumentsVisitor {
    type Value = Documents;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Documents, A::Error> {
        let mut texts = Vec::new();
        while let Some(Document(text)) = seq.next_element()? {
            if texts.len() == MOST_DOCUMENTS {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Documents::TooMany);
            }
            texts.push(text);
        }
        Ok(Documents::Texts(texts))
    }
}

/// A text, or an object that has one as `text`.
struct Document(Text);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Document, E> {
        Ok(Document(Text::new(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut text = None;
        while let Some(is_text) = map.next_key_seed(IsText)? {
            match is_text {
                true => {
                    let Prompt(value) = map.next_value()?;
                    text = Some(value);
                }
                false => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        text.map(Document)
            .ok_or_else(|| de::Error::custom("a document has no text"))
    }
}

/// A key, of which only this is kept.
struct IsText;

impl<'de> de::DeserializeSeed<'de> for IsText {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsText {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == "text")
    }
}
