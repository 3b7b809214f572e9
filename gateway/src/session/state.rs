//! What a connection knows of itself, and attesting it: the same for the first verdict and for every renewal.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use attestation::Nonce;
use hyper::client::conn::http2;
use rustls::NamedGroup;
use rustls_pki_types::CertificateDer;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::ConnectOptions;
use super::watched::CertificateAlert;
use crate::body::SessionBody;
use crate::verify::{Channel, verify};
use crate::{Error, Verdict, challenge};

/// A secure module answers within a second; the rest is a busy enclave.
const CHALLENGE_LIMIT: Duration = Duration::from_secs(20);

/// One connection's state that does not change with its verdicts.
pub(super) struct Shared {
    pub(super) options: ConnectOptions,
    pub(super) channel: Channel,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) group: Option<NamedGroup>,
    /// Cuts the connection with everything on it.
    pub(super) kill: Kill,
    /// No new request is taken; those in flight may finish.
    pub(super) ended: CancellationToken,
    pub(super) certificate_alert: CertificateAlert,
    pub(super) reason: OnceLock<Arc<Error>>,
}

impl Shared {
    /// Steps 2 to 6, now.
    pub(super) async fn attest(
        &self,
        sender: &http2::SendRequest<SessionBody>,
    ) -> Result<Signed, Error> {
        let nonce = Nonce::random();
        let answer = challenge::challenge(sender, &nonce);
        let answer = limit("the attestation", CHALLENGE_LIMIT, answer).await?;
        let answer = answer.map_err(|error| match self.certificate_alert.get() {
            Some(alert) => Error::CallerRefused {
                alert: format!("{alert:?}"),
            },
            None => error,
        })?;
        let now = (self.options.now)();
        let verdict = verify(&self.options.policy, &self.channel, &nonce, answer, now)?;
        let left = verdict.until.duration_since(now).unwrap_or_default();
        Ok(Signed {
            deadline: Instant::now() + left,
            verdict: Arc::new(verdict),
        })
    }

    /// Step 1 again, as far as it can change: the server's SVID under today's bundle at today's time.
    pub(super) fn check_identity(&self) -> Result<(), Error> {
        let bundles = self.options.bundles.load();
        let leaf = bundles
            .verify(&self.chain, (self.options.now)())
            .map_err(Error::ServerIdentityAgain)?;
        if leaf != self.channel.server {
            return Err(Error::ServerIdentityAgain(identity::Error::KeyMismatch));
        }
        Ok(())
    }

    pub(super) fn close(&self, reason: Error) {
        self.reason.get_or_init(|| Arc::new(reason));
        self.kill.0.cancel();
    }
}

/// A verdict with its end on the monotonic clock: setting the wall clock back extends nothing.
pub(super) struct Signed {
    pub(super) verdict: Arc<Verdict>,
    pub(super) deadline: Instant,
}

pub(super) struct Kill(pub(super) CancellationToken);

impl Drop for Kill {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

pub(super) async fn limit<T>(
    what: &'static str,
    duration: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    timeout(duration, work)
        .await
        .map_err(|_elapsed| Error::Timeout {
            what,
            seconds: duration.as_secs(),
        })
}
