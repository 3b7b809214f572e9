//! The keys of one run and what is made with them: SVIDs, sealed models, the broker's store. All are gone when it ends.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use attestation::Sha256Digest;
use identity::issue::Authority;
use identity::{SpiffeId, TrustDomain, pem};
use sealed_model::{DataKey, SealOptions, SealProgress, SigningKey};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{BROKER_ID, Clock, Error, GATEWAY_ID, Layout, Model, TRUST_DOMAIN};
use crate::authority::{self, Entry};

/// Longer than a run; the throwaway root dies with it.
const CA_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// The broker's own SVID is made once per run.
const BROKER_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// What the SPIFFE authority gives callers; it rotates at half of it.
const CALLER_TTL: Duration = Duration::from_secs(3600);

/// What a run begins with.
const FIRST_EPOCH: u64 = 1;
/// A smaller model is sealed before anybody could read its progress.
const WORTH_TELLING: u64 = 256 << 20;

pub(super) struct RunKeys {
    pub(super) root: Authority,
    pub(super) issuer: Authority,
    pub(super) broker_chain_pem: String,
    pub(super) broker_key_pem: Zeroizing<String>,
    pub(super) publisher: SigningKey,
    pub(super) master_hex: Zeroizing<String>,
}

/// A sealed package and the key that opens it.
pub(super) struct Sealed {
    pub(super) name: String,
    pub(super) epoch: u64,
    pub(super) key_id: String,
    pub(super) manifest_sha256: Sha256Digest,
    pub(super) key: Zeroizing<[u8; 32]>,
}

fn keys_error(error: impl std::fmt::Display) -> Error {
    Error::Keys(error.to_string())
}

impl RunKeys {
    /// `root`: the trust domain's, where there is one already.
    pub(super) fn generate(
        now: SystemTime,
        root: Option<(String, Zeroizing<String>)>,
    ) -> Result<Self, Error> {
        let domain = TrustDomain::new(TRUST_DOMAIN).map_err(keys_error)?;
        let root = match root {
            Some((certificate, key)) => Authority::from_pem(&certificate, &key),
            None => Authority::generate_root(&domain, now, CA_TTL),
        };
        let root = root.map_err(keys_error)?;
        let issuer = root.intermediate(now, CA_TTL).map_err(keys_error)?;
        let id = SpiffeId::new(BROKER_ID).map_err(keys_error)?;
        let (chain, key) =
            identity::issue::new_svid_der(&root, &id, BROKER_TTL, now).map_err(keys_error)?;
        let broker_chain_pem = pem::encode_certificates(&chain);
        let broker_key_pem = pem::encode_private_key(&key);
        let mut master = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(master.as_mut()).map_err(keys_error)?;
        Ok(Self {
            root,
            issuer,
            broker_chain_pem,
            broker_key_pem,
            publisher: SigningKey::generate()?,
            master_hex: Zeroizing::new(hex::encode(master.as_ref())),
        })
    }
}

/// Seals one model into the run's package directory under a key of its own.
pub(super) fn seal(
    layout: &Layout,
    model: &Model,
    keys: &RunKeys,
    now: SystemTime,
    say: &(dyn Fn(&str) + Send + Sync),
) -> Result<Sealed, Error> {
    let out = layout.packages().join(&model.name);
    seal_as(&out, model, FIRST_EPOCH, keys, now, say)
}

/// Seals one model in the given epoch under a key of its own.
pub(super) fn seal_as(
    out: &Path,
    model: &Model,
    epoch: u64,
    keys: &RunKeys,
    now: SystemTime,
    say: &(dyn Fn(&str) + Send + Sync),
) -> Result<Sealed, Error> {
    let tenths = AtomicU64::new(0);
    let progress = |p: SealProgress<'_>| {
        let tenth = p.done.saturating_mul(10) / p.total.max(1);
        // Several threads report; each tenth is told once.
        if p.total > WORTH_TELLING && tenths.fetch_max(tenth, Ordering::Relaxed) < tenth {
            say(&format!("sealing {}: {}0 %", model.name, tenth));
        }
    };
    let key = DataKey::generate()?;
    let options = SealOptions {
        name: &model.name,
        epoch,
        key: &key,
        signer: &keys.publisher,
        created: now,
        progress: &progress,
    };
    let manifest = tokio::task::block_in_place(|| sealed_model::seal(&model.dir, out, &options))?;
    let bytes = std::fs::read(out.join(sealed_model::MANIFEST))
        .map_err(Error::io(out.display().to_string()))?;
    Ok(Sealed {
        name: model.name.clone(),
        epoch,
        key_id: manifest.key_id.clone(),
        manifest_sha256: Sha256Digest::of(&bytes),
        key: Zeroizing::new(*key.expose()),
    })
}

/// Serves the Workload API to callers of this run until the sender says `true`.
pub(super) fn serve_workload_api(
    layout: &Layout,
    keys: &RunKeys,
    clock: Clock,
) -> Result<(watch::Sender<bool>, tokio::task::JoinHandle<()>), Error> {
    let id = SpiffeId::new(GATEWAY_ID).map_err(keys_error)?;
    let endpoint = layout.unix("workload.sock").parse().map_err(keys_error)?;
    let authority = Authority::from_pem(
        &keys.root.cert_pem(),
        &keys.root.key_pem().map_err(keys_error)?,
    )
    .map_err(keys_error)?;
    let (stop, mut stopped) = watch::channel(false);
    let shutdown = async move {
        // A dropped sender stops the authority as well.
        while !*stopped.borrow_and_update() {
            if stopped.changed().await.is_err() {
                break;
            }
        }
    };
    let serve = authority::serve(
        authority,
        vec![Entry { spiffe_id: id }],
        vec![endpoint],
        CALLER_TTL,
        clock,
        shutdown,
    );
    let task = tokio::spawn(async move {
        if let Err(error) = serve.await {
            tracing::error!(%error, "the SPIFFE authority ended");
        }
    });
    Ok((stop, task))
}

/// Puts the data keys into the broker's store, as its owner would on the broker's machine.
pub(super) fn fill_broker(
    layout: &Layout,
    sealed: &[Sealed],
    now: SystemTime,
) -> Result<(), Error> {
    let config = kbs::Config::load(&layout.config("kbs")).map_err(keys_error)?;
    for package in sealed {
        kbs::offline::put_resource(&config, &package.key_id, package.key.as_ref(), now)
            .map_err(keys_error)?;
    }
    Ok(())
}
