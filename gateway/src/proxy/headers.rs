//! Which headers cross the gateway. Everything else, `authorization` and cookies above all, stays here.

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, Request};
use hyper::body::Incoming;

use super::capped::{Capped, Exceeded};
use crate::body::{SessionBody, boxed};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Which sealed model answered.
const MODEL_DIGEST: HeaderName = HeaderName::from_static("x-cloister-model-digest");

const OUTGOING: [HeaderName; 2] = [ACCEPT, CONTENT_TYPE];
const INCOMING: [HeaderName; 5] = [
    CACHE_CONTROL,
    CONTENT_TYPE,
    RETRY_AFTER,
    X_REQUEST_ID,
    MODEL_DIGEST,
];
/// How much of a caller's budget is left; OpenAI clients read these.
const INCOMING_PREFIX: &str = "x-ratelimit-";

/// The request as the enclave sees it: method, path, query, two headers, and at most `cap` bytes of body.
pub(super) fn outgoing(request: Request<Incoming>, cap: usize) -> (Request<SessionBody>, Exceeded) {
    let (parts, body) = request.into_parts();
    let (body, exceeded) = Capped::new(body, cap);
    let mut out = Request::new(boxed(body));
    *out.method_mut() = parts.method;
    *out.uri_mut() = parts.uri;
    for name in OUTGOING {
        if let Some(value) = parts.headers.get(&name) {
            out.headers_mut().insert(name, value.clone());
        }
    }
    (out, exceeded)
}

/// The answer's headers as the client sees them.
pub(super) fn incoming(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| INCOMING.contains(name) || name.as_str().starts_with(INCOMING_PREFIX))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_and_server_names_do_not_come_back() {
        let mut headers = HeaderMap::new();
        for name in [
            "content-type",
            "set-cookie",
            "server",
            "x-ratelimit-remaining-requests",
            "retry-after",
            "x-cloister-model-digest",
            "access-control-allow-origin",
        ] {
            headers.insert(name.parse::<HeaderName>().unwrap(), "x".parse().unwrap());
        }
        let kept = incoming(&headers);
        let mut names: Vec<_> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "content-type",
                "retry-after",
                "x-cloister-model-digest",
                "x-ratelimit-remaining-requests"
            ]
        );
    }
}
