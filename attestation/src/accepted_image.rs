//! One accepted image.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pcr::{Pcr, Pcrs};
use crate::text::{parse_rfc3339, rfc3339};

/// Registers that must all hold exactly these values, and when they are accepted; registers that it does not name may hold
/// anything.
///
/// In TOML and JSON: `{ "0" = "hex", "1" = "hex", "not_before" = "2026-11-20T12:00:00Z", "not_after" = "…" }`, with RFC 3339
/// times in quotes. A rollout names the old image with `not_after` and the new one with `not_before`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AcceptedImage {
    /// Register index to value.
    pub registers: BTreeMap<u8, Pcr>,
    /// First time at which it is accepted.
    pub not_before: Option<SystemTime>,
    /// First time at which it no longer is.
    pub not_after: Option<SystemTime>,
}

impl AcceptedImage {
    /// Whether it is accepted at `at`, whatever is measured.
    pub fn is_accepted_at(&self, at: SystemTime) -> bool {
        self.not_before.is_none_or(|from| from <= at) && self.not_after.is_none_or(|end| at < end)
    }

    /// The registers that are not as they should be, lowest first, with what they should be.
    pub(crate) fn differences(&self, measured: &Pcrs) -> impl Iterator<Item = (u8, Pcr)> {
        let registers = self.registers.iter();
        registers
            .filter(|&(index, expected)| measured.get(index) != Some(expected))
            .map(|(index, expected)| (*index, *expected))
    }
}

impl From<BTreeMap<u8, Pcr>> for AcceptedImage {
    fn from(registers: BTreeMap<u8, Pcr>) -> Self {
        Self {
            registers,
            ..Self::default()
        }
    }
}

const NOT_BEFORE: &str = "not_before";
const NOT_AFTER: &str = "not_after";

impl Serialize for AcceptedImage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, value) in &self.registers {
            // Text keys, because TOML has no others.
            map.serialize_entry(&index.to_string(), value)?;
        }
        for (name, time) in [(NOT_BEFORE, self.not_before), (NOT_AFTER, self.not_after)] {
            if let Some(time) = time {
                map.serialize_entry(name, &rfc3339(time))?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for AcceptedImage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = AcceptedImage;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(
                    "a table of PCR index to 96 hex digits, perhaps with not_before and not_after",
                )
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AcceptedImage, A::Error> {
                let mut image = AcceptedImage::default();
                while let Some(key) = map.next_key::<String>()? {
                    // JSON parsers let a repeated key win silently; here it would replace a measurement.
                    let first = match key.as_str() {
                        NOT_BEFORE => image.not_before.replace(time(&mut map)?).is_none(),
                        NOT_AFTER => image.not_after.replace(time(&mut map)?).is_none(),
                        key => {
                            let index = match key.parse::<u8>() {
                                Ok(index) if index.to_string() == key => index,
                                _ => {
                                    let problem = format!("`{key}` is not a PCR index");
                                    return Err(A::Error::custom(problem));
                                }
                            };
                            image.registers.insert(index, map.next_value()?).is_none()
                        }
                    };
                    if !first {
                        return Err(A::Error::custom(format!("`{key}` is named twice")));
                    }
                }
                Ok(image)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

fn time<'de, A: MapAccess<'de>>(map: &mut A) -> Result<SystemTime, A::Error> {
    let text: String = map.next_value()?;
    parse_rfc3339(&text).ok_or_else(|| {
        A::Error::custom(format!(
            "`{text}` is not a time; write it like \"2026-11-20T12:00:00Z\""
        ))
    })
}
