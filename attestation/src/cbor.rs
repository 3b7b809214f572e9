//! A reader for the few CBOR (RFC 8949) items that an attestation document is made of.
//!
//! It borrows from its input, allocates nothing and does not recurse, so neither a length nor a nesting depth from a
//! hostile document costs anything. Heads must have their shortest form; strings must be definite. Maps and arrays
//! may be of indefinite length: secure modules since 2025 write the payload so.

use crate::error::StructureError;

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

const NULL: u8 = 0xf6;
const BREAK: u8 = 0xff;

pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// The remaining items of a map or an array.
pub(crate) enum Items {
    Left(u64),
    UntilBreak,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub(crate) fn end(&self, field: &'static str) -> Result<(), StructureError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(StructureError::Trailing { field })
        }
    }

    pub(crate) fn skip_tag(&mut self, tag: u64) -> Result<(), StructureError> {
        if self.rest.first().is_some_and(|first| first >> 5 == TAG) {
            let field = "tag";
            if self.head(TAG, field)? != Some(tag) {
                return Err(StructureError::Item { field });
            }
        }
        Ok(())
    }

    pub(crate) fn unsigned(&mut self, field: &'static str) -> Result<u64, StructureError> {
        self.head(UNSIGNED, field)?
            .ok_or(StructureError::Item { field })
    }

    /// A byte string of `bounds` bytes.
    pub(crate) fn bytes(
        &mut self,
        field: &'static str,
        bounds: std::ops::RangeInclusive<usize>,
    ) -> Result<&'a [u8], StructureError> {
        self.string(BYTES, field, bounds)
    }

    /// A byte string of `bounds` bytes, or null.
    pub(crate) fn optional_bytes(
        &mut self,
        field: &'static str,
        bounds: std::ops::RangeInclusive<usize>,
    ) -> Result<Option<&'a [u8]>, StructureError> {
        match self.rest.split_first() {
            Some((&NULL, rest)) => {
                self.rest = rest;
                Ok(None)
            }
            _ => self.bytes(field, bounds).map(Some),
        }
    }

    /// A text string of `bounds` bytes.
    pub(crate) fn text(
        &mut self,
        field: &'static str,
        bounds: std::ops::RangeInclusive<usize>,
    ) -> Result<&'a str, StructureError> {
        match std::str::from_utf8(self.string(TEXT, field, bounds)?) {
            Ok(text) => Ok(text),
            Err(_) => Err(StructureError::Item { field }),
        }
    }

    pub(crate) fn array(&mut self, field: &'static str) -> Result<Items, StructureError> {
        Ok(self
            .head(ARRAY, field)?
            .map_or(Items::UntilBreak, Items::Left))
    }

    pub(crate) fn map(&mut self, field: &'static str) -> Result<Items, StructureError> {
        Ok(self
            .head(MAP, field)?
            .map_or(Items::UntilBreak, Items::Left))
    }

    /// True when another item (of a map: another pair) follows.
    pub(crate) fn has_next(&mut self, items: &mut Items) -> bool {
        match items {
            Items::Left(0) => false,
            Items::Left(left) => {
                *left -= 1;
                true
            }
            Items::UntilBreak => match self.rest.split_first() {
                Some((&BREAK, rest)) => {
                    self.rest = rest;
                    *items = Items::Left(0);
                    false
                }
                // At the end of input the next read says so.
                _ => true,
            },
        }
    }

    fn string(
        &mut self,
        major: u8,
        field: &'static str,
        bounds: std::ops::RangeInclusive<usize>,
    ) -> Result<&'a [u8], StructureError> {
        let length = self
            .head(major, field)?
            .ok_or(StructureError::Item { field })?;
        let length = match usize::try_from(length) {
            Ok(length) if bounds.contains(&length) => length,
            _ => return Err(StructureError::Length { field }),
        };
        let (string, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(StructureError::Item { field })?;
        self.rest = rest;
        Ok(string)
    }

    /// The argument of a head of this major type; none for an indefinite length.
    fn head(&mut self, major: u8, field: &'static str) -> Result<Option<u64>, StructureError> {
        let malformed = StructureError::Item { field };
        let (&first, mut rest) = self.rest.split_first().ok_or(malformed)?;
        if first >> 5 != major {
            return Err(malformed);
        }
        let argument = match first & 0x1f {
            short @ 0..=23 => Some(u64::from(short)),
            size @ 24..=27 => {
                let (bytes, after) = rest.split_at_checked(1 << (size - 24)).ok_or(malformed)?;
                rest = after;
                let value = bytes
                    .iter()
                    .fold(0, |value, byte| value << 8 | u64::from(*byte));
                let shorter_would_do = match size {
                    24 => value < 24,
                    25 => value <= u64::from(u8::MAX),
                    26 => value <= u64::from(u16::MAX),
                    _ => value <= u64::from(u32::MAX),
                };
                if shorter_would_do {
                    return Err(malformed);
                }
                Some(value)
            }
            31 if matches!(major, ARRAY | MAP) => None,
            _ => return Err(malformed),
        };
        self.rest = rest;
        Ok(argument)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_every_size_are_read() {
        for (input, value) in [
            (&[0x17][..], 23),
            (&[0x18, 24], 24),
            (&[0x19, 1, 0], 256),
            (&[0x1a, 0, 1, 0, 0], 65536),
            (&[0x1b, 0, 0, 0, 1, 0, 0, 0, 0], 1 << 32),
        ] {
            assert_eq!(Reader::new(input).unsigned("n"), Ok(value));
        }
    }

    #[test]
    fn a_longer_head_than_needed_is_refused() {
        for input in [
            &[0x18, 23][..],
            &[0x19, 0, 255],
            &[0x1a, 0, 0, 255, 255],
            &[0x1b, 0, 0, 0, 0, 255, 255, 255, 255],
        ] {
            assert_eq!(
                Reader::new(input).unsigned("n"),
                Err(StructureError::Item { field: "n" })
            );
        }
    }

    #[test]
    fn a_string_longer_than_its_input_is_refused() {
        let mut reader = Reader::new(&[0x43, 1, 2]);
        assert_eq!(
            reader.bytes("b", 0..=3),
            Err(StructureError::Item { field: "b" })
        );
        let mut reader = Reader::new(&[0x5b, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(
            reader.bytes("b", 0..=3),
            Err(StructureError::Length { field: "b" })
        );
    }

    #[test]
    fn strings_of_indefinite_length_are_refused() {
        let mut reader = Reader::new(&[0x5f, 0x41, 1, 0xff]);
        assert_eq!(
            reader.bytes("b", 0..=3),
            Err(StructureError::Item { field: "b" })
        );
    }

    #[test]
    fn an_unclosed_map_ends_at_its_next_read() {
        let mut reader = Reader::new(&[0xbf]);
        let mut items = reader.map("m").unwrap();
        assert!(reader.has_next(&mut items));
        assert!(reader.unsigned("k").is_err());
    }

    #[test]
    fn both_map_forms_end_where_they_say() {
        for input in [&[0xa1, 1, 2][..], &[0xbf, 1, 2, 0xff]] {
            let mut reader = Reader::new(input);
            let mut items = reader.map("m").unwrap();
            assert!(reader.has_next(&mut items));
            assert_eq!((reader.unsigned("k"), reader.unsigned("v")), (Ok(1), Ok(2)));
            assert!(!reader.has_next(&mut items));
            assert!(!reader.has_next(&mut items));
            assert_eq!(reader.end("m"), Ok(()));
        }
    }
}
