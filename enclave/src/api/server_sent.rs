//! Server-sent events.

use bytes::Bytes;
use serde::Serialize;

/// What ends a stream that is whole.
pub(crate) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// `data: {json}` and an empty line. JSON holds no raw line break, so one event is one line.
pub(crate) fn event(json: &impl Serialize) -> Option<Bytes> {
    let mut bytes = b"data: ".to_vec();
    serde_json::to_writer(&mut bytes, json).ok()?;
    bytes.extend_from_slice(b"\n\n");
    Some(bytes.into())
}
