//! `[[trust.federated]]`: other organisations' trust domains, each with its own CA certificates, and where these are published.

use std::collections::BTreeSet;

use identity::federation::{BundleEndpoint, BundleUrl, Profile};
use identity::{Clock, SpiffeId, TrustDomain};
use serde::Deserialize;
use transport::Endpoint;

use super::{Problem, problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FederatedSection {
    pub(super) domain: String,
    /// PEM or a JWK set. Measured: it is what holds until an endpoint gives a newer one.
    pub(super) bundle: String,
    bundle_endpoint: Option<EndpointSection>,
}

/// Without it, the bundle is for ever the measured one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointSection {
    /// What is dialled: the host's egress to the URL's host.
    endpoint: Endpoint,
    url: String,
    /// `https_spiffe`: who answers there.
    spiffe_id: Option<String>,
    /// `https_web`: under which roots (PEM).
    roots: Option<String>,
}

/// A bundle that is kept up to date.
#[derive(Clone)]
pub struct FollowedBundle {
    /// Where the host forwards to the publisher.
    pub dial: Endpoint,
    pub endpoint: BundleEndpoint,
}

impl FederatedSection {
    pub(super) fn followed(
        self,
        field: &str,
        trust_domain: TrustDomain,
    ) -> Result<Option<FollowedBundle>, Problem> {
        let Some(section) = self.bundle_endpoint else {
            return Ok(None);
        };
        let at = |name: &str| format!("{field}.bundle_endpoint.{name}");
        let url: BundleUrl = section
            .url
            .parse()
            .map_err(|error: identity::Error| problem(at("url"), error))?;
        let profile = match (section.spiffe_id, section.roots) {
            (Some(id), None) => {
                let id = SpiffeId::new(&id).map_err(|error| problem(at("spiffe_id"), error))?;
                if id.path().is_empty() {
                    return Err(problem(
                        at("spiffe_id"),
                        "names a trust domain, not a server",
                    ));
                }
                Profile::Spiffe(id)
            }
            (None, Some(roots)) => {
                let roots = identity::pem::certificates(&roots)
                    .and_then(|roots| {
                        // What TLS would not take is told now, by its field.
                        identity::web_client_config(&Clock::system(), &roots, &[])?;
                        Ok(roots)
                    })
                    .map_err(|error| problem(at("roots"), error))?;
                Profile::Web(roots)
            }
            _ => {
                let text = "must have one of spiffe_id (https_spiffe) and roots (https_web)";
                return Err(problem(format!("{field}.bundle_endpoint"), text));
            }
        };
        Ok(Some(FollowedBundle {
            dial: section.endpoint,
            endpoint: BundleEndpoint {
                trust_domain,
                url,
                profile,
            },
        }))
    }
}

/// An endpoint with an SVID is checked against the bundle of that ID's trust domain, so there has to be one.
pub(super) fn known(followed: &[FollowedBundle], known: &BTreeSet<String>) -> Result<(), Problem> {
    for FollowedBundle { endpoint, .. } in followed {
        if let Profile::Spiffe(id) = &endpoint.profile
            && !known.contains(id.trust_domain().as_str())
        {
            let text = format!("{id} is of a trust domain without a bundle");
            return Err(problem("trust.federated", text));
        }
    }
    Ok(())
}
