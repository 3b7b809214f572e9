//! `key-release-probe`: asks a key broker for one resource as an enclave would, and prints each step with its time, so that
//! any broker can be tried, ours or another's.
//!
//! The evidence is a simulated module's, under a root that is made for it: a broker releases something only if it was told to
//! trust that root. What is obtained is written to a file or not at all; the screen sees its length.

mod kms;
mod module;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attestation::{BootId, Pcr, Sha256Digest};
use clap::{Parser, ValueEnum};
use identity::TrustBundles;
use kbs_client::{Broker, Error, Step};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::dev::screen::{Screen, fail};
use crate::nsm::SimNsm;
use crate::stack::Clock;
use kms::KmsArgs;
use server::ServerArgs;

/// Ask a key broker for one resource, as an enclave would, and print each step with its time.
///
/// The evidence comes from a simulated Nitro module with a throwaway root, made at the first run. Tell the broker to trust
/// that root (kbs: `trust_anchor`), and its policy to accept the registers that are printed, on a test system only.
#[derive(Parser)]
#[command(name = "key-release-probe", version, after_help = EXAMPLES)]
struct Cli {
    /// How the resource is obtained
    #[arg(long, value_enum)]
    mode: Mode,
    /// The broker that gets the evidence: https://HOST:PORT, or tcp://, unix://, vsock:// with --spiffe-id.
    /// kms: where the service is reached, by default its public address
    #[arg(long, value_name = "URL", required_if_eq_any([("mode", "kbs"), ("mode", "passport")]))]
    url: Option<String>,
    #[command(flatten)]
    broker: ServerArgs,
    /// passport: the server that gets the token and has the resource
    #[arg(
        long,
        value_name = "https://HOST:PORT",
        required_if_eq("mode", "passport")
    )]
    trustee_url: Option<String>,
    /// passport: the roots of that server's certificate, PEM
    #[arg(long, value_name = "FILE", required_if_eq("mode", "passport"))]
    trustee_ca: Option<PathBuf>,
    #[command(flatten)]
    kms: KmsArgs,
    /// kbs, passport: <repository>/<type>/<tag>
    #[arg(long, value_name = "PATH", required_if_eq_any([("mode", "kbs"), ("mode", "passport")]))]
    resource: Option<String>,
    /// The simulated module: made here if the file is not there; its root goes to FILE.root.pem
    #[arg(long, value_name = "FILE", default_value = "probe-module.json")]
    module: PathBuf,
    /// A register of the simulated image (96 hex digits); may be repeated. By default 0, 1 and 2 have made-up values
    #[arg(long = "pcr", value_name = "N=HEX", value_parser = register)]
    pcrs: Vec<(u8, Pcr)>,
    /// Write what was obtained to this new file, which only you may read
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  A Cloister broker:
    key-release-probe --mode kbs --url tcp://127.0.0.1:8443 --spiffe-id spiffe://example.org/kbs \\
      --bundle bundle.pem --resource models/demo/epoch-1
  Another RCAR 0.4.0 broker that knows the platform `aws-nitro`:
    key-release-probe --mode kbs --url https://kbs.example.org:8080 --ca ca.pem --resource models/demo/epoch-1
  A stock Trustee, on the word of a Cloister broker:
    key-release-probe --mode passport --url tcp://127.0.0.1:8443 --spiffe-id spiffe://example.org/kbs \\
      --bundle bundle.pem --trustee-url https://trustee.example.org:8080 --trustee-ca ca.pem --resource models/demo/epoch-1
  AWS KMS, or what stands in for it; the public service refuses a simulated module, and says how:
    key-release-probe --mode kms --package ./packages/my-model

Exit codes: 0 obtained, 64 usage, 69 not available, 70 bug, 77 refused.";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// RCAR: the broker verifies the evidence and has the resource
    Kbs,
    /// The broker turns the evidence into a token; another server takes that
    Passport,
    /// AWS KMS decrypts a package's wrapped key to the attested key
    Kms,
}

/// One line for a person, and the exit code.
pub(crate) struct Failure(pub(crate) String, pub(crate) u8);

impl Failure {
    fn usage(text: impl Into<String>) -> Self {
        Self(text.into(), 64)
    }
}

fn register(text: &str) -> Result<(u8, Pcr), String> {
    let (index, value) = text.split_once('=').ok_or("write it as N=HEX")?;
    let index = index.parse().ok().filter(|index| *index < 16);
    let index = index.ok_or("the register's number is 0 to 15")?;
    Ok((index, value.parse().map_err(|error| format!("{error}"))?))
}

/// Runs the command line and returns the process's exit code.
pub fn main(now: Clock) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; a closed terminal is no reason to fail.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no async runtime: {error}"), 70),
    };
    match runtime.block_on(probe(cli, now)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(line, code)) => fail(&line, code),
    }
}

async fn probe(cli: Cli, now: Clock) -> Result<(), Failure> {
    let screen = Screen::new();
    let (module, root) = module::open(&cli.module, &cli.pcrs, &now)?;
    screen.heading("Simulated module");
    screen.field("root, for the broker", &root.display().to_string());
    for (index, pcr) in module.registers() {
        screen.field(&format!("PCR{index}"), &pcr.to_string());
    }

    screen.heading("Steps");
    let begun = Instant::now();
    let last = Mutex::new(begun);
    let step = move |what: &str| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        timed(screen, last.elapsed(), what);
        *last = Instant::now();
    };
    let obtained = match cli.mode {
        Mode::Kms => {
            let step = Arc::new(step);
            let made = Arc::clone(&step);
            let made = move || made("recipient key and evidence made");
            let (url, ca) = (cli.url.as_deref(), cli.broker.ca());
            let secret = cli.kms.obtain(url, ca, module.nsm, now, made).await?;
            step("answered and opened");
            Zeroizing::new(secret.expose().to_vec())
        }
        Mode::Kbs | Mode::Passport => {
            let client = client(&cli, module.nsm)?;
            let client = client.with_observer(Arc::new(move |done: Step| step(&done.to_string())));
            let path = cli.resource.as_deref().unwrap_or_default();
            let secret = client.data_key(path).await.map_err(explained)?;
            Zeroizing::new(secret.expose().to_vec())
        }
    };
    timed(screen, begun.elapsed(), "in all");
    screen.good(&format!("{} bytes obtained", obtained.len()));
    if let Some(out) = &cli.out {
        module::write_private(out, &obtained)?;
        screen.field("written to", &out.display().to_string());
    }
    Ok(())
}

fn client(cli: &Cli, nsm: SimNsm) -> Result<Broker, Failure> {
    let url = cli.url.as_deref().unwrap_or_default();
    let (broker, bundles) = cli.broker.server(url, "--url")?;
    let client = Broker::new(
        vec![broker],
        bundles.unwrap_or_else(TrustBundles::new),
        Arc::new(nsm),
        Sha256Digest::of(b"key-release-probe"),
        BootId::random(),
    )
    .map_err(|error| Failure::usage(error.to_string()))?;
    let (Mode::Passport, Some(url), Some(ca)) = (cli.mode, &cli.trustee_url, &cli.trustee_ca)
    else {
        return Ok(client);
    };
    let (trustee, _) = ServerArgs::web(ca.clone()).server(url, "--trustee-url")?;
    client
        .with_trustee(trustee)
        .map_err(|error| Failure::usage(format!("{}: {error}", ca.display())))
}

fn timed(screen: Screen, took: Duration, what: &str) {
    screen.line(&format!("  {:>9.1} ms  {what}", took.as_secs_f64() * 1e3));
}

/// The client's own words, and what to look at.
fn explained(error: Error) -> Failure {
    let (hint, code) = match &error {
        Error::Refused { kind } => (
            match kind.as_str() {
                "AttestationError" => {
                    "; the broker knows no aws-nitro, does not trust the module's root, or does not speak 0.4.0"
                }
                "PolicyDeny" => "; its policy does not let these registers have this resource",
                "PluginInternalError" => "; it has no such resource",
                "TokenVerifierError" => "; it does not trust the key that the token is signed with",
                _ => "; the reason is in the broker's log",
            },
            77,
        ),
        Error::Request(_) => ("", 64),
        Error::Attester(_) => ("", 70),
        _ => ("", 69),
    };
    Failure(format!("{error}{hint}"), code)
}
