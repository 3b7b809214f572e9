use metrics::{
    Counter, Gauge, counter, describe_counter, describe_gauge, gauge, with_local_recorder,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// All series of this process begin so; the enclave's are told apart by it.
pub(crate) const PREFIX: &str = "cloister_host_";

/// This process's metrics: every series is made at start, with labels from the configuration only.
pub(crate) struct Meters {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Meters {
    pub(crate) fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        with_local_recorder(&recorder, || {
            describe_gauge!("cloister_host_connections", "Connections open now.");
            describe_counter!(
                "cloister_host_connections_total",
                "Connections ended, by how they ended."
            );
            describe_counter!(
                "cloister_host_bytes_total",
                "Bytes passed on; in is towards the target."
            );
            describe_counter!(
                "cloister_host_model_requests_total",
                "Requests for sealed-model files, by status."
            );
            describe_counter!(
                "cloister_host_model_bytes_total",
                "Bytes of sealed-model files sent."
            );
            describe_gauge!(
                "cloister_host_enclave_up",
                "Whether the enclave's control listener answered last."
            );
        });
        Self { recorder, handle }
    }

    /// In the Prometheus text format.
    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }

    pub(crate) fn forward(&self, class: &str) -> ForwardMeters {
        with_local_recorder(&self.recorder, || {
            let class = class.to_owned();
            let ended = |outcome: Ended| counter!("cloister_host_connections_total", "class" => class.clone(), "outcome" => outcome.label());
            let bytes = |direction: &'static str| counter!("cloister_host_bytes_total", "class" => class.clone(), "direction" => direction);
            ForwardMeters {
                open: gauge!("cloister_host_connections", "class" => class.clone()),
                bytes_in: bytes("in"),
                bytes_out: bytes("out"),
                ended: Ended::ALL.map(|outcome| (outcome, ended(outcome))),
            }
        })
    }

    pub(crate) fn models(&self) -> ModelMeters {
        with_local_recorder(&self.recorder, || ModelMeters {
            bytes: counter!("cloister_host_model_bytes_total"),
            requests: STATUSES.map(|status| {
                let label = status.to_string();
                (
                    status,
                    counter!("cloister_host_model_requests_total", "status" => label),
                )
            }),
        })
    }

    pub(crate) fn enclave_up(&self) -> Gauge {
        with_local_recorder(&self.recorder, || gauge!("cloister_host_enclave_up"))
    }
}

/// How a relayed connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Both sides closed.
    Closed,
    /// A side failed: reset, broken pipe.
    Failed,
    /// No byte for too long.
    Idle,
    /// It lasted too long.
    Lifetime,
    /// One connection too many.
    Refused,
    /// The target did not answer.
    Unreachable,
    /// Cut at the drain deadline.
    Shutdown,
}

impl Ended {
    const ALL: [Self; 7] = [
        Self::Closed,
        Self::Failed,
        Self::Idle,
        Self::Lifetime,
        Self::Refused,
        Self::Unreachable,
        Self::Shutdown,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Shutdown => "shutdown",
        }
    }
}

#[derive(Clone)]
pub(crate) struct ForwardMeters {
    pub(crate) open: Gauge,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    ended: [(Ended, Counter); 7],
}

impl ForwardMeters {
    pub(crate) fn ended(&self, how: Ended) {
        for (outcome, counter) in &self.ended {
            if *outcome == how {
                counter.increment(1);
            }
        }
    }
}

/// What the file server answers.
const STATUSES: [u16; 7] = [200, 206, 400, 404, 405, 416, 500];

pub(crate) struct ModelMeters {
    pub(crate) bytes: Counter,
    requests: [(u16, Counter); 7],
}

impl ModelMeters {
    pub(crate) fn answered(&self, status: u16) {
        for (known, counter) in &self.requests {
            if *known == status {
                counter.increment(1);
            }
        }
    }
}
