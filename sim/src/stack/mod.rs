//! The whole service on one machine, each program in a process of its own, under keys that live as long as the run.
//!
//! ```text
//! this process: SPIFFE development authority, simulated hypervisor (measures the enclave, owns the throwaway root)
//!   ├─ kbs       ◄─ keys of the sealed models, policy on the measurements
//!   ├─ kms       ◄─ where asked for: the models' keys come from there instead
//!   ├─ host      ◄─ relay, egress to kbs and kms, sealed-model files
//!   ├─ enclave   ◄─ the simulated NSM travels over its stdin, and nothing else
//!   │  or machine: the enclave's image in an emulated Nitro machine ([`Tee`])
//!   └─ gateway   ◄─ http://127.0.0.1:PORT/v1
//! ```
//! Children are re-executions of one binary with a role (see [`crate::roles`]); each ends when its stdin closes, so none
//! outlives this process however it dies.

mod child;
mod keys;
mod kms;
mod layout;
mod probe;
mod settings;
mod tee;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use attestation::{Pcrs, Sha256Digest};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use zeroize::Zeroizing;

pub use child::Child;
pub use layout::Layout;
pub use probe::{get, post_json};
pub use tee::{MachineOptions, Tee, pack};

pub use crate::nsm::INSTANCE_ID;
use crate::nsm::SimPki;
use keys::RunKeys;
use kms::RunKms;

/// The trust domain of every run.
pub const TRUST_DOMAIN: &str = "cloister.dev";
/// The SPIFFE ID that the broker maps the measurement to.
pub const ENCLAVE_ID: &str = "spiffe://cloister.dev/enclave/demo";
/// The broker's own SPIFFE ID.
pub const BROKER_ID: &str = "spiffe://cloister.dev/kbs";
/// The gateway's SPIFFE ID.
pub const GATEWAY_ID: &str = "spiffe://cloister.dev/gateway/local";
/// What the simulated hypervisor claims as the parent's IAM role (PCR3); its instance is [`INSTANCE_ID`] (PCR4).
pub const ROLE_ARN: &str = "arn:aws:iam::000000000000:role/cloister-dev";

/// The longest wait for a program to become ready; a large model is opened within it.
const READY: Duration = Duration::from_secs(300);

/// The wall clock, as `main` provides it.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;
/// See [`Options::amend`].
pub type Amend = Box<dyn FnOnce(&mut serde_json::Value) + Send>;
/// See [`Options::before_start`].
pub type Hook = Box<dyn FnOnce(&Layout) + Send>;

/// A plaintext model directory and the name it is served under.
#[derive(Clone)]
pub struct Model {
    pub name: String,
    pub dir: PathBuf,
}

/// What a run is made of. The hooks let a test spoil one file between its making and its first use.
pub struct Options {
    /// The binary to re-execute: `cloister-dev` itself.
    pub exe: PathBuf,
    /// Where the enclave program runs.
    pub tee: Tee,
    pub models: Vec<Model>,
    /// Port of the OpenAI-compatible proxy on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// The address that the gateway dials instead of the relay, to put an observer between them.
    pub gateway_dials: Option<String>,
    /// The endpoint that the relay dials instead of the enclave, to put an observer between them.
    pub relay_dials: Option<String>,
    /// Whether AWS KMS, simulated, releases the models' keys; the broker then has none of them.
    pub kms: bool,
    /// Cedar policy of the enclave, instead of one that permits every caller of the run's trust domain.
    pub policy: Option<String>,
    /// Whether the enclave's configuration lets newer packages replace its models.
    pub reload: bool,
    /// The trust domain's root, certificate and key in PEM, where another authority stands below the same one.
    pub root: Option<(String, Zeroizing<String>)>,
    /// Called with the enclave's settings before they are written and measured.
    pub amend: Option<Amend>,
    /// Called with the layout when every file is written, before any program starts.
    pub before_start: Option<Hook>,
    /// Called between the programs' starts, for a progress display.
    pub progress: Arc<dyn Fn(&str) + Send + Sync>,
    pub now: Clock,
}

impl Options {
    /// A run of `exe` that serves `models` on a free port, silently.
    pub fn new(exe: PathBuf, models: Vec<Model>, now: Clock) -> Self {
        Self {
            exe,
            tee: Tee::Simulated,
            models,
            port: 0,
            gateway_dials: None,
            relay_dials: None,
            kms: false,
            policy: None,
            reload: false,
            root: None,
            amend: None,
            before_start: None,
            progress: Arc::new(|_| {}),
            now,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{0}")]
    Model(#[from] sealed_model::Error),
    #[error("{context}: {source}")]
    Io { context: String, source: io::Error },
    #[error("the enclave image could not be made: {0}")]
    Image(String),
    #[error("port {0} is in use: stop what listens there, or choose another with --port")]
    PortInUse(u16),
    #[error("keys for this run could not be made: {0}")]
    Keys(String),
    #[error("{role} did not become ready within {after_s} s; its log ends with: {tail}")]
    NotReady {
        role: &'static str,
        after_s: u64,
        tail: String,
    },
    #[error("{role} ended with exit code {code}: {tail}")]
    Ended {
        role: &'static str,
        code: i32,
        tail: String,
    },
}

impl Error {
    pub(crate) fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }
}

/// What [`Stack::publish`] made.
pub struct Release {
    pub manifest_sha256: Sha256Digest,
    /// To look for where it must not be.
    pub key: Zeroizing<[u8; 32]>,
}

/// A running service. Dropping it kills what is left of it; [`Stack::stop`] drains first.
pub struct Stack {
    pub layout: Layout,
    pub pcrs: Pcrs,
    pub config_digest: Sha256Digest,
    pub root_pem: String,
    pub gateway: Child,
    pub enclave: Child,
    pub host: Child,
    pub kbs: Child,
    pub kms: Option<Child>,
    /// How long each part took to become ready, in order.
    pub timings: Vec<(&'static str, Duration)>,
    authority: watch::Sender<bool>,
    authority_task: tokio::task::JoinHandle<()>,
    port: u16,
    keys: RunKeys,
    now: Clock,
}

impl Stack {
    /// Seals the models, makes the run's keys and starts every program in the order of their needs.
    ///
    /// # Errors
    /// A model that cannot be sealed, a port in use, or a program that ends instead of becoming ready.
    pub async fn start(mut options: Options) -> Result<Self, Error> {
        let now = (options.now)();
        let say = options.progress.clone();
        let mut timings = Vec::new();
        let port = layout::claim_port(options.port)?;
        let layout = Layout::create(port, options.tee.clone())?;

        say("making keys for this run");
        let keys = RunKeys::generate(now, options.root.take())?;
        let pki = SimPki::generate(now);
        let root_pem = pki.root_pem();

        let started = Instant::now();
        let mut sealed = Vec::new();
        for model in &options.models {
            say(&format!("sealing {}", model.name));
            sealed.push(keys::seal(&layout, model, &keys, now, say.as_ref())?);
        }
        timings.push(("seal", started.elapsed()));

        let run_kms = options.kms.then(|| RunKms::generate(now)).transpose()?;
        let written = settings::write(
            &layout,
            &mut options,
            &keys,
            &sealed,
            run_kms.as_ref(),
            &root_pem,
        )?;
        if let Some(hook) = options.before_start.take() {
            hook(&layout);
        }

        let (authority, authority_task) =
            keys::serve_workload_api(&layout, &keys, options.now.clone())?;
        // Released by one or the other, so that no run passes by the one it should not have asked.
        let in_broker = if options.kms { &[] } else { sealed.as_slice() };
        tokio::task::block_in_place(|| keys::fill_broker(&layout, in_broker, now))?;

        let mut start = async |role: &'static str, stdin: Option<&str>| {
            say(&format!("starting {role}"));
            let started = Instant::now();
            let mut child = Child::spawn(&options.exe, role, &layout, stdin).await?;
            if role == "machine" {
                // Packets of another machine for one that is not up yet stop vhost-device-vsock from delivering any.
                let console = layout.path("console.log");
                child
                    .wait_for(&console, "heartbeat answered", READY)
                    .await?;
            }
            if role == "kms" {
                // It has the service's one endpoint and no other.
                let log = layout.log(role);
                child.wait_for(&log, crate::roles::KMS_READY, READY).await?;
            } else {
                let (endpoint, path) = layout.ready(role);
                child.wait_ready(&endpoint, path, READY).await?;
            }
            timings.push((role, started.elapsed()));
            Ok::<_, Error>(child)
        };
        let kbs = start("kbs", None).await?;
        let kms = match &run_kms {
            Some(run_kms) => {
                let kms = start("kms", None).await?;
                run_kms.wrap(&layout, &sealed, options.now.clone()).await?;
                Some(kms)
            }
            None => None,
        };
        let host = start("host", None).await?;
        let enclave = start(options.tee.role(), Some(&pki.to_json())).await?;
        let gateway = start("gateway", None).await?;

        Ok(Self {
            pcrs: written.pcrs,
            config_digest: written.config_digest,
            root_pem,
            gateway,
            enclave,
            host,
            kbs,
            kms,
            timings,
            authority,
            authority_task,
            port: layout.port,
            layout,
            keys,
            now: options.now,
        })
    }

    /// Puts another release of a model in the place of the present one, as its owner would. Its key goes to the broker where
    /// `release` is set.
    ///
    /// # Errors
    /// A model that cannot be sealed, or a broker whose store cannot be written.
    pub fn publish(&self, model: &Model, epoch: u64, release: bool) -> Result<Release, Error> {
        let now = (self.now)();
        let place = self.layout.packages().join(&model.name);
        let fresh = self.layout.path(&format!("{}-{epoch}", model.name));
        let sealed = keys::seal_as(&fresh, model, epoch, &self.keys, now, &|_| {})?;
        if release {
            let sealed = std::slice::from_ref(&sealed);
            tokio::task::block_in_place(|| keys::fill_broker(&self.layout, sealed, now))?;
        }
        std::fs::remove_dir_all(&place)
            .and_then(|()| std::fs::rename(&fresh, &place))
            .map_err(Error::io(place.display().to_string()))?;
        Ok(Release {
            manifest_sha256: sealed.manifest_sha256,
            key: sealed.key,
        })
    }

    /// Asks the host to ask the enclave for newer models; status and answer.
    ///
    /// # Errors
    /// The host does not answer.
    pub async fn reload(&self) -> Result<(u16, Bytes), Error> {
        let host = self.layout.control("host");
        post_json(&host, "/reload", Bytes::new())
            .await
            .map_err(Error::io(host))
    }

    /// `http://127.0.0.1:PORT/v1`, what an OpenAI client takes as its base URL.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// The port of the OpenAI-compatible proxy.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the programs write their logs.
    pub fn logs(&self) -> PathBuf {
        self.layout.logs()
    }

    /// Resolves when a program ends by itself, with its name.
    pub async fn first_to_end(&mut self) -> Error {
        tokio::select! {
            e = self.gateway.ended() => e,
            e = self.enclave.ended() => e,
            e = self.host.ended() => e,
            e = self.kbs.ended() => e,
            e = async {
                match &mut self.kms {
                    Some(kms) => kms.ended().await,
                    None => std::future::pending().await,
                }
            } => e,
        }
    }

    /// Stops the programs in the reverse order of their start, each with time to drain, and removes the run's files.
    pub async fn stop(mut self) {
        for child in [
            &mut self.gateway,
            &mut self.enclave,
            &mut self.host,
            &mut self.kbs,
        ]
        .into_iter()
        .chain(self.kms.as_mut())
        {
            child.stop().await;
        }
        self.authority.send_replace(true);
        self.authority_task.abort();
    }
}
