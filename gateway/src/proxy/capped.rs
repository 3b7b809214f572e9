use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::{LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::BoxError;

/// Set when a body turned out longer than its cap. HTTP/2 reports only that its stream was reset.
pub(super) type Exceeded = Arc<AtomicBool>;

/// A request body that ends in an error beyond its cap. Trailers stay here, as other headers do.
pub(super) struct Capped {
    body: Limited<Incoming>,
    exceeded: Exceeded,
}

impl Capped {
    pub(super) fn new(body: Incoming, cap: usize) -> (Self, Exceeded) {
        let exceeded = Exceeded::default();
        let capped = Self {
            body: Limited::new(body, cap),
            exceeded: Arc::clone(&exceeded),
        };
        (capped, exceeded)
    }
}

impl Body for Capped {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) if !frame.is_data() => {}
                Some(Err(error)) => {
                    if error.is::<LengthLimitError>() {
                        self.exceeded.store(true, Ordering::Release);
                    }
                    return Poll::Ready(Some(Err(error)));
                }
                data => return Poll::Ready(data),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
