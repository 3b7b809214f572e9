//! Who else could have an enclave's identity: a registration entry makes the agent above it a holder of a key for that ID.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use identity::SpiffeId;
use serde::Deserialize;
use transport::Endpoint;

use super::call::{Link, MAX_ANSWER, Trust, refused};
use super::pb::spire::api::server::entry::v1::entry_client::EntryClient;
use super::pb::spire::api::server::entry::v1::{ListEntriesRequest, list_entries_request};
use super::{SpireError, joined, split, types};

/// A large server's list; an entry takes about 500 bytes.
const MAX_FILE: u64 = 32 << 20;
/// An older list says nothing about today.
const MAX_FILE_AGE: Duration = Duration::from_secs(24 * 3600);
/// Entries with one ID; more than a few are a mistake, and a server that goes on for ever is not listened to.
const MAX_PAGES: usize = 16;

/// Where the server's entries are listed. An agent sees its own alone, so it takes an administrator's view.
pub(crate) enum Listing {
    /// The server's private socket.
    Socket(Endpoint),
    /// What `spire-server entry show -output json` printed, at most a day old.
    File(PathBuf),
}

pub(crate) struct Preflight {
    listing: Listing,
    /// Node aliases that stand for this broker's agent and no other.
    aliases: Vec<SpiffeId>,
}

struct Holder {
    entry: String,
    parent: String,
    admitted: bool,
}

impl Preflight {
    pub(crate) fn new(listing: Listing, aliases: Vec<SpiffeId>) -> Self {
        Self { listing, aliases }
    }

    /// Refuses when an entry gives one of `ids` to anybody but `own`, this broker's agent.
    pub(super) async fn check(
        &self,
        ids: &[SpiffeId],
        own: Option<&SpiffeId>,
        now: SystemTime,
    ) -> Result<(), SpireError> {
        for id in ids {
            let holders = match &self.listing {
                Listing::Socket(socket) => self.on_server(socket, id, own).await?,
                Listing::File(path) => self.in_file(path, id, own, now)?,
            };
            if let Some(holder) = holders.into_iter().find(|holder| !holder.admitted) {
                return Err(SpireError::OtherHolder {
                    entry: holder.entry,
                    id: id.clone(),
                    parent: holder.parent,
                });
            }
        }
        Ok(())
    }

    fn holder(&self, entry: &str, parent: Option<SpiffeId>, own: Option<&SpiffeId>) -> Holder {
        let admitted = parent.as_ref().is_some_and(|parent| {
            Some(parent) == own || (own.is_some() && self.aliases.contains(parent))
        });
        Holder {
            entry: plain(entry),
            // What cannot be read is nobody we know.
            parent: parent.map_or_else(|| "an unreadable parent".to_owned(), |id| id.to_string()),
            admitted,
        }
    }

    async fn on_server(
        &self,
        socket: &Endpoint,
        id: &SpiffeId,
        own: Option<&SpiffeId>,
    ) -> Result<Vec<Holder>, SpireError> {
        let link = Link {
            endpoint: socket.clone(),
            trust: Trust::Socket,
        };
        let channel = link.open(None).await?;
        let mut client = EntryClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        let mut holders = Vec::new();
        let mut page_token = String::new();
        for _ in 0..MAX_PAGES {
            let request = ListEntriesRequest {
                filter: Some(list_entries_request::Filter {
                    by_spiffe_id: Some(split(id)),
                }),
                output_mask: Some(types::EntryMask {
                    spiffe_id: true,
                    parent_id: true,
                    ..types::EntryMask::default()
                }),
                page_size: 0,
                page_token,
            };
            let answer = client
                .list_entries(request)
                .await
                .map_err(refused("ListEntries"))?
                .into_inner();
            for entry in &answer.entries {
                // A server that does not know the filter would give all its entries.
                if joined(entry.spiffe_id.as_ref()).as_ref() == Some(id) {
                    let parent = joined(entry.parent_id.as_ref());
                    holders.push(self.holder(&entry.id, parent, own));
                }
            }
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(holders);
            }
        }
        Err(SpireError::Malformed("list of entries"))
    }

    fn in_file(
        &self,
        path: &PathBuf,
        id: &SpiffeId,
        own: Option<&SpiffeId>,
        now: SystemTime,
    ) -> Result<Vec<Holder>, SpireError> {
        let failed = |problem: String| SpireError::File {
            path: path.clone(),
            problem,
        };
        let written = std::fs::metadata(path).and_then(|metadata| metadata.modified());
        let written = written.map_err(|error| failed(format!("cannot be read: {error}")))?;
        if now
            .duration_since(written)
            .is_ok_and(|age| age > MAX_FILE_AGE)
        {
            let problem =
                "is older than a day; write it anew: spire-server entry show -output json";
            return Err(failed(problem.to_owned()));
        }
        let text = crate::config::read(path, MAX_FILE).map_err(failed)?;
        let listing: FileListing = serde_json::from_str(&text).map_err(|error| {
            failed(format!(
                "is not what spire-server entry show -output json prints: {error}"
            ))
        })?;
        if !listing.next_page_token.is_empty() {
            return Err(failed("is one page of several".to_owned()));
        }
        let mut holders = Vec::new();
        for (number, entry) in (1_usize..).zip(&listing.entries) {
            // An ID that cannot be read cannot be compared either.
            let Some(spiffe_id) = entry.spiffe_id.parse() else {
                return Err(failed(format!("entry {number} has no SPIFFE ID")));
            };
            if spiffe_id == *id {
                holders.push(self.holder(&entry.id, entry.parent_id.parse(), own));
            }
        }
        Ok(holders)
    }
}

/// Server versions add fields, so others are allowed; those that matter have one spelling and cannot be absent.
#[derive(Deserialize)]
struct FileListing {
    entries: Vec<FileEntry>,
    #[serde(default)]
    next_page_token: String,
}

#[derive(Deserialize)]
struct FileEntry {
    #[serde(default)]
    id: String,
    spiffe_id: FileId,
    parent_id: FileId,
}

/// `entry show` splits IDs, `entry create -data` takes them whole.
#[derive(Deserialize)]
#[serde(untagged)]
enum FileId {
    Whole(String),
    Split { trust_domain: String, path: String },
}

impl FileId {
    fn parse(&self) -> Option<SpiffeId> {
        match self {
            Self::Whole(text) => SpiffeId::new(text).ok(),
            Self::Split { trust_domain, path } => joined(Some(&types::Spiffeid {
                trust_domain: trust_domain.clone(),
                path: path.clone(),
            })),
        }
    }
}

/// An entry's ID goes into a command that an operator may paste.
fn plain(entry: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !entry.is_empty()
        && entry.len() <= 255
        && !entry.starts_with('-')
        && entry.chars().all(plain)
    {
        true => entry.to_owned(),
        false => "(unreadable)".to_owned(),
    }
}
