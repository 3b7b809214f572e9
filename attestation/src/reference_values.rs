//! Reference values: which images a relying party accepts.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::accepted_image::AcceptedImage;
use crate::error::Error;
use crate::pcr::{Pcr, Pcrs};

/// The highest register index.
const MAX_INDEX: u8 = 31;

/// One or more accepted images: `[{ "0" = "hex", "1" = "hex", "2" = "hex" }, …]` in TOML and JSON, each as
/// [`AcceptedImage`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceValues(Vec<AcceptedImage>);

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
    /// It would never be accepted.
    #[error("image {image} has a not_after that is not later than its not_before")]
    Window {
        /// Position in the list, from 0.
        image: usize,
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
    /// Checks and takes a list of images that are accepted at any time.
    ///
    /// # Errors
    /// See [`ReferenceValuesError`].
    pub fn try_new(images: Vec<BTreeMap<u8, Pcr>>) -> Result<Self, ReferenceValuesError> {
        Self::try_from_images(images.into_iter().map(AcceptedImage::from).collect())
    }

    /// Checks and takes a list of images.
    ///
    /// # Errors
    /// See [`ReferenceValuesError`].
    pub fn try_from_images(images: Vec<AcceptedImage>) -> Result<Self, ReferenceValuesError> {
        if images.is_empty() {
            return Err(ReferenceValuesError::Empty);
        }
        for (image, accepted) in images.iter().enumerate() {
            if !accepted.registers.contains_key(&0) {
                return Err(ReferenceValuesError::MissingPcr0 { image });
            }
            for (&index, value) in &accepted.registers {
                if index > MAX_INDEX {
                    return Err(ReferenceValuesError::NoSuchRegister { image, index });
                }
                if value.is_zero() {
                    return Err(ReferenceValuesError::Zero { image, index });
                }
            }
            let window = accepted.not_before.zip(accepted.not_after);
            if window.is_some_and(|(from, end)| end <= from) {
                return Err(ReferenceValuesError::Window { image });
            }
        }
        Ok(Self(images))
    }

    /// The accepted images.
    pub fn images(&self) -> &[AcceptedImage] {
        &self.0
    }

    /// True when `measured` holds every value of at least one image that is accepted `now`.
    ///
    /// # Errors
    /// [`Error::ImageWindow`] when the only images that match are not accepted at this time, otherwise
    /// [`Error::Measurement`] with the first difference from the image that comes closest.
    pub fn appraise(&self, measured: &Pcrs, now: SystemTime) -> Result<(), Error> {
        let mut closest: Option<(usize, Error)> = None;
        for (position, image) in self.0.iter().enumerate() {
            let mut differences = image.differences(measured);
            let (count, error) = match differences.next() {
                None if image.is_accepted_at(now) => return Ok(()),
                None => (
                    0,
                    Error::ImageWindow {
                        image: position,
                        not_before: image.not_before,
                        not_after: image.not_after,
                        at: now,
                    },
                ),
                Some((index, expected)) => (
                    1 + differences.count(),
                    Error::Measurement {
                        index,
                        expected,
                        actual: measured.get(&index).copied(),
                    },
                ),
            };
            if closest.as_ref().is_none_or(|(least, _)| count < *least) {
                closest = Some((count, error));
            }
        }
        // `try_from_images` refuses an empty list; were one possible, it would accept nothing.
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

impl ReferenceValues {
    /// Until when `measured`, which is accepted `now`, stays so: the latest end of the images that accept it. None when one of them
    /// has no end.
    pub fn accepted_until(&self, measured: &Pcrs, now: SystemTime) -> Option<SystemTime> {
        let accepting = self.0.iter().filter(|image| {
            image.is_accepted_at(now) && image.differences(measured).next().is_none()
        });
        accepting
            .map(|image| image.not_after)
            .reduce(|one, other| Some(one?.max(other?)))
            .flatten()
    }
}

impl Serialize for ReferenceValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ReferenceValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from_images(Vec::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
