//! The next generation of models beside the current one: asked for by the host or by SIGHUP, allowed by the measured
//! configuration, and held to everything that a boot is held to. All models that have a newer package are replaced together, or none.

use std::sync::Arc;

use attestation::ModelIdentity;
use http::StatusCode;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

use crate::boot::{self, Steps};
use crate::config::{Limits, ModelConfig};
use crate::error::chain;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::{Clock, Error};

#[cfg(test)]
mod tests;

/// What a reload needs; one at a time.
pub(crate) struct Reload {
    pub(crate) allowed: bool,
    pub(crate) configured: Vec<ModelConfig>,
    pub(crate) limits: Limits,
    pub(crate) keys: Arc<Keys>,
    pub(crate) models: Arc<Models>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) now: Clock,
    pub(crate) one: Mutex<()>,
}

/// What is open after a reload.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Done {
    /// Models with a new generation; empty where no package has changed.
    pub(crate) reloaded: Vec<ModelIdentity>,
    pub(crate) unchanged: Vec<ModelIdentity>,
}

/// Why everything is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(
        "the configuration fixes the models at boot: measure one with `reload = true`, or start another enclave"
    )]
    NotAllowed,
    #[error("a reload is under way")]
    Busy,
    #[error("requests still run on the generation before: try again when they have ended")]
    Draining,
    #[error(
        "model {model}: the package has epoch {epoch}, as the one that is open, and another manifest; give it a higher epoch"
    )]
    SameEpoch { model: String, epoch: u64 },
    #[error(transparent)]
    Open(#[from] Error),
}

impl Failed {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::Busy | Self::Draining => StatusCode::CONFLICT,
            Self::SameEpoch { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Open(error) => match error.exit_code() {
                69 => StatusCode::SERVICE_UNAVAILABLE,
                70 => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            },
        }
    }
}

impl Reload {
    /// Opens newer packages beside the open ones and switches to them.
    ///
    /// # Errors
    /// Whatever would have ended a boot, and a package that is not newer. The current generation goes on then.
    pub(crate) async fn run(&self) -> Result<Done, Failed> {
        let outcome = self.attempt().await;
        self.metrics.reload(outcome.is_ok());
        match &outcome {
            Ok(done) if done.reloaded.is_empty() => tracing::info!("no package has changed"),
            Ok(_) => {}
            Err(failed) => tracing::warn!(
                error = chain(failed),
                "the models were not reloaded; those that are open go on"
            ),
        }
        outcome
    }

    async fn attempt(&self) -> Result<Done, Failed> {
        if !self.allowed {
            return Err(Failed::NotAllowed);
        }
        let _one = self.one.try_lock().map_err(|_taken| Failed::Busy)?;
        // Two generations in memory at most.
        if self.models.draining() {
            return Err(Failed::Draining);
        }
        let steps = Steps::new(Arc::clone(&self.metrics));
        let current = self.models.current();
        let mut newer = Vec::new();
        for (config, open) in self.configured.iter().zip(current.models()) {
            // Never back: what is open is the floor now, as it is above the measured one.
            let floor = config.min_epoch.max(open.identity().epoch);
            let checked = boot::manifest(config, floor, &self.limits, &steps).await?;
            newer.push(match checked.identity() {
                found if found == open.identity() => None,
                found if found.epoch == open.identity().epoch => {
                    return Err(Failed::SameEpoch {
                        model: found.name.clone(),
                        epoch: found.epoch,
                    });
                }
                _ => Some(checked),
            });
        }
        let (mut next, mut done) = (Vec::new(), Done::default());
        for (open, newer) in current.models().iter().zip(newer) {
            let model = match newer {
                None => Arc::clone(open),
                Some(checked) => {
                    let keys = self.keys.as_ref();
                    let model = boot::load(checked, &self.limits, keys, &self.now, &steps).await?;
                    Arc::new(model)
                }
            };
            let list = match Arc::ptr_eq(&model, open) {
                true => &mut done.unchanged,
                false => &mut done.reloaded,
            };
            list.push(model.identity().clone());
            next.push(model);
        }
        // Ours must not keep the old generation alive.
        drop(current);
        if !done.reloaded.is_empty() {
            self.models.replace(next);
        }
        Ok(done)
    }

    /// Reloads at each SIGHUP, for as long as it is polled.
    pub(crate) async fn at_hangup(&self) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => return tracing::warn!(%error, "SIGHUP cannot be waited for"),
        };
        while hangup.recv().await.is_some() {
            // Said in the log, whatever it is.
            self.run().await.ok();
        }
    }
}
