//! The whole host between a caller, a stand-in for the enclave, and targets.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

use std::path::Path;
use std::time::Duration;

use host::{Config, Error};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use transport::{Endpoint, Stream};

struct Host {
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), Error>>,
}

impl Host {
    /// Sockets and packages live in `dir`; `more` is appended to the configuration.
    async fn start(dir: tempfile::TempDir, more: &str) -> Self {
        let at = dir.path().display();
        std::fs::create_dir_all(dir.path().join("packages")).unwrap();
        let text = format!(
            r#"
            control = "unix://{at}/control"
            enclave_control = "unix://{at}/enclave-control"
            [relay]
            listen = "unix://{at}/relay"
            enclave = "unix://{at}/enclave"
            limits = {{ max_connections = 2, idle_s = 30, lifetime_s = 60 }}
            [models]
            listen = "unix://{at}/models"
            root = "packages"
            [limits]
            drain_s = 1
            {more}"#
        );
        let config = Config::parse(&text, &dir.path().join("host.toml")).unwrap();
        let (stop, stopped) = oneshot::channel();
        let control = Endpoint::Unix(dir.path().join("relay"));
        let task = tokio::spawn(host::run(config, async {
            stopped.await.ok();
        }));
        timeout(Duration::from_secs(5), async {
            while control.connect().await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        let host = Self {
            dir,
            stop: Some(stop),
            task,
        };
        // The probe above was a connection too.
        host.until(r#"cloister_host_connections{class="relay"} 0"#)
            .await;
        host
    }

    /// Waits for a line on `/metrics`.
    async fn until(&self, line: &str) {
        timeout(Duration::from_secs(5), async {
            while !self.metrics().await.lines().any(|l| l == line) {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
    }

    async fn connect(&self, socket: &str) -> Stream {
        Endpoint::Unix(self.dir.path().join(socket))
            .connect()
            .await
            .unwrap()
    }

    /// One request on its own connection; head and body of the answer.
    async fn request(&self, socket: &str, head: &str) -> (String, Vec<u8>) {
        let mut stream = self.connect(socket).await;
        let request = format!("{head}\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let body = answer.split_off(end + 4);
        (String::from_utf8(answer).unwrap().to_lowercase(), body)
    }

    async fn model(&self, head: &str) -> (u16, String, Vec<u8>) {
        let (head, body) = self.request("models", head).await;
        (status(&head), head, body)
    }

    async fn metrics(&self) -> String {
        let (_, body) = self.request("control", "GET /metrics HTTP/1.1").await;
        String::from_utf8(body).unwrap()
    }

    async fn stop(mut self) -> Result<(), Error> {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap()
    }
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Answers every connection on `path` with what it heard, in upper case, after the caller's half-close.
fn echo(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await.ok();
                heard.make_ascii_uppercase();
                stream.write_all(&heard).await.ok();
            });
        }
    });
}

/// An enclave's control listener that answers `answer` to everything.
fn enclave_control(dir: &Path, answer: Vec<u8>) {
    let listener = UnixListener::bind(dir.join("enclave-control")).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                stream.read_u8().await.ok();
                stream.write_all(&answer).await.ok();
            });
        }
    });
}

fn http(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

async fn converse(stream: &mut Stream, say: &[u8]) -> Vec<u8> {
    stream.write_all(say).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    heard
}

#[tokio::test]
async fn relay_passes_bytes_and_half_close() {
    let dir = tempfile::tempdir().unwrap();
    echo(&dir.path().join("enclave"));
    let host = Host::start(dir, "").await;
    let mut caller = host.connect("relay").await;
    assert_eq!(converse(&mut caller, b"hello").await, b"HELLO");
    for line in [
        r#"cloister_host_bytes_total{class="relay",direction="in"} 5"#,
        r#"cloister_host_bytes_total{class="relay",direction="out"} 5"#,
        r#"cloister_host_connections{class="relay"} 0"#,
    ] {
        host.until(line).await;
    }
    host.stop().await.unwrap();
}

#[tokio::test]
async fn relay_caps_connections_and_frees_slots() {
    let dir = tempfile::tempdir().unwrap();
    echo(&dir.path().join("enclave"));
    let host = Host::start(dir, "").await;
    let mut first = host.connect("relay").await;
    let second = host.connect("relay").await;
    let start = Instant::now();
    let mut third = host.connect("relay").await;
    assert_eq!(third.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert!(start.elapsed() < Duration::from_secs(2));
    let page = host.metrics().await;
    let line = r#"cloister_host_connections_total{class="relay",outcome="refused"} 1"#;
    assert!(page.contains(line), "{page}");

    assert_eq!(converse(&mut first, b"a").await, b"A");
    drop(second);
    host.until(r#"cloister_host_connections{class="relay"} 0"#)
        .await;
    let mut fourth = host.connect("relay").await;
    assert_eq!(converse(&mut fourth, b"b").await, b"B");
}

#[tokio::test]
async fn a_caller_of_an_absent_enclave_is_told_at_once() {
    let host = Host::start(tempfile::tempdir().unwrap(), "").await;
    let mut caller = host.connect("relay").await;
    let read = timeout(Duration::from_secs(1), caller.read(&mut [0; 1])).await;
    assert_eq!(read.unwrap().unwrap_or(0), 0);
    let page = host.metrics().await;
    assert!(page.contains(r#"outcome="unreachable"} "#), "{page}");
}

#[tokio::test]
async fn drain_lets_open_connections_end_and_then_cuts() {
    let dir = tempfile::tempdir().unwrap();
    echo(&dir.path().join("enclave"));
    let host = Host::start(dir, "").await;
    let mut polite = host.connect("relay").await;
    let mut stubborn = host.connect("relay").await;
    polite.write_all(b"in flight").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let relay = host.dir.path().join("relay");
    let start = Instant::now();
    let stopping = tokio::spawn(host.stop());
    sleep(Duration::from_millis(100)).await;
    assert!(Endpoint::Unix(relay).connect().await.is_err());
    assert_eq!(converse(&mut polite, b"!").await, b"IN FLIGHT!");
    assert_eq!(stubborn.read(&mut [0; 1]).await.unwrap_or(0), 0);
    stopping.await.unwrap().unwrap();
    let elapsed = start.elapsed();
    assert!(
        elapsed >= Duration::from_secs(1) && elapsed < Duration::from_secs(3),
        "{elapsed:?}"
    );
}

#[tokio::test]
async fn egress_leads_to_its_target_whatever_is_asked() {
    let allowed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let more = format!(
        "[[egress]]\nclass = \"key-release\"\nlisten = \"unix://{}/kbs\"\ntarget = \"{}\"",
        dir.path().display(),
        allowed.local_addr().unwrap()
    );
    let host = Host::start(dir, &more).await;
    let elsewhere = other.local_addr().unwrap();
    for ask in [
        format!("CONNECT {elsewhere} HTTP/1.1\r\nhost: {elsewhere}\r\n\r\n"),
        format!("GET http://{elsewhere}/ HTTP/1.1\r\n\r\n"),
        "\u{5}\u{1}\0\u{5}\u{1}\0\u{1}\u{7f}\0\0\u{1}".to_owned(),
    ] {
        let mut enclave = host.connect("kbs").await;
        enclave.write_all(ask.as_bytes()).await.unwrap();
        enclave.shutdown().await.unwrap();
        // Words for a proxy are only bytes for the one target.
        let (mut stream, _) = allowed.accept().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, ask.as_bytes());
    }
    assert!(
        timeout(Duration::from_millis(200), other.accept())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_full_class_does_not_starve_another() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = target.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let sockets = dir.path().display();
    let more = format!(
        "[[egress]]\nclass = \"telemetry\"\nlisten = \"unix://{sockets}/telemetry\"\ntarget = \"{at}\"\n\
         limits = {{ max_connections = 1, idle_s = 30, lifetime_s = 30 }}\n\
         [[egress]]\nclass = \"key-release\"\nlisten = \"unix://{sockets}/kbs\"\ntarget = \"{at}\""
    );
    let host = Host::start(dir, &more).await;
    let _holds_the_slot = host.connect("telemetry").await;
    let _first = target.accept().await.unwrap();
    let mut refused = host.connect("telemetry").await;
    assert_eq!(refused.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let mut key_release = host.connect("kbs").await;
    key_release.write_all(b"x").await.unwrap();
    let (mut stream, _) = target.accept().await.unwrap();
    stream.read_exact(&mut [0; 1]).await.unwrap();
}

#[tokio::test]
async fn serves_files_whole_and_in_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let package = dir.path().join("packages/demo");
    std::fs::create_dir_all(&package).unwrap();
    let content: Vec<u8> = (0..1_000_003_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(package.join("model.enc"), &content).unwrap();
    std::fs::write(package.join("empty"), b"").unwrap();
    let size = content.len();
    let host = Host::start(dir, "").await;

    let (status, head, body) = host.model("GET /demo/model.enc HTTP/1.1").await;
    assert_eq!(status, 200);
    assert!(head.contains("accept-ranges: bytes") && body == content);

    let (status, head, body) = host
        .model("HEAD /demo/model.enc HTTP/1.1\r\nrange: bytes=0-1")
        .await;
    assert_eq!((status, body.len()), (200, 0));
    assert!(head.contains(&format!("content-length: {size}")), "{head}");

    let range = |range: &str| format!("GET /demo/model.enc HTTP/1.1\r\nrange: bytes={range}");
    let (status, head, body) = host.model(&range("1000001-3000000")).await;
    assert_eq!(status, 206);
    assert!(
        head.contains(&format!("content-range: bytes 1000001-3000000/{size}")),
        "{head}"
    );
    assert!(head.contains("content-length: 2000000"), "{head}");
    assert!(body == content[1_000_001..=3_000_000]);
    let (status, _, body) = host.model(&range("-5")).await;
    assert_eq!((status, &body[..]), (206, &content[size - 5..]));

    for refused in [format!("{size}-"), "0-0,5-9".to_owned(), "9-1".to_owned()] {
        let (status, head, body) = host.model(&range(&refused)).await;
        assert_eq!((status, body.len()), (416, 0), "{refused}");
        assert!(
            head.contains(&format!("content-range: bytes */{size}")),
            "{head}"
        );
    }
    let both = format!("{}\r\nif-range: \"x\"", range("0-1"));
    assert_eq!(host.model(&both).await.0, 200);
    assert_eq!(host.model("GET /demo/empty HTTP/1.1").await.0, 200);
    assert_eq!(
        host.model("GET /demo/empty HTTP/1.1\r\nrange: bytes=0-")
            .await
            .0,
        416
    );
    assert_eq!(host.model("GET /demo/absent HTTP/1.1").await.0, 404);
    let (status, head, _) = host
        .model("POST /demo/model.enc HTTP/1.1\r\ncontent-length: 0")
        .await;
    assert_eq!(status, 405);
    assert!(head.contains("allow: get, head"), "{head}");
    let page = host.metrics().await;
    assert!(
        page.contains(r#"cloister_host_model_requests_total{status="416"} 4"#),
        "{page}"
    );
}

#[tokio::test]
async fn serves_nothing_outside_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("packages");
    let package = root.join("demo");
    std::fs::create_dir_all(package.join("sub")).unwrap();
    std::fs::write(package.join("file"), b"inside").unwrap();
    std::fs::write(dir.path().join("secret"), b"outside").unwrap();
    std::fs::write(root.join("loose"), b"no package").unwrap();
    let link = |target: &Path, name: &Path| std::os::unix::fs::symlink(target, name).unwrap();
    link(&dir.path().join("secret"), &package.join("escape"));
    link(Path::new("../../secret"), &package.join("relative-escape"));
    link(dir.path(), &root.join("outside"));
    link(Path::new("/etc/passwd"), &package.join("passwd"));
    link(Path::new("nowhere"), &package.join("dangling"));
    link(Path::new("demo"), &root.join("current"));
    // A neighbour whose name starts like the directory's.
    std::fs::create_dir(dir.path().join("packages-2")).unwrap();
    std::fs::write(dir.path().join("packages-2/file"), b"outside").unwrap();
    link(&dir.path().join("packages-2"), &root.join("neighbour"));
    let _socket = UnixListener::bind(package.join("socket")).unwrap();
    let host = Host::start(dir, "").await;

    assert_eq!(host.model("GET /demo/file HTTP/1.1").await.2, b"inside");
    // A link that stays inside is how an operator switches versions.
    assert_eq!(host.model("GET /current/file HTTP/1.1").await.2, b"inside");
    assert_eq!(
        host.model("GET /demo/file?x=/../secret HTTP/1.1").await.2,
        b"inside"
    );
    for path in [
        "/demo/escape",
        "/demo/relative-escape",
        "/outside/secret",
        "/demo/passwd",
        "/demo/dangling",
        "/demo/sub",
        "/neighbour/file",
        "/demo/socket",
        "/demo/file/x",
    ] {
        let (status, _, body) = host.model(&format!("GET {path} HTTP/1.1")).await;
        assert_eq!((status, body.len()), (404, 0), "{path}");
    }
    for path in [
        "/demo/../../secret",
        "/../secret",
        "/demo/..%2f..%2fsecret",
        "/%2e%2e/secret",
        "/demo/%2e%2e/%2e%2e/secret",
        "//demo/file",
        "/demo//file",
        "/demo/./file",
        "/demo/file/",
        "/demo",
        "/",
        "/loose",
        "/demo/..\\..\\secret",
        "/demo/file%00",
        "/demo/.hidden",
        "*",
    ] {
        let (status, _, body) = host.model(&format!("GET {path} HTTP/1.1")).await;
        assert_eq!((status, body.len()), (400, 0), "{path}");
    }
}

#[tokio::test]
async fn a_slow_reader_of_a_file_does_not_grow_memory() {
    let dir = tempfile::tempdir().unwrap();
    let package = dir.path().join("packages/demo");
    std::fs::create_dir_all(&package).unwrap();
    let file = std::fs::File::create(package.join("big")).unwrap();
    file.set_len(1 << 30).unwrap();
    let host = Host::start(dir, "").await;
    let mut stream = host.connect("models").await;
    stream
        .write_all(b"GET /demo/big HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    stream.read_exact(&mut [0; 64]).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    // What was read from the disk although nobody takes it.
    let page = host.metrics().await;
    let line = page
        .lines()
        .find(|l| l.starts_with("cloister_host_model_bytes_total "))
        .unwrap();
    let read: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(read < 4 << 20, "{read}");
}

#[tokio::test]
async fn ready_only_with_the_enclave() {
    let ready = async |answer: Option<Vec<u8>>| {
        let dir = tempfile::tempdir().unwrap();
        if let Some(answer) = answer {
            enclave_control(dir.path(), answer);
        }
        let host = Host::start(dir, "").await;
        let (head, body) = host.request("control", "GET /readyz HTTP/1.1").await;
        let healthy = host.request("control", "GET /healthz HTTP/1.1").await.0;
        assert_eq!(status(&healthy), 200);
        host.stop().await.unwrap();
        (status(&head), String::from_utf8(body).unwrap())
    };
    assert_eq!(ready(None).await, (503, "enclave does not answer\n".into()));
    let loading = http("503 Service Unavailable", "loading");
    assert_eq!(
        ready(Some(loading)).await,
        (503, "enclave is not ready\n".into())
    );
    let garbage = b"garbage\r\n\r\n".to_vec();
    assert_eq!(
        ready(Some(garbage)).await,
        (503, "enclave does not answer\n".into())
    );
    assert_eq!(
        ready(Some(http("200 OK", "ready"))).await,
        (200, "ready\n".into())
    );
}

#[tokio::test]
async fn metrics_pass_the_enclaves_through_bounded_and_apart() {
    let dir = tempfile::tempdir().unwrap();
    let page = "cloister_enclave_requests_total 7\ncloister_host_enclave_up 5\n";
    enclave_control(dir.path(), http("200 OK", page));
    let host = Host::start(dir, "").await;
    let page = host.metrics().await;
    assert!(
        page.contains("\ncloister_enclave_requests_total 7\n"),
        "{page}"
    );
    assert!(page.contains("cloister_host_enclave_up 1\n"), "{page}");
    assert!(!page.contains("cloister_host_enclave_up 5"), "{page}");
    host.stop().await.unwrap();

    let dir = tempfile::tempdir().unwrap();
    enclave_control(dir.path(), http("200 OK", &"a 1\n".repeat(1 << 20)));
    let host = Host::start(dir, "").await;
    let page = host.metrics().await;
    assert!(page.len() < 64 << 10 && page.contains("cloister_host_enclave_up 0\n"));
}

#[tokio::test]
async fn a_silent_enclave_does_not_hold_a_probe() {
    let dir = tempfile::tempdir().unwrap();
    let _silent = UnixListener::bind(dir.path().join("enclave-control")).unwrap();
    let host = Host::start(dir, "").await;
    let start = Instant::now();
    let (head, _) = host.request("control", "GET /readyz HTTP/1.1").await;
    assert_eq!(status(&head), 503);
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn says_which_endpoint_or_directory_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let text = |root: &str, control: &str| {
        format!(
            "control = \"unix://{control}\"\nenclave_control = \"unix:///nonexistent/c\"\n\
             [relay]\nlisten = \"tcp://127.0.0.1:0\"\nenclave = \"unix:///nonexistent/e\"\n\
             [models]\nlisten = \"tcp://127.0.0.2:0\"\nroot = \"{root}\"\n"
        )
    };
    let file = dir.path().join("host.toml");
    let error = async |text: String| {
        let config = Config::parse(&text, &file).unwrap();
        host::run(config, std::future::pending()).await.unwrap_err()
    };
    let e = error(text("absent", "/nonexistent/x")).await;
    assert_eq!(e.exit_code(), 69);
    assert!(
        e.to_string().starts_with("models.root /") && e.to_string().contains("absent"),
        "{e}"
    );
    let e = error(text(".", "/nonexistent/control")).await;
    assert_eq!(e.exit_code(), 69);
    assert!(
        e.to_string()
            .starts_with("control: cannot listen on unix:///nonexistent/control: "),
        "{e}"
    );
}

#[test]
fn the_program_refuses_a_bad_configuration_with_one_line_and_64() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("host.toml");
    std::fs::write(&file, "control = 7\n").unwrap();
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_host"))
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64));
        String::from_utf8(output.stderr).unwrap()
    };
    let line = run(&["--config", file.to_str().unwrap()]);
    assert!(
        line.starts_with(&format!("error: {}:1: ", file.display())),
        "{line}"
    );
    assert_eq!(line.lines().count(), 1, "{line}");
    let line = run(&["--config", "/nonexistent/host.toml"]);
    assert!(
        line.starts_with("error: /nonexistent/host.toml: "),
        "{line}"
    );
    run(&["--no-such-option"]);
}
