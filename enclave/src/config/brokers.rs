//! Who releases keys: `[broker]`, or several `[[broker]]`, and `[trustee]` where keys come by passport.

use std::fmt;

use identity::{Clock, SpiffeId, TrustDomain};
use kbs_client::{Server, ServerIdentity};
use rustls::pki_types::ServerName;
use serde::de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use transport::Endpoint;

use super::file::workload;
use super::{Problem, problem};

/// Enough for a broker in each zone; a longer list only makes a boot without any of them slower to fail.
const MAX_BROKERS: usize = 4;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BrokerSection {
    endpoint: Endpoint,
    spiffe_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrusteeSection {
    endpoint: Endpoint,
    server_name: String,
    ca: String,
}

/// One table or an array of tables. Not serde's untagged enum, whose errors name neither field nor reason.
pub(super) struct BrokerSections {
    list: Vec<BrokerSection>,
    /// Whether it was written as an array, so that errors name what is in the file.
    array: bool,
}

impl<'de> Deserialize<'de> for BrokerSections {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = BrokerSections;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table [broker] or tables [[broker]]")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BrokerSections, A::Error> {
                Ok(BrokerSections {
                    list: vec![BrokerSection::deserialize(MapAccessDeserializer::new(map))?],
                    array: false,
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<BrokerSections, A::Error> {
                let mut list = Vec::new();
                while let Some(section) = seq.next_element()? {
                    list.push(section);
                }
                Ok(BrokerSections { list, array: true })
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

impl BrokerSections {
    /// `own` is the enclave's ID, which no broker may have.
    pub(super) fn check(
        self,
        own: &SpiffeId,
        domain: &TrustDomain,
    ) -> Result<Vec<Server>, Problem> {
        if self.list.is_empty() || self.list.len() > MAX_BROKERS {
            let text = format!("must hold 1 to {MAX_BROKERS} entries");
            return Err(problem("broker", text));
        }
        let mut brokers: Vec<Server> = Vec::with_capacity(self.list.len());
        for (index, section) in self.list.into_iter().enumerate() {
            let at = if self.array {
                format!("broker[{index}]")
            } else {
                "broker".to_owned()
            };
            let field = format!("{at}.spiffe_id");
            let id = workload(&field, &section.spiffe_id, domain)?;
            if id == *own {
                return Err(problem(field, "is this enclave's own; give the broker's"));
            }
            if brokers
                .iter()
                .any(|other| other.endpoint == section.endpoint)
            {
                let text = "is the endpoint of an earlier broker";
                return Err(problem(format!("{at}.endpoint"), text));
            }
            brokers.push(Server {
                endpoint: section.endpoint,
                identity: ServerIdentity::Spiffe(id),
            });
        }
        Ok(brokers)
    }
}

impl TrusteeSection {
    pub(super) fn check(self) -> Result<Server, Problem> {
        let name = ServerName::try_from(self.server_name)
            .map_err(|error| problem("trustee.server_name", error))?;
        let roots = identity::pem::certificates(&self.ca)
            .and_then(|roots| {
                // What TLS would not take at boot is told here, by its field.
                identity::web_client_config(&Clock::system(), &roots, &[])?;
                Ok(roots)
            })
            .map_err(|error| problem("trustee.ca", error))?;
        Ok(Server {
            endpoint: self.endpoint,
            identity: ServerIdentity::Web { name, roots },
        })
    }
}
