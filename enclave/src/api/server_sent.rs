//! Server-sent events: what the model makes, as it is made. Dropping the stream drops the engine's receivers, and that cancels the
//! request.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use engine::{ChatEvent, EngineError};
use futures_util::Stream;
use futures_util::stream::unfold;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;
use tokio::sync::mpsc::Receiver;

use super::error::ApiError;

/// What ends a stream that is whole.
const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// How events of the engine are written.
pub(crate) trait Writer: Send + 'static {
    /// What one event adds, of the request's part `source`; a part ends with [`ChatEvent::Done`].
    ///
    /// # Errors
    /// Ends the stream.
    fn write(&mut self, source: usize, event: ChatEvent, to: &mut Events) -> Result<(), ApiError>;

    /// The field that holds the text, for errors.
    fn param(&self) -> &'static str;

    /// What is said before `[DONE]`.
    fn finish(&mut self, to: &mut Events);
}

/// Events that are ready to be sent.
#[derive(Default)]
pub(crate) struct Events(VecDeque<Bytes>);

impl Events {
    /// `data: {json}` and an empty line. JSON holds no raw line break, so one event is one line.
    pub(crate) fn push(&mut self, json: &impl Serialize) {
        let mut bytes = b"data: ".to_vec();
        if serde_json::to_writer(&mut bytes, json).is_ok() {
            bytes.extend_from_slice(b"\n\n");
            self.0.push_back(bytes.into());
        }
    }
}

/// All answers to one request.
pub(crate) struct Sources(Vec<Receiver<ChatEvent>>);

impl Sources {
    pub(crate) fn new(receivers: Vec<Receiver<ChatEvent>>) -> Self {
        Self(receivers)
    }

    /// The next event of any, and whose it is.
    pub(crate) async fn next(&mut self) -> (usize, ChatEvent) {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(usize, ChatEvent)> {
        let mut open = false;
        for (source, receiver) in self.0.iter_mut().enumerate() {
            match receiver.poll_recv(context) {
                Poll::Ready(Some(event)) => return Poll::Ready((source, event)),
                // It has ended; before its end, the engine's thread is gone, which is found out below.
                Poll::Ready(None) => {}
                Poll::Pending => open = true,
            }
        }
        match open {
            true => Poll::Pending,
            false => Poll::Ready((0, ChatEvent::Failed(EngineError::Internal))),
        }
    }
}

/// The answer as a stream. The first event decides the status: a request that fails before its first token is an error like any other.
///
/// # Errors
/// What `failed` makes of that failure.
pub(crate) async fn begin(
    writer: impl Writer,
    mut sources: Sources,
    failed: impl FnOnce(EngineError) -> ApiError,
) -> Result<Response, ApiError> {
    let first = match sources.next().await {
        (_, ChatEvent::Failed(error)) => return Err(failed(error)),
        first => first,
    };
    Ok(respond(stream(writer, first, sources)))
}

/// `first` was already taken from `sources`.
pub(crate) fn stream(
    writer: impl Writer,
    first: (usize, ChatEvent),
    sources: Sources,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let mut answer = Answer {
        writer,
        open: sources.0.len(),
        sources,
        ready: Events::default(),
    };
    answer.take(first);
    unfold(answer, |mut answer| async move {
        let bytes = answer.next().await?;
        Some((Ok(bytes), answer))
    })
}

fn respond(stream: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(stream)).into_response()
}

struct Answer<W> {
    writer: W,
    sources: Sources,
    /// How many have not ended; 0 ends the stream.
    open: usize,
    ready: Events,
}

impl<W: Writer> Answer<W> {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.0.pop_front() {
                return Some(bytes);
            }
            if self.open == 0 {
                return None;
            }
            let event = self.sources.next().await;
            self.take(event);
        }
    }

    fn take(&mut self, (source, event): (usize, ChatEvent)) {
        let done = matches!(event, ChatEvent::Done { .. });
        let written = match event {
            ChatEvent::Failed(error) => Err(ApiError::engine(&error, self.writer.param())),
            event => self.writer.write(source, event, &mut self.ready),
        };
        if let Err(error) = written {
            // The status is long sent; an error object in the stream, and no `[DONE]`, is what clients look for.
            self.ready.push(&error.body());
            self.open = 0;
        } else if done {
            self.open -= 1;
            if self.open == 0 {
                self.writer.finish(&mut self.ready);
                self.ready.0.push_back(DONE);
            }
        }
    }
}
