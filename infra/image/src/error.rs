use crate::section::Kind;

/// Why a file is no image, or no image can be written. Positions and values are those of the file; none is secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed; nothing is known about the image.
    #[error("input or output failed")]
    Io(#[from] std::io::Error),
    /// The file ends too early. A section that reaches beyond the file is found here, too.
    #[error("the file ends inside the {0}")]
    Truncated(Place),
    /// Not an enclave image at all.
    #[error("not an enclave image: it begins with {actual:02x?}, not with \".eif\"")]
    Magic {
        /// The first four bytes.
        actual: [u8; 4],
    },
    /// Only version 4 has all sections that are measured here.
    #[error("format version {actual}, expected 4")]
    Version {
        /// As in the header.
        actual: u16,
    },
    /// A bit that has no meaning in version 4.
    #[error("flags {actual:#06x} of the {place} have a bit without a meaning")]
    Flags {
        /// Header or section.
        place: Place,
        /// All of them.
        actual: u16,
    },
    /// Bytes that version 4 keeps at zero.
    #[error("{field} is {actual:#x}, expected 0")]
    Reserved {
        /// Which ones.
        field: &'static str,
        /// As in the header.
        actual: u64,
    },
    /// Kernel, command line and a ramdisk at least; the tables have room for 32.
    #[error("{actual} sections, expected 3 to 32")]
    SectionCount {
        /// As in the header.
        actual: usize,
    },
    /// Sections follow each other without gap or overlap.
    #[error("section {index} begins at byte {actual}, expected {expected}")]
    Offset {
        /// Position in the table, from 0.
        index: usize,
        /// Where the one before it ends.
        expected: u64,
        /// As in the table.
        actual: u64,
    },
    /// A section, or the whole image, above its limit.
    #[error("{what} of {actual} bytes, the limit is {limit}")]
    TooLarge {
        /// Section or image.
        what: Place,
        /// In bytes.
        limit: u64,
        /// In bytes, as the file claims.
        actual: u64,
    },
    /// A section that must have content has none.
    #[error("the {0} is empty")]
    Empty(Kind),
    /// A type that version 4 does not know.
    #[error("section {index} has the unknown type {actual}")]
    UnknownSection {
        /// Position, from 0.
        index: usize,
        /// As in the section's header.
        actual: u16,
    },
    /// The header's table and the section's own header disagree.
    #[error("section {index} has {section} bytes by its own header, {table} by the table")]
    SizeMismatch {
        /// Position, from 0.
        index: usize,
        /// In bytes.
        table: u64,
        /// In bytes.
        section: u64,
    },
    /// Two of what there may be one of.
    #[error("more than one {0}")]
    Duplicate(Kind),
    /// None of what there must be.
    #[error("no {0}")]
    Missing(Kind),
    /// The order is measured: kernel, command line, then the rest.
    #[error("section {index} is a {actual}, expected the {expected} there")]
    Order {
        /// Position, from 0.
        index: usize,
        /// What belongs there.
        expected: Kind,
        /// What is there.
        actual: Kind,
    },
    /// A loader would cut it short, or read it otherwise than people do.
    #[error("the command line {0}")]
    CommandLine(&'static str),
    /// Not the JSON object that it should be.
    #[error("the metadata is no JSON object")]
    Metadata(#[source] Option<serde_json::Error>),
    /// The signature section; see there.
    #[error("the signature is refused")]
    Signature(#[from] SignatureError),
    /// Accidents look like this; an attacker computes it anew.
    #[error("CRC-32 {expected:08x} in the header, {actual:08x} of the content")]
    Checksum {
        /// As in the header.
        expected: u32,
        /// Computed.
        actual: u32,
    },
    /// Bytes after the last section.
    #[error("bytes follow the last section")]
    TrailingBytes,
    /// An input of the writer that did not have the size it was announced with.
    #[error("the {0} changed its size while it was read")]
    SourceChanged(Kind),
}

/// Where in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The whole file.
    Image,
    /// The first 548 bytes.
    Header,
    /// The header of the section at this position, from 0.
    SectionHeader(usize),
    /// The content of a section.
    Section(Kind),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Image => f.write_str("image"),
            Self::Header => f.write_str("header"),
            Self::SectionHeader(index) => write!(f, "header of section {index}"),
            Self::Section(kind) => kind.fmt(f),
        }
    }
}

/// Why a signature section does not hold. An enclave with such an image does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not the CBOR structure of the format.
    #[error("it is not one certificate and one signature in CBOR")]
    Structure,
    /// The certificate is not exactly one X.509 certificate in PEM.
    #[error("its certificate is not one X.509 certificate in PEM")]
    Certificate,
    /// Neither of ES256, ES384 and ES512.
    #[error("its algorithm is none of ES256, ES384, ES512")]
    Algorithm,
    /// It was made for another image.
    #[error("it signs PCR{index} = {signed}, the image has PCR0 = {actual}")]
    OtherImage {
        /// Of the signed register.
        index: u8,
        /// In hex.
        signed: String,
        /// In hex.
        actual: String,
    },
    /// The certificate's key did not make it.
    #[error("its certificate's key did not make it")]
    Invalid,
    /// A key for signing that is none, or not the certificate's.
    #[error("the signing key is not a P-384 key in PKCS#8 PEM, or not that of the certificate")]
    SigningKey,
}
