//! Reference values: which images a relying party accepts.

use std::collections::BTreeMap;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;
use crate::pcr::{Pcr, Pcrs};

/// The highest register index.
const MAX_INDEX: u8 = 31;

/// One or more accepted images. An image is a set of registers that must all hold exactly these values; registers it
/// does not name may hold anything.
///
/// In TOML and JSON: `[{ "0" = "hex", "1" = "hex", "2" = "hex" }, …]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceValues(Vec<BTreeMap<u8, Pcr>>);

/// Reference values that cannot mean what their author wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceValuesError {
    /// An empty list would accept nothing; say what to accept.
    #[error("no accepted image is named")]
    Empty,
    /// PCR0 is the measurement of the image; without it any image would do.
    #[error("image {image} does not name PCR0, the measurement of the image")]
    MissingPcr0 {
        /// Position in the list, from 0.
        image: usize,
    },
    /// Debug enclaves carry zeros, so zeros would accept every one of them.
    #[error("image {image} expects zeros in PCR{index}, as a debug enclave has")]
    Zero {
        /// Position in the list, from 0.
        image: usize,
        /// Register index.
        index: u8,
    },
    /// There are 32 registers.
    #[error("image {image} names PCR{index}; the last is PCR31")]
    NoSuchRegister {
        /// Position in the list, from 0.
        image: usize,
        /// Register index.
        index: u8,
    },
}

impl ReferenceValues {
    /// Checks and takes a list of images.
    ///
    /// # Errors
    /// See [`ReferenceValuesError`].
    pub fn try_new(images: Vec<BTreeMap<u8, Pcr>>) -> Result<Self, ReferenceValuesError> {
        if images.is_empty() {
            return Err(ReferenceValuesError::Empty);
        }
        for (image, registers) in images.iter().enumerate() {
            if !registers.contains_key(&0) {
                return Err(ReferenceValuesError::MissingPcr0 { image });
            }
            for (&index, value) in registers {
                if index > MAX_INDEX {
                    return Err(ReferenceValuesError::NoSuchRegister { image, index });
                }
                if value.is_zero() {
                    return Err(ReferenceValuesError::Zero { image, index });
                }
            }
        }
        Ok(Self(images))
    }

    /// The accepted images.
    pub fn images(&self) -> &[BTreeMap<u8, Pcr>] {
        &self.0
    }

    /// True when `measured` holds every value of at least one image.
    ///
    /// # Errors
    /// [`Error::Measurement`] with the first difference from the image that comes closest.
    pub fn appraise(&self, measured: &Pcrs) -> Result<(), Error> {
        let mut closest: Option<(usize, Error)> = None;
        for image in &self.0 {
            let mut differences = image
                .iter()
                .filter(|&(index, expected)| measured.get(index) != Some(expected));
            let Some((&index, &expected)) = differences.next() else {
                return Ok(());
            };
            let count = 1 + differences.count();
            if closest.as_ref().is_none_or(|(least, _)| count < *least) {
                let actual = measured.get(&index).copied();
                closest = Some((
                    count,
                    Error::Measurement {
                        index,
                        expected,
                        actual,
                    },
                ));
            }
        }
        // `try_new` refuses an empty list; were one possible, it would accept nothing.
        Err(closest.map_or(
            Error::Measurement {
                index: 0,
                expected: Pcr::ZERO,
                actual: measured.get(&0).copied(),
            },
            |(_, error)| error,
        ))
    }
}

impl Serialize for ReferenceValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Text keys, because TOML has no others.
        serializer.collect_seq(self.0.iter().map(|image| {
            image
                .iter()
                .map(|(index, value)| (index.to_string(), value))
                .collect::<BTreeMap<_, _>>()
        }))
    }
}

impl<'de> Deserialize<'de> for ReferenceValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let images = Vec::<Image>::deserialize(deserializer)?;
        Self::try_new(
            images
                .into_iter()
                .map(|Image(registers)| registers)
                .collect(),
        )
        .map_err(D::Error::custom)
    }
}

struct Image(BTreeMap<u8, Pcr>);

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Registers;

        impl<'de> Visitor<'de> for Registers {
            type Value = Image;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table of PCR index to 96 hex digits")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Image, A::Error> {
                let mut registers = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Pcr>()? {
                    let index = match key.parse::<u8>() {
                        Ok(index) if index.to_string() == key => index,
                        _ => return Err(A::Error::custom(format!("`{key}` is not a PCR index"))),
                    };
                    // JSON parsers let a repeated key win silently; here it would replace a measurement.
                    if registers.insert(index, value).is_some() {
                        return Err(A::Error::custom(format!("PCR{index} is named twice")));
                    }
                }
                Ok(Image(registers))
            }
        }

        deserializer.deserialize_map(Registers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcr(byte: u8) -> Pcr {
        Pcr::from_bytes([byte; 48])
    }

    fn values(images: &[&[(u8, u8)]]) -> Result<ReferenceValues, ReferenceValuesError> {
        let image = |registers: &&[(u8, u8)]| registers.iter().map(|&(i, v)| (i, pcr(v))).collect();
        ReferenceValues::try_new(images.iter().map(image).collect())
    }

    #[test]
    fn values_that_accept_too_much_are_refused() {
        assert_eq!(values(&[]), Err(ReferenceValuesError::Empty));
        assert_eq!(
            values(&[&[]]),
            Err(ReferenceValuesError::MissingPcr0 { image: 0 })
        );
        assert_eq!(
            values(&[&[(0, 1)], &[(1, 1)]]),
            Err(ReferenceValuesError::MissingPcr0 { image: 1 })
        );
        assert_eq!(
            values(&[&[(0, 0)]]),
            Err(ReferenceValuesError::Zero { image: 0, index: 0 })
        );
        assert_eq!(
            values(&[&[(0, 1), (8, 0)]]),
            Err(ReferenceValuesError::Zero { image: 0, index: 8 })
        );
        assert_eq!(
            values(&[&[(0, 1), (32, 1)]]),
            Err(ReferenceValuesError::NoSuchRegister {
                image: 0,
                index: 32
            })
        );
    }

    #[test]
    fn one_whole_image_must_match() {
        let accepted = values(&[&[(0, 1), (1, 2)], &[(0, 3), (1, 4), (2, 5)]]).unwrap();
        let measured = |list: &[(u8, u8)]| list.iter().map(|&(i, v)| (i, pcr(v))).collect::<Pcrs>();
        assert_eq!(
            accepted.appraise(&measured(&[(0, 1), (1, 2), (4, 9)])),
            Ok(())
        );
        assert_eq!(
            accepted.appraise(&measured(&[(0, 3), (1, 4), (2, 5)])),
            Ok(())
        );
        // Registers of two images do not add up to one.
        assert_eq!(
            accepted.appraise(&measured(&[(0, 1), (1, 4), (2, 5)])),
            Err(Error::Measurement {
                index: 1,
                expected: pcr(2),
                actual: Some(pcr(4))
            })
        );
        assert_eq!(
            accepted.appraise(&measured(&[(0, 1)])),
            Err(Error::Measurement {
                index: 1,
                expected: pcr(2),
                actual: None
            })
        );
    }

    #[test]
    fn json_has_text_keys_and_survives_a_round_trip() {
        let accepted = values(&[&[(0, 1), (1, 2)], &[(0, 3), (16, 4)]]).unwrap();
        let json = serde_json::to_string(&accepted).unwrap();
        assert!(json.starts_with(r#"[{"0":"0101"#), "{json}");
        assert_eq!(
            serde_json::from_str::<ReferenceValues>(&json).unwrap(),
            accepted
        );
    }

    #[test]
    fn toml_reads_a_list_of_tables() {
        #[derive(Deserialize)]
        struct Policy {
            images: ReferenceValues,
        }
        let one = "01".repeat(48);
        let policy: Policy =
            toml::from_str(&format!(r#"images = [{{ "0" = "{one}", 1 = "{one}" }}]"#)).unwrap();
        assert_eq!(policy.images, values(&[&[(0, 1), (1, 1)]]).unwrap());
    }

    #[test]
    fn json_that_is_ambiguous_is_refused() {
        let one = "01".repeat(48);
        let two = "02".repeat(48);
        for (json, word) in [
            (format!(r#"[{{"0":"{one}","0":"{two}"}}]"#), "twice"),
            (
                format!(r#"[{{"0":"{one}","01":"{two}"}}]"#),
                "not a PCR index",
            ),
            (format!(r#"[{{"+0":"{one}"}}]"#), "not a PCR index"),
            (format!(r#"[{{"PCR0":"{one}"}}]"#), "not a PCR index"),
            (r#"[{"0":"01"}]"#.to_owned(), "96 hex digits"),
            ("[]".to_owned(), "no accepted image"),
        ] {
            let error = serde_json::from_str::<ReferenceValues>(&json)
                .unwrap_err()
                .to_string();
            assert!(error.contains(word), "{json}: {error}");
        }
    }
}
