//! Capacity. None of it decides about trust; all of it is measured all the same.

use std::time::Duration;

use engine::ChatRequest;
use serde::Deserialize;

/// What one enclave takes on before it says no. Every field has a default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections open at once.
    pub max_connections: usize,
    /// Requests in flight on one HTTP/2 connection.
    pub max_streams: u32,
    pub handshake_timeout_s: u64,
    pub header_timeout_s: u64,
    /// A connection with nothing in flight is closed after this long.
    pub idle_timeout_s: u64,
    /// A connection is closed after this long at the latest; never after half the SVID's life.
    pub connection_max_age_s: u64,
    /// How long a caller may take to send one request body.
    pub body_timeout_s: u64,
    pub max_body_bytes: usize,
    /// Memory for the bodies of all callers that are being received; as much again for embeddings they have not taken.
    pub body_memory_mib: usize,
    /// Sustained requests per minute of one caller.
    pub requests_per_minute: u32,
    /// Requests one caller may send at once after a pause.
    pub burst: u32,
    /// Callers whose rate is remembered at once.
    pub max_callers: usize,
    /// Evidence documents being made at once, over all connections.
    pub evidence_in_flight: usize,
    /// How long accepted requests may still run once shutdown began.
    pub drain_s: u64,
    /// Range requests to the host's model files at once.
    pub fetch_connections: usize,
    /// How long one range request may take in all, retries included.
    pub fetch_timeout_s: u64,
    /// Accepted requests that wait for the engine.
    pub queue: usize,
    /// Compute threads of one model; 0 takes one per core.
    pub threads: usize,
    /// Each of them on a processor of its own; for one model on a machine, with a processor to spare for everything else.
    pub pin_threads: bool,
    pub max_prompt_tokens: usize,
    pub max_new_tokens: u32,
    pub max_batch_inputs: usize,
    /// Messages of one conversation.
    pub max_messages: usize,
    /// `n`, and prompts of one completion request times `n`.
    pub max_choices: u32,
    /// Entries of `logit_bias`.
    pub max_logit_bias: usize,
    pub max_stop_strings: usize,
    /// Of one request.
    pub max_tools: usize,
    /// Of a format's schema, and of each tool's parameters, written without spaces.
    pub max_schema_bytes: usize,
    pub max_schema_depth: usize,
    /// What the regular expressions of a schema may cost; some 50,000 are a millisecond.
    pub max_grammar_cost: u64,
    /// Choices of one model that are made at the same time.
    pub max_sequences: usize,
    /// Memory of one model for keys and values, at most.
    pub kv_cache_mib: u64,
    /// How long the model may take for one request, its time in the queue included.
    pub deadline_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 256,
            max_streams: 64,
            handshake_timeout_s: 10,
            header_timeout_s: 10,
            idle_timeout_s: 120,
            connection_max_age_s: 3600,
            body_timeout_s: 30,
            max_body_bytes: 1024 * 1024,
            body_memory_mib: 256,
            requests_per_minute: 600,
            burst: 120,
            max_callers: 10_000,
            evidence_in_flight: 4,
            drain_s: 30,
            fetch_connections: 4,
            fetch_timeout_s: 60,
            queue: 64,
            threads: 0,
            pin_threads: false,
            max_prompt_tokens: 8192,
            max_new_tokens: 4096,
            max_batch_inputs: 256,
            max_messages: 1024,
            max_choices: 8,
            max_logit_bias: 300,
            max_stop_strings: 4,
            max_tools: 128,
            max_schema_bytes: 64 * 1024,
            max_schema_depth: 32,
            max_grammar_cost: 500_000,
            max_sequences: 16,
            kv_cache_mib: 1024,
            deadline_s: 600,
        }
    }
}

impl Limits {
    /// Checks every field against its range; gives back the field's name and the range.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let ranges: [(&'static str, u64, u64, u64); 32] = [
            ("max_connections", self.max_connections as u64, 1, 65_536),
            ("max_streams", u64::from(self.max_streams), 1, 1024),
            ("handshake_timeout_s", self.handshake_timeout_s, 1, 60),
            ("header_timeout_s", self.header_timeout_s, 1, 60),
            ("idle_timeout_s", self.idle_timeout_s, 1, 3600),
            (
                "connection_max_age_s",
                self.connection_max_age_s,
                10,
                86_400,
            ),
            ("body_timeout_s", self.body_timeout_s, 1, 600),
            (
                "max_body_bytes",
                self.max_body_bytes as u64,
                1024,
                64 * 1024 * 1024,
            ),
            ("body_memory_mib", self.body_memory_mib as u64, 128, 65_536),
            (
                "requests_per_minute",
                u64::from(self.requests_per_minute),
                1,
                1_000_000,
            ),
            ("burst", u64::from(self.burst), 1, 1_000_000),
            ("max_callers", self.max_callers as u64, 1, 10_000_000),
            ("evidence_in_flight", self.evidence_in_flight as u64, 1, 64),
            ("drain_s", self.drain_s, 0, 600),
            ("fetch_connections", self.fetch_connections as u64, 1, 64),
            ("fetch_timeout_s", self.fetch_timeout_s, 1, 600),
            ("queue", self.queue as u64, 1, 65_536),
            ("threads", self.threads as u64, 0, 1024),
            (
                "max_prompt_tokens",
                self.max_prompt_tokens as u64,
                1,
                16 * 1024 * 1024,
            ),
            (
                "max_new_tokens",
                u64::from(self.max_new_tokens),
                1,
                16 * 1024 * 1024,
            ),
            ("max_batch_inputs", self.max_batch_inputs as u64, 1, 2048),
            ("max_messages", self.max_messages as u64, 1, 65_536),
            ("max_choices", u64::from(self.max_choices), 1, 128),
            ("max_logit_bias", self.max_logit_bias as u64, 0, 4096),
            ("max_stop_strings", self.max_stop_strings as u64, 0, 64),
            ("max_tools", self.max_tools as u64, 0, 1024),
            (
                "max_schema_bytes",
                self.max_schema_bytes as u64,
                64,
                1024 * 1024,
            ),
            ("max_schema_depth", self.max_schema_depth as u64, 2, 100),
            ("max_grammar_cost", self.max_grammar_cost, 1000, 10_000_000),
            ("max_sequences", self.max_sequences as u64, 1, 1024),
            ("kv_cache_mib", self.kv_cache_mib, 1, 16 * 1024 * 1024),
            ("deadline_s", self.deadline_s, 1, 86_400),
        ];
        for (field, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return Err((field, format!("is {value}, must be {low} to {high}")));
            }
        }
        Ok(())
    }

    /// What a request may have generated, all choices together: what the policy decides about.
    pub(crate) fn tokens(&self, chat: &ChatRequest) -> u32 {
        let most = self.max_new_tokens;
        let each = chat.max_tokens.map_or(most, |wanted| wanted.min(most));
        each.saturating_mul(chat.choices)
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.body_timeout_s)
    }

    pub(crate) fn fetch_timeout(&self) -> Duration {
        Duration::from_secs(self.fetch_timeout_s)
    }
}
