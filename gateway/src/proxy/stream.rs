use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use crate::AttestedSession;

/// An answer on its way to the client. Each piece is passed on as it comes; nothing is collected. Dropping it, as happens
/// when the client goes away, resets the stream to the enclave, which stops generating.
pub(super) struct Tethered {
    body: Incoming,
    _session: Arc<AttestedSession>,
    _slot: OwnedSemaphorePermit,
}

impl Tethered {
    pub(super) fn new(
        body: Incoming,
        session: Arc<AttestedSession>,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            body,
            _session: session,
            _slot: slot,
        }
    }
}

impl Body for Tethered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
