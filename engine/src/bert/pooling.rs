use candle_core::{Result, Tensor};
use serde_json::Value;

use crate::{LoadError, ModelFiles, fields::Fields, files};

const POOLING: &str = "1_Pooling/config.json";
const MODULES: &str = "modules.json";
const MAX_MODULES_BYTES: u64 = 64 << 10;

/// From one vector per token to one per text. The result has unit length.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    Mean,
    /// The vector of the first token.
    First,
}

impl Pooling {
    pub(super) fn read(
        files: &dyn ModelFiles,
        hidden: usize,
    ) -> std::result::Result<Self, LoadError> {
        check_modules(files)?;
        let Some(fields) = Fields::read_optional(files, POOLING)? else {
            return Ok(Self::Mean);
        };
        let dimension = fields.optional_count("word_embedding_dimension", usize::MAX)?;
        if let Some(dimension) = dimension.filter(|dimension| *dimension != hidden) {
            return Err(fields.error(
                "word_embedding_dimension",
                format!("{dimension}, but hidden_size is {hidden}"),
            ));
        }
        match fields.text("pooling_mode")? {
            None => {}
            Some("mean") => return Ok(Self::Mean),
            Some("cls") => return Ok(Self::First),
            Some(_) => return Err(fields.error("pooling_mode", "only mean and cls are supported")),
        }
        for mode in [
            "max_tokens",
            "mean_sqrt_len_tokens",
            "weightedmean_tokens",
            "lasttoken",
        ] {
            let field = format!("pooling_mode_{mode}");
            if fields.flag(&field, false)? {
                return Err(fields.error(&field, "only mean and cls are supported"));
            }
        }
        let first = fields.flag("pooling_mode_cls_token", false)?;
        match (fields.flag("pooling_mode_mean_tokens", !first)?, first) {
            (true, false) => Ok(Self::Mean),
            (false, true) => Ok(Self::First),
            _ => Err(fields.error(
                "pooling_mode_mean_tokens",
                "exactly one of mean and cls must be on",
            )),
        }
    }

    /// `hidden` is `[rows, tokens, dimensions]`, `mask` is 1 for tokens and 0 for padding.
    pub(super) fn apply(&self, hidden: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let pooled = match self {
            Self::Mean => {
                let sum = hidden.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
                sum.broadcast_div(&mask.sum_keepdim(1)?)?
            }
            Self::First => hidden.narrow(1, 0, 1)?.squeeze(1)?,
        };
        // A vector of zeros stays one instead of becoming NaN.
        let length = pooled.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(1e-12)?;
        pooled.broadcast_div(&length)
    }
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
        ["Transformer", "Pooling", "Normalize"]
            .contains(&name.rsplit('.').next().unwrap_or_default())
    };
    match modules.iter().all(known) {
        true => Ok(()),
        false => Err(malformed(
            "only Transformer, Pooling and Normalize are supported",
        )),
    }
}
