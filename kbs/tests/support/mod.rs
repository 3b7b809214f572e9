//! The real broker as a process of its own, and an enclave that it believes: evidence under a root made for the
//! occasion. (The simulated secure module, which knows far more, stands on this crate and cannot be used here.)

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use attestation::{
    AttestError, AttestationRequest, Attester, BootId, Evidence, Pcr, Pcrs, Sha256Digest,
};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use identity::issue::{Authority, new_svid_der};
use identity::{SpiffeId, TrustBundles, TrustDomain};
use kbs_client::{Server, ServerIdentity};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384,
};
use transport::Endpoint;

pub(crate) const BROKER_ID: &str = "spiffe://example.org/kbs";
const HOUR: Duration = Duration::from_secs(3600);

#[expect(
    clippy::disallowed_methods,
    reason = "time enters the test here, as it does in the broker's main"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// A broker's directory, and everything around it.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: PathBuf,
    root: Authority,
    nsm: Arc<Nsm>,
}

impl Site {
    /// `extra` goes before the tables of the configuration; `policy` is installed at the first start.
    pub(crate) fn new(policy: impl FnOnce(&Pcrs) -> String, extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        kbs::init(dir.path()).unwrap();
        let (nsm, anchor) = Nsm::new();
        write("root.pem", &anchor);
        write("measured.rego", &policy(&nsm.pcrs));
        let domain = TrustDomain::new("example.org").unwrap();
        let root = Authority::generate_root(&domain, now(), 24 * HOUR).unwrap();
        let id = SpiffeId::new(BROKER_ID).unwrap();
        let (chain, key) = new_svid_der(&root, &id, 24 * HOUR, now()).unwrap();
        write("kbs.pem", &identity::pem::encode_certificates(&chain));
        write("kbs.key", &identity::pem::encode_private_key(&key));
        let config = format!(
            "listen = \"unix://{listen}\"\ncontrol = \"unix://{control}\"\ndatabase = \"kbs.sqlite\"\n\
             master_key_file = \"master.key\"\ntrust_anchor = \"root.pem\"\npolicy = \"measured.rego\"\n{extra}\n\
             [tls]\nchain = \"kbs.pem\"\nkey = \"kbs.key\"\n",
            listen = path("listen").display(),
            control = path("control").display(),
        );
        write("broker.toml", &config);
        Self {
            config: path("broker.toml"),
            nsm: Arc::new(nsm),
            root,
            dir,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> kbs::Config {
        kbs::Config::load(&self.config).unwrap()
    }

    pub(crate) fn bundles(&self) -> TrustBundles {
        TrustBundles::from_pem(self.root.trust_domain(), &self.root.cert_pem()).unwrap()
    }

    pub(crate) fn listen(&self) -> Endpoint {
        Endpoint::Unix(self.path("listen"))
    }

    /// An enclave's client, with a key and evidence of its own for every release.
    pub(crate) fn client(&self) -> kbs_client::Broker {
        let servers = vec![Server {
            endpoint: self.listen(),
            identity: ServerIdentity::Spiffe(SpiffeId::new(BROKER_ID).unwrap()),
        }];
        let nsm: Arc<Nsm> = Arc::clone(&self.nsm);
        let digest = Sha256Digest::of(b"config");
        kbs_client::Broker::new(servers, self.bundles(), nsm, digest, BootId::random()).unwrap()
    }

    /// Runs `kbs` with these arguments and the configuration.
    pub(crate) fn kbs(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = kbs();
        command.args(arguments).arg("--config").arg(&self.config);
        command.output().unwrap()
    }

    /// A broker that listens.
    pub(crate) async fn serve(&self) -> Running {
        let mut command = kbs();
        command.arg("serve").arg("--config").arg(&self.config);
        let log = std::fs::File::create(self.path("stderr")).unwrap();
        let child = command.stderr(log).stdout(Stdio::null()).spawn().unwrap();
        let mut running = Running(child);
        let listen = self.listen();
        for _ in 0..1200 {
            if listen.connect().await.is_ok() {
                return running;
            }
            if let Some(status) = running.0.try_wait().unwrap() {
                panic!(
                    "{status}: {}",
                    std::fs::read_to_string(self.path("stderr")).unwrap()
                );
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the broker does not listen");
    }
}

pub(crate) fn kbs() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kbs"))
}

/// A process, killed when dropped: as `kill -9` does.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Root, three intermediates and a leaf, as the real ones.
pub(crate) struct Nsm {
    pcrs: Pcrs,
    leaf: Vec<u8>,
    cabundle: Vec<Vec<u8>>,
    signer: EcdsaKeyPair,
}

impl Nsm {
    fn new() -> (Self, String) {
        let (pem, mut issuer) = authority("root", None);
        let mut cabundle = vec![issuer.0.clone()];
        for name in ["regional", "zonal", "instance"] {
            issuer = authority(name, Some(&issuer.1)).1;
            cabundle.push(issuer.0.clone());
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let mut leaf = params("leaf");
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = leaf.signed_by(&key, &issuer.1).unwrap();
        let register = |index| (index, Pcr::ZERO.extend(&[index]));
        let nsm = Self {
            pcrs: (0..16).map(register).collect(),
            leaf: leaf.der().to_vec(),
            cabundle,
            signer: EcdsaKeyPair::from_pkcs8(
                &ECDSA_P384_SHA384_FIXED_SIGNING,
                key.serialized_der(),
            )
            .unwrap(),
        };
        (nsm, pem)
    }
}

impl Attester for Nsm {
    fn attest(&self, request: &AttestationRequest<'_>) -> Result<Evidence, AttestError> {
        let since = now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let milliseconds = u64::try_from(since.as_millis()).unwrap();
        let mut payload = vec![0xbf];
        let mut member = |name: &str, value: Vec<u8>| {
            payload.extend(text(name));
            payload.extend(value);
        };
        let registers = self.pcrs.iter();
        let registers =
            registers.flat_map(|(i, v)| [head(0, u64::from(*i)), bytes(v.as_bytes())].concat());
        let cabundle = self.cabundle.iter().flat_map(|der| bytes(der));
        member("module_id", text("i-0123456789abcdef0-enc0123456789abcdef"));
        member("digest", text("SHA384"));
        member("timestamp", head(0, milliseconds));
        member("pcrs", head(5, 16).into_iter().chain(registers).collect());
        member("certificate", bytes(&self.leaf));
        member("cabundle", head(4, 4).into_iter().chain(cabundle).collect());
        member("public_key", bytes(request.public_key));
        member("user_data", bytes(request.user_data));
        member("nonce", bytes(request.nonce));
        payload.push(0xff);
        let (protected, payload) = (bytes(&[0xa1, 0x01, 0x38, 0x22]), bytes(&payload));
        let signed = [
            &[0x84][..],
            &text("Signature1"),
            &protected,
            &[0x40],
            &payload,
        ]
        .concat();
        let signature = self.signer.sign(&SystemRandom::new(), &signed).unwrap();
        let signature = bytes(signature.as_ref());
        let document = [&[0x84][..], &protected, &[0xa0], &payload, &signature].concat();
        Ok(Evidence::from_bytes(document).unwrap())
    }

    fn measurements(&self) -> Result<Pcrs, AttestError> {
        Ok(self.pcrs.clone())
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), AttestError> {
        aws_lc_rs::rand::fill(bytes).unwrap();
        Ok(())
    }

    fn extend_and_lock(&self, index: u8, _: &[u8]) -> Result<Pcr, AttestError> {
        Err(AttestError::NoSuchRegister { index })
    }
}

type Authorised = (Vec<u8>, Issuer<'static, KeyPair>);

fn authority(name: &str, issuer: Option<&Issuer<'static, KeyPair>>) -> (String, Authorised) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    let der = certificate.der().to_vec();
    (certificate.pem(), (der, Issuer::new(params, key)))
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now() - HOUR).into();
    params.not_after = (now() + 12 * HOUR).into();
    params
}

fn head(major: u8, argument: u64) -> Vec<u8> {
    let all = argument.to_be_bytes();
    match argument {
        0..=23 => vec![major << 5 | all[7]],
        24..=0xff => vec![major << 5 | 24, all[7]],
        0x100..=0xffff => [&[major << 5 | 25], &all[6..]].concat(),
        0x1_0000..=0xffff_ffff => [&[major << 5 | 26], &all[4..]].concat(),
        _ => [&[major << 5 | 27], &all[..]].concat(),
    }
}

fn bytes(value: &[u8]) -> Vec<u8> {
    [head(2, value.len() as u64), value.to_vec()].concat()
}

fn text(value: &str) -> Vec<u8> {
    [head(3, value.len() as u64), value.as_bytes().to_vec()].concat()
}

/// One request of an administrator, on a connection of its own: the status code, or nothing if the broker was gone.
pub(crate) async fn admin_request(
    site: &Site,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<u16> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let tls = identity::client_config_at(
        identity::Clock::from_fn(Arc::new(now)),
        None,
        site.bundles().into_handle(),
        identity::Accept::Ids(vec![SpiffeId::new(BROKER_ID).unwrap()]),
        &[b"http/1.1"],
    )
    .unwrap();
    let stream = site.listen().connect().await.ok()?;
    let connector = tokio_rustls::TlsConnector::from(tls);
    let mut stream = connector
        .connect(identity::server_name(), stream)
        .await
        .ok()?;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: kbs\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream
        .write_all(&[head.as_bytes(), body].concat())
        .await
        .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    line.strip_prefix("HTTP/1.1 ")?
        .split(' ')
        .next()?
        .parse()
        .ok()
}

/// A bearer token of the administrator whose key is in this file.
pub(crate) fn token(key: &Path) -> String {
    let output = kbs()
        .arg("admin-token")
        .arg("--ttl-s")
        .arg("3600")
        .arg("--key")
        .arg(key)
        .output();
    String::from_utf8(output.unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}
