//! A part of a file as the body of an answer.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use metrics::Counter;
use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};

use super::Body;

/// Read ahead of one request; what a slow reader can make us hold.
const CHUNK: usize = 256 << 10;
/// Buffers that rest between answers. More are made when more are needed at once, one or two for each connection.
const RESTING: usize = 16;

/// Buffers of [`CHUNK`] bytes. Fresh memory for each piece costs more than reading the piece from the page cache.
#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let rested = self.lock().pop();
        rested.unwrap_or_else(|| vec![0; CHUNK])
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first bytes of a buffer, which goes back when they have been sent.
struct Piece {
    buffers: Arc<Buffers>,
    bytes: Vec<u8>,
    length: usize,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut resting = self.buffers.lock();
        if resting.len() < RESTING {
            resting.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// `length` bytes of `file` from `first` on, counted by `sent`. A piece is read when the connection asks for it, so memory does
/// not depend on the reader's speed.
pub(super) fn body(
    file: File,
    first: u64,
    length: u64,
    buffers: &Arc<Buffers>,
    sent: Counter,
) -> Body {
    // From a cold disk all of the part is asked for at once, not a window at a time. Only advice: without it reading is slower.
    fadvise(&file, first, length.try_into().ok(), Advice::WillNeed).ok();
    let part = Part {
        file: Arc::new(file),
        at: first,
        left: length,
        buffers: Arc::clone(buffers),
    };
    let pieces = unfold((part, sent), |(mut part, sent)| async move {
        let piece = part.next().await?;
        let frame = piece.map(|piece| {
            sent.increment(piece.length as u64);
            Frame::data(Bytes::from_owner(piece))
        });
        Some((frame, (part, sent)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
    buffers: Arc<Buffers>,
}

impl Part {
    async fn next(&mut self) -> Option<io::Result<Piece>> {
        let length = usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK);
        if length == 0 {
            return None;
        }
        let mut piece = Piece {
            buffers: Arc::clone(&self.buffers),
            bytes: self.buffers.take(),
            length,
        };
        let read = match cached(&self.file, self.at, &mut piece) {
            true => Ok(piece),
            false => from_disk(Arc::clone(&self.file), self.at, piece).await,
        };
        match read {
            Ok(piece) => {
                self.at += piece.length as u64;
                self.left = self.left.saturating_sub(piece.length as u64);
                Some(Ok(piece))
            }
            Err(error) => {
                // Nothing follows an error.
                self.left = 0;
                Some(Err(error))
            }
        }
    }
}

/// Reads what is in the page cache, where all of the piece is. Nothing here waits for a disk, so no other thread is needed.
fn cached(file: &File, at: u64, piece: &mut Piece) -> bool {
    let Some(bytes) = piece.bytes.get_mut(..piece.length) else {
        return false;
    };
    let read = preadv2(
        file,
        &mut [IoSliceMut::new(bytes)],
        at,
        ReadWriteFlags::NOWAIT,
    );
    read.is_ok_and(|read| read == piece.length)
}

/// An end that comes early is an error: the length was promised in the head.
async fn from_disk(file: Arc<File>, at: u64, mut piece: Piece) -> io::Result<Piece> {
    let read = tokio::task::spawn_blocking(move || {
        let bytes = piece.bytes.get_mut(..piece.length);
        file.read_exact_at(bytes.unwrap_or_default(), at)?;
        Ok(piece)
    });
    read.await.map_err(io::Error::other)?
}
