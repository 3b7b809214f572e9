//! A SPIRE server and agents of it, on loopback and in a directory of their own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use identity::TrustDomain;
use identity::issue::Authority;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3600);
/// For a program to come up, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What differs between tests.
pub struct Setup {
    pub trust_domain: &'static str,
    /// Life of an agent's certificate.
    pub agent_ttl: &'static str,
    /// A bundle endpoint's settings, in the server's own words.
    pub federation: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            trust_domain: "cloister.dev",
            agent_ttl: "1h",
            federation: String::new(),
        }
    }
}

pub struct Spire {
    dir: tempfile::TempDir,
    pub trust_domain: &'static str,
    /// Of the trust domain; the server's authority stands below it.
    pub root: Authority,
    machines: Issuer<'static, KeyPair>,
    pub port: u16,
    pub bundle_port: u16,
    server: Option<Child>,
    agents: Vec<Child>,
}

/// A program of SPIRE's; `None`, with a line that says so, where it is not installed.
///
/// # Panics
/// With `CI=true`.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = tests::root().join("target/tools/bin").join(name);
    if !path.is_file() {
        tests::skip(name);
        return None;
    }
    Some(path)
}

impl Spire {
    pub async fn start() -> Option<Self> {
        Self::with(Setup::default()).await
    }

    /// A server with no entries and no agents.
    pub async fn with(setup: Setup) -> Option<Self> {
        tool("spire-agent")?;
        tool("spire-server")?;
        // A unix socket's path has at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("spire-").tempdir().unwrap();
        let domain = TrustDomain::new(setup.trust_domain).unwrap();
        let root = Authority::generate_root(&domain, SystemTime::now(), 24 * HOUR).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("root.pem", &root.cert_pem());
        write("root.key", &root.key_pem().unwrap());
        let machines_key = KeyPair::generate().unwrap();
        let mut params = certificate("machines");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&machines_key).unwrap();
        write("machines.pem", &ca.pem());
        let machines = Issuer::new(params, machines_key);
        let (port, bundle_port) = (free_port(), free_port());
        let at = dir.path().display();
        let federation = setup
            .federation
            .replace("BUNDLE_PORT", &bundle_port.to_string());
        let config = format!(
            r#"
server {{
    trust_domain = "{}"
    bind_address = "127.0.0.1"
    bind_port = "{port}"
    data_dir = "{at}/server"
    socket_path = "{at}/server.sock"
    ca_key_type = "ec-p256"
    default_x509_svid_ttl = "1h"
    agent_ttl = "{}"
    ca_ttl = "24h"
    log_level = "INFO"
    experimental {{ cache_reload_interval = "500ms" }}
    {federation}
}}
plugins {{
    DataStore "sql" {{
        plugin_data {{
            database_type = "sqlite3"
            connection_string = "{at}/server/datastore.sqlite3"
        }}
    }}
    KeyManager "disk" {{
        plugin_data {{ keys_path = "{at}/server/keys.json" }}
    }}
    UpstreamAuthority "disk" {{
        plugin_data {{
            cert_file_path = "{at}/root.pem"
            key_file_path = "{at}/root.key"
        }}
    }}
    NodeAttestor "x509pop" {{
        plugin_data {{ ca_bundle_path = "{at}/machines.pem" }}
    }}
    NodeAttestor "join_token" {{
        plugin_data {{}}
    }}
}}
"#,
            setup.trust_domain, setup.agent_ttl
        );
        std::fs::create_dir(dir.path().join("server")).unwrap();
        write("server.conf", &config);
        let mut spire = Self {
            dir,
            trust_domain: setup.trust_domain,
            root,
            machines,
            port,
            bundle_port,
            server: None,
            agents: Vec::new(),
        };
        spire.up().await;
        Some(spire)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> String {
        format!("unix://{}", self.path("server.sock").display())
    }

    /// Starts the server, with everything it knew before.
    pub async fn up(&mut self) {
        let server = spawn(
            "spire-server",
            &["run", "-config"],
            &self.path("server.conf"),
            &self.path("server.log"),
        );
        self.server = Some(server);
        let begun = Instant::now();
        while !self.admin_ok(&["healthcheck"]).await {
            assert!(begun.elapsed() < PATIENCE, "{}", self.log("server.log"));
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Kills the server.
    pub async fn down(&mut self) {
        self.server.take().unwrap().kill().await.unwrap();
    }

    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    async fn admin_ok(&self, args: &[&str]) -> bool {
        let output = self.command(args).output().await.unwrap();
        output.status.success()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(tool("spire-server").unwrap());
        command
            .args(args)
            .arg("-socketPath")
            .arg(self.path("server.sock"));
        command
    }

    /// Runs one of `spire-server`'s commands.
    pub async fn admin(&self, args: &[&str]) -> String {
        let output = self.command(args).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}{error}");
        said
    }

    /// Creates an entry; its ID.
    pub async fn entry(&self, parent: &str, id: &str, more: &[&str]) -> String {
        let args = [
            "entry",
            "create",
            "-output",
            "json",
            "-parentID",
            parent,
            "-spiffeID",
            id,
        ];
        let created = self.admin(&[&args[..], more].concat()).await;
        let created: Value = serde_json::from_str(&created).unwrap();
        let entry = &created["results"][0]["entry"]["id"];
        entry
            .as_str()
            .unwrap_or_else(|| panic!("{created}"))
            .to_owned()
    }

    pub async fn delete(&self, entry: &str) {
        self.admin(&["entry", "delete", "-entryID", entry]).await;
    }

    /// The certificate and key of a machine, in files of this name; gives the ID that its agent will have.
    pub fn machine(&self, name: &str, algorithm: &'static rcgen::SignatureAlgorithm) -> String {
        let key = KeyPair::generate_for(algorithm).unwrap();
        self.machine_with(name, &key)
    }

    pub fn machine_with(&self, name: &str, key: &KeyPair) -> String {
        let mut params = certificate(name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = params.signed_by(key, &self.machines).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), leaf.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, leaf.der());
        let fingerprint = hex::encode(digest);
        format!(
            "spiffe://{}/spire/agent/x509pop/{fingerprint}",
            self.trust_domain
        )
    }

    /// Starts an agent on a machine of its own; gives its ID and the endpoint of its Workload API.
    pub async fn agent(&mut self, name: &str) -> (String, String) {
        let id = self.machine(name, &rcgen::PKCS_ECDSA_P256_SHA256);
        let at = self.dir.path().display();
        let config = format!(
            r#"
agent {{
    trust_domain = "{}"
    server_address = "127.0.0.1"
    server_port = "{}"
    data_dir = "{at}/{name}"
    socket_path = "{at}/{name}.sock"
    trust_bundle_path = "{at}/root.pem"
    log_level = "INFO"
    experimental {{ sync_interval = "1s" }}
}}
plugins {{
    NodeAttestor "x509pop" {{
        plugin_data {{
            certificate_path = "{at}/{name}.pem"
            private_key_path = "{at}/{name}.key"
        }}
    }}
    KeyManager "memory" {{ plugin_data {{}} }}
    WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"#,
            self.trust_domain, self.port
        );
        let file = self.path(&format!("{name}.conf"));
        std::fs::write(&file, config).unwrap();
        let agent = spawn(
            "spire-agent",
            &["run", "-config"],
            &file,
            &self.path(&format!("{name}.log")),
        );
        self.agents.push(agent);
        let socket = self.path(&format!("{name}.sock"));
        let begun = Instant::now();
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            let log = self.log(&format!("{name}.log"));
            assert!(begun.elapsed() < PATIENCE, "{log}");
            sleep(Duration::from_millis(100)).await;
        }
        (id, format!("unix://{}", socket.display()))
    }
}

/// This user, as the selector of agents here.
pub fn this_user() -> String {
    format!("unix:uid:{}", rustix::process::getuid().as_raw())
}

fn spawn(program: &str, args: &[&str], config: &Path, log: &Path) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    Command::new(tool(program).unwrap())
        .args(args)
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn certificate(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (SystemTime::now() - HOUR).into();
    params.not_after = (SystemTime::now() + 24 * HOUR).into();
    params
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
