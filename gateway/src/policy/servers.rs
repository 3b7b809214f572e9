use identity::{SpiffeId, TrustDomain};

use super::{MAX_ALTERNATIVES, PolicyError};

/// The SPIFFE IDs that a server may have: at least one, all of one trust domain, each naming a workload in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerIds {
    trust_domain: TrustDomain,
    ids: Vec<SpiffeId>,
}

impl ServerIds {
    /// # Errors
    /// [`PolicyError::NoServer`], [`PolicyError::ServerId`], [`PolicyError::TwoDomains`] or [`PolicyError::TooMany`].
    pub fn try_new(ids: Vec<SpiffeId>) -> Result<Self, PolicyError> {
        let first = ids.first().ok_or(PolicyError::NoServer)?;
        if ids.len() > MAX_ALTERNATIVES {
            return Err(PolicyError::TooMany("server_ids"));
        }
        for id in &ids {
            if id.path().is_empty() {
                return Err(PolicyError::ServerId(id.clone()));
            }
            if id.trust_domain() != first.trust_domain() {
                return Err(PolicyError::TwoDomains(first.clone(), id.clone()));
            }
        }
        Ok(Self {
            trust_domain: first.trust_domain().clone(),
            ids,
        })
    }

    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    #[must_use]
    pub fn as_slice(&self) -> &[SpiffeId] {
        &self.ids
    }

    #[must_use]
    pub fn contains(&self, id: &SpiffeId) -> bool {
        self.ids.contains(id)
    }
}
