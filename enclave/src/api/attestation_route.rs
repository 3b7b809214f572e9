//! `POST /v1/attestation`: evidence for exactly the connection it is asked on. The caller chooses the nonce and nothing
//! else; all other contents come from this side's own state.

use std::sync::Arc;
use std::time::Duration;

use attestation::{
    AttestationRequest, Binding, Evidence, ModelIdentity, Nonce, SessionSubject, Sha256Digest,
    Subject,
};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde::de::MapAccess;
use tokio::time::timeout;

use super::error::ApiError;
use super::object::Fields;
use super::{App, object};
use crate::tls::Connection;

/// How long a challenge waits for its turn at the platform; callers give up after ten times that.
const PATIENCE: Duration = Duration::from_secs(2);

/// A nonce and its key; clients add nothing.
const MAX_BODY: usize = 1024;

#[derive(Default)]
struct Challenge {
    nonce: Option<String>,
}

impl Fields for Challenge {
    const NAMES: &'static [&'static str] = &["nonce"];

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        _name: &'static str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        self.nonce = map.next_value()?;
        Ok(())
    }
}

#[derive(Serialize)]
struct Answer {
    evidence: String,
    config_digest: Sha256Digest,
    boot_id: attestation::BootId,
    models: Vec<ModelIdentity>,
}

pub(super) async fn attest(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Result<Response, ApiError> {
    app.authorization
        .attest(&connection.caller.id, &app.spiffe_id)
        .map_err(|denied| app.denied(denied))?;
    let body = app.body(request, MAX_BODY).await?;
    let challenge: Challenge = object::parse(&body)?;
    let nonce = challenge.nonce.ok_or_else(|| ApiError::missing("nonce"))?;
    let nonce = Nonce::from_base64url(&nonce).map_err(|_not| {
        ApiError::invalid("nonce", "`nonce` is 32 bytes as base64url without padding")
    })?;

    // One at a time for this connection, a few at a time for all: evidence costs the platform milliseconds. The others wait in
    // line, at most one for each connection, so that a fleet that comes back at once is served and not sent away.
    let _mine = connection
        .attesting
        .try_acquire()
        .map_err(|_taken| ApiError::evidence_in_flight())?;
    let slot = Arc::clone(&app.evidence_slots).acquire_owned();
    let slot = timeout(PATIENCE, slot)
        .await
        .map_err(|_elapsed| ApiError::overloaded())?
        .map_err(|_never_closed| ApiError::internal())?;

    let models = connection.models.identities();
    let binding = session_binding(&app, &connection, models.clone());
    let attester = Arc::clone(&app.attester);
    let own = Arc::clone(&connection.own);
    let made = tokio::task::spawn_blocking(move || {
        // The slot is held until the platform is done, also when the caller has gone.
        let _slot = slot;
        attester.attest(&AttestationRequest {
            user_data: &binding.user_data(),
            nonce: nonce.as_bytes(),
            public_key: &own.spki_der,
        })
    })
    .await;
    let evidence = match made {
        Ok(Ok(evidence)) => evidence,
        Ok(Err(error)) => {
            tracing::error!(%error, "the platform gave no evidence");
            app.metrics.evidence(false);
            return Err(ApiError::evidence_unavailable());
        }
        Err(_panicked) => return Err(ApiError::internal()),
    };
    app.metrics.evidence(true);
    Ok(Json(answer(&app, &evidence, models)).into_response())
}

/// What the evidence of this session commits to, from this side's own TLS state.
fn session_binding(app: &App, connection: &Connection, models: Vec<ModelIdentity>) -> Binding {
    Binding {
        config_digest: app.config_digest,
        boot_id: app.boot_id,
        subject: Subject::Session(SessionSubject {
            tls_spki_sha256: Sha256Digest::of(&connection.own.spki_der),
            exporter: connection.exporter,
            peer_leaf_sha256: connection.caller.sha256.into(),
            spiffe_id: connection.own.id.to_string(),
            svid_serial: connection.own.serial.clone(),
            models,
        }),
    }
}

fn answer(app: &App, evidence: &Evidence, models: Vec<ModelIdentity>) -> Answer {
    Answer {
        evidence: BASE64_STANDARD.encode(evidence.as_bytes()),
        config_digest: app.config_digest,
        boot_id: app.boot_id,
        models,
    }
}
