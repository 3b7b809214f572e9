//! The desk every request comes to: decide where blocking is allowed, write the release log, then answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use attestation::Verifier;
use axum::response::Response;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::admin::AdminKeys;
use crate::issuer::Issuer;
use crate::metrics::Metrics;
use crate::policy::PolicyEngine;
use crate::refusal::{Kind, Refusal};
use crate::session::{Challenges, Sessions};
use crate::store::{Facts, NewEntry, Outcome, Store, StoreError};
use crate::token::TokenSigner;

pub(crate) type Now = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Everything a decision needs. One per broker.
pub(crate) struct Desk {
    pub(crate) store: Store,
    pub(crate) sessions: Sessions,
    pub(crate) challenges: Challenges,
    pub(crate) verifier: Verifier,
    pub(crate) policy: PolicyEngine,
    pub(crate) tokens: TokenSigner,
    pub(crate) admins: AdminKeys,
    pub(crate) issuer: Option<Issuer>,
    pub(crate) metrics: Metrics,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) now: Now,
}

/// One request on the desk, with what becomes known of it on the way.
pub(crate) struct Case {
    /// What was asked for.
    pub(crate) path: String,
    pub(crate) facts: Facts,
    pub(crate) now: SystemTime,
}

/// A decision for the peer.
pub(crate) enum Granted {
    /// Nothing left that needs an entry: a challenge, a list of names.
    Plain(Response),
    Logged {
        outcome: Outcome,
        reason: Option<String>,
        response: Response,
    },
}

impl Granted {
    pub(crate) fn logged(outcome: Outcome, response: Response) -> Self {
        Self::Logged {
            outcome,
            reason: None,
            response,
        }
    }
}

impl Desk {
    /// Runs `decide` on a thread that may block, at most `limit` long from the peer's view. The answer leaves only
    /// after the release log has it.
    pub(crate) async fn handle(
        self: Arc<Self>,
        path: String,
        limit: Duration,
        decide: impl FnOnce(&Self, &mut Case) -> Result<Granted, Refusal> + Send + 'static,
    ) -> Response {
        let desk = Arc::clone(&self);
        let work = async move {
            let slot = Arc::clone(&desk.slots).acquire_owned().await;
            let decision = tokio::task::spawn_blocking(move || {
                let response = desk.decide(path, decide);
                drop(slot);
                response
            });
            decision.await.unwrap_or_else(|_panicked| {
                tracing::error!("a decision panicked; please report this");
                Refusal::new(Kind::Unavailable, "").into_response()
            })
        };
        match timeout(limit, work).await {
            Ok(response) => response,
            Err(_) => self.timed_out(),
        }
    }

    pub(crate) fn timed_out(&self) -> Response {
        self.metrics.timed_out();
        Refusal::new(Kind::Unavailable, "").into_response()
    }

    fn decide(
        &self,
        path: String,
        decide: impl FnOnce(&Self, &mut Case) -> Result<Granted, Refusal>,
    ) -> Response {
        let now = (self.now)();
        let mut case = Case {
            path,
            facts: Facts::default(),
            now,
        };
        let (outcome, error_type, reason, response) = match decide(self, &mut case) {
            Ok(Granted::Plain(response)) => return response,
            Ok(Granted::Logged {
                outcome,
                reason,
                response,
            }) => (outcome, None, reason, response),
            Err(refusal) => {
                let (kind, reason) = (refusal.kind, refusal.reason.clone());
                (
                    Outcome::Refused,
                    Some(kind),
                    Some(reason),
                    refusal.into_response(),
                )
            }
        };
        let entry = NewEntry {
            outcome,
            error_type,
            path: &case.path,
            facts: &case.facts,
            reason: reason.as_deref(),
        };
        match self.store.log(&entry, now) {
            // What is only counted there would fill this log just as well.
            Ok(false) => {}
            Ok(true) => tracing::info!(
                outcome = outcome.as_str(),
                error_type = error_type.map_or("", Kind::as_str),
                path = entry.shown_path(),
                reason = entry.shown_reason().unwrap_or_default(),
                "decision"
            ),
            Err(error) => {
                // What is in no log must not leave.
                tracing::error!(%error, "the release log took no entry; answering that we cannot serve");
                return Refusal::new(Kind::Unavailable, "").into_response();
            }
        }
        self.metrics.decided(outcome, error_type);
        response
    }
}

/// The store failed: ours to repair, the peer's to wait.
pub(crate) fn store_failed(error: &StoreError) -> Refusal {
    tracing::error!(%error, "store");
    match error {
        StoreError::Tampered => Refusal::new(Kind::PluginInternalError, error),
        _ => Refusal::new(Kind::Unavailable, error),
    }
}

#[cfg(test)]
mod tests;
