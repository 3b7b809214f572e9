//! Reads a request's JSON object field by field. It knows at each moment which field it is in, so a failure can be
//! reported by name and place; what serde says about a failure may quote the prompt and is thrown away.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use engine::Text;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::error::ApiError;

/// A request body: the fields it knows, and how each is read. Other fields are skipped, as OpenAI does.
pub(crate) trait Fields: Default {
    const NAMES: &'static [&'static str];
    /// Those that requests of several kinds have in common.
    const SHARED: &'static [&'static str] = &[];

    /// Reads the value of `name`, one of [`Self::NAMES`] or [`Self::SHARED`].
    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        map: &mut A,
    ) -> Result<(), A::Error>;
}

/// Reads `body` as one object and nothing after it.
pub(crate) fn parse<T: Fields>(body: &[u8]) -> Result<T, ApiError> {
    let field = Cell::new("");
    let mut json = serde_json::Deserializer::from_slice(body);
    Object {
        field: &field,
        fields: PhantomData,
    }
    .deserialize(&mut json)
    .and_then(|fields| json.end().map(|()| fields))
    .map_err(|error| ApiError::unreadable(field.get(), error.line(), error.column()))
}

struct Object<'a, T> {
    field: &'a Cell<&'static str>,
    fields: PhantomData<T>,
}

impl<'de, T: Fields> DeserializeSeed<'de> for Object<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Fields> Visitor<'de> for Object<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut fields = T::default();
        while let Some(name) = map.next_key_seed(Name(T::NAMES, T::SHARED))? {
            match name {
                Some(name) => {
                    self.field.set(name);
                    fields.read(name, &mut map)?;
                    self.field.set("");
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

/// A key, as one of the known names or none; the text itself is not kept.
struct Name(&'static [&'static str], &'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        let mut names = self.0.iter().chain(self.1).copied();
        Ok(names.find(|name| *name == key))
    }
}

/// Text of a caller, from the JSON string into the type that wipes itself.
pub(crate) struct Prompt(pub(crate) Text);

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Text::new(text)))
    }
}

/// Whether a field that is not supported asks for anything: `null`, `false`, `0`, `""`, `[]` and `{}` do not.
#[derive(Default, Clone, Copy)]
pub(crate) struct Asked(pub(crate) bool);

impl<'de> Deserialize<'de> for Asked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AskedVisitor)
    }
}

struct AskedVisitor;

impl<'de> Visitor<'de> for AskedVisitor {
    type Value = Asked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Asked, E> {
        Ok(Asked(false))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Asked, E> {
        Ok(Asked(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Asked, E> {
        Ok(Asked(value != 0))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Asked, E> {
        Ok(Asked(value != 0))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Asked, E> {
        Ok(Asked(value != 0.0))
    }

    fn visit_str<E>(self, value: &str) -> Result<Asked, E> {
        Ok(Asked(!value.is_empty()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Asked, A::Error> {
        let mut any = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            any = true;
        }
        Ok(Asked(any))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Asked, A::Error> {
        let mut any = false;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            any = true;
        }
        Ok(Asked(any))
    }
}
