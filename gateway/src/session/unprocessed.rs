//! Which failures say that the server has not acted on a request, although it was sent.

use std::error::Error;

/// Whether the server named, in a GOAWAY without an error, a last stream before the request's: such a stream "might be retried on a new
/// connection" (RFC 9113 section 6.8). It happens to requests that cross the end of a connection: the server has said goodbye, and is
/// heard a moment later.
pub(super) fn certainly(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away()
                && error.is_remote()
                && error.reason() == Some(h2::Reason::NO_ERROR);
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use http_body_util::Empty;
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// SETTINGS without a parameter.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

    /// What becomes of the first request on a connection whose server answers it with these bytes and hangs up.
    async fn outcome(answer: &[u8]) -> hyper::Error {
        let (ours, mut theirs) = duplex(64 << 10);
        let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
            .handshake::<_, Empty<Bytes>>(TokioIo::new(ours))
            .await
            .unwrap();
        tokio::spawn(connection);
        theirs.write_all(&SETTINGS).await.unwrap();
        let request = Request::get("https://enclave/").body(Empty::new()).unwrap();
        let sent = tokio::spawn(async move { sender.send_request(request).await });
        // Past the preface and the settings, to the request's HEADERS frame.
        let mut seen = Vec::new();
        while !seen.windows(4).any(|bytes| bytes == [1, 5, 0, 0]) {
            let mut buffer = [0; 4096];
            let count = theirs.read(&mut buffer).await.unwrap();
            seen.extend_from_slice(&buffer[..count]);
        }
        theirs.write_all(answer).await.unwrap();
        drop(theirs);
        sent.await.unwrap().unwrap_err()
    }

    /// A GOAWAY frame: the last stream that was processed, and why.
    fn goodbye(last_stream: u8, reason: u8) -> Vec<u8> {
        let head = [0, 0, 8, 7, 0, 0, 0, 0, 0];
        [&head[..], &[0, 0, 0, last_stream], &[0, 0, 0, reason]].concat()
    }

    #[tokio::test]
    async fn a_stream_behind_the_last_one_was_not_processed() {
        assert!(certainly(&outcome(&goodbye(0, 0)).await));
    }

    #[tokio::test]
    async fn any_other_end_may_have_come_after_the_request_was_processed() {
        for answer in [
            // The request's own stream is 1.
            goodbye(1, 0),
            // For an error of its own, the server may have done anything.
            goodbye(0, 2),
            // RST_STREAM: internal error.
            vec![0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2],
            Vec::new(),
        ] {
            let error = outcome(&answer).await;
            assert!(!certainly(&error), "{answer:?}: {error:?}");
        }
    }
}
