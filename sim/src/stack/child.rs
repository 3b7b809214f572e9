//! One program of the run in its own process.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

use super::{Error, Layout, probe};

/// How much of a log's end an error shows.
const TAIL: u64 = 1200;
/// Between two looks at `/readyz`; short, because a second start takes well under a second.
const POLL: Duration = Duration::from_millis(20);
/// How long a program may drain before it is killed.
const DRAIN: Duration = Duration::from_secs(10);

/// As init sets it: tensors in pages of 2 MiB, where the kernel offers them.
const HUGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

pub struct Child {
    role: &'static str,
    process: tokio::process::Child,
    // The program ends when this closes, so it cannot outlive us.
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Child {
    /// Starts `exe role <role> --config <file>` with its log in the run's directory. `first_line` is handed over on its
    /// standard input, where no process list and no file shows it.
    pub(super) async fn spawn(
        exe: &std::path::Path,
        role: &'static str,
        layout: &Layout,
        first_line: Option<&str>,
    ) -> Result<Self, Error> {
        let path = layout.log(role);
        let log = File::create(&path).map_err(Error::io(path.display().to_string()))?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut process = Command::new(exe)
            .args(["role", role, "--config"])
            .arg(layout.config(role))
            // Nothing in our environment reaches a program of the run but what it needs to find its libraries.
            .env_clear()
            .envs(std::env::vars().filter(|(k, _)| k == "PATH" || k == "LD_LIBRARY_PATH"))
            // Without it candle counts the cores anew before every matrix product.
            .env("RAYON_NUM_THREADS", threads.to_string())
            .envs((role == "enclave").then_some(HUGE_PAGES))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for us alone: the programs are stopped in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::io(exe.display().to_string()))?;
        let mut stdin = process.stdin.take();
        if let (Some(line), Some(pipe)) = (first_line, stdin.as_mut()) {
            let send = async {
                pipe.write_all(line.as_bytes()).await?;
                pipe.write_all(b"\n").await?;
                pipe.flush().await
            };
            send.await
                .map_err(Error::io(format!("{role} took no input")))?;
        }
        Ok(Self {
            role,
            process,
            stdin,
            log: path,
        })
    }

    /// Process ID, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits until `GET path` at `endpoint` answers 200.
    pub(super) async fn wait_ready(
        &mut self,
        endpoint: &str,
        path: &str,
        limit: Duration,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        loop {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(self.over(status.code()));
            }
            if matches!(probe::get(endpoint, path).await, Ok((200, _))) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::NotReady {
                    role: self.role,
                    after_s: limit.as_secs(),
                    tail: self.tail(),
                });
            }
            sleep(POLL).await;
        }
    }

    /// Waits until the file has this text in it.
    pub(super) async fn wait_for(
        &mut self,
        path: &std::path::Path,
        text: &str,
        limit: Duration,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        let found = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).contains(text);
        while !std::fs::read(path).is_ok_and(found) {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(self.over(status.code()));
            }
            if Instant::now() > deadline {
                return Err(Error::NotReady {
                    role: self.role,
                    after_s: limit.as_secs(),
                    tail: self.tail(),
                });
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Resolves when the program ends by itself.
    pub(super) async fn ended(&mut self) -> Error {
        let code = self.process.wait().await.ok().and_then(|s| s.code());
        self.over(code)
    }

    /// Closes its input, waits for it to drain, kills it when it takes too long. Returns its exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        drop(self.stdin.take());
        if let Ok(Ok(status)) = timeout(DRAIN, self.process.wait()).await {
            return status.code();
        }
        if let Err(error) = self.process.kill().await {
            tracing::warn!(role = self.role, %error, "could not be killed");
        }
        None
    }

    fn over(&self, code: Option<i32>) -> Error {
        Error::Ended {
            role: self.role,
            code: code.unwrap_or(-1),
            tail: self.tail(),
        }
    }

    /// The last lines of its log.
    fn tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        let text = read().unwrap_or_default();
        // Its last error line says what to do; the rest is context.
        match text.lines().rfind(|l| l.starts_with("error: ")) {
            Some(line) => line.trim_start_matches("error: ").to_owned(),
            None => text.trim().to_owned(),
        }
    }
}
