//! Keeps one verified session, replaces it before it ends, and answers at once while there is none.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use transport::jittered;

use crate::metrics::Metrics;
use crate::{AttestedSession, ConnectOptions, Error, Policy, Step, connect, error};

/// How long a request waits while a connection is being made. Attestation takes well under a second.
const PATIENCE: Duration = Duration::from_secs(5);
const FIRST_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(10);
/// A session that ended sooner than this counts as a failure, so that a peer that hangs up is not hammered.
const SHORT_LIFE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) enum State {
    Connecting,
    Ready(Arc<AttestedSession>),
    Failed(Arc<Error>),
}

/// Why there is no session to send on right now.
#[derive(Clone)]
pub(crate) enum Unready {
    /// The last attempt failed, and the next has not come yet.
    Failed(Arc<Error>),
    /// An attempt is under way and takes its time.
    Connecting,
}

#[derive(Clone)]
pub(crate) struct Pool {
    state: watch::Receiver<State>,
}

impl Pool {
    /// The pool, and the task that has to run for it. `wake` cuts a wait short: an SVID or bundle has changed. A new policy in
    /// `policies` takes the place of the one in `options`, and ends the session that an earlier one accepted.
    pub(crate) fn new(
        options: ConnectOptions,
        policies: watch::Receiver<Arc<Policy>>,
        wake: Arc<Notify>,
        metrics: Arc<Metrics>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, state) = watch::channel(State::Connecting);
        (
            Self { state },
            keep(options, policies, wake, metrics, sender),
        )
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// A session on which a request may be sent now. Never an unverified one: there is no such value.
    pub(crate) async fn session(&self) -> Result<Arc<AttestedSession>, Unready> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| match state {
            State::Connecting => false,
            State::Ready(session) => session.is_usable(),
            State::Failed(_) => true,
        });
        let settled = timeout(PATIENCE, settled).await;
        let Ok(Ok(state)) = settled else {
            return Err(Unready::Connecting);
        };
        match &*state {
            State::Ready(session) => Ok(Arc::clone(session)),
            State::Failed(error) => Err(Unready::Failed(Arc::clone(error))),
            State::Connecting => Err(Unready::Connecting),
        }
    }
}

async fn keep(
    mut options: ConnectOptions,
    mut policies: watch::Receiver<Arc<Policy>>,
    wake: Arc<Notify>,
    metrics: Arc<Metrics>,
    state: watch::Sender<State>,
) {
    let mut delay = FIRST_DELAY;
    loop {
        options.policy = Arc::clone(&policies.borrow_and_update());
        match connect(&options).await {
            Ok(session) => {
                let session = Arc::new(session);
                metrics.session(true);
                announce(&session);
                state.send_replace(State::Ready(Arc::clone(&session)));
                let begun = Instant::now();
                tokio::select! {
                    reason = session.ended() => {
                        tracing::info!(
                            reason = reason.as_deref().map_or("closed by the peer".to_owned(), |e| error::chain(e)),
                            "session ended"
                        );
                        // A verdict that has run out says nothing against the enclave: the next is worth waiting for.
                        let refused = reason.filter(|reason| reason.step() != Some(Step::Expiry));
                        state.send_replace(refused.map_or(State::Connecting, State::Failed));
                    }
                    // Its successor takes over before it ends; what is in flight on it goes on.
                    () = sleep_until(session.retire_at((options.now)())) => {}
                    Some(policy) = changed(&mut policies) => {
                        state.send_replace(State::Connecting);
                        give_way(&session, &policy);
                        delay = FIRST_DELAY;
                        continue;
                    }
                }
                if begun.elapsed() > SHORT_LIFE {
                    delay = FIRST_DELAY;
                    continue;
                }
            }
            Err(reason) => {
                metrics.session(false);
                tracing::warn!(
                    step = reason.step().map(|step| step.as_str()),
                    reason = error::chain(&reason),
                    retry_ms = delay.as_millis(),
                    "no attested session"
                );
                // A session that is being replaced goes on serving until its own end.
                state.send_if_modified(|state| match state {
                    State::Ready(session) if session.is_usable() => false,
                    state => {
                        *state = State::Failed(Arc::new(reason));
                        true
                    }
                });
            }
        }
        tokio::select! {
            () = sleep(jittered(delay)) => {}
            () = wake.notified() => {}
            Some(_) = changed(&mut policies) => {
                delay = FIRST_DELAY;
                continue;
            }
        }
        delay = delay.saturating_mul(2).min(MAX_DELAY);
    }
}

/// The next policy; none if there can be no other any more.
async fn changed(policies: &mut watch::Receiver<Arc<Policy>>) -> Option<Arc<Policy>> {
    policies.changed().await.ok()?;
    Some(Arc::clone(&policies.borrow()))
}

fn give_way(session: &AttestedSession, policy: &Policy) {
    match session.give_way_to(policy) {
        Ok(()) => tracing::info!(serial = policy.serial, "session ends for a new policy"),
        Err(reason) => tracing::warn!(
            serial = policy.serial,
            step = reason.step().map(|step| step.as_str()),
            reason = error::chain(&*reason),
            "session cut by a new policy"
        ),
    }
}

fn announce(session: &AttestedSession) {
    let verdict = session.verdict();
    tracing::info!(
        server = %session.server().id,
        module = verdict.claims.module_id,
        group = ?session.group(),
        config_digest = %verdict.config_digest,
        boot_id = %verdict.boot_id,
        until = crate::report::time(verdict.until),
        "session attested"
    );
}
