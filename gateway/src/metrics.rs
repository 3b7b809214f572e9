//! A handful of counters with fixed labels, in the Prometheus text format.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a proxied request ended, as far as its head.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    Answered,
    /// Refused here: path, host, size, method.
    Refused,
    /// More at a time than the limit.
    Busy,
    /// No verified session.
    Unverified,
    /// The session broke, or took too long.
    Failed,
}

const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Answered, "answered"),
    (Outcome::Refused, "refused"),
    (Outcome::Busy, "busy"),
    (Outcome::Unverified, "unverified"),
    (Outcome::Failed, "failed"),
];

#[derive(Default)]
pub(crate) struct Metrics {
    answered: AtomicU64,
    refused: AtomicU64,
    busy: AtomicU64,
    unverified: AtomicU64,
    failed: AtomicU64,
    sessions_attested: AtomicU64,
    sessions_refused: AtomicU64,
}

impl Metrics {
    pub(crate) fn request(&self, outcome: Outcome) {
        self.counter(outcome).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn session(&self, attested: bool) {
        let counter = if attested {
            &self.sessions_attested
        } else {
            &self.sessions_refused
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn counter(&self, outcome: Outcome) -> &AtomicU64 {
        match outcome {
            Outcome::Answered => &self.answered,
            Outcome::Refused => &self.refused,
            Outcome::Busy => &self.busy,
            Outcome::Unverified => &self.unverified,
            Outcome::Failed => &self.failed,
        }
    }

    pub(crate) fn render(&self, in_flight: usize, ready: bool) -> String {
        let mut out = String::from("# TYPE gateway_requests_total counter\n");
        let mut line = |text: std::fmt::Arguments<'_>| {
            // Writing into a string cannot fail.
            let _infallible = out.write_fmt(text);
        };
        for (outcome, label) in OUTCOMES {
            let value = self.counter(outcome).load(Ordering::Relaxed);
            line(format_args!(
                "gateway_requests_total{{outcome=\"{label}\"}} {value}\n"
            ));
        }
        line(format_args!("# TYPE gateway_sessions_total counter\n"));
        for (counter, label) in [
            (&self.sessions_attested, "attested"),
            (&self.sessions_refused, "refused"),
        ] {
            let value = counter.load(Ordering::Relaxed);
            line(format_args!(
                "gateway_sessions_total{{outcome=\"{label}\"}} {value}\n"
            ));
        }
        line(format_args!(
            "# TYPE gateway_requests_in_flight gauge\ngateway_requests_in_flight {in_flight}\n"
        ));
        line(format_args!(
            "# TYPE gateway_session_ready gauge\ngateway_session_ready {}\n",
            u8::from(ready)
        ));
        out
    }
}
