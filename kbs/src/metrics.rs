//! Counters in the Prometheus text format. Label values are ours alone: nothing a peer sent becomes one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::refusal::Kind;
use crate::store::Outcome;

#[derive(Default)]
pub(crate) struct Metrics {
    /// (outcome, error type) to count. Both are enumerations, so this stays small.
    decisions: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    timeouts: AtomicU64,
}

impl Metrics {
    pub(crate) fn decided(&self, outcome: Outcome, kind: Option<Kind>) {
        let key = (outcome.as_str(), kind.map_or("", Kind::as_str));
        let mut decisions = self
            .decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = decisions.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    pub(crate) fn timed_out(&self) {
        self.timeouts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn render(&self, sessions: usize) -> String {
        let mut text = String::from(
            "# HELP kbs_decisions_total Decisions, as in the release log.\n# TYPE kbs_decisions_total counter\n",
        );
        let decisions = self
            .decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for ((outcome, kind), count) in decisions {
            // Writing to a string cannot fail.
            let _infallible = writeln!(
                text,
                "kbs_decisions_total{{outcome=\"{outcome}\",error=\"{kind}\"}} {count}"
            );
        }
        let _infallible = write!(
            text,
            "# HELP kbs_timeouts_total Requests that ran out of time.\n# TYPE kbs_timeouts_total counter\n\
             kbs_timeouts_total {}\n\
             # HELP kbs_sessions Sessions that are remembered.\n# TYPE kbs_sessions gauge\n\
             kbs_sessions {sessions}\n",
            self.timeouts.load(Ordering::Relaxed)
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_counted_by_outcome_and_type() {
        let metrics = Metrics::default();
        metrics.decided(Outcome::Released, None);
        metrics.decided(Outcome::Refused, Some(Kind::PolicyDeny));
        metrics.decided(Outcome::Refused, Some(Kind::PolicyDeny));
        let text = metrics.render(3);
        for line in [
            "kbs_decisions_total{outcome=\"released\",error=\"\"} 1\n",
            "kbs_decisions_total{outcome=\"refused\",error=\"PolicyDeny\"} 2\n",
            "kbs_sessions 3\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
