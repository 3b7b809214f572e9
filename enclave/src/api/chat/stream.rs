//! A chat answer as server-sent events: the role, the text as it is made, the reason it ended, `[DONE]`. Dropping the
//! stream drops the engine's receiver, and that cancels the request.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;

use bytes::Bytes;
use engine::{ChatEvent, EngineError, ToolCall};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::mpsc::Receiver;

use super::answer::Head;
use super::chunk::Chunk;
use super::whole::with_id;
use crate::api::error::ApiError;
use crate::api::server_sent::{self, DONE};

/// `first` was already taken from `events`.
pub(crate) fn chunks(
    head: Head,
    choices: u32,
    first: ChatEvent,
    events: Receiver<ChatEvent>,
    with_usage: bool,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let mut answer = Answer {
        head,
        events,
        with_usage,
        calls: HashMap::new(),
        ready: VecDeque::new(),
        ended: false,
    };
    for choice in 0..choices {
        answer.push(|head| Chunk::role(head, choice));
    }
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
    /// How many calls each choice has made.
    calls: HashMap<u32, u32>,
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
            ChatEvent::Delta(piece) => self.push(|head| Chunk::text(head, &piece)),
            ChatEvent::ToolCall { choice, call } => self.call(choice, call),
            ChatEvent::Ended {
                choice,
                finish_reason,
            } => self.push(|head| Chunk::finish(head, choice, finish_reason)),
            ChatEvent::Done { usage } => {
                if self.with_usage {
                    self.push(|head| Chunk::usage(head, usage));
                }
                self.ready.push_back(DONE);
                self.ended = true;
            }
            ChatEvent::Failed(error) => self.fail(&ApiError::engine(&error, "messages")),
        }
    }

    fn call(&mut self, choice: u32, call: ToolCall) {
        match with_id(call) {
            Ok(call) => {
                let made = self.calls.entry(choice).or_default();
                let index = *made;
                *made += 1;
                self.push(|head| Chunk::call(head, choice, index, &call));
            }
            Err(error) => self.fail(&error),
        }
    }

    /// The status is long sent; an error object in the stream, and no `[DONE]`, is what clients look for.
    fn fail(&mut self, error: &ApiError) {
        self.ready.extend(server_sent::event(&error.body()));
        self.ended = true;
    }

    fn push<'a>(&'a mut self, chunk: impl FnOnce(&'a Head) -> Chunk<'a>) {
        let Self {
            head,
            ready,
            with_usage,
            ..
        } = self;
        ready.extend(server_sent::event(&chunk(head).with_usage(*with_usage)));
    }
}
