//! `kbs approve`: one administrator's word for one change, bound to its bytes.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use attestation::Sha256Digest;
use clap::{Args, Subcommand};

use super::policy::rego;
use super::{print, references, secret};
use crate::error::Error;
use crate::store::{Change, resource_digest};
use crate::{admin, config};

#[derive(Args)]
pub(super) struct Approve {
    /// The administrator's private key (PKCS#8 PEM).
    #[arg(long)]
    key: PathBuf,
    /// Seconds it is good for.
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    ttl_s: u64,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Store FILE under PATH.
    Put {
        /// `<repository>/<type>/<tag>`.
        path: String,
        /// The secret; `-` reads standard input.
        #[arg(required_unless_present = "sha256")]
        file: Option<PathBuf>,
        /// SHA-256 of the secret in hex, for an administrator who need not see it.
        #[arg(long, conflicts_with = "file")]
        sha256: Option<Sha256Digest>,
    },
    /// Delete what is under PATH.
    Delete {
        /// As stored.
        path: String,
    },
    /// Replace the resource policy by FILE.
    Policy {
        /// The policy; read it first.
        file: PathBuf,
    },
    /// Replace the attestation policy by FILE.
    AttestationPolicy {
        /// The policy; read it first.
        #[arg(required_unless_present = "remove")]
        file: Option<PathBuf>,
        /// Remove it instead.
        #[arg(long, conflicts_with = "file")]
        remove: bool,
    },
    /// Set the reference values in FILE, or delete one.
    ReferenceValue {
        /// The values, a JSON object.
        #[arg(required_unless_present = "delete")]
        file: Option<PathBuf>,
        /// The ID of the one to delete instead.
        #[arg(long, conflicts_with = "file")]
        delete: Option<String>,
    },
}

impl Approve {
    pub(super) fn run(self, now: SystemTime) -> Result<(), Error> {
        let change = match &self.what {
            What::Put {
                path,
                sha256: Some(sha256),
                ..
            } => resource_digest(path, *sha256),
            What::Put {
                path,
                file: Some(file),
                ..
            } => Change::put_resource(path, &secret(file)?).digest(),
            What::Put { .. } => return Err(Error::Usage("name FILE or --sha256".to_owned())),
            What::Delete { path } => Change::delete_resource(path).digest(),
            What::Policy { file } => Change::put_policy(&rego(file)?).digest(),
            What::AttestationPolicy { file, .. } => match file {
                Some(file) => Change::put_attestation_policy(&rego(file)?).digest(),
                None => Change::delete_attestation_policy().digest(),
            },
            What::ReferenceValue { file, delete } => match (file, delete) {
                (Some(file), _) => Change::set_references(references::values(file)?).digest(),
                (None, Some(id)) => Change::delete_reference(id).digest(),
                (None, None) => return Err(Error::Usage("name FILE or --delete".to_owned())),
            },
        };
        let (file, ttl) = (self.key.display(), Duration::from_secs(self.ttl_s));
        let pem = config::read(&self.key, 16 * 1024)
            .map_err(|problem| Error::Usage(format!("{file}: {problem}")))?;
        let token = admin::token(&pem, Some(change), ttl, now)
            .ok_or_else(|| Error::Usage(format!("{file}: not an Ed25519 PKCS#8 key")))?;
        let said = writeln!(
            io::stderr(),
            "approves change {change}, once, for {} seconds",
            self.ttl_s
        );
        // The token is the answer; this line is for whoever looks on.
        drop(said);
        print(&format!("{}\n", *token))
    }
}
