//! Registration entries of a SPIRE server, as `spire-server entry show -output json` lists them and as `entry create -data` takes
//! them. What is not understood here would not be checked, so it is refused: see [`Entries::read`].

use std::io::Read;

use serde::Deserialize;
use spiffe::SpiffeId;

/// A large server's list; an entry takes about 500 bytes.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum EntriesError {
    #[error("cannot be read")]
    Io(#[from] std::io::Error),
    #[error("is larger than {} MiB", MAX_BYTES / 1024 / 1024)]
    TooLarge,
    #[error("is not what spire-server entry show -output json prints")]
    Json(#[from] serde_json::Error),
    #[error("is one page of several: list all entries (entry show does, without a page size)")]
    Page,
    #[error("entry {number}: {field} is not a SPIFFE ID")]
    Id { number: usize, field: &'static str },
    #[error("entry {number}: its entry ID is none that a SPIRE server gives out")]
    EntryId { number: usize },
}

/// One entry: whoever is `parent`, or an agent below it, gets a key and certificate for `spiffe_id`.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Counted from 1, in the order of the file.
    pub(crate) number: usize,
    /// Absent before the entry is created. Nothing in it means anything to a shell.
    pub(crate) entry_id: Option<String>,
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) parent: SpiffeId,
    pub(crate) admin: bool,
    pub(crate) downstream: bool,
    pub(crate) dns_names: Vec<String>,
}

#[derive(Deserialize)]
struct Listing {
    entries: Vec<RawEntry>,
    #[serde(default)]
    next_page_token: String,
}

/// Newer servers add fields, so others are allowed here; none of those that are checked may be absent in one spelling and present
/// in another.
#[derive(Deserialize)]
struct RawEntry {
    #[serde(default)]
    id: String,
    spiffe_id: RawId,
    parent_id: RawId,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    downstream: bool,
    #[serde(default)]
    dns_names: Vec<String>,
    // protojson's other spelling: a list in it would leave the checked fields at their defaults.
    #[serde(default, rename = "dnsNames")]
    camel: Absent,
}

/// `entry show` splits IDs, `entry create` takes them whole.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawId {
    Whole(String),
    Split { trust_domain: String, path: String },
}

/// A field that must not be there.
#[derive(Default)]
struct Absent;

impl<'de> Deserialize<'de> for Absent {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "fields are spelt as spire-server spells them, with underscores",
        ))
    }
}

impl RawId {
    fn parse(&self) -> Option<SpiffeId> {
        match self {
            Self::Whole(text) => SpiffeId::new(text).ok(),
            // Compared afterwards: put together, a path without its slash would become part of the trust domain.
            Self::Split { trust_domain, path } => {
                SpiffeId::new(format!("spiffe://{trust_domain}{path}"))
                    .ok()
                    .filter(|id| id.trust_domain().as_str() == trust_domain && id.path() == path)
            }
        }
    }
}

/// All entries of a server, or of a file for it.
#[derive(Debug)]
pub(crate) struct Entries(pub(crate) Vec<Entry>);

impl Entries {
    /// Reads one JSON document whole.
    ///
    /// # Errors
    /// It is too large, is not such a list, is one page of it only, or has an ID in it that cannot be compared.
    pub(crate) fn read(source: impl Read) -> Result<Self, EntriesError> {
        let mut bytes = Vec::new();
        source.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(EntriesError::TooLarge);
        }
        let listing: Listing = serde_json::from_slice(&bytes)?;
        if !listing.next_page_token.is_empty() {
            return Err(EntriesError::Page);
        }
        let entries = listing.entries.into_iter().zip(1..);
        entries
            .map(|(raw, number)| raw.check(number))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl RawEntry {
    fn check(self, number: usize) -> Result<Entry, EntriesError> {
        let Absent = self.camel;
        let id = |id: &RawId, field| id.parse().ok_or(EntriesError::Id { number, field });
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        // A leading dash would be read as an option by the command we print.
        if self.id.len() > 255 || !self.id.bytes().all(plain) || self.id.starts_with('-') {
            return Err(EntriesError::EntryId { number });
        }
        Ok(Entry {
            number,
            spiffe_id: id(&self.spiffe_id, "spiffe_id")?,
            parent: id(&self.parent_id, "parent_id")?,
            entry_id: Some(self.id).filter(|id| !id.is_empty()),
            admin: self.admin,
            downstream: self.downstream,
            dns_names: self.dns_names,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENTRY: &str = r#"{"id":"e1","spiffe_id":{"trust_domain":"example.org","path":"/gateway"},
        "parent_id":"spiffe://example.org/spire/agent/x509pop/1","selectors":[],"admin":false,"new_field":1}"#;

    fn read(text: &str) -> Result<Vec<Entry>, EntriesError> {
        Entries::read(text.as_bytes()).map(|entries| entries.0)
    }

    fn with(old: &str, new: &str) -> Result<Vec<Entry>, EntriesError> {
        assert!(ENTRY.contains(old));
        read(&format!("{{\"entries\":[{}]}}", ENTRY.replace(old, new)))
    }

    #[test]
    fn reads_both_spellings_of_an_id() {
        let entries = with("\"e1\"", "\"e1\"").unwrap();
        assert_eq!(
            entries[0].spiffe_id.to_string(),
            "spiffe://example.org/gateway"
        );
        assert_eq!(entries[0].parent.path(), "/spire/agent/x509pop/1");
        assert!(
            read(r#"{"entries":[],"next_page_token":""}"#)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn refuses_what_it_would_have_to_guess() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"entries":null}"#,
            r#"{"entries":{}}"#,
            r#"{"entries":[]} {"entries":[]}"#,
            r#"{"entries":[],"entries":[]}"#,
            r#"{"entries":["spiffe://example.org/gateway"]}"#,
        ] {
            assert!(matches!(read(text), Err(EntriesError::Json(_))), "{text}");
        }
        for (old, new) in [
            ("\"spiffe_id\"", "\"spiffeId\""),
            ("\"parent_id\"", "\"parentId\""),
            ("\"new_field\":1", "\"dnsNames\":[\"*\"]"),
            ("\"new_field\":1", "\"admin\":true"),
            ("\"admin\":false", "\"admin\":\"no\""),
            ("\"admin\":false", "\"downstream\":0"),
            ("\"admin\":false", "\"dns_names\":\"*\""),
        ] {
            assert!(
                matches!(with(old, new), Err(EntriesError::Json(_))),
                "{new}"
            );
        }
    }

    #[test]
    fn refuses_a_page_of_several() {
        let page = r#"{"entries":[],"next_page_token":"abc"}"#;
        assert!(matches!(read(page), Err(EntriesError::Page)));
    }

    #[test]
    fn refuses_ids_that_are_none() {
        for path in [
            "gateway", "/a//b", "/a/", "/a/../b", "/\\u0000", "/a b", "/ä",
        ] {
            let read = with("/gateway", path);
            assert!(
                matches!(read, Err(EntriesError::Id { number: 1, .. })),
                "{path}"
            );
        }
        let read = with("\"example.org\"", "\"Example.org\"");
        assert!(matches!(read, Err(EntriesError::Id { .. })));
    }

    #[test]
    fn refuses_entry_ids_that_a_shell_would_read() {
        for id in ["a b", "$(id)", "a;b", "-force", "ä", &"a".repeat(256)] {
            let read = with("\"e1\"", &format!("\"{id}\""));
            assert!(
                matches!(read, Err(EntriesError::EntryId { number: 1 })),
                "{id}"
            );
        }
    }

    #[test]
    fn refuses_more_than_fits() {
        let endless = std::io::repeat(b' ');
        assert!(matches!(
            Entries::read(endless),
            Err(EntriesError::TooLarge)
        ));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            drop(Entries::read(bytes.as_slice()));
        }

        #[test]
        fn never_panics_on_damaged_lists(at in 0..ENTRY.len(), byte in any::<u8>()) {
            let mut bytes = format!("{{\"entries\":[{ENTRY}]}}").into_bytes();
            bytes[at] = byte;
            drop(Entries::read(bytes.as_slice()));
        }
    }
}
