//! A broker that runs in this process, under a clock and two throwaway roots that the test holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use attestation::{Attester, BootId, Pcr, Pcrs, Sha256Digest};
use identity::issue::{Authority, new_svid_der};
use identity::{Clock, SpiffeId, TrustBundles, TrustDomain};
use kbs_client::{Server, ServerIdentity};
use sim::nsm::{SimNsm, SimPki};
use tokio::sync::oneshot;
use transport::Endpoint;
use zeroize::Zeroizing;

pub const BROKER_ID: &str = "spiffe://example.org/kbs";
pub const ENCLAVE_ID: &str = "spiffe://example.org/enclave/demo";
pub const KEY_ID: &str = "models/demo/epoch-1";
pub const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const START: Duration = Duration::from_secs(1_800_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A running broker and everything around it.
pub struct Broker {
    dir: tempfile::TempDir,
    seconds: Arc<AtomicU64>,
    pki: Zeroizing<String>,
    pub root: Authority,
    pub listen: Endpoint,
    pub control: Endpoint,
    stop: Option<oneshot::Sender<()>>,
}

/// What differs between tests.
pub struct Setup {
    /// None: whatever a broker without a policy does.
    pub policy: Option<String>,
    pub issuer: bool,
    /// A configured token key, and these public keys (PEM) published beside it.
    pub token: Option<Vec<String>>,
    /// When the broker's clock stands; it moves by [`Broker::pass`] alone.
    pub start: Duration,
    /// Another root of evidence than the broker's own, PEM.
    pub anchor: Option<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            policy: Some(policy(&pcrs())),
            issuer: true,
            token: None,
            start: START,
            anchor: None,
        }
    }
}

/// The registers of the image that the policy and the issuer know.
pub fn pcrs() -> Pcrs {
    let mut pcrs: Pcrs = (0..16).map(|index| (index, Pcr::ZERO)).collect();
    for index in [0, 1, 2, 4] {
        pcrs.insert(index, Pcr::ZERO.extend(&[index]));
    }
    pcrs
}

/// The registers of any other image.
pub fn other_pcrs() -> Pcrs {
    let mut pcrs = pcrs();
    pcrs.insert(0, Pcr::ZERO.extend(b"another image"));
    pcrs
}

pub fn policy(pcrs: &Pcrs) -> String {
    format!(
        "package policy\n\nimport rego.v1\n\ndefault allow := false\n\nallow if {{\n\tdata.plugin == \"resource\"\n\t\
         input.nitro.pcrs[\"0\"] == \"{}\"\n\tdata[\"resource-path\"][0] == \"models\"\n}}\n",
        pcrs[&0]
    )
}

impl Broker {
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seconds = Arc::new(AtomicU64::new(setup.start.as_secs()));
        let now = SystemTime::UNIX_EPOCH + setup.start;
        let pki = SimPki::generate(now);
        let domain = TrustDomain::new("example.org").unwrap();
        let root = Authority::generate_root(&domain, now, 30 * DAY).unwrap();

        kbs::init(dir.path()).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let anchor = setup.anchor.clone().unwrap_or_else(|| pki.root_pem());
        write("root.pem", &anchor);
        let issuer = root.intermediate(now, 30 * DAY).unwrap();
        write(
            "ca.pem",
            &identity::pem::encode_certificates(issuer.cert_chain()),
        );
        write("ca.key", &issuer.key_pem().unwrap());
        let id = SpiffeId::new(BROKER_ID).unwrap();
        let (chain, key) = new_svid_der(&root, &id, 30 * DAY, now).unwrap();
        write("kbs.pem", &identity::pem::encode_certificates(&chain));
        write("kbs.key", &identity::pem::encode_private_key(&key));

        let public = std::fs::read_to_string(dir.path().join("admin.pub")).unwrap();
        let mut config = format!(
            "listen = \"tcp://127.0.0.1:0\"\ncontrol = \"tcp://127.0.0.1:0\"\ndatabase = \"kbs.sqlite\"\n\
             master_key_file = \"master.key\"\ntrust_anchor = \"root.pem\"\nadmin_public_keys = ['''{public}''']\n"
        );
        if let Some(policy) = &setup.policy {
            write("resource.rego", policy);
            config.push_str("policy = \"resource.rego\"\n");
        }
        config.push_str("[tls]\nchain = \"kbs.pem\"\nkey = \"kbs.key\"\n");
        if setup.issuer {
            let image: Vec<_> = (0..3)
                .map(|index| format!("\"{index}\" = \"{}\"", pcrs()[&index]))
                .collect();
            config.push_str(&format!(
                "[issuer]\nchain = \"ca.pem\"\nkey = \"ca.key\"\nttl_s = 3600\n[[issuer.map]]\n\
                 spiffe_id = \"{ENCLAVE_ID}\"\nimages = [{{ {} }}]\n",
                image.join(", ")
            ));
        }
        if let Some(public_keys) = &setup.token {
            let mut names = Vec::new();
            for (index, pem) in public_keys.iter().enumerate() {
                names.push(format!("\"token-{index}.pub\""));
                write(&format!("token-{index}.pub"), pem);
            }
            let names = names.join(", ");
            config.push_str(&format!(
                "[token]\nkey = \"token.key\"\npublish = [{names}]\n"
            ));
        }
        write("broker.toml", &config);
        let pki = pki.to_json();

        let mut broker = Self {
            dir,
            seconds,
            pki,
            root,
            listen: Endpoint::Tcp(String::new()),
            control: Endpoint::Tcp(String::new()),
            stop: None,
        };
        kbs::offline::put_resource(&broker.config(), KEY_ID, SECRET, now).unwrap();
        let server = kbs::Server::bind(&broker.config(), broker.clock())
            .await
            .unwrap();
        (broker.listen, broker.control) = (server.listen(), server.control());
        let (stop, stopped) = oneshot::channel();
        broker.stop = Some(stop);
        tokio::spawn(server.run(async move {
            stopped.await.ok();
        }));
        broker
    }

    pub fn config(&self) -> kbs::Config {
        kbs::Config::load(&self.path("broker.toml")).unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn clock(&self) -> Arc<dyn Fn() -> SystemTime + Send + Sync> {
        let seconds = Arc::clone(&self.seconds);
        Arc::new(move || {
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst))
        })
    }

    pub fn now(&self) -> SystemTime {
        (self.clock())()
    }

    pub fn pass(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    pub fn bundles(&self) -> TrustBundles {
        TrustBundles::from_pem(self.root.trust_domain(), &self.root.cert_pem()).unwrap()
    }

    /// A secure module under the root that the broker trusts.
    pub fn nsm(&self, pcrs: Pcrs) -> SimNsm {
        SimNsm::new(SimPki::from_json(&self.pki).unwrap(), pcrs, self.clock())
    }

    /// The shipped client, in an enclave with these registers.
    pub fn client(&self, pcrs: Pcrs) -> kbs_client::Broker {
        self.client_of(Arc::new(self.nsm(pcrs)), BROKER_ID)
    }

    pub fn client_of(&self, attester: Arc<dyn Attester>, broker_id: &str) -> kbs_client::Broker {
        self.client_of_any(attester, vec![server(&self.listen, broker_id)])
    }

    /// A client that may go to any of `servers`.
    pub fn client_of_any(
        &self,
        attester: Arc<dyn Attester>,
        servers: Vec<Server>,
    ) -> kbs_client::Broker {
        let digest = Sha256Digest::of(b"config");
        kbs_client::Broker::new(servers, self.bundles(), attester, digest, BootId::random())
            .unwrap()
            .with_clock(Clock::from_fn(self.clock()))
            .unwrap()
    }

    /// The whole release log, its chain checked.
    pub fn log(&self) -> Vec<kbs::Entry> {
        let mut entries = Vec::new();
        kbs::offline::read_log(&self.config(), |record| entries.push(record.entry.clone()))
            .unwrap();
        entries
    }

    pub fn last_entry(&self) -> kbs::Entry {
        self.log().pop().unwrap()
    }

    pub fn outcomes(&self) -> Vec<String> {
        self.log().into_iter().map(|entry| entry.outcome).collect()
    }
}

pub fn server(endpoint: &Endpoint, id: &str) -> Server {
    Server {
        endpoint: endpoint.clone(),
        identity: ServerIdentity::Spiffe(SpiffeId::new(id).unwrap()),
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
    }
}
