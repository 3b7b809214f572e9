//! Trying again, by what went wrong, a fixed number of times.
//!
//! | what happened | what follows |
//! |---|---|
//! | refused | nothing: a decision stands until its owner changes something |
//! | malformed | the next broker; after the last one, nothing |
//! | no connection, no answer, 5xx, 429 | the next broker; after the last one a growing wait, or the longer one it asked for |
//! | session forgotten | one new attestation in all |

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use transport::jittered;

use crate::error::{Error, Failure, Unavailable};

/// How often the whole list is gone through. With the waits below, a broker that restarts within four seconds is not noticed.
const ROUNDS: u32 = 5;
/// Doubled after each round.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// A server that asks for more is not there for us.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// A session lives for five minutes and one exchange for seconds: forgotten twice is no accident.
const MAX_FORGOTTEN: u32 = 1;

/// Asks one of `servers`, beginning with the one that last answered, which is kept in `preferred`.
pub(crate) async fn with_backoff<'a, S, T, F>(
    servers: &'a [S],
    preferred: &AtomicUsize,
    attempt: impl FnMut(&'a S) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Failure>>,
{
    from(FIRST_WAIT, servers, preferred, attempt).await
}

async fn from<'a, S, T, F>(
    mut wait: Duration,
    servers: &'a [S],
    preferred: &AtomicUsize,
    mut attempt: impl FnMut(&'a S) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut attempts = 0;
    let mut forgotten = 0;
    let mut last = Error::Request("no key broker is configured");
    for round in 1..=ROUNDS {
        let first = preferred.load(Ordering::Relaxed);
        let mut asked_to_wait = Duration::ZERO;
        let mut may_pass = false;
        for (index, server) in servers
            .iter()
            .enumerate()
            .cycle()
            .skip(first)
            .take(servers.len())
        {
            attempts += 1;
            match attempt(server).await {
                Ok(value) => {
                    preferred.store(index, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(Failure::Final(error @ Error::Malformed { .. })) => {
                    tracing::warn!(attempt = attempts, broker = index, %error, "broker not usable");
                    last = error;
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again(reason)) => {
                    tracing::warn!(attempt = attempts, broker = index, %reason, "broker not available");
                    forgotten += u32::from(matches!(reason, Unavailable::Forgotten));
                    if let Unavailable::Status {
                        wait: Some(wait), ..
                    } = &reason
                    {
                        asked_to_wait = asked_to_wait.max(*wait);
                    }
                    may_pass = true;
                    last = Error::Unavailable { attempts, reason };
                    if forgotten > MAX_FORGOTTEN {
                        return Err(last);
                    }
                }
            }
        }
        if !may_pass || round == ROUNDS {
            break;
        }
        sleep(pause(wait, asked_to_wait)).await;
        wait = wait.saturating_mul(2);
    }
    Err(last)
}

/// Ours, or the longer one that a server asked for.
fn pause(own: Duration, asked: Duration) -> Duration {
    jittered(own.max(asked.min(MAX_WAIT)))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn status(wait: Option<Duration>) -> Failure {
        Unavailable::Status { status: 503, wait }.into()
    }

    fn refused() -> Failure {
        let kind = "PolicyDeny".to_owned();
        Error::Refused { kind }.into()
    }

    /// Which servers were asked, in order, and what came of it, when `answer` speaks for each.
    async fn ask(
        servers: &[u32],
        preferred: &AtomicUsize,
        answer: impl Fn(u32) -> Result<u32, Failure>,
    ) -> (Vec<u32>, Result<u32, Error>) {
        let asked = RefCell::new(Vec::new());
        let outcome = from(Duration::ZERO, servers, preferred, |server| {
            asked.borrow_mut().push(*server);
            let answer = answer(*server);
            async { answer }
        })
        .await;
        (asked.into_inner(), outcome)
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_a_bounded_number_of_times() {
        let (asked, outcome) = ask(&[0], &AtomicUsize::new(0), |_| Err(status(None))).await;
        assert!(matches!(
            outcome,
            Err(Error::Unavailable { attempts: 5, .. })
        ));
        assert_eq!(asked, [0; 5]);
    }

    #[tokio::test]
    async fn a_refusal_is_not_asked_for_twice_nor_elsewhere() {
        let (asked, outcome) = ask(&[0, 1], &AtomicUsize::new(0), |_| Err(refused())).await;
        assert!(matches!(outcome, Err(Error::Refused { .. })));
        assert_eq!(asked, [0]);
    }

    #[tokio::test]
    async fn any_broker_of_the_list_serves_and_is_asked_first_from_then_on() {
        let preferred = AtomicUsize::new(0);
        let answer = |server| {
            if server == 1 {
                Ok(server)
            } else {
                Err(status(None))
            }
        };
        let (asked, outcome) = ask(&[0, 1], &preferred, answer).await;
        assert_eq!((asked.as_slice(), outcome.unwrap()), ([0, 1].as_slice(), 1));
        let (asked, outcome) = ask(&[0, 1], &preferred, answer).await;
        assert_eq!((asked.as_slice(), outcome.unwrap()), ([1].as_slice(), 1));
    }

    #[tokio::test]
    async fn a_broker_that_talks_nonsense_is_passed_over_and_not_asked_again() {
        let malformed = || Failure::malformed("jwe");
        let answer = |server| {
            if server == 1 {
                Ok(server)
            } else {
                Err(malformed())
            }
        };
        let (asked, outcome) = ask(&[0, 1], &AtomicUsize::new(0), answer).await;
        assert_eq!((asked.as_slice(), outcome.unwrap()), ([0, 1].as_slice(), 1));
        let (asked, outcome) = ask(&[0, 1], &AtomicUsize::new(0), |_| Err(malformed())).await;
        assert!(matches!(outcome, Err(Error::Malformed { .. })));
        assert_eq!(asked, [0, 1]);
    }

    #[tokio::test]
    async fn a_session_forgotten_twice_ends_it() {
        let (asked, outcome) = ask(&[0], &AtomicUsize::new(0), |_| {
            Err(Unavailable::Forgotten.into())
        })
        .await;
        assert!(matches!(
            outcome,
            Err(Error::Unavailable { attempts: 2, .. })
        ));
        assert_eq!(asked, [0, 0]);
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it_up_to_a_bound() {
        for (asked, least, most) in [(0, 187, 250), (2, 1500, 2000), (3600, 7500, 10_000)] {
            let wait = pause(FIRST_WAIT, Duration::from_secs(asked)).as_millis();
            assert!((least..=most).contains(&wait), "{asked}: {wait}");
        }
    }

    #[tokio::test]
    async fn no_broker_is_an_error_and_not_a_wait() {
        let (_, outcome) = ask(&[], &AtomicUsize::new(0), Ok).await;
        assert!(matches!(outcome, Err(Error::Request(_))));
    }
}
