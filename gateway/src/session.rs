//! From an address to an [`AttestedSession`]: steps 1 to 6 on one connection, and again before the verdict runs out.

mod renewal;
mod state;
mod unprocessed;
mod unverified;
mod watched;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2;
use identity::{BundleHandle, Credentials};
use rustls::NamedGroup;
use tokio::time::Instant;
use transport::Endpoint;

use crate::body::{BoxError, SessionBody, boxed};
use crate::challenge::AUTHORITY;
use crate::verify::judge_again;
use crate::{Error, Now, Policy, Verdict};
use state::{Kill, Shared, Signed};
use unverified::Unverified;

/// A successor connection is made at most this long before the server's SVID ends.
const MAX_LEAD: Duration = Duration::from_secs(60);

/// Whom to connect to, as whom, and what it has to be.
#[derive(Clone)]
pub struct ConnectOptions {
    /// The enclave, or a relay in front of it: TLS ends behind it.
    pub endpoint: Endpoint,
    /// What we present. Certificates are checked against these credentials' clock.
    pub credentials: Arc<Credentials>,
    /// Trust bundles; only the server's own trust domain is looked up.
    pub bundles: BundleHandle,
    pub policy: Arc<Policy>,
    /// The time evidence is checked against.
    pub now: Now,
}

/// Opens a connection and returns it only when every check has passed on it.
///
/// # Errors
/// The first check that failed: [`Error::step`] names it. Nothing but the challenge was sent by then.
pub async fn connect(options: &ConnectOptions) -> Result<AttestedSession, Error> {
    options.policy.validate()?;
    let unverified = Unverified::open(options).await?;
    unverified.attest().await
}

/// A connection to a verified enclave. Dropping it cuts the connection, with any response still being read.
pub struct AttestedSession {
    shared: Arc<Shared>,
    sender: http2::SendRequest<SessionBody>,
    verdict: Arc<ArcSwap<Signed>>,
    /// Cuts the connection when the session is dropped; the renewal task keeps `shared` alive until then.
    _kill: Kill,
}

/// A request that was not sent, or whose fate is unknown when `request` is none and it is not `unprocessed`.
#[derive(Debug)]
pub struct Unsent {
    pub error: Error,
    pub request: Option<Request<SessionBody>>,
    /// It was sent, and the server has certainly not acted on it: it may be sent again.
    pub unprocessed: bool,
}

impl AttestedSession {
    /// What was verified last on this connection.
    #[must_use]
    pub fn verdict(&self) -> Arc<Verdict> {
        Arc::clone(&self.verdict.load().verdict)
    }

    /// The server's leaf certificate.
    #[must_use]
    pub fn server(&self) -> &identity::Leaf {
        &self.shared.channel.server
    }

    /// The key exchange of the connection.
    #[must_use]
    pub fn group(&self) -> Option<NamedGroup> {
        self.shared.group
    }

    /// Sends a request, if the verdict still stands. Scheme and authority of the URI are replaced.
    ///
    /// # Errors
    /// [`Error::Expired`], the reason for which the session was closed, or a broken connection.
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<Incoming>, Error>
    where
        B: Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.try_send(request.map(boxed))
            .await
            .map_err(|unsent| unsent.error)
    }

    /// As [`Self::send`], giving the request back when it certainly was not sent.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn try_send(
        &self,
        mut request: Request<SessionBody>,
    ) -> Result<Response<Incoming>, Box<Unsent>> {
        if let Err(error) = self.check() {
            let request = Some(request);
            return Err(Box::new(Unsent {
                error,
                request,
                unprocessed: false,
            }));
        }
        *request.uri_mut() = enclave_uri(request.uri());
        let sent = self.sender.clone().try_send_request(request).await;
        sent.map_err(|mut error| {
            let request = error.take_message();
            let error = error.into_error();
            let unprocessed = unprocessed::certainly(&error);
            let error = self.check().err().unwrap_or(Error::Connection(error));
            Box::new(Unsent {
                error,
                request,
                unprocessed,
            })
        })
    }

    /// Whether a request may go out now.
    fn check(&self) -> Result<(), Error> {
        let signed = self.verdict.load();
        // Both clocks: one can be set back, the other may stand still while the machine sleeps.
        if (self.shared.options.now)() >= signed.verdict.until || Instant::now() >= signed.deadline
        {
            return Err(Error::Expired);
        }
        if self.shared.kill.0.is_cancelled() || self.shared.ended.is_cancelled() {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Whether a request would be sent.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.check().is_ok()
    }

    /// What it was verified against.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.shared.options.policy
    }

    /// Ends the session for `policy`, which takes the place of its own: it takes no more requests and no more verdicts. What is in
    /// flight may finish while the last verdict lasts, if what was verified would pass under `policy`.
    ///
    /// # Errors
    /// The check of `policy` that refuses. Then the connection is cut, with everything on it.
    pub fn give_way_to(&self, policy: &Policy) -> Result<(), Arc<Error>> {
        let now = (self.shared.options.now)();
        let verdict = self.verdict();
        match judge_again(policy, self.server(), &verdict, now) {
            Ok(()) => {
                self.shared.ended.cancel();
                Ok(())
            }
            Err(reason) => {
                self.shared.close(reason);
                Err(self
                    .shared
                    .reason
                    .get()
                    .map_or_else(|| Arc::new(Error::Closed), Arc::clone))
            }
        }
    }

    /// Waits until no more requests are taken. Gives the reason, when it was our decision.
    pub async fn ended(&self) -> Option<Arc<Error>> {
        self.shared.ended.cancelled().await;
        self.shared.reason.get().cloned()
    }

    /// When to have a successor: a tenth of the remaining life before the first of this connection's two SVIDs ends, as no
    /// renewal can go beyond that. At the end of ours the server cuts what is still in flight.
    #[must_use]
    pub fn retire_at(&self, now: SystemTime) -> Instant {
        let end = self
            .server()
            .not_after
            .min(self.shared.channel.own_not_after);
        let left = end.duration_since(now);
        let left = left.unwrap_or_default();
        Instant::now() + left.saturating_sub((left / 10).min(MAX_LEAD))
    }
}

fn enclave_uri(uri: &Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(Authority::from_static(AUTHORITY));
    // Scheme, authority and a path are all there, so the parts fit together.
    Uri::from_parts(parts).unwrap_or_else(|_never| uri.clone())
}
