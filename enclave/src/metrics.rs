//! Numbers for the operator. Label values are fixed words, status codes and the configured model names: nothing that
//! a caller chooses.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::Stats;
use http::StatusCode;
use metrics::{counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{
    BuildError, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

/// From a cache hit to a long generation, in seconds.
const LATENCY_BUCKETS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];

/// This enclave's own recorder; nothing is registered process-wide.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Metrics {
    /// # Errors
    /// The exporter refuses our constants: a bug.
    pub(crate) fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&LATENCY_BUCKETS)?
            .build_recorder();
        let handle = recorder.handle();
        Ok(Self { recorder, handle })
    }

    /// The exposition text.
    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }

    /// Must run now and then, or histograms keep every sample.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    pub(crate) fn boot_step(&self, step: &'static str, took: Duration) {
        self.record(|| {
            gauge!("cloister_boot_step_seconds", "step" => step).set(took.as_secs_f64())
        });
    }

    pub(crate) fn handshake(&self, completed: bool) {
        let outcome = if completed { "completed" } else { "failed" };
        self.record(|| counter!("cloister_handshakes_total", "outcome" => outcome).increment(1));
    }

    /// `took` runs until the head of the response, which for a stream is the first token.
    pub(crate) fn request(&self, route: &'static str, status: StatusCode, took: Duration) {
        self.record(|| {
            counter!("cloister_requests_total", "route" => route, "status" => status.as_u16().to_string())
                .increment(1);
            histogram!("cloister_request_seconds", "route" => route).record(took.as_secs_f64());
        });
    }

    pub(crate) fn denied(&self, action: &'static str) {
        self.record(|| counter!("cloister_denied_total", "action" => action).increment(1));
    }

    pub(crate) fn rate_limited(&self) {
        self.record(|| counter!("cloister_rate_limited_total").increment(1));
    }

    pub(crate) fn evidence(&self, made: bool) {
        let outcome = if made { "made" } else { "failed" };
        self.record(|| counter!("cloister_evidence_total", "outcome" => outcome).increment(1));
    }

    pub(crate) fn renewal(&self, done: bool) {
        let outcome = if done { "done" } else { "failed" };
        self.record(|| counter!("cloister_svid_renewals_total", "outcome" => outcome).increment(1));
    }

    pub(crate) fn reload(&self, done: bool) {
        let outcome = if done { "done" } else { "failed" };
        self.record(|| counter!("cloister_reloads_total", "outcome" => outcome).increment(1));
    }

    pub(crate) fn svid_expiry(&self, at: SystemTime) {
        let seconds = at
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        self.record(|| gauge!("cloister_svid_not_after_seconds").set(seconds));
    }

    /// The engine's own counters, read when the text is rendered.
    pub(crate) fn engine(&self, model: &str, stats: &Stats) {
        let counters = [
            ("cloister_prompt_tokens_total", stats.prompt_tokens),
            ("cloister_completion_tokens_total", stats.completion_tokens),
            ("cloister_embedded_inputs_total", stats.embedded_inputs),
            ("cloister_engine_completed_total", stats.completed),
            ("cloister_engine_cancelled_total", stats.cancelled),
            ("cloister_engine_failed_total", stats.failed),
            (
                "cloister_cached_prompt_tokens_total",
                stats.cached_prompt_tokens,
            ),
            ("cloister_engine_preempted_total", stats.preempted),
        ];
        let gauges = [
            ("cloister_engine_queue_depth", stats.queue_depth),
            ("cloister_engine_running", stats.running),
            ("cloister_engine_kv_blocks_used", stats.kv_blocks_used),
        ];
        self.record(|| {
            for (name, value) in counters {
                counter!(name, "model" => model.to_owned()).absolute(value);
            }
            for (name, value) in gauges {
                gauge!(name, "model" => model.to_owned())
                    .set(f64::from(u32::try_from(value).unwrap_or(u32::MAX)));
            }
        });
    }

    pub(crate) fn ready(&self, ready: bool) {
        self.record(|| gauge!("cloister_ready").set(if ready { 1.0 } else { 0.0 }));
    }

    fn record(&self, emit: impl FnOnce()) {
        with_local_recorder(&self.recorder, emit);
    }
}
