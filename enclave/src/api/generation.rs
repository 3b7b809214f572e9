//! What every request that generates text may say about how.

use engine::{ChatRequest, Text};
use serde::Deserialize;
use serde::de::MapAccess;

use super::error::ApiError;
use crate::config::Limits;

mod values;

pub(crate) use values::Word;
use values::{Bias, Seed, Stop};

/// Each token of the answer is compared with all stop strings.
const MAX_STOP_BYTES: usize = 256;

pub(crate) const NAMES: &[&str] = &[
    "model",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "seed",
    "stop",
    "n",
    "stream",
    "stream_options",
];

/// The fields as they were sent.
#[derive(Default)]
pub(crate) struct Fields {
    model: Option<String>,
    pub(crate) max_tokens: Option<u32>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    repetition_penalty: Option<f64>,
    logit_bias: Option<Bias>,
    seed: Option<Seed>,
    stop: Option<Stop>,
    n: Option<u32>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// What is not the engine's to know.
pub(crate) struct Request {
    pub(crate) model: String,
    pub(crate) chat: ChatRequest,
    pub(crate) stream: bool,
    /// Ends a stream with the token counts.
    pub(crate) include_usage: bool,
}

impl Fields {
    /// Reads the value of `name`, one of [`NAMES`].
    pub(crate) fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "model" => self.model = map.next_value()?,
            "max_tokens" => self.max_tokens = map.next_value()?,
            "temperature" => self.temperature = map.next_value()?,
            "top_p" => self.top_p = map.next_value()?,
            "top_k" => self.top_k = map.next_value()?,
            "min_p" => self.min_p = map.next_value()?,
            "presence_penalty" => self.presence_penalty = map.next_value()?,
            "frequency_penalty" => self.frequency_penalty = map.next_value()?,
            "repetition_penalty" => self.repetition_penalty = map.next_value()?,
            "logit_bias" => self.logit_bias = map.next_value()?,
            "seed" => self.seed = map.next_value()?,
            "stop" => self.stop = map.next_value()?,
            "n" => self.n = map.next_value()?,
            "stream" => self.stream = map.next_value()?,
            _ => self.stream_options = map.next_value()?,
        }
        Ok(())
    }

    /// `chat` has what this does not know of.
    pub(crate) fn check(self, chat: ChatRequest, limits: &Limits) -> Result<Request, ApiError> {
        let model = self.model.ok_or_else(|| ApiError::missing("model"))?;
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            return Err(ApiError::invalid(
                "stream_options",
                "`stream_options` needs `stream` to be true",
            ));
        }
        let include_usage = self
            .stream_options
            .and_then(|options| options.include_usage)
            .unwrap_or(false);
        if self.max_tokens == Some(0) {
            return Err(out_of_range("max_tokens", "at least 1"));
        }
        let repetition_penalty = between(
            "repetition_penalty",
            self.repetition_penalty.unwrap_or(1.0),
            0.01,
            10.0,
        )?;
        let chat = ChatRequest {
            choices: choices(self.n, limits)?,
            max_tokens: chat.max_tokens.or(self.max_tokens),
            temperature: between("temperature", self.temperature.unwrap_or(1.0), 0.0, 2.0)?,
            top_p: between("top_p", self.top_p.unwrap_or(1.0), 0.0, 1.0)?,
            top_k: top_k(self.top_k)?,
            min_p: between("min_p", self.min_p.unwrap_or(0.0), 0.0, 1.0)?,
            presence_penalty: penalty("presence_penalty", self.presence_penalty)?,
            frequency_penalty: penalty("frequency_penalty", self.frequency_penalty)?,
            repetition_penalty,
            logit_bias: logit_bias(self.logit_bias, limits)?,
            seed: self.seed.map(|seed| seed.0),
            stop: stops(self.stop, limits)?,
            ..chat
        };
        Ok(Request {
            model,
            chat,
            stream,
            include_usage,
        })
    }
}

pub(crate) fn out_of_range(name: &'static str, range: &str) -> ApiError {
    ApiError::invalid(name, format!("`{name}` must be {range}"))
}

fn penalty(name: &'static str, value: Option<f64>) -> Result<f32, ApiError> {
    between(name, value.unwrap_or(0.0), -2.0, 2.0)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "within a small range, where rounding to f32 is all that happens"
)]
fn between(name: &'static str, value: f64, low: f64, high: f64) -> Result<f32, ApiError> {
    if (low..=high).contains(&value) {
        Ok(value as f32)
    } else {
        Err(out_of_range(name, &format!("{low} to {high}")))
    }
}

/// -1 is what some clients say for all.
fn top_k(top_k: Option<i64>) -> Result<u32, ApiError> {
    match top_k {
        None | Some(-1 | 0) => Ok(0),
        Some(k) if k < -1 => Err(out_of_range("top_k", "-1 or more")),
        Some(k) => Ok(u32::try_from(k).unwrap_or(0)),
    }
}

fn choices(n: Option<u32>, limits: &Limits) -> Result<u32, ApiError> {
    let n = n.unwrap_or(1);
    match (1..=limits.max_choices).contains(&n) {
        true => Ok(n),
        false => Err(out_of_range("n", &format!("1 to {}", limits.max_choices))),
    }
}

fn logit_bias(bias: Option<Bias>, limits: &Limits) -> Result<Vec<(u32, f32)>, ApiError> {
    let refused = |message: String| Err(ApiError::invalid("logit_bias", message));
    let most = limits.max_logit_bias;
    match bias {
        None => Ok(Vec::new()),
        Some(Bias::Entries(entries)) if entries.len() <= most => entries
            .into_iter()
            .map(|(token, bias)| Ok((token, between("logit_bias", bias, -100.0, 100.0)?)))
            .collect(),
        Some(Bias::Entries(_) | Bias::TooMany) => {
            refused(format!("`logit_bias` holds at most {most} entries"))
        }
        Some(Bias::NoToken) => refused("`logit_bias` is by token ids".to_owned()),
    }
}

fn stops(stop: Option<Stop>, limits: &Limits) -> Result<Vec<Text>, ApiError> {
    let Some(Stop(stops)) = stop else {
        return Ok(Vec::new());
    };
    let most = limits.max_stop_strings;
    if stops.len() > most {
        return Err(ApiError::invalid(
            "stop",
            format!("`stop` holds at most {most} strings"),
        ));
    }
    let fits = |stop: &Text| (1..=MAX_STOP_BYTES).contains(&stop.expose().len());
    if !stops.iter().all(fits) {
        return Err(ApiError::invalid(
            "stop",
            format!("each of `stop` has 1 to {MAX_STOP_BYTES} bytes"),
        ));
    }
    Ok(stops)
}
