//! A chat answer as server-sent events: the role, the text as it is made, the reason it ended, `[DONE]`. Dropping the
//! stream drops the engine's receiver, and that cancels the request.

use std::collections::VecDeque;
use std::convert::Infallible;

use bytes::Bytes;
use engine::{ChatEvent, EngineError};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;
use tokio::sync::mpsc::Receiver;

use super::answer::{Chunk, Delta, Head};
use crate::api::error::ApiError;

/// `first` was already taken from `events`.
pub(crate) fn chunks(
    head: Head,
    first: ChatEvent,
    events: Receiver<ChatEvent>,
    with_usage: bool,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let mut answer = Answer {
        head,
        events,
        with_usage,
        ready: VecDeque::new(),
        ended: false,
    };
    answer.push_chunk(|head, usage| Chunk::delta(head, Delta::role(), usage));
    answer.take(first);
    unfold(answer, |mut answer| async move {
        let bytes = answer.next().await?;
        Some((Ok(bytes), answer))
    })
}

struct Answer {
    head: Head,
    events: Receiver<ChatEvent>,
    with_usage: bool,
    ready: VecDeque<Bytes>,
    ended: bool,
}

impl Answer {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if self.ended {
                return None;
            }
            match self.events.recv().await {
                Some(event) => self.take(event),
                None => self.take(ChatEvent::Failed(EngineError::Internal)),
            }
        }
    }

    fn take(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Delta(text) => {
                self.push_chunk(|head, usage| {
                    Chunk::delta(head, Delta::text(text.expose()), usage)
                });
            }
            ChatEvent::Done {
                finish_reason,
                usage,
            } => {
                self.push_chunk(|head, with| Chunk::finish(head, finish_reason, with));
                if self.with_usage {
                    self.push_chunk(|head, _| Chunk::usage(head, usage));
                }
                self.ready
                    .push_back(Bytes::from_static(b"data: [DONE]\n\n"));
                self.ended = true;
            }
            // The status is long sent; an error object in the stream, and no `[DONE]`, is what clients look for.
            ChatEvent::Failed(error) => {
                let error = ApiError::engine(&error, "messages");
                self.ready.extend(server_sent(&error.body()));
                self.ended = true;
            }
        }
    }

    fn push_chunk<'a>(&'a mut self, chunk: impl FnOnce(&'a Head, bool) -> Chunk<'a>) {
        let Self {
            head,
            ready,
            with_usage,
            ..
        } = self;
        ready.extend(server_sent(&chunk(head, *with_usage)));
    }
}

/// `data: {json}` and an empty line. JSON holds no raw line break, so one event is one line.
fn server_sent(json: &impl Serialize) -> Option<Bytes> {
    let mut bytes = b"data: ".to_vec();
    serde_json::to_writer(&mut bytes, json).ok()?;
    bytes.extend_from_slice(b"\n\n");
    Some(bytes.into())
}
