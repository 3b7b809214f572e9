//! Sealed files, read from the host over HTTP/1.1 range requests. The host may answer anything at any pace: every
//! answer is checked for the exact range asked for, every read ends within its deadline, and nothing is believed here
//! (`sealed-model` verifies each byte before it is used).

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HOST, RANGE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use sealed_model::Source;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use transport::Endpoint;

mod failure;
#[cfg(test)]
mod tests;

use failure::{Failure, ReadError};

/// A range request is tried this often before the read fails; each try goes on where the last one stopped.
/// With the pauses, a host that restarts within three seconds is not noticed.
const ATTEMPTS: u32 = 6;
/// Before the second attempt; doubles after that.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No byte for this long ends an attempt.
const STALL: Duration = Duration::from_secs(10);
/// Heads are short; bodies are copied out as they come.
const MAX_BUFFER: usize = 256 * 1024;
const MAX_HEADERS: usize = 32;
/// No sealed file is larger; a size above this is a lie.
const MAX_FILE_BYTES: u64 = 1 << 42;

/// The files of one package on the host. Its calls block: use it from threads that may.
pub struct HostFiles {
    runtime: Handle,
    endpoint: Endpoint,
    package: String,
    deadline: Duration,
    stall: Duration,
    pause: Duration,
    slots: Semaphore,
    idle: Mutex<Vec<Sender>>,
}

type Sender = SendRequest<Empty<Bytes>>;

impl HostFiles {
    /// Reads `package` at `endpoint`, over at most `connections` connections, each read within `deadline`.
    pub fn new(
        runtime: Handle,
        endpoint: Endpoint,
        package: String,
        connections: usize,
        deadline: Duration,
    ) -> Self {
        Self {
            runtime,
            endpoint,
            package,
            deadline,
            stall: STALL.min(deadline),
            pause: FIRST_PAUSE,
            slots: Semaphore::new(connections),
            idle: Mutex::new(Vec::new()),
        }
    }

    async fn within<T>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> io::Result<T> {
        let outcome = match timeout(self.deadline, work).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(Failure::Deadline(self.deadline)),
        };
        outcome.map_err(|failure| {
            let kind = failure.kind();
            io::Error::new(
                kind,
                ReadError {
                    file: format!("{}/{name}", self.package),
                    failure,
                },
            )
        })
    }

    /// Runs `attempt` until it succeeds, fails for good, or was tried often enough.
    async fn retried<T>(
        &self,
        mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut pause = self.pause;
        let mut tries = 1;
        loop {
            match attempt().await {
                Err(failure) if failure.is_passing() && tries < ATTEMPTS => {
                    tracing::debug!(endpoint = %self.endpoint, tries, error = %failure, "reading again");
                    sleep(pause).await;
                    pause *= 2;
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn size_once(&self, name: &str) -> Result<u64, Failure> {
        let _slot = self
            .slots
            .acquire()
            .await
            .map_err(|_closed| Failure::Closed)?;
        let (sender, response) = self.send(Method::HEAD, name, None).await?;
        if response.status() != StatusCode::OK {
            return Err(Failure::Status(response.status().as_u16()));
        }
        let size = content_length(response.headers()).ok_or(Failure::NoLength)?;
        if size > MAX_FILE_BYTES {
            return Err(Failure::Size(size));
        }
        self.give_back(sender);
        Ok(size)
    }

    /// Reads on from `offset + filled`; `filled` grows as bytes come, also when the attempt then fails.
    async fn read_once(
        &self,
        name: &str,
        offset: u64,
        buffer: &mut [u8],
        filled: &mut usize,
    ) -> Result<(), Failure> {
        let _slot = self
            .slots
            .acquire()
            .await
            .map_err(|_closed| Failure::Closed)?;
        let wanted = Wanted::new(offset, *filled, buffer.len())?;
        let (sender, response) = self.send(Method::GET, name, Some(&wanted)).await?;
        wanted.check(&response)?;
        let mut body = response.into_body();
        while !body.is_end_stream() {
            let frame = match timeout(self.stall, body.frame()).await {
                Err(_elapsed) => return Err(Failure::Stalled(self.stall)),
                Ok(None) => break,
                Ok(Some(frame)) => frame.map_err(Failure::Http)?,
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let end = filled.checked_add(data.len()).ok_or(Failure::TooLong)?;
            buffer
                .get_mut(*filled..end)
                .ok_or(Failure::TooLong)?
                .copy_from_slice(&data);
            *filled = end;
        }
        if *filled < buffer.len() {
            return Err(Failure::Cut);
        }
        self.give_back(sender);
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        name: &str,
        wanted: Option<&Wanted>,
    ) -> Result<(Sender, Response<Incoming>), Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/{}/{name}", self.package))
            .header(HOST, "models");
        if let Some(wanted) = wanted {
            request = request.header(RANGE, wanted.header());
        }
        let request = request.body(Empty::new()).map_err(|_uri| Failure::Name)?;
        let until = Instant::now() + self.stall;
        let stalled = |_elapsed| Failure::Stalled(self.stall);
        let mut sender = timeout_at(until, self.connection())
            .await
            .map_err(stalled)??;
        let response = timeout_at(until, sender.send_request(request))
            .await
            .map_err(stalled)?
            .map_err(Failure::Http)?;
        Ok((sender, response))
    }

    /// An idle connection that is still good, or a new one.
    async fn connection(&self) -> Result<Sender, Failure> {
        while let Some(mut sender) = self.take() {
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = self.endpoint.connect().await.map_err(Failure::Connect)?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Failure::Http)?;
        // Ends by itself when the sender is dropped; its error reaches us through the request it broke.
        drop(self.runtime.spawn(connection));
        Ok(sender)
    }

    fn take(&self) -> Option<Sender> {
        self.idle.lock().ok()?.pop()
    }

    fn give_back(&self, sender: Sender) {
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(sender);
        }
    }
}

impl Source for HostFiles {
    fn size(&self, name: &str) -> io::Result<u64> {
        plain_path(name)?;
        self.runtime
            .block_on(self.within(name, self.retried(async || self.size_once(name).await)))
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        plain_path(name)?;
        if buffer.is_empty() {
            return Ok(());
        }
        let mut filled = 0;
        self.runtime.block_on(self.within(
            name,
            self.retried(async || self.read_once(name, offset, buffer, &mut filled).await),
        ))
    }
}

/// The bytes an attempt still needs.
struct Wanted {
    first: u64,
    last: u64,
}

impl Wanted {
    fn new(offset: u64, filled: usize, length: usize) -> Result<Self, Failure> {
        let at = |bytes: usize| {
            u64::try_from(bytes)
                .ok()
                .and_then(|bytes| offset.checked_add(bytes))
                .ok_or(Failure::Offset)
        };
        Ok(Self {
            first: at(filled)?,
            last: at(length)?.saturating_sub(1),
        })
    }

    fn header(&self) -> String {
        format!("bytes={}-{}", self.first, self.last)
    }

    fn length(&self) -> u64 {
        self.last - self.first + 1
    }

    /// The host has to answer with exactly this range, and say so.
    fn check<B>(&self, response: &Response<B>) -> Result<(), Failure> {
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(Failure::Short),
            other => return Err(Failure::Status(other.as_u16())),
        }
        let range = response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|value| value.to_str().ok());
        let (range, _total) = range
            .and_then(|value| value.strip_prefix("bytes "))
            .and_then(|value| value.split_once('/'))
            .ok_or(Failure::Range)?;
        if range != format!("{}-{}", self.first, self.last) {
            return Err(Failure::Range);
        }
        match content_length(response.headers()) {
            Some(length) if length == self.length() => Ok(()),
            _ => Err(Failure::Length),
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Names come from a signed manifest; this only keeps a strange one from becoming another request.
fn plain_path(name: &str) -> io::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '/');
    let safe = name.chars().all(plain)
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
    if safe {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a plain file name",
        ))
    }
}
