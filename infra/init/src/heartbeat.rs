//! The boot heartbeat: one byte to the parent instance, which sends it back (AWS `enclaves-sdk-bootstrap`, `init.c`).
//!
//! `nitro-cli` reports an enclave as running once it came. Which CID the parent has is found out by it, too: 3 on Nitro,
//! 2 (the hypervisor's) on machines whose parent is the host itself. The parent is not trusted, and nothing else is sent.

use std::io::{self, Read, Write};
use std::time::Duration;

use vsock::VsockStream;

/// vsock port of the parent that expects the byte.
pub const PORT: u32 = 9000;

/// Context identifiers that a parent may have, in the order in which they are tried.
const PARENTS: [u32; 2] = [3, 2];

const BYTE: u8 = 0xb7;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends the heartbeat to each possible parent until one answers.
///
/// One behind the other, so that an enclave on Nitro speaks to CID 3 alone. Elsewhere that costs the two seconds after which
/// the kernel gives an attempt up.
///
/// # Errors
/// Nobody answered: what each attempt came to.
pub fn find_parent() -> Result<u32, String> {
    let mut said = Vec::new();
    for cid in PARENTS {
        match dial(cid) {
            Ok(()) => return Ok(cid),
            Err(error) => said.push(format!("CID {cid}: {error}")),
        }
    }
    Err(said.join("; "))
}

fn dial(cid: u32) -> io::Result<()> {
    // The kernel ends an attempt that nobody answers after two seconds.
    let mut stream = VsockStream::connect_with_cid_port(cid, PORT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    exchange(&mut stream)
}

fn exchange(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.write_all(&[BYTE])?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    match answer {
        [BYTE] => Ok(()),
        [other] => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("answered {other:#04x}, expected {BYTE:#04x}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Peer {
        received: Vec<u8>,
        answer: &'static [u8],
    }

    impl Read for Peer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.answer.read(buffer)
        }
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.received.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn with(answer: &'static [u8]) -> (io::Result<()>, Vec<u8>) {
        let mut peer = Peer {
            received: Vec::new(),
            answer,
        };
        let outcome = exchange(&mut peer);
        (outcome, peer.received)
    }

    #[test]
    fn sends_one_byte_and_takes_it_back() {
        let (outcome, received) = with(&[0xb7]);
        outcome.unwrap();
        assert_eq!(received, [0xb7]);
    }

    #[test]
    fn refuses_another_answer() {
        let (outcome, _) = with(&[0x00]);
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn refuses_a_closed_connection() {
        let (outcome, _) = with(&[]);
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
