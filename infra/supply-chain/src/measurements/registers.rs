use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// What the secure module will report for an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registers {
    /// The image: kernel, command line, all ramdisks.
    #[serde(rename = "0")]
    pub pcr0: Register,
    /// Kernel, command line, first ramdisk.
    #[serde(rename = "1")]
    pub pcr1: Register,
    /// The other ramdisks.
    #[serde(rename = "2")]
    pub pcr2: Register,
    /// The certificate that signed the image, where one did.
    #[serde(rename = "8", default, skip_serializing_if = "Option::is_none")]
    pub pcr8: Option<Register>,
}

/// The value of one register: SHA-384, in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Register([u8; 48]);

impl Registers {
    /// Those that have a value, with their index.
    pub fn iter(&self) -> impl Iterator<Item = (u8, Register)> {
        [(0, self.pcr0), (1, self.pcr1), (2, self.pcr2)]
            .into_iter()
            .chain(self.pcr8.map(|pcr| (8, pcr)))
    }

    /// An enclave in debug mode reports zeros: whoever publishes those publishes every debug enclave.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.iter().find(|(_, register)| register.0 == [0; 48]) {
            None => Ok(()),
            Some((index, _)) => Err(Error::input(
                format!("PCR{index}"),
                "is zero, as in every enclave in debug mode",
            )),
        }
    }

    /// Whoever signed it.
    pub(super) fn same_content(&self, other: &Self) -> bool {
        (self.pcr0, self.pcr1, self.pcr2) == (other.pcr0, other.pcr1, other.pcr2)
    }
}

impl From<[u8; 48]> for Register {
    fn from(bytes: [u8; 48]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Register {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::input("register", "is 96 hex digits, in lower case");
        let mut bytes = [0; 48];
        hex::decode_to_slice(text, &mut bytes).map_err(|_shown_below| malformed())?;
        let own = Self(bytes);
        match own.to_string() == text {
            true => Ok(own),
            false => Err(malformed()),
        }
    }
}

impl TryFrom<String> for Register {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Register> for String {
    fn from(register: Register) -> Self {
        register.to_string()
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
