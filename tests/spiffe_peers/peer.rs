//! go-spiffe behind a few commands (`tests/go-spiffe`), and the development authority that gives it an identity.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::issue::{Authority, new_svid};
use identity::{BundleHandle, Credentials, SpiffeId, TrustBundles, TrustDomain};
use serde_json::Value;
use sim::authority::{Entry, serve_changing};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use transport::Endpoint;

pub const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(30);

/// The peer with these arguments; `None`, with a line that says so, where it is not installed.
fn command(args: &[&str]) -> Option<Command> {
    let program = tests::root().join("target/tools/bin/go-spiffe-peer");
    if !program.is_file() {
        tests::skip("go-spiffe-peer");
        return None;
    }
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    Some(command)
}

/// What one command prints, a line each.
pub async fn ask(args: &[&str]) -> Option<Vec<Value>> {
    let output = timeout(SOON, command(args)?.output())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    Some(
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

/// A command that goes on.
pub struct Peer {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Peer {
    pub fn start(args: &[&str]) -> Option<Self> {
        let mut child = command(args)?.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Some(Self {
            lines,
            _child: child,
        })
    }

    /// The next thing it says.
    pub async fn said(&mut self) -> Value {
        let line = timeout(SOON, self.lines.next_line())
            .await
            .unwrap()
            .unwrap();
        serde_json::from_str(&line.expect("it ended")).unwrap()
    }

    /// Where it listens.
    pub async fn address(&mut self) -> String {
        let said = self.said().await;
        said["listening"]
            .as_str()
            .unwrap_or_else(|| panic!("{said}"))
            .to_owned()
    }
}

/// A trust domain with a Workload API.
pub struct Domain {
    pub name: TrustDomain,
    pub root: Authority,
    pub entries: watch::Sender<Vec<Entry>>,
    pub socket: String,
    pub dir: tempfile::TempDir,
    task: JoinHandle<()>,
}

impl Drop for Domain {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn entries(ids: &[&str]) -> Vec<Entry> {
    let entry = |id: &&str| Entry {
        spiffe_id: SpiffeId::new(id).unwrap(),
    };
    ids.iter().map(entry).collect()
}

impl Domain {
    pub async fn start(name: &str, ids: &[&str], ttl: Duration) -> Self {
        let name = TrustDomain::new(name).unwrap();
        let root = Authority::generate_root(&name, SystemTime::now(), 24 * HOUR).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(dir.path().join("workload.sock"));
        let (entries, receiver) = watch::channel(entries(ids));
        let own = Authority::from_pem(&root.cert_pem(), &root.key_pem().unwrap()).unwrap();
        let served = vec![endpoint.clone()];
        let task = tokio::spawn(async move {
            let never = std::future::pending();
            serve_changing(own, receiver, served, ttl, tests::clock(), never)
                .await
                .unwrap();
        });
        while endpoint.connect().await.is_err() {
            assert!(!task.is_finished());
            sleep(Duration::from_millis(5)).await;
        }
        Self {
            name,
            root,
            entries,
            socket: endpoint.to_string(),
            dir,
            task,
        }
    }

    pub fn bundles(&self) -> BundleHandle {
        TrustBundles::from_pem(&self.name, &self.root.cert_pem())
            .unwrap()
            .into_handle()
    }

    pub fn credentials(&self, id: &str) -> Arc<Credentials> {
        let credentials = Arc::new(Credentials::new());
        let id = SpiffeId::new(id).unwrap();
        credentials.install(new_svid(&self.root, &id, HOUR, SystemTime::now()).unwrap());
        credentials
    }

    /// The domain's bundle as a JWK set, in a file.
    pub fn bundle_file(&self, name: &str, sequence: u64) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        let text = crate::bundles::jwks(self.root.cert_chain(), sequence);
        std::fs::write(&path, text).unwrap();
        path
    }
}
