//! Sealed files, read from the host over HTTP/1.1 range requests. The host may answer anything at any pace: every
//! answer is checked for the exact range asked for, every read ends within its deadline, and nothing is believed here
//! (`sealed-model` verifies each byte before it is used).
//!
//! Bodies go from the socket straight into the caller's buffer, on the caller's thread: a general HTTP client costs two more
//! copies of each byte and a change of threads for each piece.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use sealed_model::Source;
use tokio::runtime::Handle;
use tokio::time::Instant;
use transport::Endpoint;

mod connection;
mod failure;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

use connection::{Connection, Head};
use failure::{Failure, ReadError};

/// A range request is tried this often before the read fails; each try goes on where the last one stopped.
/// With the pauses, a host that restarts within three seconds is not noticed.
const ATTEMPTS: u32 = 6;
/// Before the second attempt; doubles after that.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No byte for this long ends an attempt.
const STALL: Duration = Duration::from_secs(10);
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
    connections: Connections,
}

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
            connections: Connections::new(connections),
        }
    }

    /// Runs `attempt` until it succeeds, fails for good, was tried often enough, or the deadline has passed.
    fn retried<T>(
        &self,
        name: &str,
        mut attempt: impl FnMut(Instant) -> Result<T, Failure>,
    ) -> io::Result<T> {
        let until = Instant::now() + self.deadline;
        let mut pause = self.pause;
        let mut tries = 1;
        let failure = loop {
            match attempt(until) {
                Ok(done) => return Ok(done),
                Err(_late) if Instant::now() >= until => break Failure::Deadline(self.deadline),
                Err(failure) if failure.is_passing() && tries < ATTEMPTS => {
                    tracing::debug!(endpoint = %self.endpoint, tries, error = %failure, "reading again");
                    std::thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
                    pause *= 2;
                    tries += 1;
                }
                Err(failure) => break failure,
            }
        };
        let kind = failure.kind();
        let file = format!("{}/{name}", self.package);
        Err(io::Error::new(kind, ReadError { file, failure }))
    }

    fn size_once(&self, name: &str, until: Instant) -> Result<u64, Failure> {
        let slot = self.connections.slot(until)?;
        let (connection, head) = self.exchange("HEAD", name, None, until)?;
        if head.status != 200 {
            return Err(Failure::Status(head.status));
        }
        let size = head.length.ok_or(Failure::NoLength)?;
        if size > MAX_FILE_BYTES {
            return Err(Failure::Size(size));
        }
        slot.keep(connection);
        Ok(size)
    }

    /// Reads on from `offset + filled`; `filled` grows as bytes come, also when the attempt then fails.
    fn read_once(
        &self,
        name: &str,
        offset: u64,
        buffer: &mut [u8],
        filled: &mut usize,
        until: Instant,
    ) -> Result<(), Failure> {
        let slot = self.connections.slot(until)?;
        let wanted = Wanted::new(offset, *filled, buffer.len())?;
        let (mut connection, head) = self.exchange("GET", name, Some(&wanted), until)?;
        wanted.check(&head)?;
        let (_done, rest) = buffer
            .split_at_mut_checked(*filled)
            .ok_or(Failure::TooLong)?;
        connection.body(rest, filled, until)?;
        slot.keep(connection);
        Ok(())
    }

    /// Sends a request and reads the head of its answer.
    fn exchange(
        &self,
        method: &str,
        name: &str,
        wanted: Option<&Wanted>,
        until: Instant,
    ) -> Result<(Connection, Head), Failure> {
        let range = wanted.map_or(String::new(), |wanted| {
            format!("range: bytes={}-{}\r\n", wanted.first, wanted.last)
        });
        let request = format!(
            "{method} /{}/{name} HTTP/1.1\r\nhost: models\r\n{range}\r\n",
            self.package
        );
        let until = until.min(Instant::now() + self.stall);
        // The host closes connections that have rested; that says nothing about the request, which has had no answer.
        while let Some(mut rested) = self.connections.rested() {
            match rested.exchange(request.as_bytes(), until) {
                Err(Failure::Unanswered(_)) => {}
                answered => return answered.map(|head| (rested, head)),
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        let stream = self
            .runtime
            .block_on(async { tokio::time::timeout(left, self.endpoint.connect()).await })
            .map_err(|_elapsed| Failure::Stalled(self.stall))?
            .and_then(transport::Stream::into_blocking)
            .map_err(Failure::Connect)?;
        let mut connection = Connection::new(stream, self.stall);
        let head = connection.exchange(request.as_bytes(), until)?;
        Ok((connection, head))
    }
}

impl Source for HostFiles {
    fn size(&self, name: &str) -> io::Result<u64> {
        plain_path(name)?;
        self.retried(name, |until| self.size_once(name, until))
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        plain_path(name)?;
        if buffer.is_empty() {
            return Ok(());
        }
        let mut filled = 0;
        self.retried(name, |until| {
            self.read_once(name, offset, buffer, &mut filled, until)
        })
    }
}

/// How many connections may be in use, and those that rest.
struct Connections {
    free: Mutex<usize>,
    returned: Condvar,
    rested: Mutex<Vec<Connection>>,
}

impl Connections {
    fn new(most: usize) -> Self {
        Self {
            free: Mutex::new(most),
            returned: Condvar::new(),
            rested: Mutex::new(Vec::new()),
        }
    }

    /// Waits for the right to use a connection.
    fn slot(&self, until: Instant) -> Result<Slot<'_>, Failure> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(Instant::now());
        let (mut free, waited) = self
            .returned
            .wait_timeout_while(free, left, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(Failure::Busy);
        }
        *free = free.saturating_sub(1);
        Ok(Slot(self))
    }

    fn rested(&self) -> Option<Connection> {
        self.rested
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }
}

/// The right to use one connection; free for others when dropped.
struct Slot<'c>(&'c Connections);

impl Slot<'_> {
    /// For the next request, unless the host said that it will close it.
    fn keep(self, connection: Connection) {
        if connection.is_reusable() {
            self.0
                .rested
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free = free.saturating_add(1);
        drop(free);
        self.0.returned.notify_one();
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

    /// The host has to answer with exactly this range, and say so.
    fn check(&self, head: &Head) -> Result<(), Failure> {
        match head.status {
            206 => {}
            416 => return Err(Failure::Short),
            other => return Err(Failure::Status(other)),
        }
        let range = head.range.as_deref();
        let (range, _total) = range
            .and_then(|value| value.strip_prefix("bytes "))
            .and_then(|value| value.split_once('/'))
            .ok_or(Failure::Range)?;
        if range != format!("{}-{}", self.first, self.last) {
            return Err(Failure::Range);
        }
        match head.length {
            Some(length) if length == self.last - self.first + 1 => Ok(()),
            _ => Err(Failure::Length),
        }
    }
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
