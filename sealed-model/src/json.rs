//! One way to write JSON (RFC 8785), and a reader that takes nothing with two meanings.

use std::fmt;

use serde::Serialize;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Number, Value};

use crate::Error;

/// Why bytes are not the JSON that was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    #[error("{actual} bytes, more than the {max} allowed")]
    TooLarge { max: u64, actual: u64 },
    /// Fit to be shown: see [`shown`].
    #[error("{0}")]
    Malformed(String),
}

/// The canonical bytes of `value`.
///
/// # Errors
/// Where it has no JSON form; a type that does is none of the caller's concern.
pub fn to_vec(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json_canonicalizer::to_vec(value)
        .map_err(|_own| Error::Internal("a value of ours has a canonical JSON form"))
}

/// Reads JSON of at most `max` bytes. A name that appears twice in an object is refused: other readers might take the other.
///
/// # Errors
/// [`Problem`], without anything that steers a terminal.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, Problem> {
    if bytes.len() > max {
        return Err(Problem::TooLarge {
            max: max as u64,
            actual: bytes.len() as u64,
        });
    }
    let refused = |error: serde_json::Error| Problem::Malformed(shown(&error.to_string()));
    let Unique(value) = serde_json::from_slice(bytes).map_err(refused)?;
    serde_json::from_value(value).map_err(refused)
}

/// At most 200 characters of `text`, without what a terminal would obey: it may have been somebody's input.
pub fn shown(text: &str) -> String {
    text.chars().take(200).filter(|c| !c.is_control()).collect()
}

/// A JSON value without repeated names. `serde_json` bounds its depth.
struct Unique(Value);

impl<'de> de::Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        UniqueVisitor.deserialize(deserializer).map(Self)
    }
}

#[derive(Clone, Copy)]
struct UniqueVisitor;

impl<'de> DeserializeSeed<'de> for UniqueVisitor {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if map.contains_key(&name) {
                return Err(de::Error::custom(format!("{name:?} appears twice")));
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<Value, Problem> {
        from_slice(text.as_bytes(), 64)
    }

    #[test]
    fn reads_what_serde_json_reads() {
        for text in [
            "null",
            r#"{"a":[1,-2,0.5,true,"x",{}]}"#,
            "18446744073709551615",
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(value(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refuses_a_name_that_appears_twice() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"x":{"a":1,"\u0061":2}}]"#] {
            assert!(value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_longer_deeper_or_more_than_one_value() {
        assert!(matches!(
            value(&" ".repeat(65)),
            Err(Problem::TooLarge { .. })
        ));
        assert!(from_slice::<Value>("[".repeat(4000).as_bytes(), 5000).is_err());
        for text in ["", "{} {}", "1e999", "{\"a\":1,}", "NaN"] {
            assert!(value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_carries_nothing_that_steers_a_terminal() {
        let error = value("{\"\u{9b}2J\":1,\"\u{9b}2J\":1}").unwrap_err();
        assert!(!error.to_string().chars().any(char::is_control), "{error}");
    }
}
