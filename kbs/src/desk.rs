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
use crate::store::{Change, Facts, NewEntry, Outcome, Store, StoreError};
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
    /// The change and its entry happen together or not at all.
    Changed {
        change: Change,
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
        match decide(self, &mut case) {
            Ok(Granted::Plain(response)) => response,
            Ok(Granted::Logged {
                outcome,
                reason,
                response,
            }) => self
                .record(&case, outcome, reason.as_deref(), None, response)
                .unwrap_or_else(|error| not_recorded(&error)),
            Ok(Granted::Changed {
                change,
                outcome,
                reason,
                response,
            }) => match self.record(&case, outcome, reason.as_deref(), Some(change), response) {
                Ok(response) => response,
                Err(StoreError::Absent) => {
                    let refusal = Refusal::new(Kind::PluginInternalError, StoreError::Absent);
                    self.refuse(&case, refusal)
                }
                Err(StoreError::ApprovalUsed) => {
                    let refusal = Refusal::new(Kind::AdminAuthAccess, StoreError::ApprovalUsed);
                    self.refuse(&case, refusal)
                }
                Err(StoreError::TooLarge) => {
                    let refusal = Refusal::new(Kind::RvpsError, StoreError::TooLarge);
                    self.refuse(&case, refusal)
                }
                Err(error) => not_recorded(&error),
            },
            Err(refusal) => self.refuse(&case, refusal),
        }
    }

    fn refuse(&self, case: &Case, refusal: Refusal) -> Response {
        let (kind, reason) = (refusal.kind, refusal.reason.clone());
        let response = refusal.into_response();
        let entry = NewEntry {
            outcome: Outcome::Refused,
            error_type: Some(kind),
            path: &case.path,
            facts: &case.facts,
            reason: Some(&reason),
        };
        self.write(&entry, None, case.now)
            .map_or_else(|error| not_recorded(&error), |()| response)
    }

    fn record(
        &self,
        case: &Case,
        outcome: Outcome,
        reason: Option<&str>,
        change: Option<Change>,
        response: Response,
    ) -> Result<Response, StoreError> {
        let entry = NewEntry {
            outcome,
            error_type: None,
            path: &case.path,
            facts: &case.facts,
            reason,
        };
        self.write(&entry, change, case.now).map(|()| response)
    }

    fn write(
        &self,
        entry: &NewEntry<'_>,
        change: Option<Change>,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        // What is only counted there would fill this log just as well.
        if self.store.commit(entry, change, now)? {
            tracing::info!(
                outcome = entry.outcome.as_str(),
                error_type = entry.error_type.map_or("", Kind::as_str),
                path = entry.shown_path(),
                reason = entry.shown_reason().unwrap_or_default(),
                "decision"
            );
        }
        self.metrics.decided(entry.outcome, entry.error_type);
        Ok(())
    }
}

/// What is in no log must not leave.
fn not_recorded(error: &StoreError) -> Response {
    tracing::error!(%error, "the release log took no entry; answering that we cannot serve");
    Refusal::new(Kind::Unavailable, "").into_response()
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
