//! A request body that can be sent from its beginning once more, as long as it is small: a request may meet a connection that has
//! just said goodbye.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::BoxError;
use crate::body::{SessionBody, boxed};

/// Prompts are shorter. What is longer goes out once.
const MOST: usize = 1 << 20;

pub(super) struct Replay(Arc<Mutex<State>>);

struct State {
    /// What was read of `rest` so far, unless that is too much.
    seen: Vec<Bytes>,
    bytes: usize,
    whole: bool,
    rest: SessionBody,
}

impl Replay {
    /// What to send in place of `body`, and how to get that again.
    pub(super) fn new(body: SessionBody) -> (Self, SessionBody) {
        let replay = Self(Arc::new(Mutex::new(State {
            seen: Vec::new(),
            bytes: 0,
            whole: true,
            rest: body,
        })));
        let first = replay.reader();
        (replay, first)
    }

    /// The body from its beginning; `None` if that is not there any more. Whoever asks has done with the one before.
    pub(super) fn again(&self) -> Option<SessionBody> {
        let whole = lock(&self.0).whole;
        whole.then(|| self.reader())
    }

    fn reader(&self) -> SessionBody {
        boxed(Reader {
            state: Arc::clone(&self.0),
            next: 0,
        })
    }
}

/// Nothing in here leaves the state half changed.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Reader {
    state: Arc<Mutex<State>>,
    /// Index in what was seen of the next piece to pass on.
    next: usize,
}

impl Body for Reader {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let reader = self.get_mut();
        let mut state = lock(&reader.state);
        if state.whole
            && let Some(piece) = state.seen.get(reader.next)
        {
            reader.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let frame = ready!(Pin::new(&mut state.rest).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(piece) = frame.data_ref()
        {
            state.bytes = state.bytes.saturating_add(piece.len());
            state.whole &= state.bytes <= MOST;
            if state.whole {
                state.seen.push(piece.clone());
                reader.next += 1;
            } else {
                state.seen = Vec::new();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let state = lock(&self.state);
        let has_more = state.whole && self.next < state.seen.len();
        !has_more && state.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let state = lock(&self.state);
        let seen = state.seen.iter().skip(self.next);
        let seen = seen.map(|piece| piece.len() as u64).sum::<u64>();
        let rest = state.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(seen));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(seen));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
    use tokio_stream::iter;

    use super::*;

    fn pieces(pieces: &'static [&'static str]) -> SessionBody {
        let frames = pieces
            .iter()
            .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece.as_bytes()))));
        boxed(StreamBody::new(iter(frames)))
    }

    async fn next(body: &mut SessionBody) -> Bytes {
        body.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test]
    async fn a_body_that_was_read_in_part_or_whole_begins_again() {
        let (replay, mut first) = Replay::new(pieces(&["one", "two", "three"]));
        assert_eq!(next(&mut first).await, "one");
        assert_eq!(next(&mut first).await, "two");
        drop(first);
        for _ in 0..2 {
            let again = replay.again().unwrap().collect().await.unwrap().to_bytes();
            assert_eq!(again, "onetwothree");
        }
    }

    #[tokio::test]
    async fn its_length_is_told_from_wherever_it_is_read() {
        let (replay, mut first) = Replay::new(boxed(Full::new(Bytes::from_static(b"prompt"))));
        assert_eq!(first.size_hint().exact(), Some(6));
        assert!(!first.is_end_stream());
        next(&mut first).await;
        assert_eq!(first.size_hint().exact(), Some(0));
        assert!(first.is_end_stream());
        let again = replay.again().unwrap();
        assert_eq!(again.size_hint().exact(), Some(6));
        assert!(!again.is_end_stream());
        let (_replay, empty) = Replay::new(boxed(Empty::new()));
        assert!(empty.is_end_stream());
    }

    #[tokio::test]
    async fn a_long_body_goes_out_once_and_whole() {
        let long = Bytes::from(vec![b'x'; MOST / 2 + 1]);
        let frames = [long.clone(), long.clone(), Bytes::from_static(b"end")];
        let expected = frames.concat();
        let frames = frames.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        let (replay, first) = Replay::new(boxed(StreamBody::new(iter(frames))));
        let sent = first.collect().await.unwrap().to_bytes();
        assert!(sent == expected);
        assert!(replay.again().is_none());
        assert!(lock(&replay.0).seen.is_empty());
    }
}
