use candle_core::Result;
use serde_json::Value;

use super::Span;
use crate::{LoadError, ModelFiles, fields::Fields, files};

const FOLDER: &str = "1_Pooling";
const POOLING: &str = "1_Pooling/config.json";
const MODULES: &str = "modules.json";
const MAX_MODULES_BYTES: u64 = 64 << 10;

/// From one vector per token to one per text. The result has unit length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    Mean,
    /// The sum, divided by the root of the number of tokens: of unit length it is the mean.
    MeanRoot,
    /// The mean, later tokens counting more: the first once, the second twice.
    Weighted,
    /// Of each number the largest.
    Max,
    /// The vector of the first token.
    First,
    Last,
}

/// What sentence-transformers calls them: as the value of one setting, and as settings of their own.
const MODES: [(&str, &str, Pooling); 6] = [
    ("cls", "pooling_mode_cls_token", Pooling::First),
    ("max", "pooling_mode_max_tokens", Pooling::Max),
    ("mean", "pooling_mode_mean_tokens", Pooling::Mean),
    (
        "mean_sqrt_len_tokens",
        "pooling_mode_mean_sqrt_len_tokens",
        Pooling::MeanRoot,
    ),
    (
        "weightedmean",
        "pooling_mode_weightedmean_tokens",
        Pooling::Weighted,
    ),
    ("lasttoken", "pooling_mode_lasttoken", Pooling::Last),
];

impl Pooling {
    pub(super) fn read(
        files: &dyn ModelFiles,
        hidden: usize,
    ) -> std::result::Result<Self, LoadError> {
        check_modules(files)?;
        let Some(fields) = Fields::read_optional(files, POOLING)? else {
            return Ok(Self::Mean);
        };
        for field in ["word_embedding_dimension", "embedding_dimension"] {
            let dimension = fields.optional_count(field, usize::MAX)?;
            if let Some(dimension) = dimension.filter(|dimension| *dimension != hidden) {
                let problem = format!("{dimension}, but hidden_size is {hidden}");
                return Err(fields.error(field, problem));
            }
        }
        if let Some(name) = fields.text("pooling_mode")? {
            let mode = MODES.iter().find(|(mode, ..)| *mode == name);
            return mode.map(|(.., pooling)| *pooling).ok_or_else(|| {
                fields.error("pooling_mode", "only cls, max, mean, mean_sqrt_len_tokens, weightedmean and lasttoken are supported")
            });
        }
        let mut on = Vec::new();
        for (_, field, pooling) in MODES {
            if fields.flag(field, false)? {
                on.push(pooling);
            }
        }
        let silent = fields.value("pooling_mode_mean_tokens").is_none();
        match on.as_slice() {
            [pooling] => Ok(*pooling),
            [] if silent => Ok(Self::Mean),
            _ => Err(fields.error("pooling_mode_mean_tokens", "exactly one mode must be on")),
        }
    }

    /// `hidden` is `[all tokens, width]`.
    pub(super) fn apply(
        self,
        hidden: &[f32],
        width: usize,
        spans: &[Span],
    ) -> Result<Vec<Vec<f32>>> {
        let each = spans.iter().map(|span| {
            let range = span.start * width..(span.start + span.tokens) * width;
            let Some(rows) = hidden.get(range).filter(|rows| !rows.is_empty()) else {
                candle_core::bail!("an input is beyond the matrix")
            };
            Ok(unit(self.pool(rows, width)))
        });
        each.collect()
    }

    fn pool(self, rows: &[f32], width: usize) -> Vec<f32> {
        let each = || rows.chunks_exact(width);
        let vector = |row: Option<&[f32]>| row.map(<[f32]>::to_vec).unwrap_or_default();
        match self {
            Self::First => vector(each().next()),
            Self::Last => vector(each().next_back()),
            Self::Max => {
                let mut best = vec![f32::NEG_INFINITY; width];
                for row in each() {
                    for (best, value) in best.iter_mut().zip(row) {
                        // What is no number must not be hidden.
                        if *value > *best || value.is_nan() {
                            *best = *value;
                        }
                    }
                }
                best
            }
            Self::Mean | Self::MeanRoot | Self::Weighted => {
                let mut sum = vec![0f32; width];
                for (index, row) in each().enumerate() {
                    let weight = if self == Self::Weighted {
                        index as f32 + 1.0
                    } else {
                        1.0
                    };
                    for (sum, value) in sum.iter_mut().zip(row) {
                        *sum += weight * value;
                    }
                }
                // What it would be divided by is taken away by its length.
                sum
            }
        }
    }
}

/// A vector of zeros stays one instead of becoming NaN.
fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    let scale = 1.0 / length.max(1e-12);
    vector.iter_mut().for_each(|value| *value *= scale);
    vector
}

/// A model with further layers after pooling would give other vectors than we do.
fn check_modules(files: &dyn ModelFiles) -> std::result::Result<(), LoadError> {
    let Some(bytes) = files::read_optional(files, MODULES, MAX_MODULES_BYTES)? else {
        return Ok(());
    };
    let malformed = |problem: &str| LoadError::Malformed {
        file: MODULES.into(),
        problem: problem.into(),
    };
    let modules: Vec<Value> =
        serde_json::from_slice(&bytes).map_err(|_fixed| malformed("not a JSON array"))?;
    let known = |module: &Value| {
        let name = module
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let path = module.get("path").and_then(Value::as_str);
        match name.rsplit('.').next() {
            Some("Transformer" | "Normalize") => true,
            Some("Pooling") => path.is_none_or(|path| path == FOLDER),
            _ => false,
        }
    };
    match modules.iter().all(known) {
        true => Ok(()),
        false => Err(malformed(
            "only Transformer, Pooling (in 1_Pooling) and Normalize are supported",
        )),
    }
}
