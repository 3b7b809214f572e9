//! A broker whose identities come from SPIRE, and enclaves that ask it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use attestation::{BootId, Pcr, Pcrs, Sha256Digest};
use identity::issue::new_svid_der;
use identity::{SpiffeId, Svid, TrustBundles, pem};
use kbs_client::{Server, ServerIdentity};
use sim::nsm::{SimNsm, SimPki};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use transport::Endpoint;
use zeroize::Zeroizing;

use crate::server::Spire;

pub const BROKER_ID: &str = "spiffe://cloister.dev/kbs";
pub const ENCLAVE_ID: &str = "spiffe://cloister.dev/enclave/demo";
const HOUR: Duration = Duration::from_secs(3600);

pub struct Broker {
    dir: tempfile::TempDir,
    pki: Zeroizing<String>,
    root_pem: String,
    running: Option<Running>,
}

struct Running {
    listen: Endpoint,
    control: Endpoint,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), kbs::Error>>,
}

pub fn pcrs() -> Pcrs {
    (0..16)
        .map(|index| (index, Pcr::ZERO.extend(&[index])))
        .collect()
}

/// `[issuer.spire]` with the machine of this name.
pub fn x509pop(spire: &Spire, machine: &str) -> String {
    let at = |name: String| spire.path(&name).display().to_string();
    format!(
        "[issuer.spire]\nserver = \"tcp://127.0.0.1:{}\"\nbundle = \"{}\"\nentries_socket = \"{}\"\n\
         [issuer.spire.x509pop]\nchain = \"{}\"\nkey = \"{}\"\n",
        spire.port,
        at("root.pem".into()),
        spire.socket(),
        at(format!("{machine}.pem")),
        at(format!("{machine}.key")),
    )
}

impl Broker {
    /// Writes what a broker needs; `signer` is the part of the configuration that says who signs.
    pub fn new(spire: &Spire, signer: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let pki = SimPki::generate(now);
        kbs::init(dir.path()).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("nitro-root.pem", &pki.root_pem());
        let id = SpiffeId::new(BROKER_ID).unwrap();
        let (chain, key) = new_svid_der(&spire.root, &id, 24 * HOUR, now).unwrap();
        write("kbs.pem", &pem::encode_certificates(&chain));
        write("kbs.key", &pem::encode_private_key(&key));
        let image: Vec<_> = (0..3)
            .map(|index| format!("\"{index}\" = \"{}\"", pcrs()[&index]))
            .collect();
        let config = format!(
            "listen = \"tcp://127.0.0.1:0\"\ncontrol = \"tcp://127.0.0.1:0\"\ndatabase = \"kbs.sqlite\"\n\
             master_key_file = \"master.key\"\ntrust_anchor = \"nitro-root.pem\"\npolicy = \"policy.rego\"\n\
             [tls]\nchain = \"kbs.pem\"\nkey = \"kbs.key\"\n\
             [issuer]\nttl_s = 3600\n[[issuer.map]]\nspiffe_id = \"{ENCLAVE_ID}\"\nimages = [{{ {} }}]\n{signer}",
            image.join(", ")
        );
        write("broker.toml", &config);
        Self {
            dir,
            pki: pki.to_json(),
            root_pem: spire.root.cert_pem(),
            running: None,
        }
    }

    pub async fn start(&mut self) -> Result<(), kbs::Error> {
        let config = kbs::Config::load(&self.path("broker.toml")).unwrap();
        let server = kbs::Server::bind(&config, tests::clock()).await?;
        let (listen, control) = (server.listen(), server.control());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async move {
            stopped.await.ok();
        }));
        self.running = Some(Running {
            listen,
            control,
            stop,
            task,
        });
        Ok(())
    }

    pub async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.stop.send(()).unwrap();
        running.task.await.unwrap().unwrap();
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub async fn ready(&self) -> (u16, String) {
        let control = self.running.as_ref().unwrap().control.to_string();
        let (status, body) = sim::stack::get(&control, "/readyz").await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// What an attested enclave with the right measurement gets.
    pub async fn issue(&self) -> Result<Svid, kbs_client::Error> {
        self.issue_to(pcrs(), ENCLAVE_ID).await
    }

    pub async fn issue_to(&self, pcrs: Pcrs, id: &str) -> Result<Svid, kbs_client::Error> {
        let nsm = SimNsm::new(SimPki::from_json(&self.pki).unwrap(), pcrs, tests::clock());
        let server = Server {
            endpoint: self.running.as_ref().unwrap().listen.clone(),
            identity: ServerIdentity::Spiffe(SpiffeId::new(BROKER_ID).unwrap()),
        };
        let client = kbs_client::Broker::new(
            vec![server],
            self.bundles(),
            Arc::new(nsm),
            Sha256Digest::of(b"config"),
            BootId::random(),
        );
        client
            .unwrap()
            .issue_svid(&SpiffeId::new(id).unwrap())
            .await
    }

    pub fn bundles(&self) -> TrustBundles {
        let domain = SpiffeId::new(BROKER_ID).unwrap();
        TrustBundles::from_pem(domain.trust_domain(), &self.root_pem).unwrap()
    }

    pub fn last_entry(&self) -> kbs::Entry {
        let config = kbs::Config::load(&self.path("broker.toml")).unwrap();
        let mut last = None;
        kbs::offline::read_log(&config, |record| last = Some(record.entry.clone())).unwrap();
        last.unwrap()
    }
}
