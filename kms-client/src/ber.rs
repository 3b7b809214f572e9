//! The few rules of BER (ITU-T X.690) that the answer of KMS needs. What may come next is the caller's to know, so the depth is
//! that of the calls: nothing here follows a structure that the sender chose.

/// Not what was expected at this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unexpected;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
/// `[0]`, primitive and constructed.
pub(crate) const CONTEXT_0: u8 = 0x80;
pub(crate) const CONTEXT_0_CONSTRUCTED: u8 = 0xa0;

const CONSTRUCTED: u8 = 0x20;

enum Length {
    Definite(usize),
    /// Until the end-of-contents octets (X.690 §8.1.3.6).
    Indefinite,
}

pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next tag, which stays.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(crate) fn end(&self) -> Result<(), Unexpected> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Unexpected)
        }
    }

    /// The content of a primitive value.
    pub(crate) fn primitive(&mut self, tag: u8) -> Result<&'a [u8], Unexpected> {
        match self.header(tag)? {
            Length::Definite(length) => self.take(length),
            Length::Indefinite => Err(Unexpected),
        }
    }

    /// A primitive value with exactly this content.
    pub(crate) fn constant(&mut self, tag: u8, content: &[u8]) -> Result<(), Unexpected> {
        if self.primitive(tag)? == content {
            Ok(())
        } else {
            Err(Unexpected)
        }
    }

    /// These very bytes.
    pub(crate) fn literal(&mut self, bytes: &[u8]) -> Result<(), Unexpected> {
        self.rest = self.rest.strip_prefix(bytes).ok_or(Unexpected)?;
        Ok(())
    }

    /// A constructed value of definite or indefinite length, of which `read` takes the content and leaves nothing.
    pub(crate) fn constructed<T>(
        &mut self,
        tag: u8,
        read: impl FnOnce(&mut Self) -> Result<T, Unexpected>,
    ) -> Result<T, Unexpected> {
        match self.header(tag)? {
            Length::Definite(length) => {
                let mut content = Self::new(self.take(length)?);
                let value = read(&mut content)?;
                content.end()?;
                Ok(value)
            }
            Length::Indefinite => {
                let value = read(self)?;
                self.literal(&[0, 0])?;
                Ok(value)
            }
        }
    }

    /// Tag and length; a length has one form only, the shortest, so that no two messages mean the same to us.
    fn header(&mut self, tag: u8) -> Result<Length, Unexpected> {
        self.literal(&[tag])?;
        let [first, rest @ ..] = self.rest else {
            return Err(Unexpected);
        };
        let (length, rest) = match (first, rest) {
            (0..=0x7f, rest) => (Length::Definite(usize::from(*first)), rest),
            (0x80, rest) if tag & CONSTRUCTED != 0 => (Length::Indefinite, rest),
            (0x81, [low @ 0x80..=0xff, rest @ ..]) => (Length::Definite(usize::from(*low)), rest),
            (0x82, [high @ 1..=0xff, low, rest @ ..]) => {
                let length = u16::from_be_bytes([*high, *low]);
                (Length::Definite(usize::from(length)), rest)
            }
            _ => return Err(Unexpected),
        };
        self.rest = rest;
        Ok(length)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Unexpected> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Unexpected)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_one_form() {
        let read = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            reader
                .primitive(OCTET_STRING)
                .map(<[u8]>::len)
                .and_then(|length| reader.end().map(|()| length))
        };
        let with = |head: &[u8], length: usize| [head, &vec![0; length]].concat();
        assert_eq!(read(&with(&[4, 0], 0)), Ok(0));
        assert_eq!(read(&with(&[4, 0x7f], 0x7f)), Ok(0x7f));
        assert_eq!(read(&with(&[4, 0x81, 0x80], 0x80)), Ok(0x80));
        assert_eq!(read(&with(&[4, 0x82, 1, 0], 0x100)), Ok(0x100));
        for (head, length) in [
            (&[4, 0x81, 0x7f][..], 0x7f),
            (&[4, 0x82, 0, 0xff], 0xff),
            (&[4, 0x83, 0, 1, 0], 0x100),
            (&[4, 0x80], 0),
            (&[4, 0xff], 0),
            (&[4], 0),
            (&[], 0),
            (&[5, 0], 0),
        ] {
            assert_eq!(read(&with(head, length)), Err(Unexpected), "{head:?}");
        }
    }

    #[test]
    fn a_constructed_value_leaves_nothing() {
        let read = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            reader
                .constructed(SEQUENCE, |content| content.constant(INTEGER, &[2]))
                .and_then(|()| reader.end())
        };
        assert_eq!(read(&[0x30, 3, 2, 1, 2]), Ok(()));
        assert_eq!(read(&[0x30, 0x80, 2, 1, 2, 0, 0]), Ok(()));
        for bytes in [
            &[0x30, 5, 2, 1, 2, 0, 0][..],
            &[0x30, 4, 2, 1, 2],
            &[0x30, 2, 2, 1, 2],
            &[0x30, 0x80, 2, 1, 2],
            &[0x30, 0x80, 2, 1, 2, 0],
            &[0x30, 0x80, 2, 1, 2, 0, 0, 0],
            &[0x30, 0x80, 2, 1, 2, 4, 0, 0, 0],
            &[0x31, 3, 2, 1, 2],
        ] {
            assert_eq!(read(bytes), Err(Unexpected), "{bytes:?}");
        }
    }
}
