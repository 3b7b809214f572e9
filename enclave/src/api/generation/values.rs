//! Field values that come in more than one JSON shape.

use std::fmt;

use engine::Text;
use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::api::object::Prompt;

/// Any JSON integer of 64 bits; negative ones count as their bit pattern.
pub(crate) struct Seed(pub(crate) u64);

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SeedVisitor)
    }
}

struct SeedVisitor;

impl Visitor<'_> for SeedVisitor {
    type Value = Seed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Seed, E> {
        Ok(Seed(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Seed, E> {
        Ok(Seed(value.cast_unsigned()))
    }
}

/// One stop string or a list of them.
pub(crate) struct Stop(pub(crate) Vec<Text>);

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StopVisitor)
    }
}

struct StopVisitor;

impl<'de> Visitor<'de> for StopVisitor {
    type Value = Stop;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Stop, E> {
        Ok(Stop(vec![Text::new(text.to_owned())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Stop, A::Error> {
        let mut stops = Vec::new();
        while let Some(Prompt(stop)) = seq.next_element()? {
            stops.push(stop);
        }
        Ok(Stop(stops))
    }
}

/// A setting that is a word, `null`, or something else that no word equals.
pub(crate) enum Word {
    Absent,
    Is(String),
    Other,
}

impl Word {
    /// Where a field is not there.
    pub(crate) fn absent() -> Self {
        Self::Absent
    }

    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Is(is) if is == word)
    }

    /// `null` says nothing, so it is always one of them.
    pub(crate) fn is_one_of(&self, words: &[&str]) -> bool {
        match self {
            Self::Absent => true,
            Self::Is(word) => words.contains(&word.as_str()),
            Self::Other => false,
        }
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordVisitor)
    }
}

struct WordVisitor;

impl<'de> Visitor<'de> for WordVisitor {
    type Value = Word;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Word, E> {
        Ok(Word::Absent)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Word, E> {
        Ok(Word::Is(word.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, _value: bool) -> Result<Word, E> {
        Ok(Word::Other)
    }

    fn visit_u64<E: de::Error>(self, _value: u64) -> Result<Word, E> {
        Ok(Word::Other)
    }

    fn visit_i64<E: de::Error>(self, _value: i64) -> Result<Word, E> {
        Ok(Word::Other)
    }

    fn visit_f64<E: de::Error>(self, _value: f64) -> Result<Word, E> {
        Ok(Word::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Word, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Word::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Word, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Word::Other)
    }
}

/// Token ids as JSON names, with what is added to their logits.
pub(crate) enum Bias {
    Entries(Vec<(u32, f64)>),
    TooMany,
    /// A name is no token id.
    NoToken,
}

/// The configuration may say less.
pub(crate) const MOST_BIASES: usize = 4096;

impl<'de> Deserialize<'de> for Bias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BiasVisitor)
    }
}

struct BiasVisitor;

impl<'de> Visitor<'de> for BiasVisitor {
    type Value = Bias;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bias, A::Error> {
        let mut entries = Vec::new();
        let mut wrong = None;
        while let Some((name, bias)) = map.next_entry::<String, f64>()? {
            match name.parse() {
                Ok(token) if entries.len() < MOST_BIASES => entries.push((token, bias)),
                Ok(_) => wrong = wrong.or(Some(Bias::TooMany)),
                Err(_) => wrong = wrong.or(Some(Bias::NoToken)),
            }
        }
        Ok(wrong.unwrap_or(Bias::Entries(entries)))
    }
}
