//! The first question, asked as any OpenAI client would: plain HTTP to the local proxy, answer streamed.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Longest silence between two pieces.
const SILENCE: Duration = Duration::from_secs(120);
/// One server-sent event of ours is far smaller.
const MAX_EVENT: usize = 1 << 20;

/// What the answer cost.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) first_piece: Duration,
    pub(super) total: Duration,
    pub(super) completion_tokens: u64,
}

/// Streams the answer to `question`, handing each piece to `piece` as it comes.
pub(super) async fn chat(
    port: u16,
    model: &str,
    question: &str,
    mut piece: impl FnMut(&str),
) -> Result<Answer> {
    let body = json!({
        "model": model,
        "stream": true,
        "stream_options": {"include_usage": true},
        "temperature": 0,
        "max_tokens": 160,
        "messages": [{"role": "user", "content": question}],
    });
    let started = Instant::now();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::post("/v1/chat/completions")
        .header("host", format!("127.0.0.1:{port}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))?;
    let mut response = timeout(SILENCE, sender.send_request(request))
        .await
        .context("the gateway did not answer")??;
    if !response.status().is_success() {
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        bail!("{status}: {}", String::from_utf8_lossy(&body));
    }

    let mut answer = Answer {
        text: String::new(),
        first_piece: Duration::ZERO,
        total: Duration::ZERO,
        completion_tokens: 0,
    };
    let mut buffer = Vec::new();
    'stream: while let Some(frame) = timeout(SILENCE, response.frame())
        .await
        .context("the answer stalled")?
    {
        if let Ok(data) = frame?.into_data() {
            buffer.extend_from_slice(&data);
        }
        anyhow::ensure!(buffer.len() <= MAX_EVENT, "an event of over 1 MiB");
        while let Some(end) = buffer.windows(2).position(|w| w == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            let Some(data) = event.strip_prefix(b"data: ") else {
                continue;
            };
            if data.trim_ascii() == b"[DONE]" {
                break 'stream;
            }
            let value: Value = serde_json::from_slice(data).context("an event is not JSON")?;
            if let Some(error) = value.get("error") {
                bail!("{error}");
            }
            if let Some(tokens) = value
                .pointer("/usage/completion_tokens")
                .and_then(Value::as_u64)
            {
                answer.completion_tokens = tokens;
            }
            if let Some(text) = value
                .pointer("/choices/0/delta/content")
                .and_then(Value::as_str)
                .filter(|t| !t.is_empty())
            {
                if answer.text.is_empty() {
                    answer.first_piece = started.elapsed();
                }
                answer.text.push_str(text);
                piece(text);
            }
        }
    }
    answer.total = started.elapsed();
    driver.abort();
    Ok(answer)
}

/// Vectors for `inputs`, in order.
pub(super) async fn embed(port: u16, model: &str, inputs: &[&str]) -> Result<Vec<Vec<f32>>> {
    let body = json!({"model": model, "input": inputs});
    let endpoint = format!("tcp://127.0.0.1:{port}");
    let (status, body) =
        crate::stack::post_json(&endpoint, "/v1/embeddings", Bytes::from(body.to_string())).await?;
    let value: Value = serde_json::from_slice(&body)?;
    anyhow::ensure!(status == 200, "{status}: {value}");
    let data = value
        .get("data")
        .and_then(Value::as_array)
        .context("no data")?;
    data.iter()
        .map(|item| {
            serde_json::from_value(item.get("embedding").cloned().unwrap_or_default())
                .context("an embedding is not a list of numbers")
        })
        .collect()
}

/// Cosine of two vectors of one length.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot: f32 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    dot / (norm(a) * norm(b)).max(f32::MIN_POSITIVE)
}
