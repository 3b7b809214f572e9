//! Steps 3 to 6: a pure function from our own TLS state, our own nonce, the policy and the server's answer to a verdict.

use std::sync::LazyLock;
use std::time::SystemTime;

use attestation::{
    Appraisal, Binding, BootId, ChainCache, Claims, Expected, ModelIdentity, Nonce, SessionSubject,
    Sha256Digest, Subject, Verifier,
};
use identity::Leaf;

use crate::challenge::Answer;
use crate::{Error, Policy};

/// A machine's authorities are the same for a day: most connections and every renewal find them here.
static CHAINS: LazyLock<ChainCache> = LazyLock::new(ChainCache::default);

/// What this end of the connection knows by itself. Nothing in here came from the server's words.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    /// RFC 9266 exporter of this connection.
    pub(crate) exporter: [u8; 32],
    /// The server's leaf, as verified in the handshake.
    pub(crate) server: Leaf,
    /// SHA-256 of the leaf that we presented. The exporter does not cover it.
    pub(crate) own_leaf_sha256: [u8; 32],
    /// When that leaf ends, and with it what the server lets us do here.
    pub(crate) own_not_after: SystemTime,
}

/// A connection's verdict: what was verified, when, and until when it counts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verdict {
    /// SHA-256 of the root that the evidence chains to.
    pub trust_anchor: Sha256Digest,
    pub claims: Claims,
    pub config_digest: Sha256Digest,
    pub boot_id: BootId,
    pub models: Vec<ModelIdentity>,
    pub verified_at: SystemTime,
    /// The earlier of the policy's interval and [`Self::last`].
    pub until: SystemTime,
    /// No renewal on this connection reaches beyond: the server's SVID ends, or the policy accepts the image no longer.
    pub last: SystemTime,
}

pub(crate) fn verify(
    policy: &Policy,
    channel: &Channel,
    nonce: &Nonce,
    answer: Answer,
    now: SystemTime,
) -> Result<Verdict, Error> {
    let spki = channel.server.spki_der.as_slice();
    // Step 4 in advance: the binding as it must be. The server contributes its boot's name and what step 5 judges.
    let binding = Binding {
        config_digest: answer.config_digest,
        boot_id: answer.boot_id,
        subject: Subject::Session(SessionSubject {
            tls_spki_sha256: Sha256Digest::of(spki),
            exporter: channel.exporter,
            peer_leaf_sha256: Sha256Digest::from(channel.own_leaf_sha256),
            spiffe_id: channel.server.id.to_string(),
            svid_serial: channel.server.serial.clone(),
            models: answer.models.clone(),
        }),
    };
    // Steps 3 and 4, then the image and the age of step 5.
    let expected = Expected {
        nonce: nonce.as_bytes(),
        public_key: spki,
        binding: &binding,
        measurements: Appraisal::Reference(&policy.images),
        max_age: policy.max_age,
    };
    let verifier = Verifier::new(policy.trust_anchor.clone()).with_chain_cache(CHAINS.clone());
    let claims = verifier.verify(&answer.evidence, &expected, now)?;
    // Step 5, the rest: what the evidence has now been shown to commit to.
    policy.fleet.appraise(&claims.pcrs)?;
    check_configuration(policy, answer.config_digest)?;
    check_models(policy, &answer.models)?;
    // Step 6.
    let image_end = policy.images.accepted_until(&claims.pcrs, now);
    let last = image_end.map_or(channel.server.not_after, |end| {
        end.min(channel.server.not_after)
    });
    let until = now
        .checked_add(policy.reattest)
        .map_or(last, |end| end.min(last));
    if until <= now {
        return Err(Error::Expired);
    }
    Ok(Verdict {
        trust_anchor: policy.trust_anchor.fingerprint(),
        claims,
        config_digest: answer.config_digest,
        boot_id: answer.boot_id,
        models: answer.models,
        verified_at: now,
        until,
        last,
    })
}

/// Whether what was verified under another policy would pass under `policy`: every check of the verdict that depends on it, on the
/// claims that were verified.
///
/// # Errors
/// The first check that refuses.
pub(crate) fn judge_again(
    policy: &Policy,
    server: &Leaf,
    verdict: &Verdict,
    now: SystemTime,
) -> Result<(), Error> {
    if !policy.server_ids.contains(&server.id) {
        return Err(Error::ServerUnlisted(server.id.clone()));
    }
    if policy.trust_anchor.fingerprint() != verdict.trust_anchor {
        return Err(Error::TrustAnchorChanged);
    }
    policy
        .images
        .appraise(&verdict.claims.pcrs, now)
        .map_err(Error::Evidence)?;
    policy.fleet.appraise(&verdict.claims.pcrs)?;
    check_configuration(policy, verdict.config_digest)?;
    check_models(policy, &verdict.models)?;
    let age = now.duration_since(verdict.verified_at).unwrap_or_default();
    if age > policy.reattest {
        return Err(Error::Expired);
    }
    Ok(())
}

fn check_configuration(policy: &Policy, actual: Sha256Digest) -> Result<(), Error> {
    if policy.config_digests.contains(&actual) {
        return Ok(());
    }
    Err(Error::ConfigDigest {
        expected: policy.config_digests.clone(),
        actual,
    })
}

fn check_models(policy: &Policy, served: &[ModelIdentity]) -> Result<(), Error> {
    for rule in &policy.models {
        let mut found = served.iter().filter(|model| model.name == rule.name);
        let name = || rule.name.clone();
        let model = found
            .next()
            .ok_or_else(|| Error::ModelMissing { name: name() })?;
        if found.next().is_some() {
            return Err(Error::ModelTwice { name: name() });
        }
        if model.epoch < rule.min_epoch {
            return Err(Error::ModelEpoch {
                name: name(),
                minimum: rule.min_epoch,
                actual: model.epoch,
            });
        }
        if let Some(expected) = rule.manifest_sha256
            && expected != model.manifest_sha256
        {
            return Err(Error::ModelManifest {
                name: name(),
                expected,
                actual: model.manifest_sha256,
            });
        }
        if !rule.publishers.is_empty() && !rule.publishers.contains(&model.publisher_sha256) {
            return Err(Error::ModelPublisher {
                name: name(),
                expected: rule.publishers.clone(),
                actual: model.publisher_sha256,
            });
        }
    }
    let unlisted = served
        .iter()
        .find(|model| !policy.models.iter().any(|rule| rule.name == model.name));
    match unlisted {
        Some(model) => Err(Error::ModelUnlisted {
            name: model.name.clone(),
        }),
        None => Ok(()),
    }
}
