//! Takes a request body in: JSON only, at most so many bytes, in time, into memory that is wiped and of which there is only
//! so much for all callers together.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::error::ApiError;

/// The first buffer, whatever length is announced: whoever sends slowly holds little.
const FIRST_BUFFER: usize = 16 * 1024;
/// The unit in which memory is counted, so that the counts stay small.
const UNIT: usize = 1024;

/// Memory for all bodies of one kind: requests that are being read or parsed, or answers that are being taken.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(crate) fn mebibytes(count: usize) -> Self {
        let units = count.saturating_mul(1024 * 1024 / UNIT);
        Self(Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))))
    }

    /// Counts an answer for as long as any part of it is in memory: whoever asks and does not read can hold that back
    /// for the life of the connection.
    ///
    /// # Errors
    /// Overloaded, when the answers that nobody takes fill the budget.
    pub(crate) fn answer(&self, json: Vec<u8>) -> Result<Body, ApiError> {
        let held = self.take(json.len())?;
        let answer = Answer {
            json: Zeroizing::new(json),
            _held: held,
        };
        Ok(Body::from(bytes::Bytes::from_owner(answer)))
    }

    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).map_err(|_huge| ApiError::overloaded())?;
        Arc::clone(&self.0)
            .try_acquire_many_owned(units)
            .map_err(|_full| ApiError::overloaded())
    }
}

/// A body in memory; dropping it wipes it and gives its memory back.
pub(crate) struct Bytes {
    bytes: Zeroizing<Vec<u8>>,
    /// Given back on drop.
    _held: OwnedSemaphorePermit,
}

/// An answer that waits for its reader, and the memory it is counted with.
struct Answer {
    json: Zeroizing<Vec<u8>>,
    /// Given back on drop.
    _held: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bytes {
    fn new(budget: &Budget, capacity: usize) -> Result<Self, ApiError> {
        let held = budget.take(capacity)?;
        Ok(Self {
            bytes: Zeroizing::new(Vec::with_capacity(capacity)),
            _held: held,
        })
    }

    fn push(&mut self, data: &[u8], budget: &Budget, limit: usize) -> Result<(), ApiError> {
        let needed = self.bytes.len().saturating_add(data.len());
        if needed > limit {
            return Err(ApiError::body_too_large(limit));
        }
        if needed > self.bytes.capacity() {
            // By hand: growing in place would leave an unwiped copy of the prompt behind.
            let mut larger = Self::new(budget, needed.saturating_mul(2).min(limit))?;
            larger.bytes.extend_from_slice(&self.bytes);
            *self = larger;
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

pub(crate) async fn read(
    request: Request<Body>,
    limit: usize,
    within: Duration,
    budget: &Budget,
) -> Result<Bytes, ApiError> {
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        return Err(ApiError::not_json());
    }
    if head.headers.contains_key(CONTENT_ENCODING) {
        return Err(ApiError::encoded_body());
    }
    timeout(within, collect(body, limit, budget))
        .await
        .unwrap_or_else(|_elapsed| Err(ApiError::body_too_slow()))
}

async fn collect(mut body: Body, limit: usize, budget: &Budget) -> Result<Bytes, ApiError> {
    let announced = body.size_hint().lower();
    if usize::try_from(announced).map_or(true, |announced| announced > limit) {
        return Err(ApiError::body_too_large(limit));
    }
    let mut bytes = Bytes::new(budget, FIRST_BUFFER.min(limit))?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_cut| ApiError::body_cut())?;
        if let Ok(data) = frame.into_data() {
            bytes.push(&data, budget, limit)?;
        }
    }
    Ok(bytes)
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim());
    media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json"))
}
