//! Settings: from the keys of GGUF to the fields of config.json and tokenizer_config.json.

use gguf::Value;
use serde_json::{Map, Number, json};

use super::{GgufModel, tokenizer::TOKENS};
use crate::{LoadError, fields::Fields, llama::Family};

const ARCHITECTURE: &str = "general.architecture";
/// A larger one is refused as such where settings are read.
const MAX_HEAD_DIM: u64 = 1024;

/// Keys below the name of the architecture.
const SETTINGS: &[(&str, &str)] = &[
    ("vocab_size", "vocab_size"),
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("max_position_embeddings", "context_length"),
    ("sliding_window", "attention.sliding_window"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
];

const SPECIAL: &[(&str, &str)] = &[
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
];

/// The end of a document, and the end of a turn.
const END: [&str; 3] = [
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
];

impl GgufModel {
    /// What config.json would say.
    ///
    /// # Errors
    /// An architecture, or a setting of it, that would change the result and is not known here.
    pub(crate) fn config(&self) -> Result<Fields<'_>, LoadError> {
        let architecture = self.architecture.as_str();
        let Some(model_type) = Family::of_gguf(architecture) else {
            let problem =
                "only llama, qwen2, qwen3, phi3, gemma, gemma2, gemma3 and smollm3 are supported";
            return Err(self.field(ARCHITECTURE, problem));
        };
        let mut fields = Fields::empty(&self.file);
        fields.set("model_type", ARCHITECTURE, json!(model_type));
        for (field, key) in SETTINGS {
            let key = format!("{architecture}.{key}");
            if let Some(value) = self.values.get(&key) {
                let value = self.json(&key, value)?;
                fields.set(field, &key, value);
            }
        }
        self.refuse_unsupported(&fields)?;
        if fields.value("vocab_size").is_none()
            && let Some(table) = self.tensor("token_embd.weight")
        {
            fields.set("vocab_size", "token_embd.weight", json!(table.shape.get(1)));
        }
        fields.set(
            "tie_word_embeddings",
            "output.weight",
            json!(self.tensor("output.weight").is_none()),
        );
        for (field, name) in [
            ("attention_bias", "blk.0.attn_q.bias"),
            ("attention_output_bias", "blk.0.attn_output.bias"),
            ("mlp_bias", "blk.0.ffn_up.bias"),
        ] {
            fields.set(field, name, json!(self.tensor(name).is_some()));
        }
        // The converter has added the one.
        fields.set("norms_are_whole", ARCHITECTURE, json!(true));
        if let Some(scalar) = self.query_scalar(&fields) {
            fields.set("query_pre_attn_scalar", ARCHITECTURE, json!(scalar));
        }
        if let Some(scaling) = self.rope_scaling(architecture)? {
            fields.set(
                "rope_scaling",
                &format!("{architecture}.rope.scaling"),
                scaling,
            );
        }
        let ends = END
            .iter()
            .filter_map(|key| self.values.get(*key).map(|value| self.json(key, value)));
        let ends = ends.collect::<Result<Vec<_>, _>>()?;
        if !ends.is_empty() {
            fields.set("eos_token_id", END[0], json!(ends));
        }
        Ok(fields)
    }

    fn refuse_unsupported(&self, fields: &Fields<'_>) -> Result<(), LoadError> {
        let key = |name: &str| format!("{}.{name}", self.architecture);
        let number = |name: &str| self.values.get(&key(name)).and_then(as_u64);
        if number("expert_count").is_some_and(|experts| experts > 0) {
            return Err(self.field(
                &key("expert_count"),
                "mixtures of experts are not supported",
            ));
        }
        let head_dim = fields
            .value("head_dim")
            .and_then(serde_json::Value::as_u64)
            .or_else(|| number("embedding_length")?.checked_div(number("attention.head_count")?));
        let head_dim = head_dim.filter(|size| (1..=MAX_HEAD_DIM).contains(size));
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let (Some(size), Some(head_dim)) = (number(name), head_dim)
                && size != head_dim
            {
                return Err(self.field(
                    &key(name),
                    format!("{size}, only heads of {head_dim} are supported here"),
                ));
            }
        }
        // llama.cpp has had several ways to read it for these; none of the published files needs it.
        if matches!(
            self.architecture.as_str(),
            "llama" | "qwen2" | "qwen3" | "smollm3"
        ) && number("attention.sliding_window").is_some_and(|window| window > 0)
        {
            return Err(self.field(
                &key("attention.sliding_window"),
                "not supported for this architecture",
            ));
        }
        if self
            .values
            .get("split.count")
            .and_then(as_u64)
            .is_some_and(|count| count > 1)
        {
            return Err(self.field("split.count", "join the parts of a split model"));
        }
        Ok(())
    }

    /// The format has no key for it; llama.cpp goes by the number of layers (`llama-model.cpp`, 27 billion parameters).
    fn query_scalar(&self, fields: &Fields<'_>) -> Option<u64> {
        let number = |field: &str| fields.value(field).and_then(serde_json::Value::as_u64);
        let whole = || number("hidden_size")?.checked_div(number("num_attention_heads")?);
        match (self.architecture.as_str(), number("num_hidden_layers")?) {
            ("gemma2", 46) | ("gemma3", 62) => whole(),
            _ => number("head_dim").or_else(whole),
        }
    }

    fn rope_scaling(&self, architecture: &str) -> Result<Option<serde_json::Value>, LoadError> {
        let key = |name: &str| format!("{architecture}.rope.{name}");
        let kind = match self.values.get(&key("scaling.type")) {
            Some(Value::Text(kind)) => kind.as_str(),
            // What it was called before.
            None if self.values.contains_key(&key("scale_linear")) => "linear",
            _ => "none",
        };
        if kind == "none" {
            return Ok(None);
        }
        let mut scaling = Map::new();
        scaling.insert("rope_type".into(), json!(kind));
        for name in ["scaling.factor", "scale_linear"] {
            if let Some(value) = self.values.get(&key(name)) {
                scaling.insert("factor".into(), self.json(&key(name), value)?);
                break;
            }
        }
        Ok(Some(scaling.into()))
    }

    /// What tokenizer_config.json would say.
    pub(crate) fn tokenizer_config(&self) -> Result<Fields<'_>, LoadError> {
        let mut fields = Fields::empty(&self.file);
        for (field, key) in SPECIAL {
            // Without the list only numbers are known; the file of its own then has the names.
            let (Some(value), Some(_)) = (self.values.get(*key), self.values.get(TOKENS)) else {
                continue;
            };
            let token = as_u64(value).and_then(|id| self.token(id));
            let token = token.ok_or_else(|| self.field(key, "not one of tokenizer.ggml.tokens"))?;
            fields.set(field, key, json!(token));
        }
        let key = "tokenizer.chat_template";
        if let Some(value) = self.values.get(key) {
            let value = self.json(key, value)?;
            fields.set("chat_template", key, value);
        }
        Ok(fields)
    }

    fn token(&self, id: u64) -> Option<&str> {
        match self.values.get(TOKENS)? {
            Value::Texts(tokens) => tokens.get(usize::try_from(id).ok()?).map(String::as_str),
            _ => None,
        }
    }

    /// A single value. Lists, such as one setting for each layer, are nothing that the fields know.
    fn json(&self, key: &str, value: &Value) -> Result<serde_json::Value, LoadError> {
        Ok(match value {
            Value::Unsigned(number) => json!(number),
            Value::Signed(number) => json!(number),
            Value::Bool(bit) => json!(bit),
            Value::Text(text) => json!(text),
            Value::Float(number) => Number::from_f64(*number)
                .ok_or_else(|| self.field(key, "not a finite number"))?
                .into(),
            _ => return Err(self.field(key, "a list, one value is supported")),
        })
    }
}

pub(super) fn as_u64(value: &Value) -> Option<u64> {
    match value {
        Value::Unsigned(number) => Some(*number),
        Value::Signed(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}
