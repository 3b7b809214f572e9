//! The first 548 bytes.

use crate::error::{Error, Place};
use crate::section::{self, MAX_IMAGE};

pub(crate) const LENGTH: usize = 548;
/// The checksum is the header's last field and covers all but itself.
pub(crate) const CHECKSUM_AT: usize = LENGTH - 4;

const MAGIC: [u8; 4] = *b".eif";
const VERSION: u16 = 4;
const AARCH64: u16 = 1;
const SLOTS: usize = 32;
/// Kernel, command line, ramdisk.
const MIN_SECTIONS: usize = 3;

/// The processor that an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// Intel and AMD.
    X86_64,
    /// Graviton.
    Aarch64,
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}

/// A header whose tables describe sections that lie one behind the other, the first right after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) architecture: Architecture,
    pub(crate) default_memory: u64,
    pub(crate) default_processors: u64,
    /// Content sizes, in the order of the file.
    pub(crate) sizes: Vec<u64>,
    pub(crate) checksum: u32,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8; LENGTH]) -> Result<Self, Error> {
        let mut rest = &bytes[..];
        let magic = take::<4>(&mut rest)?;
        if magic != MAGIC {
            return Err(Error::Magic { actual: magic });
        }
        let version = u16::from_be_bytes(take(&mut rest)?);
        if version != VERSION {
            return Err(Error::Version { actual: version });
        }
        let architecture = match u16::from_be_bytes(take(&mut rest)?) {
            0 => Architecture::X86_64,
            AARCH64 => Architecture::Aarch64,
            actual => {
                return Err(Error::Flags {
                    place: Place::Header,
                    actual,
                });
            }
        };
        let default_memory = u64::from_be_bytes(take(&mut rest)?);
        let default_processors = u64::from_be_bytes(take(&mut rest)?);
        zero(
            "reserved field",
            u16::from_be_bytes(take(&mut rest)?).into(),
        )?;
        let count = usize::from(u16::from_be_bytes(take(&mut rest)?));
        let offsets = table(&mut rest)?;
        let sizes = table(&mut rest)?;
        zero("unused field", u32::from_be_bytes(take(&mut rest)?).into())?;
        let checksum = u32::from_be_bytes(take(&mut rest)?);
        if !(MIN_SECTIONS..=SLOTS).contains(&count) {
            return Err(Error::SectionCount { actual: count });
        }
        for &value in offsets.iter().skip(count) {
            zero("offset of a section that does not exist", value)?;
        }
        for &value in sizes.iter().skip(count) {
            zero("size of a section that does not exist", value)?;
        }
        let sizes: Vec<u64> = sizes.into_iter().take(count).collect();
        let expected = layout(&sizes)?;
        for (index, (&actual, expected)) in offsets.iter().zip(expected).enumerate() {
            if actual != expected {
                return Err(Error::Offset {
                    index,
                    expected,
                    actual,
                });
            }
        }
        Ok(Self {
            architecture,
            default_memory,
            default_processors,
            sizes,
            checksum,
        })
    }

    /// # Errors
    /// Too few or too many sections, or more bytes than an image may have.
    pub(crate) fn encode(&self) -> Result<[u8; LENGTH], Error> {
        let count = self.sizes.len();
        if !(MIN_SECTIONS..=SLOTS).contains(&count) {
            return Err(Error::SectionCount { actual: count });
        }
        let offsets = layout(&self.sizes)?;
        let flags = match self.architecture {
            Architecture::X86_64 => 0,
            Architecture::Aarch64 => AARCH64,
        };
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend(self.default_memory.to_be_bytes());
        bytes.extend(self.default_processors.to_be_bytes());
        bytes.extend(0_u16.to_be_bytes());
        bytes.extend(u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
        for table in [&offsets, &self.sizes] {
            for slot in 0..SLOTS {
                bytes.extend(table.get(slot).copied().unwrap_or(0).to_be_bytes());
            }
        }
        bytes.extend(0_u32.to_be_bytes());
        bytes.extend(self.checksum.to_be_bytes());
        bytes.try_into().ok().ok_or(Error::Truncated(Place::Header))
    }

    /// Size of the whole file. The layout was checked.
    pub(crate) fn image_size(&self) -> u64 {
        let content: u64 = self
            .sizes
            .iter()
            .map(|size| section::HEADER as u64 + size)
            .sum();
        LENGTH as u64 + content
    }
}

/// Where sections of these sizes begin. Sizes are not trusted: nothing overflows, and the whole is bounded.
fn layout(sizes: &[u64]) -> Result<Vec<u64>, Error> {
    let mut end = LENGTH as u64;
    let mut offsets = Vec::with_capacity(sizes.len());
    for &size in sizes {
        offsets.push(end);
        end = end
            .saturating_add(section::HEADER as u64)
            .saturating_add(size);
    }
    if end > MAX_IMAGE {
        return Err(Error::TooLarge {
            what: Place::Image,
            limit: MAX_IMAGE,
            actual: end,
        });
    }
    Ok(offsets)
}

fn zero(field: &'static str, actual: u64) -> Result<(), Error> {
    match actual {
        0 => Ok(()),
        _ => Err(Error::Reserved { field, actual }),
    }
}

fn table(rest: &mut &[u8]) -> Result<[u64; SLOTS], Error> {
    let mut table = [0; SLOTS];
    for slot in &mut table {
        *slot = u64::from_be_bytes(take(rest)?);
    }
    Ok(table)
}

pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Error> {
    let (head, tail) = rest
        .split_first_chunk()
        .ok_or(Error::Truncated(Place::Header))?;
    *rest = tail;
    Ok(*head)
}
