//! `[issuer]`: which measurement is who, and who signs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use attestation::ReferenceValues;
use identity::issue::Authority;
use identity::{SpiffeId, TrustBundles, TrustDomain, pem};
use serde::Deserialize;
use transport::Endpoint;

use super::{Config, ConfigError};
use crate::desk::Now;
use crate::error::Error;
use crate::issuer::spire::{Agent, AgentSettings, Attestor, Listing, Mint, PopKey, Preflight};
use crate::issuer::{self, Builtin, IssuerBackend};

/// Certificates are renewed at half of it, so shorter ones would keep the issuer busy.
const MIN_TTL_S: u64 = 60;
/// A key that leaks is good for no longer.
const MAX_TTL_S: u64 = 24 * 3600;

/// `[issuer]`: one of `chain` with `key`, `spire` and `spire_mint` signs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Built-in authority: signing certificate first (PEM).
    pub chain: Option<PathBuf>,
    /// Its PKCS#8 key (PEM).
    pub key: Option<PathBuf>,
    /// A SPIRE server, of which this broker is an agent.
    pub spire: Option<Spire>,
    /// A SPIRE server, whose private socket this broker has.
    pub spire_mint: Option<SpireMint>,
    /// Seconds an SVID lives; under SPIRE, at most.
    pub ttl_s: u64,
    /// Which measurement is who.
    pub map: Vec<Mapping>,
}

/// `[[issuer.map]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The identity these images get.
    pub spiffe_id: String,
    /// Accepted images.
    pub images: ReferenceValues,
}

/// `[issuer.spire]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spire {
    /// The server's API, `tcp://HOST:PORT`.
    pub server: Endpoint,
    /// The trust domain's CA certificates (PEM or a JWK set), the same as in the enclaves' configuration.
    pub bundle: PathBuf,
    /// The machine's certificate, for the server's node attestor of this name.
    pub x509pop: Option<X509Pop>,
    /// A token that is good once.
    pub join_token: Option<JoinToken>,
    /// Node aliases that stand for this broker's machine and no other.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The server's private socket, to look for other holders of the enclaves' IDs.
    pub entries_socket: Option<Endpoint>,
    /// In place of the socket: what `spire-server entry show -output json` printed, at most a day old.
    pub entries_file: Option<PathBuf>,
}

/// `[issuer.spire.x509pop]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct X509Pop {
    /// Certificates, leaf first (PEM).
    pub chain: PathBuf,
    /// P-256 or RSA, PKCS#8 (PEM).
    pub key: PathBuf,
}

/// `[issuer.spire.join_token]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    /// Holds the token.
    pub file: PathBuf,
    /// Where the agent's certificate and key are kept, since the token is spent.
    pub state: PathBuf,
}

/// `[issuer.spire_mint]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpireMint {
    /// The server's private socket, `unix:///PATH`.
    pub socket: Endpoint,
}

impl Issuer {
    pub(super) fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths: Vec<_> = self.chain.iter_mut().chain(&mut self.key).collect();
        if let Some(spire) = &mut self.spire {
            paths.push(&mut spire.bundle);
            paths.extend(spire.entries_file.as_mut());
            if let Some(pop) = &mut spire.x509pop {
                paths.extend([&mut pop.chain, &mut pop.key]);
            }
            if let Some(token) = &mut spire.join_token {
                paths.extend([&mut token.file, &mut token.state]);
            }
        }
        paths
    }

    /// What is wrong without a look at any file: the field, and the fix.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if !(MIN_TTL_S..=MAX_TTL_S).contains(&self.ttl_s) {
            let problem = format!("has to be {MIN_TTL_S} to {MAX_TTL_S}");
            return Err(("issuer.ttl_s", problem));
        }
        if self.map.is_empty() {
            let problem = "names no image; say which measurement is who";
            return Err(("issuer.map", problem.to_owned()));
        }
        match (&self.chain, &self.key, &self.spire, &self.spire_mint) {
            (Some(_), Some(_), None, None) => Ok(()),
            (None, None, Some(spire), None) => spire.check(),
            (None, None, None, Some(mint)) => local("issuer.spire_mint.socket", &mint.socket),
            _ => {
                let problem =
                    "has to have one signer: chain and key, [issuer.spire] or [issuer.spire_mint]";
                Err(("issuer", problem.to_owned()))
            }
        }
    }
}

impl Spire {
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.x509pop.is_some() == self.join_token.is_some() {
            let problem = "has to have one proof of the machine: [issuer.spire.x509pop] or [issuer.spire.join_token]";
            return Err(("issuer.spire", problem.to_owned()));
        }
        match (&self.entries_socket, &self.entries_file) {
            (Some(socket), None) => local("issuer.spire.entries_socket", socket),
            (None, Some(_)) => Ok(()),
            _ => {
                let problem = "has to have one of entries_socket and entries_file: without a look at the server's \
                               entries, another agent could hold an enclave's identity";
                Err(("issuer.spire", problem.to_owned()))
            }
        }
    }
}

/// Nothing but the file's mode says who may use the socket.
fn local(field: &'static str, endpoint: &Endpoint) -> Result<(), (&'static str, String)> {
    match endpoint {
        Endpoint::Unix(_) => Ok(()),
        _ => Err((field, "has to be unix:///PATH".to_owned())),
    }
}

impl Config {
    /// Starts whoever signs.
    pub(crate) async fn issuer(&self, now: &Now) -> Result<Option<issuer::Issuer>, Error> {
        let Some(settings) = &self.issuer else {
            return Ok(None);
        };
        let (domain, map) = self.identities(settings)?;
        let ids: Vec<SpiffeId> = map.iter().map(|(id, _)| id.clone()).collect();
        let backend: Box<dyn IssuerBackend> = match settings {
            Issuer {
                chain: Some(chain),
                key: Some(key),
                ..
            } => Box::new(Builtin::new(self.authority(chain, key, &domain)?)),
            Issuer {
                spire: Some(spire), ..
            } => {
                let settings = self.agent(spire, domain, ids, now)?;
                Box::new(Agent::start(settings).await?)
            }
            Issuer {
                spire_mint: Some(mint),
                ..
            } => Box::new(Mint::start(mint.socket.clone(), domain, &ids, now()).await?),
            _ => return Err(self.error("issuer", "has no signer").into()),
        };
        let ttl = Duration::from_secs(settings.ttl_s);
        Ok(Some(issuer::Issuer::new(backend, ttl, map)))
    }

    /// The IDs that are given out, all of one trust domain, with their images.
    fn identities(
        &self,
        settings: &Issuer,
    ) -> Result<(TrustDomain, Vec<(SpiffeId, ReferenceValues)>), ConfigError> {
        let mut map: Vec<(SpiffeId, ReferenceValues)> = Vec::new();
        for (index, mapping) in settings.map.iter().enumerate() {
            let field = format!("issuer.map[{index}].spiffe_id");
            let id =
                SpiffeId::new(&mapping.spiffe_id).map_err(|problem| self.error(&field, problem))?;
            if let Some((first, _)) = map.first()
                && first.trust_domain() != id.trust_domain()
            {
                let domain = first.trust_domain();
                let problem = format!("is not in the trust domain {domain} of the first one");
                return Err(self.error(&field, problem));
            }
            if id.path().is_empty() {
                return Err(self.error(&field, "names a trust domain, not a workload"));
            }
            if id.path() == "/spire" || id.path().starts_with("/spire/") {
                return Err(self.error(&field, "is below /spire, which SPIRE keeps for itself"));
            }
            map.push((id, mapping.images.clone()));
        }
        match map.first() {
            Some((id, _)) => Ok((id.trust_domain().clone(), map)),
            None => Err(self.error("issuer.map", "names no image")),
        }
    }

    fn authority(
        &self,
        chain: &Path,
        key: &Path,
        domain: &TrustDomain,
    ) -> Result<Authority, ConfigError> {
        let chain = self.pem("issuer.chain", chain)?;
        let key = self.pem("issuer.key", key)?;
        let authority =
            Authority::from_pem(&chain, &key).map_err(|problem| self.error("issuer", problem))?;
        if authority.trust_domain() != domain {
            let theirs = authority.trust_domain();
            let problem = format!("is not in the issuer's trust domain {theirs}");
            return Err(self.error("issuer.map[0].spiffe_id", problem));
        }
        Ok(authority)
    }

    fn agent(
        &self,
        spire: &Spire,
        trust_domain: TrustDomain,
        ids: Vec<SpiffeId>,
        now: &Now,
    ) -> Result<AgentSettings, ConfigError> {
        let bundle = self.pem("issuer.spire.bundle", &spire.bundle)?;
        let bundles = TrustBundles::from_text(&trust_domain, &bundle)
            .map_err(|problem| self.error("issuer.spire.bundle", problem))?;
        let attestor = match (&spire.x509pop, &spire.join_token) {
            (Some(pop), _) => {
                const FIELD: &str = "issuer.spire.x509pop";
                let bad = |problem| self.error(FIELD, problem);
                let chain = self.pem(FIELD, &pop.chain)?;
                let chain = pem::certificates(&chain).map_err(bad)?;
                let key = self.pem(FIELD, &pop.key)?;
                let key = pem::private_key(&key).map_err(bad)?;
                let key = PopKey::from_pkcs8(&key).ok_or_else(|| {
                    self.error(
                        FIELD,
                        "key is neither P-256 nor RSA, which SPIRE asks proof of",
                    )
                })?;
                Attestor::X509Pop { chain, key }
            }
            (None, Some(token)) => Attestor::JoinToken {
                token: token.file.clone(),
                state: token.state.clone(),
            },
            (None, None) => return Err(self.error("issuer.spire", "has no proof of the machine")),
        };
        let listing = match (&spire.entries_socket, &spire.entries_file) {
            (Some(socket), _) => Listing::Socket(socket.clone()),
            (None, Some(file)) => Listing::File(file.clone()),
            (None, None) => return Err(self.error("issuer.spire", "has no view of the entries")),
        };
        let mut aliases = Vec::new();
        for (index, alias) in spire.aliases.iter().enumerate() {
            let field = format!("issuer.spire.aliases[{index}]");
            aliases.push(SpiffeId::new(alias).map_err(|problem| self.error(&field, problem))?);
        }
        Ok(AgentSettings {
            server: spire.server.clone(),
            bundles,
            trust_domain,
            attestor,
            preflight: Preflight::new(listing, aliases),
            ids,
            now: std::sync::Arc::clone(now),
        })
    }
}
