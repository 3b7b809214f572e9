//! Takes a request body in: JSON only, at most so many bytes, in time, into memory that is wiped.

use std::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::error::ApiError;

/// The first buffer of a body that does not announce its length.
const FIRST_BUFFER: usize = 16 * 1024;

pub(crate) async fn read(
    request: Request<Body>,
    limit: usize,
    within: Duration,
) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        return Err(ApiError::not_json());
    }
    if head.headers.contains_key(CONTENT_ENCODING) {
        return Err(ApiError::encoded_body());
    }
    timeout(within, collect(body, limit))
        .await
        .unwrap_or_else(|_elapsed| Err(ApiError::body_too_slow()))
}

async fn collect(mut body: Body, limit: usize) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    use hyper::body::Body as _;

    let announced = body.size_hint().exact().map(usize::try_from);
    let capacity = match announced {
        Some(Ok(length)) if length <= limit => length,
        Some(_) => return Err(ApiError::body_too_large(limit)),
        None => FIRST_BUFFER.min(limit),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_cut| ApiError::body_cut())?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let needed = bytes.len().saturating_add(data.len());
        if needed > limit {
            return Err(ApiError::body_too_large(limit));
        }
        if needed > bytes.capacity() {
            // By hand: growing in place would leave an unwiped copy of the prompt behind.
            let mut larger =
                Zeroizing::new(Vec::with_capacity(needed.saturating_mul(2).min(limit)));
            larger.extend_from_slice(&bytes);
            bytes = larger;
        }
        bytes.extend_from_slice(&data);
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
