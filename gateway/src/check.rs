//! `gateway check-policy`: what a policy would accept, and whether it may follow what was enforced, without enforcing it.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::policy::{self, History, HistoryError, Policy, PolicyFileError};
use crate::report;

/// Why the policy would not be enforced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    #[error(transparent)]
    File(#[from] PolicyFileError),
    #[error(transparent)]
    History(#[from] HistoryError),
}

impl CheckError {
    /// 77 where the policy is a good one and goes back, 64 where the file is to be written otherwise, 66 for an unreadable history.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::History(error) if error.refuses_policy() => 77,
            Self::History(_) => 66,
            Self::File(_) => 64,
        }
    }
}

/// A policy that would be enforced.
#[derive(Debug)]
pub struct Checked {
    policy: Policy,
    history: Option<History>,
}

/// Reads `file`, and `history` where there is one; writes nothing.
///
/// # Errors
/// [`CheckError`].
pub fn check(file: &Path, history: Option<&Path>) -> Result<Checked, CheckError> {
    let policy = policy::load(file)?;
    let history = history.map(History::open).transpose()?;
    if let Some(history) = &history {
        history.check(&policy)?;
    }
    Ok(Checked { policy, history })
}

impl Checked {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let policy = &self.policy;
        let root = match policy.trust_anchor.is_aws_nitro() {
            true => "AWS Nitro Enclaves".to_owned(),
            false => format!(
                "NOT AWS: {} (proves what the holder of that root says)",
                policy.trust_anchor.fingerprint()
            ),
        };
        let mut text = String::new();
        let mut row = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a String cannot fail.
            let _written = writeln!(text, "{name:<14} {value}");
        };
        row("serial", &policy.serial);
        row("sha256", &policy.digest());
        for id in policy.server_ids.as_slice() {
            row("server", id);
        }
        row("root", &root);
        for (number, image) in policy.images.images().iter().enumerate() {
            for (index, pcr) in &image.registers {
                row(&format!("image {number} PCR{index}"), pcr);
            }
            for (word, time) in [("from", image.not_before), ("until", image.not_after)] {
                if let Some(time) = time {
                    row(&format!("image {number} {word}"), &report::time(time));
                }
            }
        }
        for (name, pins) in [
            ("PCR3", &policy.fleet.roles),
            ("PCR4", &policy.fleet.instances),
        ] {
            match pins.as_slice() {
                [] => row(name, &"any: the parent is not pinned"),
                pins => pins.iter().for_each(|pin| row(name, pin)),
            }
        }
        for digest in &policy.config_digests {
            row("configuration", digest);
        }
        for model in &policy.models {
            let package = model.manifest_sha256.map_or_else(
                || "any package".to_owned(),
                |digest| format!("package {digest}"),
            );
            row(
                "model",
                &format!("{} from epoch {}, {package}", model.name, model.min_epoch),
            );
            match model.publishers.as_slice() {
                [] => row("  publisher", &"any that the measured configuration trusts"),
                pins => pins.iter().for_each(|pin| row("  publisher", pin)),
            }
        }
        row("max_age_s", &policy.max_age.as_secs());
        row("reattest_s", &policy.reattest.as_secs());
        if let Some(history) = &self.history {
            let last = history.accepted().last();
            let follows = last.map_or_else(
                || "the first policy here".to_owned(),
                |last| format!("follows serial {}", last.serial),
            );
            row("history", &follows);
        }
        text
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let policy = &self.policy;
        let servers = policy.server_ids.as_slice().iter();
        let models: Vec<_> = policy
            .models
            .iter()
            .map(|model| {
                json!({
                    "name": model.name,
                    "min_epoch": model.min_epoch,
                    "manifest_sha256": model.manifest_sha256,
                    "publishers": model.publishers,
                })
            })
            .collect();
        let last = self
            .history
            .as_ref()
            .and_then(|history| history.accepted().last());
        json!({
            "serial": policy.serial,
            "sha256": policy.digest(),
            "server_ids": servers.map(ToString::to_string).collect::<Vec<_>>(),
            "trust_anchor": {
                "aws_nitro": policy.trust_anchor.is_aws_nitro(),
                "sha256": policy.trust_anchor.fingerprint(),
            },
            "images": policy.images,
            "fleet": {"pcr3": policy.fleet.roles, "pcr4": policy.fleet.instances},
            "config_digests": policy.config_digests,
            "models": models,
            "max_age_s": policy.max_age.as_secs(),
            "reattest_s": policy.reattest.as_secs(),
            "follows": last,
        })
    }
}
