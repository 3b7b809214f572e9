//! A sealed package behind a host that plays with its bytes: what comes out is what was sealed, or a refusal, in time.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use sealed_model::{DataKey, Error, Package, SealOptions, SigningKey, UnlockedPackage, seal};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;

const WEIGHTS: &str = "model.safetensors";
/// Five segments, the last one short.
const LEN: usize = (4 << 20) + 12_345;
/// As the format has it, header included.
const SEGMENT: usize = 1 << 20;

/// What the host does to the `n`th answer about the weights, whose bytes are `range` of the file.
type Trick = fn(n: usize, file: &[u8], range: Range<usize>) -> Reply;

enum Reply {
    /// The head promises the range that was asked for; these bytes follow.
    Bytes(Vec<u8>),
    /// As above, and the connection ends.
    AndHangsUp(Vec<u8>),
    /// As above, and nothing more comes, while the connection stays.
    AndStops(Vec<u8>),
    /// A head of its own.
    Says(&'static str),
}

struct Bad {
    runtime: Runtime,
    folder: TempDir,
    endpoint: Endpoint,
    answers: Arc<AtomicUsize>,
    signer: SigningKey,
}

impl Bad {
    fn host(trick: Trick) -> Self {
        let folder = TempDir::new().unwrap();
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join(WEIGHTS), weights()).unwrap();
        let signer = SigningKey::generate().unwrap();
        let options = SealOptions {
            name: "demo",
            epoch: 1,
            key: &key(),
            signer: &signer,
            created: UNIX_EPOCH,
            progress: &|_| {},
        };
        seal(&model, &folder.path().join("demo"), &options).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().to_string());
        let answers = Arc::new(AtomicUsize::new(0));
        let (root, counter) = (folder.path().to_owned(), Arc::clone(&answers));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (root, counter) = (root.clone(), Arc::clone(&counter));
                std::thread::spawn(move || serve(stream.unwrap(), &root, trick, &counter));
            }
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            runtime,
            folder,
            endpoint,
            answers,
            signer,
        }
    }

    fn package(&self) -> Result<UnlockedPackage<HostFiles>, Error> {
        let mut files = HostFiles::new(
            self.runtime.handle().clone(),
            self.endpoint.clone(),
            "demo".to_owned(),
            2,
            Duration::from_secs(5),
        );
        files.stall = Duration::from_millis(200);
        files.pause = Duration::from_millis(2);
        let publishers = [self.signer.public().unwrap()];
        Package::open(files, &publishers, "demo", 1)?.unlock(key())
    }

    /// Reads the weights in pieces that start and end inside segments, and whole.
    fn read(&self) -> Result<(), Error> {
        let package = self.package()?;
        let expected = weights();
        for range in [0..LEN, 100..200, SEGMENT - 50..3 * SEGMENT + 7] {
            let mut bytes = vec![0xee; range.len()];
            let outcome = package.read_at(WEIGHTS, range.start as u64, &mut bytes);
            if let Err(error) = outcome {
                assert!(
                    bytes.iter().all(|byte| *byte == 0),
                    "plaintext after {error}"
                );
                return Err(error);
            }
            assert!(bytes == expected[range], "wrong weights");
        }
        package.verify()
    }
}

fn key() -> DataKey {
    DataKey::from_bytes(&[9; 32]).unwrap()
}

/// No two segments alike.
fn weights() -> Vec<u8> {
    let data = LEN - 8 - 128;
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{data}],"data_offsets":[0,{data}]}}}}"#);
    let mut file = 128_u64.to_le_bytes().to_vec();
    file.extend_from_slice(format!("{header:128}").as_bytes());
    file.extend((0..data).map(|at| u8::try_from(at / 977 % 251).unwrap()));
    file
}

fn serve(mut stream: TcpStream, root: &Path, trick: Trick, answers: &AtomicUsize) {
    while let Some(request) = head(&mut stream) {
        let path = request.split(' ').nth(1).unwrap().trim_start_matches('/');
        let Ok(file) = std::fs::read(PathBuf::from(root).join(path)) else {
            return;
        };
        let range = request.split("range: bytes=").nth(1).map(|rest| {
            let (first, last) = rest.split("\r\n").next().unwrap().split_once('-').unwrap();
            first.parse::<usize>().unwrap()..last.parse::<usize>().unwrap() + 1
        });
        let Some(range) = range else {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", file.len());
            stream.write_all(head.as_bytes()).unwrap();
            continue;
        };
        let reply = match path.contains(WEIGHTS) {
            true => trick(answers.fetch_add(1, Ordering::SeqCst), &file, range.clone()),
            false => Reply::Bytes(file[range.clone()].to_vec()),
        };
        let promised = format!(
            "HTTP/1.1 206 P\r\ncontent-range: bytes {}-{}/{}\r\ncontent-length: {}\r\n\r\n",
            range.start,
            range.end - 1,
            file.len(),
            range.len()
        );
        let (head, bytes, goes_on) = match reply {
            Reply::Bytes(bytes) => (promised, bytes, true),
            Reply::AndHangsUp(bytes) => (promised, bytes, false),
            Reply::Says(head) => (head.to_owned(), Vec::new(), true),
            Reply::AndStops(bytes) => {
                stream.write_all(promised.as_bytes()).ok();
                stream.write_all(&bytes).ok();
                std::thread::sleep(Duration::from_secs(20));
                return;
            }
        };
        // The reader may have hung up in disgust.
        if stream.write_all(head.as_bytes()).is_err()
            || stream.write_all(&bytes).is_err()
            || !goes_on
        {
            return;
        }
    }
}

fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

#[test]
fn an_honest_host_gives_the_weights() {
    Bad::host(|_, file, range| Reply::Bytes(file[range].to_vec()))
        .read()
        .unwrap();
}

#[test]
fn wrong_bytes_under_right_heads_are_never_weights() {
    let tricks: [(&str, Trick); 6] = [
        ("a bit flipped", |_, file, range| {
            let mut bytes = file[range].to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            Reply::Bytes(bytes)
        }),
        ("zeros", |_, _, range| Reply::Bytes(vec![0; range.len()])),
        ("the start of the file for each", |_, file, range| {
            Reply::Bytes(file.iter().copied().cycle().take(range.len()).collect())
        }),
        ("the segment before", |_, file, range| {
            let from = range.start.saturating_sub(SEGMENT);
            Reply::Bytes(file[from..from + range.len()].to_vec())
        }),
        ("one byte late", |_, file, range| {
            let bytes = file[range.start + 1..].iter().copied().chain([0]);
            Reply::Bytes(bytes.take(range.len()).collect())
        }),
        ("honest, then not", |n, file, range| {
            let mut bytes = file[range].to_vec();
            if n > 2 {
                bytes[0] ^= 0x80;
            }
            Reply::Bytes(bytes)
        }),
    ];
    for (name, trick) in tricks {
        let error = Bad::host(trick).read().unwrap_err();
        assert!(matches!(error, Error::Segment { .. }), "{name}: {error}");
        assert!(error.to_string().starts_with(WEIGHTS), "{name}: {error}");
    }
}

#[test]
fn interruptions_are_survived() {
    let tricks: [(&str, Trick); 4] = [
        (
            "hangs up in the middle of each second answer",
            |n, file, range| {
                let bytes = file[range].to_vec();
                match n % 2 {
                    0 => Reply::AndHangsUp(bytes[..bytes.len() / 2].to_vec()),
                    _ => Reply::Bytes(bytes),
                }
            },
        ),
        (
            "stops in the middle of its third answer",
            |n, file, range| {
                let bytes = file[range].to_vec();
                match n {
                    2 => Reply::AndStops(bytes[..bytes.len() / 3].to_vec()),
                    _ => Reply::Bytes(bytes),
                }
            },
        ),
        ("is overloaded at first", |n, file, range| match n {
            0..3 => Reply::Says("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"),
            _ => Reply::Bytes(file[range].to_vec()),
        }),
        // The second copy stands where the next head should: not HTTP, so the connection is given up.
        ("says everything twice", |n, file, range| {
            let mut bytes = file[range.clone()].to_vec();
            if n % 2 == 0 {
                bytes.extend_from_slice(&file[range]);
            }
            Reply::Bytes(bytes)
        }),
    ];
    for (name, trick) in tricks {
        let host = Bad::host(trick);
        if let Err(error) = host.read() {
            panic!("{name}: {error}");
        }
        assert!(host.answers.load(Ordering::SeqCst) > 3, "{name}");
        drop(host.folder);
    }
}

#[test]
fn a_host_that_goes_on_failing_is_given_up_with_its_file_named() {
    let tricks: [(Trick, &str); 4] = [
        (
            |_, _, _| Reply::AndHangsUp(Vec::new()),
            "ended before all bytes",
        ),
        (|_, _, _| Reply::AndStops(Vec::new()), "no byte came"),
        (
            |_, _, _| {
                Reply::Says(
                    "HTTP/1.1 206 P\r\ncontent-range: bytes 0-5/9\r\ncontent-length: 6\r\n\r\n",
                )
            },
            "another range",
        ),
        (
            |_, _, range| match range.len() {
                // The length that was asked for, twice, and two different ones.
                40 => Reply::Says(
                    "HTTP/1.1 206 P\r\ncontent-range: bytes 0-39/9\r\ncontent-length: 40\r\ncontent-length: 39\r\n\r\n",
                ),
                _ => Reply::Says("HTTP/1.1 206 P\r\n\r\n"),
            },
            "another length",
        ),
    ];
    for (trick, why) in tricks {
        let error = Bad::host(trick).read().unwrap_err();
        assert!(error.is_retryable(), "{error}");
        let line = crate::error::chain(&error);
        assert!(line.starts_with(WEIGHTS) && line.contains(why), "{line}");
    }
}
