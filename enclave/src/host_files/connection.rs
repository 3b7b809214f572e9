//! One connection to the host's file server, read by the thread that uses it.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::time::Instant;

use super::failure::Failure;

/// Ours have five headers; a proxy in between may add some.
const MAX_HEADERS: usize = 32;
const MAX_HEAD_BYTES: usize = 8 << 10;

/// A socket of any kind, in blocking mode; see [`transport::Stream::into_blocking`].
pub(super) struct Connection {
    stream: UnixStream,
    stall: Duration,
    /// What a read waits for at most, as the kernel was told.
    timeout: Duration,
    /// What has come and was not taken: a head, and the first bytes of its body.
    buffer: Vec<u8>,
    reusable: bool,
}

/// The part of an answer's head that matters.
pub(super) struct Head {
    pub(super) status: u16,
    /// `content-length`, where it is the only thing that says how long the body is.
    pub(super) length: Option<u64>,
    /// `content-range`.
    pub(super) range: Option<String>,
    /// The host did not say that it will close the connection.
    reusable: bool,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, stall: Duration) -> Self {
        Self {
            stream,
            stall,
            timeout: Duration::ZERO,
            buffer: Vec::new(),
            reusable: true,
        }
    }

    pub(super) fn is_reusable(&self) -> bool {
        self.reusable
    }

    /// Sends a request and reads the head of the answer; both have to be done by `until`.
    pub(super) fn exchange(&mut self, request: &[u8], until: Instant) -> Result<Head, Failure> {
        self.wait_at_most(until)?;
        self.stream
            .write_all(request)
            .map_err(|error| self.failure(error, Failure::Unanswered))?;
        // What came before the request answers no question of ours.
        self.buffer.clear();
        loop {
            if self.buffer.len() >= MAX_HEAD_BYTES {
                return Err(Failure::NotHttp);
            }
            self.wait_at_most(until)?;
            self.more()?;
            if let Some((head, length)) = head(&self.buffer)? {
                self.buffer.drain(..length);
                self.reusable = head.reusable;
                return Ok(head);
            }
        }
    }

    /// One read's worth of bytes behind the others.
    fn more(&mut self) -> Result<(), Failure> {
        let old = self.buffer.len();
        self.buffer.resize(MAX_HEAD_BYTES, 0);
        let (_had, room) = self
            .buffer
            .split_at_mut_checked(old)
            .ok_or(Failure::NotHttp)?;
        let read = self.stream.read(room);
        self.buffer.truncate(old + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) if old == 0 => Err(Failure::Unanswered(io::ErrorKind::UnexpectedEof.into())),
            Ok(0) => Err(Failure::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) if old == 0 => Err(self.failure(error, Failure::Unanswered)),
            Err(error) => Err(self.failure(error, Failure::Broken)),
        }
    }

    /// Fills `body`, and adds to `filled` what has come, also when it then fails.
    pub(super) fn body(
        &mut self,
        body: &mut [u8],
        filled: &mut usize,
        until: Instant,
    ) -> Result<(), Failure> {
        let early = self.buffer.len().min(body.len());
        // More than was announced stands where the next head should: nothing is read from here again.
        self.reusable &= early == self.buffer.len();
        self.buffer.truncate(early);
        let (start, mut rest) = body.split_at_mut_checked(early).ok_or(Failure::TooLong)?;
        start.copy_from_slice(&self.buffer);
        self.buffer.clear();
        *filled += early;
        while !rest.is_empty() {
            self.wait_at_most(until)?;
            match self.stream.read(rest) {
                Ok(0) => return Err(Failure::Cut),
                Ok(read) => {
                    *filled += read;
                    (_, rest) = rest.split_at_mut_checked(read).ok_or(Failure::TooLong)?;
                }
                Err(error) => return Err(self.failure(error, Failure::Broken)),
            }
        }
        Ok(())
    }

    /// Bounds the next read by the stall limit and by `until`. The kernel is told only when that changes: nearly never.
    fn wait_at_most(&mut self, until: Instant) -> Result<(), Failure> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Stalled(self.stall));
        }
        let wanted = self.stall.min(left);
        if wanted != self.timeout {
            self.stream
                .set_read_timeout(Some(wanted))
                .and_then(|()| self.stream.set_write_timeout(Some(wanted)))
                .map_err(Failure::Broken)?;
            self.timeout = wanted;
        }
        Ok(())
    }

    fn failure(&self, error: io::Error, otherwise: fn(io::Error) -> Failure) -> Failure {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::Stalled(self.stall),
            _ => otherwise(error),
        }
    }
}

/// The head at the start of `bytes`, and its length; none while it is not whole.
fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let length = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_malformed) => return Err(Failure::NotHttp),
    };
    let (Some(1), Some(status)) = (answer.version, answer.code) else {
        return Err(Failure::NotHttp);
    };
    let mut head = Head {
        status,
        length: None,
        range: None,
        reusable: true,
    };
    let mut framed_otherwise = false;
    for header in answer.headers.iter() {
        let named = |name: &str| header.name.eq_ignore_ascii_case(name);
        let value = || std::str::from_utf8(header.value).ok();
        if named("content-length") {
            // Two lengths are one too many, whatever they say.
            framed_otherwise |= head.length.is_some();
            head.length = value().and_then(number);
        } else if named("transfer-encoding") {
            framed_otherwise = true;
        } else if named("content-range") {
            head.range = value().map(str::to_owned);
        } else if named("connection") {
            head.reusable &=
                !value().is_some_and(|value| value.trim().eq_ignore_ascii_case("close"));
        }
    }
    if framed_otherwise {
        head.length = None;
    }
    Ok(Some((head, length)))
}

/// Digits only: `parse` would take a sign.
fn number(text: &str) -> Option<u64> {
    let digits = text.trim();
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Option<(Head, usize)>, Failure> {
        head(text.as_bytes())
    }

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text = "HTTP/1.1 206 P\r\nContent-Range: bytes 0-9/36\r\ncontent-length: 10\r\nConnection: close\r\n\r\n";
        let (found, length) = read(&format!("{text}0123456789")).unwrap().unwrap();
        assert_eq!(
            (found.status, found.length, length),
            (206, Some(10), text.len())
        );
        assert_eq!(found.range.as_deref(), Some("bytes 0-9/36"));
        assert!(!found.reusable);
        for cut in 0..text.len() {
            assert!(matches!(read(&text[..cut]), Ok(None)), "{cut}");
        }
    }

    #[test]
    fn a_body_whose_length_two_readers_could_read_differently_has_none() {
        for headers in [
            "content-length: 10\r\ncontent-length: 10",
            "content-length: 10\r\nContent-Length: 11",
            "content-length: 10\r\ntransfer-encoding: chunked",
            "transfer-encoding: identity\r\ncontent-length: 10",
            "content-length: +10",
            "content-length: 0x10",
            "content-length: 10, 10",
            "content-length: -1",
            "content-length: 18446744073709551616",
            "content-length:",
        ] {
            let (found, _) = read(&format!("HTTP/1.1 206 P\r\n{headers}\r\n\r\n"))
                .unwrap()
                .unwrap();
            assert_eq!(found.length, None, "{headers}");
        }
    }

    #[test]
    fn what_is_not_http_1_1_is_refused() {
        for text in [
            "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
        ] {
            assert!(matches!(read(text), Err(Failure::NotHttp)), "{text:?}");
        }
        let many = "a: b\r\n".repeat(MAX_HEADERS + 1);
        assert!(read(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(head(&bytes));
            drop(head(&[b"HTTP/1.1 206 P\r\n", bytes.as_slice(), b"\r\n\r\n"].concat()));
        }
    }
}
