//! The JSON of `sealed_model::json`, with this crate's errors.

use sealed_model::json::{self, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

pub(crate) use json::shown;

/// The canonical bytes of `value`.
pub(crate) fn bytes(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    json::to_vec(value).map_err(|_own| Error::Internal("a value of ours has a canonical JSON form"))
}

/// Reads JSON of at most `max` bytes. A name that appears twice in an object is refused: other readers might take the other.
pub(crate) fn read<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    max: usize,
) -> Result<T, Error> {
    json::from_slice(bytes, max).map_err(|problem| match problem {
        Problem::TooLarge { max, actual } => Error::TooLarge { what, max, actual },
        other => Error::malformed(what, other.to_string()),
    })
}
