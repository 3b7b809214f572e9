//! Why the enclave did not come up, or stopped. One line each, for the operator; the exit code says who must act.

use std::io;
use std::time::Duration;

use attestation::AttestError;
use transport::Endpoint;

/// Every boot error, and the few that can end a running enclave.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the platform: {0}")]
    Platform(#[source] AttestError),
    #[error("the clock is {} s away from the platform's: is the clock source the hypervisor's?", apart.as_secs())]
    Clock { apart: Duration },
    #[error(
        "the clock source is {actual}, expected {accepted}: use a kernel with the hypervisor's clock, or name it in clock_sources"
    )]
    ClockSource { actual: String, accepted: String },
    #[error("the clock source is unknown: {path}: {source}")]
    ClockSourceUnknown {
        path: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the broker issued no identity: {}", chain(.0))]
    Identity(#[source] kbs_client::Error),
    #[error("the broker released no key for model {model}: {}", chain(.source))]
    Key {
        model: String,
        #[source]
        source: kbs_client::Error,
    },
    #[error("KMS released no key for model {model}: {}", chain(.source))]
    Kms {
        model: String,
        #[source]
        source: kms_client::Error,
    },
    #[error(
        "model {model} has no usable wrapped key, and kms_key_arn asks for one: key.kms.json {source} (cloister seal --kms-key makes it)"
    )]
    WrappedKey {
        model: String,
        #[source]
        source: io::Error,
    },
    #[error("model {model}: {}", chain(.source))]
    Package {
        model: String,
        #[source]
        source: sealed_model::Error,
    },
    #[error("model {model}: {}", chain(.source))]
    Load {
        model: String,
        #[source]
        source: engine::LoadError,
    },
    #[error("cannot listen on {endpoint}: {source}")]
    Listen {
        endpoint: Endpoint,
        #[source]
        source: io::Error,
    },
    #[error("the listener broke: {0}")]
    Serve(#[source] io::Error),
    #[error("tls: {0}")]
    Tls(#[source] identity::Error),
    #[error("internal: {0}")]
    Internal(&'static str),
}

impl Error {
    /// sysexits: 69 a dependency is unavailable, 77 refused by policy, 70 a bug.
    pub fn exit_code(&self) -> u8 {
        const UNAVAILABLE: u8 = 69;
        const BUG: u8 = 70;
        const REFUSED: u8 = 77;

        match self {
            Self::Platform(_)
            | Self::Clock { .. }
            | Self::ClockSource { .. }
            | Self::ClockSourceUnknown { .. }
            | Self::Listen { .. }
            | Self::Serve(_) => UNAVAILABLE,
            Self::Identity(source) | Self::Key { source, .. } => match source {
                kbs_client::Error::Refused { .. } => REFUSED,
                kbs_client::Error::Unavailable { .. } | kbs_client::Error::Attester(_) => {
                    UNAVAILABLE
                }
                _ => BUG,
            },
            Self::Kms { source, .. } => match source {
                kms_client::Error::Unavailable { .. } | kms_client::Error::Attester(_) => {
                    UNAVAILABLE
                }
                kms_client::Error::Malformed { .. } | kms_client::Error::Setup(_) => BUG,
                _ => REFUSED,
            },
            Self::WrappedKey { source, .. } => match source.kind() {
                io::ErrorKind::InvalidData => REFUSED,
                _ => UNAVAILABLE,
            },
            Self::Package { source, .. } => match source.kind() {
                sealed_model::ErrorKind::Unavailable => UNAVAILABLE,
                sealed_model::ErrorKind::Internal => BUG,
                _ => REFUSED,
            },
            Self::Load { source, .. } => load_exit_code(source),
            Self::Tls(_) | Self::Internal(_) => BUG,
        }
    }
}

/// A model that was altered shows while the engine reads it, so the reason is one level further down.
fn load_exit_code(error: &engine::LoadError) -> u8 {
    match error {
        engine::LoadError::Read { source, .. } => {
            let sealed = source
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<sealed_model::Error>());
            match sealed.map(sealed_model::Error::kind) {
                Some(sealed_model::ErrorKind::Refused | sealed_model::ErrorKind::Invalid) => 77,
                Some(sealed_model::ErrorKind::Internal) => 70,
                _ => 69,
            }
        }
        engine::LoadError::Threads(_) | engine::LoadError::Memory { .. } => 69,
        engine::LoadError::Option { .. } => 64,
        // The publisher signed something that this engine cannot run.
        _ => 77,
    }
}

/// An error and what caused it, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some errors already show their source.
        if !line.contains(&cause_text) {
            line.push_str(": ");
            line.push_str(&cause_text);
        }
        next = cause.source();
    }
    line
}
