//! Where init and the enclave program say what they do: the machine's console, which outside debug mode nobody can read on
//! Nitro, and the parent instance's log port, if something listens there.
//!
//! What is said is never secret: levels are fixed, and the log of the enclave has neither prompts nor keys in it. The
//! parent is not trusted: nothing is read from it, and if it is slow or gone, it is dropped.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::time::Duration;

use vsock::VsockStream;

/// vsock port of the parent that may take log lines.
pub const PORT: u32 = 9001;
/// A parent that does not take a line at once, its socket's buffer being full, gets no more: log writes must not wait for it.
const PATIENCE: Duration = Duration::from_millis(200);
/// Longer lines are cut.
const MAX_LINE: u64 = 8 << 10;

/// Writes lines to both.
pub struct Console {
    parent: Option<VsockStream>,
}

impl Console {
    /// The machine's console alone.
    pub fn new() -> Self {
        Self { parent: None }
    }

    /// From now on, the parent gets every line too, if it listens.
    pub fn tell_parent(&mut self, cid: u32) {
        let stream = VsockStream::connect_with_cid_port(cid, PORT).ok();
        self.parent = stream.filter(|s| s.set_write_timeout(Some(PATIENCE)).is_ok());
    }

    /// A line of init's own.
    pub fn say(&mut self, text: &str) {
        self.line(format!("init: {text}\n").as_bytes());
    }

    /// Passes on `from` line by line until it ends.
    pub fn pass_on(&mut self, from: impl Read) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {
                    if line.last() != Some(&b'\n') {
                        line.push(b'\n');
                    }
                    self.line(&line);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        // Nobody is left to tell when neither takes it.
        io::stderr().write_all(line).ok();
        // One call: a parent that takes a line byte by byte would hold up every writer, and is dropped like one that takes none.
        if let Some(stream) = self.parent.as_mut()
            && stream.write(line).ok() != Some(line.len())
        {
            self.parent = None;
        }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}
