use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use spiffe::SpiffeId;

use crate::failure::{Chain, Failure};
use crate::output;
use crate::spire_entries::{Entries, EntriesError, Entry};

/// Each one is to be removed; nobody reads more than this many before the first.
const SHOWN: usize = 50;

/// Refuse a SPIRE server that would hand the enclave's identity to a machine
///
/// A SPIRE agent makes a key for every registration entry below it. So no entry may carry the enclave's ID, but one below the key
/// broker's own agent (--broker-agent): that one asks for certificates on evidence, for keys made inside. Entries that could certify it in another way are refused too:
/// admin and downstream ones, and names that stand for every name. Exit code 77 if there is one.
#[derive(Args)]
#[command(after_help = "\
Examples:
  spire-server entry show -output json | cloister spire-preflight --enclave-id spiffe://example.org/enclave/chat -
  cloister spire-preflight --enclave-id spiffe://example.org/enclave/chat infra/spire/entries.json     before they are created
  cloister spire-preflight --enclave-id … --broker-agent spiffe://example.org/machines/broker entries.json
  cloister spire-preflight --enclave-id … --may-issue spiffe://example.org/spire-downstream entries.json")]
pub(crate) struct SpirePreflight {
    /// The enclave's SPIFFE ID. May be given several times.
    #[arg(long, required = true, value_name = "SPIFFE_ID", value_parser = enclave_id)]
    enclave_id: Vec<SpiffeId>,
    /// The key broker's agent, or the node alias that stands for its machine alone: the one parent that the enclave's entry may have,
    /// where the broker issues through SPIRE. May be given several times.
    #[arg(long, value_name = "SPIFFE_ID", value_parser = spiffe_id)]
    broker_agent: Vec<SpiffeId>,
    /// Whom you trust to certify any ID of the trust domain: may have an admin or downstream entry. May be given several times.
    #[arg(long, value_name = "SPIFFE_ID", value_parser = spiffe_id)]
    may_issue: Vec<SpiffeId>,
    /// Entries in JSON, as `spire-server entry show -output json` prints them; `-` for standard input.
    #[arg(value_name = "ENTRIES.json")]
    entries: PathBuf,
}

impl SpirePreflight {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let entries = read(&self.entries)?;
        self.of_this_trust_domain(&entries)?;
        let mut text = String::new();
        let mut refused = 0_usize;
        for entry in &entries.0 {
            let Some(reason) = self.judge(entry) else {
                continue;
            };
            refused += 1;
            if refused <= SHOWN {
                text += &line(entry, &reason);
            }
        }
        if refused > SHOWN {
            text += &format!("and {} more\n", refused - SHOWN);
        }
        let all = entries.0.len();
        if refused > 0 {
            output::print(&text)?;
            return Err(Failure::refused(anyhow!(
                "{refused} of {all} entries could give the enclave's identity to somebody else; remove them"
            )));
        }
        output::print(&format!(
            "{all} entries, none of which gives away {}\n",
            list(&self.enclave_id)
        ))
    }

    /// Why this entry must not be.
    fn judge(&self, entry: &Entry) -> Option<String> {
        let Entry {
            spiffe_id, parent, ..
        } = entry;
        if self.enclave_id.contains(spiffe_id) && !self.broker_agent.contains(parent) {
            return Some(format!(
                "{spiffe_id} is the enclave's: {parent} would make a key for it"
            ));
        }
        if self.enclave_id.contains(spiffe_id) && !entry.dns_names.is_empty() {
            return Some(format!(
                "{spiffe_id} is the enclave's, and gets DNS names beside it"
            ));
        }
        if let Some(name) = entry.dns_names.iter().find(|name| name.contains('*')) {
            return Some(format!(
                "{spiffe_id} gets the DNS name {}, which stands for every name",
                name.escape_debug()
            ));
        }
        let right = match (entry.admin, entry.downstream) {
            (true, _) => "admin: may mint certificates for any ID",
            (_, true) => "downstream: gets a CA certificate of the trust domain",
            _ => return None,
        };
        match self.may_issue.contains(spiffe_id) {
            true => None,
            false => Some(format!("{spiffe_id} is {right}, the enclave's included")),
        }
    }

    /// A list of another server would pass, whatever is on this one.
    fn of_this_trust_domain(&self, entries: &Entries) -> Result<(), Failure> {
        let domains: BTreeSet<_> = self
            .enclave_id
            .iter()
            .map(|id| id.trust_domain().to_string())
            .collect();
        let foreign = entries
            .0
            .iter()
            .find(|entry| !domains.contains(&entry.parent.trust_domain().to_string()));
        match foreign {
            None => Ok(()),
            Some(entry) => Err(Failure::usage(anyhow!(
                "{}: entry {} is of trust domain {}, not of the enclave's; list the entries of its own server",
                self.entries.display(),
                entry.number,
                entry.parent.trust_domain()
            ))),
        }
    }
}

fn line(entry: &Entry, reason: &str) -> String {
    match &entry.entry_id {
        Some(id) => {
            format!("entry {id}: {reason}\n  remove it: spire-server entry delete -entryID {id}\n")
        }
        None => format!(
            "entry {} of the file: {reason}\n  take it out before it is created\n",
            entry.number
        ),
    }
}

fn read(path: &Path) -> Result<Entries, Failure> {
    let entries = if path == Path::new("-") {
        Entries::read(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(path).map_err(|error| Failure::io("read", path, error))?;
        Entries::read(file)
    };
    entries.map_err(|error| match error {
        EntriesError::Io(error) => Failure::io("read", path, error),
        error => Failure::usage(anyhow!("{}: {:#}", path.display(), Chain(&error))),
    })
}

fn list(ids: &[SpiffeId]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    ids.join(", ")
}

fn spiffe_id(text: &str) -> Result<SpiffeId, String> {
    let id = SpiffeId::new(text).map_err(|error| error.to_string())?;
    match id.path().is_empty() {
        true => Err("name one workload: spiffe://<trust domain>/<path>".into()),
        false => Ok(id),
    }
}

fn enclave_id(text: &str) -> Result<SpiffeId, String> {
    let id = spiffe_id(text)?;
    match id.path() == "/spire" || id.path().starts_with("/spire/") {
        true => Err("/spire/… belongs to SPIRE's own servers and agents".into()),
        false => Ok(id),
    }
}
