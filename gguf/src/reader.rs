use std::io::{self, Read};

use super::{MAX_HEADER, Problem};

/// Little-endian values from a header, none beyond the file or [`MAX_HEADER`], no buffer before its length was checked.
pub(super) struct Reader<R> {
    inner: R,
    at: u64,
    /// Where reading ends, and why.
    end: u64,
    beyond: fn() -> Problem,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(inner: R, len: u64) -> Self {
        Self {
            inner,
            at: 0,
            end: len.min(MAX_HEADER),
            beyond: match len > MAX_HEADER {
                true => || Problem::HeaderLength,
                false => || Problem::Short,
            },
        }
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        self.advance(N as u64)?;
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(Problem::Read)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Problem> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Problem> {
        self.bytes().map(u64::from_le_bytes)
    }

    pub(super) fn count(&mut self, what: &'static str, max: u64) -> Result<u64, Problem> {
        let claimed = self.u64()?;
        match claimed <= max {
            true => Ok(claimed),
            false => Err(Problem::Count { what, claimed, max }),
        }
    }

    /// A length, then that many bytes.
    pub(super) fn string(&mut self, what: &'static str, max: u64) -> Result<Vec<u8>, Problem> {
        let claimed = self.string_len(what, max)?;
        let too_long = Problem::StringLength { what, claimed, max };
        let mut bytes = vec![0; usize::try_from(claimed).map_err(|_wide| too_long)?];
        self.inner.read_exact(&mut bytes).map_err(Problem::Read)?;
        Ok(bytes)
    }

    /// A string that is not empty and has nothing that a terminal would obey.
    pub(super) fn text(&mut self, what: &'static str, max: u64) -> Result<String, Problem> {
        String::from_utf8(self.string(what, max)?)
            .ok()
            .filter(|text| !text.is_empty() && !text.chars().any(char::is_control))
            .ok_or(Problem::Text { what })
    }

    pub(super) fn skip_string(&mut self, what: &'static str, max: u64) -> Result<(), Problem> {
        let len = self.string_len(what, max)?;
        self.pass(len)
    }

    pub(super) fn skip(&mut self, len: u64) -> Result<(), Problem> {
        self.advance(len)?;
        self.pass(len)
    }

    fn string_len(&mut self, what: &'static str, max: u64) -> Result<u64, Problem> {
        let claimed = self.u64()?;
        if claimed > max || claimed > self.end - self.at {
            return Err(Problem::StringLength { what, claimed, max });
        }
        self.advance(claimed)?;
        Ok(claimed)
    }

    fn advance(&mut self, len: u64) -> Result<(), Problem> {
        self.at = self
            .at
            .checked_add(len)
            .filter(|at| *at <= self.end)
            .ok_or_else(self.beyond)?;
        Ok(())
    }

    fn pass(&mut self, len: u64) -> Result<(), Problem> {
        let passed = io::copy(&mut self.inner.by_ref().take(len), &mut io::sink());
        match passed.map_err(Problem::Read)? == len {
            true => Ok(()),
            false => Err(Problem::Short),
        }
    }
}
