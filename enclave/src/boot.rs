//! From nothing to ready, in this order and no other. A failure ends the process: nothing listens before step 9.
//!
//! 1. Configuration: read and checked by [`Config::load`] before anything else runs.
//! 2. Entropy: the platform's randomness is mixed into the kernel's, and this boot gets its id. The clock, which every
//!    certificate is judged by, agrees with the platform's.
//! 3. Identity: a key made here, a certificate for it from the broker, on evidence.
//! 4. Evidence: the platform makes a document; the measurements are named in the log.
//! 5. Each model's manifest: fetched, signature, publisher, name and epoch floor checked.
//! 6. Its key: released by the broker or by AWS KMS, on evidence.
//! 7. Its weights: fetched, verified, loaded, where memory suffices. What the engine had no use for is verified too.
//! 8. Configuration and models are extended into PCR 16, which is locked.
//! 9. The listeners open (`serve`).

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use attestation::{
    AttestationRequest, Attester, BootId, ModelIdentity, RUNTIME_PCR, Sha256Digest,
    runtime_measurement,
};
use engine::{Engine, EngineOptions, Quantize};
use identity::{Clock as IdentityClock, Credentials};
use kbs_client::{Broker, KeyBroker};
use sealed_model::Package;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::config::{Config, KeySource, Limits, ModelConfig};
use crate::host_files::HostFiles;
use crate::keys::{Keys, KmsKeys};
use crate::metrics::Metrics;
use crate::model_files::PlainFiles;
use crate::models::{Model, Models};
use crate::{Clock, Error, Platform};

#[cfg(test)]
pub(crate) mod tests;

/// The platform may cut off milliseconds, and making its document takes some.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5);

/// Everything that must be in place before anything listens.
pub(crate) struct Booted {
    pub(crate) config: Config,
    pub(crate) boot_id: BootId,
    pub(crate) keys: Arc<Keys>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) models: Models,
    pub(crate) metrics: Arc<Metrics>,
}

pub(crate) async fn boot(config: Config, platform: &Platform) -> Result<Booted, Error> {
    let metrics = Arc::new(
        Metrics::new().map_err(|_constants| Error::Internal("the metrics cannot be set up"))?,
    );
    let steps = Steps::new(Arc::clone(&metrics));

    // 1. Configuration.
    tracing::info!(step = 1, config_digest = %config.digest, spiffe_id = %config.spiffe_id, "configuration");

    // 2. Entropy.
    let begun = Instant::now();
    let boot_id = with_attester(platform, mix_entropy).await?;
    let now = Arc::clone(&platform.now);
    with_attester(platform, move |attester| check_clock(attester, &now)).await?;
    steps.done(2, "entropy", begun);

    // 3. Identity.
    let begun = Instant::now();
    let clock = IdentityClock::from_fn(Arc::clone(&platform.now));
    let broker = broker(&config, platform, boot_id, clock.clone()).map_err(Error::Tls)?;
    let svid = broker
        .issue_svid(&config.spiffe_id)
        .await
        .map_err(Error::Identity)?;
    metrics.svid_expiry(svid.leaf().not_after);
    let spki = svid.leaf().spki_der.clone();
    let credentials = Arc::new(Credentials::with_clock(clock));
    credentials.install(svid);
    steps.done(3, "svid", begun);

    // 4. Evidence.
    let begun = Instant::now();
    with_attester(platform, move |attester| self_check(attester, &spki)).await?;
    steps.done(4, "attest", begun);

    // 5 to 7, for each model.
    let kms = match &config.kms {
        Some(address) => Some(KmsKeys::new(address, platform)?),
        None => None,
    };
    let keys = Keys { broker, kms };
    let mut models = Vec::with_capacity(config.models.len());
    for model in &config.models {
        models.push(open(model, &config.limits, &keys, &platform.now, &steps).await?);
    }
    let models = Models::new(models);

    // 8. Runtime measurement.
    let begun = Instant::now();
    let identities = models.current().identities();
    let manifests = identities.iter().map(|model| model.manifest_sha256);
    let data = runtime_measurement(config.digest, manifests);
    let pcr = with_attester(platform, move |attester| {
        attester
            .extend_and_lock(RUNTIME_PCR, data.as_bytes())
            .map_err(Error::Platform)
    })
    .await?;
    tracing::info!(step = 8, pcr16 = %pcr, "runtime measurement locked");
    steps.done(8, "measure", begun);

    Ok(Booted {
        config,
        boot_id,
        keys: Arc::new(keys),
        credentials,
        models,
        metrics,
    })
}

fn broker(
    config: &Config,
    platform: &Platform,
    boot_id: BootId,
    clock: IdentityClock,
) -> Result<Arc<dyn KeyBroker>, identity::Error> {
    let attester = Arc::clone(&platform.attester);
    let mut broker = Broker::new(
        config.brokers.clone(),
        config.trust.bundles.clone(),
        attester,
        config.digest,
        boot_id,
    )?;
    if let Some(trustee) = &config.trustee {
        broker = broker.with_trustee(trustee.clone())?;
    }
    Ok(Arc::new(broker.with_clock(clock)?))
}

/// Steps 5 to 7 for one model.
async fn open(
    model: &ModelConfig,
    limits: &Limits,
    keys: &Keys,
    now: &Clock,
    steps: &Steps,
) -> Result<Model, Error> {
    let checked = manifest(model, model.min_epoch, limits, steps).await?;
    load(checked, limits, keys, now, steps).await
}

/// A package whose manifest passed step 5.
pub(crate) struct Checked {
    package: Package<HostFiles>,
    identity: ModelIdentity,
    check_segments: bool,
    quantize: Option<Quantize>,
    key: KeySource,
    /// The same package, for what lies beside the sealed files.
    key_files: HostFiles,
}

impl Checked {
    pub(crate) fn identity(&self) -> &ModelIdentity {
        &self.identity
    }
}

/// Step 5 for one model, of epoch `floor` or later.
pub(crate) async fn manifest(
    model: &ModelConfig,
    floor: u64,
    limits: &Limits,
    steps: &Steps,
) -> Result<Checked, Error> {
    let name = model.name.clone();
    let begun = Instant::now();
    let files = |connections| {
        HostFiles::new(
            Handle::current(),
            model.source.clone(),
            model.package.clone(),
            connections,
            limits.fetch_timeout(),
        )
    };
    let (package_files, key_files) = (files(limits.fetch_connections), files(1));
    let (publishers, expected) = (model.publishers.clone(), name.clone());
    let package =
        spawn_blocking(move || Package::open(package_files, &publishers, &expected, floor))
            .await
            .unwrap_or(Err(sealed_model::Error::Internal(
                "opening a package panicked",
            )))
            .map_err(|source| Error::Package {
                model: name.clone(),
                source,
            })?;
    let manifest = package.manifest();
    let identity = ModelIdentity {
        name: name.clone(),
        epoch: manifest.epoch,
        manifest_sha256: package.manifest_sha256().into(),
        publisher_sha256: (*package.publisher().digest().as_bytes()).into(),
    };
    tracing::info!(
        step = 5,
        model = name,
        epoch = identity.epoch,
        manifest_sha256 = %identity.manifest_sha256,
        publisher_sha256 = %identity.publisher_sha256,
        "manifest verified"
    );
    steps.done(5, "manifest", begun);
    Ok(Checked {
        package,
        identity,
        check_segments: model.check_segments,
        quantize: model.quantize,
        key: model.key.clone(),
        key_files,
    })
}

/// Steps 6 and 7 for one model.
pub(crate) async fn load(
    checked: Checked,
    limits: &Limits,
    keys: &Keys,
    now: &Clock,
    steps: &Steps,
) -> Result<Model, Error> {
    let Checked {
        package,
        identity,
        check_segments,
        quantize,
        key,
        key_files,
    } = checked;
    let name = identity.name.clone();
    let created = unix_seconds(&package.manifest().created);

    // 6. Key.
    let begun = Instant::now();
    let key = keys.data_key(&key, &identity, key_files).await?;
    steps.done(6, "key", begun);

    // 7. Weights.
    let begun = Instant::now();
    let options = EngineOptions {
        quantize,
        ..engine_options(limits, now)
    };
    let at = name.clone();
    let engine = spawn_blocking(move || {
        let sealed = |source| Error::Package {
            model: at.clone(),
            source,
        };
        let files = Arc::new(PlainFiles::open(package, key, check_segments).map_err(sealed)?);
        let engine =
            Engine::load(Arc::<PlainFiles<_>>::clone(&files), options).map_err(|source| {
                Error::Load {
                    model: at.clone(),
                    source,
                }
            })?;
        files.verify_rest().map_err(sealed)?;
        Ok(engine)
    })
    .await
    .unwrap_or(Err(Error::Internal("loading a model panicked")))?;
    steps.done(7, "load", begun);
    Ok(Model::new(identity, created, engine))
}

fn engine_options(limits: &Limits, now: &Clock) -> EngineOptions {
    let defaults = EngineOptions::default();
    EngineOptions {
        queue: limits.queue,
        pin_threads: limits.pin_threads,
        threads: if limits.threads == 0 {
            defaults.threads
        } else {
            limits.threads
        },
        max_prompt_tokens: limits.max_prompt_tokens,
        max_new_tokens: usize::try_from(limits.max_new_tokens).unwrap_or(usize::MAX),
        max_batch_inputs: limits.max_batch_inputs,
        max_prompt_bytes: limits.max_body_bytes,
        max_messages: limits.max_messages,
        max_choices: usize::try_from(limits.max_choices).unwrap_or(usize::MAX),
        max_logit_bias: limits.max_logit_bias,
        max_stop_strings: limits.max_stop_strings,
        max_tools: limits.max_tools,
        max_schema_bytes: limits.max_schema_bytes,
        max_schema_depth: limits.max_schema_depth,
        max_grammar_cost: limits.max_grammar_cost,
        max_sequences: limits.max_sequences,
        kv_cache_bytes: limits.kv_cache_mib.saturating_mul(1024 * 1024),
        deadline: Duration::from_secs(limits.deadline_s),
        clock: Some(Arc::clone(now)),
        max_weight_bytes: crate::memory::for_weights(),
        ..defaults
    }
}

/// Credits nothing and replaces nothing: an attacker who knows one of the two sources learns neither the kernel's state
/// nor the id.
fn mix_entropy(attester: &dyn Attester) -> Result<BootId, Error> {
    let mut bytes = [0; 64];
    let (platform, own) = bytes.split_at_mut(32);
    attester.random(platform).map_err(Error::Platform)?;
    aws_lc_rs::rand::fill(own)
        .map_err(|_unspecified| Error::Internal("the system has no randomness"))?;
    let kernel = std::fs::OpenOptions::new().write(true).open("/dev/urandom");
    if let Err(error) = kernel.and_then(|mut pool| pool.write_all(platform)) {
        tracing::warn!(%error, "the platform's randomness was not mixed into the kernel's");
    }
    let digest = Sha256Digest::of(&bytes);
    let id = digest
        .as_bytes()
        .first_chunk::<16>()
        .copied()
        .ok_or(Error::Internal("a digest is too short"))?;
    Ok(BootId::from(id))
}

/// A host that could move the clock could make ended certificates valid again.
fn check_clock(attester: &dyn Attester, now: &Clock) -> Result<(), Error> {
    let platform = attester.time().map_err(Error::Platform)?;
    let system = now();
    let apart = system
        .duration_since(platform)
        .unwrap_or_else(|negative| negative.duration());
    if apart > MAX_CLOCK_SKEW {
        return Err(Error::Clock { apart });
    }
    Ok(())
}

/// The document stays here. Its user data is no binding of any purpose, so it would prove nothing to anybody.
fn self_check(attester: &dyn Attester, spki: &[u8]) -> Result<(), Error> {
    let pcrs = attester.measurements().map_err(Error::Platform)?;
    for (index, pcr) in pcrs
        .iter()
        .filter(|(index, pcr)| **index < RUNTIME_PCR && !pcr.is_zero())
    {
        tracing::info!(step = 4, pcr = *index, value = %pcr, "measurement");
    }
    let request = AttestationRequest {
        user_data: b"boot self-check",
        nonce: b"boot",
        public_key: spki,
    };
    attester.attest(&request).map_err(Error::Platform)?;
    Ok(())
}

/// Runs a blocking call of the platform where blocking is allowed.
async fn with_attester<T: Send + 'static>(
    platform: &Platform,
    call: impl FnOnce(&dyn Attester) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let attester = Arc::clone(&platform.attester);
    spawn_blocking(move || call(attester.as_ref()))
        .await
        .unwrap_or(Err(Error::Internal("a call of the platform panicked")))
}

/// Names each step's time, in the log and for the operator's dashboard.
pub(crate) struct Steps(Arc<Metrics>);

impl Steps {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self(metrics)
    }

    fn done(&self, step: u8, name: &'static str, begun: Instant) {
        let took = begun.elapsed();
        self.0.boot_step(name, took);
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(step, name, ms, "boot step done");
    }
}

/// The manifest's date as the API gives it; the signature was checked, so an unreadable date is only unusual.
fn unix_seconds(rfc3339: &str) -> u64 {
    OffsetDateTime::parse(rfc3339, &Rfc3339)
        .ok()
        .and_then(|date| u64::try_from(date.unix_timestamp()).ok())
        .unwrap_or_default()
}
