use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{Stream, unfold};
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

use super::Snapshot;
use pb::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use pb::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest,
    X509svidResponse,
};

/// Generated from `proto/workload.proto`.
#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub(super) mod pb {
    tonic::include_proto!("_");
}

/// The requests we answer are empty; a JWT to be validated is refused unread.
const MAX_REQUEST: usize = 4 << 10;

type Check = fn(Request<()>) -> Result<Request<()>, Status>;

/// The gRPC service of one listener.
pub(super) fn service(
    current: watch::Receiver<Arc<Snapshot>>,
) -> InterceptedService<SpiffeWorkloadApiServer<WorkloadApi>, Check> {
    let server = SpiffeWorkloadApiServer::new(WorkloadApi { current })
        .max_decoding_message_size(MAX_REQUEST);
    InterceptedService::new(server, security_header)
}

/// SPIFFE Workload Endpoint §3: a request that a browser or a fooled proxy was made to send does not carry this.
fn security_header(request: Request<()>) -> Result<Request<()>, Status> {
    let mut values = request.metadata().get_all("workload.spiffe.io").iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value == "true" => Ok(request),
        _ => Err(Status::invalid_argument(
            "security header missing from request",
        )),
    }
}

/// Every caller of one listener is told the same.
pub(super) struct WorkloadApi {
    current: watch::Receiver<Arc<Snapshot>>,
}

type States<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl WorkloadApi {
    /// The state now and at each change; ends with the first refusal.
    fn states<T: Send + 'static>(&self, of: fn(&Snapshot) -> Result<T, Status>) -> States<T> {
        let mut current = self.current.clone();
        current.mark_changed();
        Box::pin(unfold(Some(current), move |current| async move {
            let mut current = current?;
            if current.changed().await.is_err() {
                return Some((Err(Status::unavailable("the authority is stopping")), None));
            }
            let state = of(&current.borrow_and_update());
            let next = state.is_ok().then_some(current);
            Some((state, next))
        }))
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = States<X509svidResponse>;
    type FetchX509BundlesStream = States<X509BundlesResponse>;
    type FetchJWTBundlesStream = States<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        _: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        Ok(Response::new(self.states(|snapshot| {
            entitled(snapshot)?;
            Ok(X509svidResponse {
                svids: snapshot.svids.clone(),
                crl: Vec::new(),
                federated_bundles: HashMap::new(),
            })
        })))
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Ok(Response::new(self.states(|snapshot| {
            entitled(snapshot)?;
            let own = (snapshot.trust_domain_id.clone(), snapshot.bundle.clone());
            Ok(X509BundlesResponse {
                crl: Vec::new(),
                bundles: HashMap::from([own]),
            })
        })))
    }

    async fn fetch_jwtsvid(
        &self,
        _: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        Err(jwt_disabled())
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Err(jwt_disabled())
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        Err(jwt_disabled())
    }
}

fn entitled(snapshot: &Snapshot) -> Result<(), Status> {
    if snapshot.svids.is_empty() {
        return Err(Status::permission_denied("no identity issued"));
    }
    Ok(())
}

/// A profile may be switched off (SPIFFE Workload API §1); of the codes that say no, this is the one that is not retried.
fn jwt_disabled() -> Status {
    Status::unimplemented("the JWT-SVID profile is administratively disabled")
}
