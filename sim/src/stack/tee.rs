//! What the enclave program runs in, and which endpoints follow from it.

use std::path::{Path, PathBuf};

use attestation::{Pcr, Pcrs};
use image::RamdiskWriter;
use image_builder::{Parts, Signer, build};
use serde_json::json;

use super::settings::toml_text;
use super::{Error, INSTANCE_ID, Layout, ROLE_ARN};
use crate::machine::{self, Fault, MachineConfig, ParentConfig};

/// Where the enclave program runs.
#[derive(Clone, Default)]
pub enum Tee {
    /// As a process of this machine, with a simulated secure module.
    #[default]
    Simulated,
    /// As an image in an emulated machine.
    Machine(MachineOptions),
}

/// See [`MachineConfig`] for what is not explained here.
#[derive(Clone)]
pub struct MachineOptions {
    pub emulator: PathBuf,
    /// Holds `bzImage`, `init` and `enclave`; also `host` for a parent that is a machine.
    pub parts: PathBuf,
    pub memory_mib: u32,
    pub processors: u32,
    pub append: String,
    pub fault: Option<Fault>,
    /// Who signs the image: PEM of a P-384 certificate and of its key. PCR8 then names the certificate.
    pub signer: Option<(String, String)>,
    /// The parent instance is a second machine with CID 3, as on Nitro; its host forwards to ours.
    pub parent_machine: bool,
}

impl MachineOptions {
    /// A machine that is large enough for the demonstration model, and nothing wrong with it.
    pub fn new(emulator: PathBuf, parts: PathBuf) -> Self {
        Self {
            emulator,
            parts,
            memory_mib: 1024,
            processors: 2,
            append: String::new(),
            fault: None,
            signer: None,
            parent_machine: false,
        }
    }
}

/// vsock ports of the enclave, and of the parent (from 8000 on), as an operator would choose them.
const SERVE: u32 = 7443;
const CONTROL: u32 = 9100;
const MODELS: u32 = 8000;
const BROKER: u32 = 8443;
const KMS: u32 = 8444;
const CREDENTIALS: u32 = 8445;
/// Of a parent that is a machine: its host's own control listener.
const PARENT_CONTROL: u32 = 9101;
/// Parent's context identifier on Nitro.
const PARENT_CID: u32 = 3;

const PARENT_MEMORY_MIB: u32 = 256;

/// What the enclave listens on and dials, and the host's ends of the same.
pub(super) struct Endpoints {
    pub(super) serve: String,
    pub(super) control: String,
    pub(super) models: String,
    pub(super) broker: String,
    pub(super) kms: String,
    pub(super) credentials: String,
    pub(super) host_dials: String,
    pub(super) host_models: String,
    pub(super) host_broker: String,
    pub(super) host_kms: String,
    pub(super) host_credentials: String,
    pub(super) boot: Option<[String; 2]>,
}

impl Tee {
    pub(super) fn endpoints(&self, layout: &Layout) -> Endpoints {
        let Some(socket) = self.socket(layout.dir()) else {
            let models = layout.unix("models.sock");
            let broker = layout.unix("egress-kbs.sock");
            let (kms, credentials) = (layout.unix("egress-kms.sock"), layout.unix("aws.sock"));
            let serve = layout.unix("enclave.sock");
            return Endpoints {
                control: layout.control("enclave"),
                host_dials: serve.clone(),
                host_models: models.clone(),
                host_broker: broker.clone(),
                host_kms: kms.clone(),
                host_credentials: credentials.clone(),
                kms,
                credentials,
                serve,
                models,
                broker,
                boot: None,
            };
        };
        let host = |port: u32| format!("hvsock://{}:{port}", socket.display());
        let boot = [host(init::heartbeat::PORT), host(init::console::PORT)];
        Endpoints {
            serve: format!("vsock://any:{SERVE}"),
            control: format!("vsock://any:{CONTROL}"),
            models: format!("vsock://{PARENT_CID}:{MODELS}"),
            broker: format!("vsock://{PARENT_CID}:{BROKER}"),
            kms: format!("vsock://{PARENT_CID}:{KMS}"),
            credentials: format!("vsock://{PARENT_CID}:{CREDENTIALS}"),
            host_dials: host(SERVE),
            host_models: host(MODELS),
            host_broker: host(BROKER),
            host_kms: host(KMS),
            host_credentials: host(CREDENTIALS),
            // A parent that is a machine answers these itself.
            boot: (!self.parent_machine()).then_some(boot),
        }
    }

    /// Where the host asks for the enclave's readiness.
    pub(super) fn control(&self, run: &Path) -> Option<String> {
        let port = match self.parent_machine() {
            true => PARENT_CONTROL,
            false => CONTROL,
        };
        let socket = self.socket(run)?;
        Some(format!("hvsock://{}:{port}", socket.display()))
    }

    /// The role that is the enclave.
    pub(super) fn role(&self) -> &'static str {
        match self {
            Self::Simulated => "enclave",
            Self::Machine(_) => "machine",
        }
    }

    fn parent_machine(&self) -> bool {
        matches!(self, Self::Machine(options) if options.parent_machine)
    }

    fn socket(&self, run: &Path) -> Option<PathBuf> {
        match self {
            Self::Simulated => None,
            Self::Machine(options) if options.parent_machine => Some(machine::parent_socket(run)),
            Self::Machine(_) => Some(machine::enclave_socket(run)),
        }
    }
}

/// Packs the image with this configuration, writes the machine's own configuration, and gives what the secure module will
/// report.
pub(super) fn prepare(
    layout: &Layout,
    options: &MachineOptions,
    config: &[u8],
) -> Result<Pcrs, Error> {
    let image = layout.path("enclave.eif");
    let pcrs = pack(options, config, &image)?;
    let parent = match options.parent_machine {
        true => Some(parent(layout, options)?),
        false => None,
    };
    let machine = MachineConfig {
        emulator: options.emulator.clone(),
        image,
        run: layout.dir().to_owned(),
        memory_mib: options.memory_mib,
        processors: options.processors,
        parent_role: ROLE_ARN.to_owned(),
        append: options.append.clone(),
        fault: options.fault,
        parent,
    };
    let text = toml::to_string(&machine).map_err(|e| Error::Keys(e.to_string()))?;
    layout.write("machine.toml", text.as_bytes())?;
    Ok(pcrs)
}

/// Packs an image with this configuration, and gives what the secure module will report.
///
/// # Errors
/// A part is missing, or no image may have it.
pub fn pack(options: &MachineOptions, config: &[u8], out: &Path) -> Result<Pcrs, Error> {
    let part = |name: &str| options.parts.join(name);
    let parts = Parts {
        kernel: &part("bzImage"),
        init: &part("init"),
        enclave: &part("enclave"),
        config,
        name: "cloister",
        version: env!("CARGO_PKG_VERSION"),
    };
    let signer = options.signer.as_ref().map(|(certificate, key)| Signer {
        certificate: certificate.as_bytes(),
        key: key.as_bytes(),
    });
    let built = build(&parts, signer.as_ref(), out)
        .map_err(|e| Error::Image(format!("{e} (scripts/nitro-emulator builds the parts)")))?;
    let mut pcrs: Pcrs = (0..16).map(|index| (index, Pcr::ZERO)).collect();
    for (index, pcr) in built.image.measurements.registers() {
        pcrs.insert(index, Pcr::from_bytes(*pcr.as_bytes()));
    }
    pcrs.insert(3, Pcr::ZERO.extend(ROLE_ARN.as_bytes()));
    pcrs.insert(4, Pcr::ZERO.extend(INSTANCE_ID.as_bytes()));
    Ok(pcrs)
}

/// A parent instance: the shipped host is the only program of its machine. It forwards to the host outside, which has the
/// models and reaches the broker.
fn parent(layout: &Layout, options: &MachineOptions) -> Result<ParentConfig, Error> {
    let cid = machine::CID;
    let config = json!({
        "control": format!("vsock://any:{PARENT_CONTROL}"),
        "enclave_control": format!("vsock://{cid}:{CONTROL}"),
        "relay": {"listen": format!("vsock://any:{SERVE}"), "enclave": format!("vsock://{cid}:{SERVE}")},
        "egress": [
            {"class": "key-release", "listen": format!("vsock://any:{BROKER}"), "target": format!("vsock://2:{BROKER}")},
            {"class": "kms", "listen": format!("vsock://any:{KMS}"), "target": format!("vsock://2:{KMS}")},
            {"class": "aws-credentials", "listen": format!("vsock://any:{CREDENTIALS}"), "target": format!("vsock://2:{CREDENTIALS}")},
            {"class": "sealed-models", "listen": format!("vsock://any:{MODELS}"), "target": format!("vsock://2:{MODELS}")},
        ],
        "boot": {
            "heartbeat": format!("vsock://any:{}", init::heartbeat::PORT),
            "console": format!("vsock://any:{}", init::console::PORT),
        },
    });
    let config = toml_text(&config)?;
    let program = options.parts.join("host");
    let program = std::fs::read(&program).map_err(Error::io(program.display().to_string()))?;
    let mut ramdisk = Vec::new();
    RamdiskWriter::new(&mut ramdisk)
        .directory("dev", 0o755)
        .and_then(|w| w.device("dev/console", 0o600, 5, 1))
        .and_then(|w| w.file("host", 0o755, program.len() as u64, program.as_slice()))
        .and_then(|w| w.file("config", 0o444, config.len() as u64, config.as_bytes()))
        .and_then(RamdiskWriter::finish)
        .map_err(|e| Error::Image(e.to_string()))?;
    Ok(ParentConfig {
        kernel: options.parts.join("bzImage"),
        ramdisk: layout.write("parent.cpio", &ramdisk)?,
        // Words that the kernel does not know become init's arguments, unless they have a dot in them.
        command_line: "reboot=t panic=1 console=ttyS0 rdinit=/host --config /config".to_owned(),
        memory_mib: PARENT_MEMORY_MIB,
    })
}
