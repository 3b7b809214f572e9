//! A simulated KMS that runs in this process, under a clock and two throwaway roots that the test holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use attestation::{AttestationRequest, Attester, Pcr, Pcrs};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use kms_client::{
    CredentialSource, Credentials, EncryptionContext, Error, KeyArn, Kms, KmsConfig, Roots, sigv4,
};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use sim::kms::{KeySetup, KmsHandle, KmsServer, KmsSetup, KmsTls, Principal};
use sim::nsm::{SimNsm, SimPki};
use tokio::sync::oneshot;
use transport::Endpoint;
use zeroize::Zeroizing;

pub const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
pub const REGION: &str = "eu-central-1";
pub const HOST_NAME: &str = "kms.eu-central-1.amazonaws.com";
pub const HOST: &str = "arn:aws:iam::111122223333:role/cloister-host";
pub const PUBLISHER: &str = "arn:aws:iam::111122223333:role/publisher";
pub const MANIFEST: &str = "7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069";
const START: Duration = Duration::from_secs(1_800_000_000);

pub struct World {
    pub kms: KmsHandle,
    pub listen: Endpoint,
    pub tls: KmsTls,
    pub principals: Vec<Principal>,
    seconds: Arc<AtomicU64>,
    pki: Zeroizing<String>,
    _stop: oneshot::Sender<()>,
}

/// What Terraform makes of `infra/aws/base`, for two images, this host and this publisher: `scripts/infra-check` holds the file to that.
const TERRAFORM: &str = include_str!("../../infra/aws/check/model_key_policy.json");

/// Keys: `image` releases to the image of [`pcrs`], `other` too, `open` to everybody, `null` to any document, `terraform` as
/// [`TERRAFORM`] says.
pub fn arn(id: &str) -> KeyArn {
    format!("arn:aws:kms:{REGION}:111122223333:key/{id}")
        .parse()
        .unwrap()
}

/// The registers of the image that the policies know.
pub fn pcrs() -> Pcrs {
    let mut pcrs: Pcrs = (0..16).map(|index| (index, Pcr::ZERO)).collect();
    for index in [0, 1, 2, 4] {
        pcrs.insert(index, Pcr::ZERO.extend(&[index]));
    }
    pcrs
}

pub fn context() -> EncryptionContext {
    EncryptionContext::model("demo", 1, MANIFEST)
}

pub fn context_json() -> Value {
    json!({"cloister:model": "demo", "cloister:epoch": "1", "cloister:manifest-sha256": MANIFEST})
}

pub fn principal(arn: &str, id: &str, session: Option<(&str, u64)>) -> Principal {
    Principal {
        arn: arn.to_owned(),
        access_key_id: id.to_owned(),
        secret_access_key: format!("secret-of-{id}"),
        session_token: session.map(|(token, _)| token.to_owned()),
        expiration: session.map(|(_, end)| end),
    }
}

pub fn credentials(principal: &Principal) -> Credentials {
    Credentials::new(
        principal.access_key_id.clone(),
        Zeroizing::new(principal.secret_access_key.clone()),
        principal.session_token.clone().map(Zeroizing::new),
        None,
    )
    .unwrap()
}

/// As `infra/aws/base` writes it: one statement for the image, denials for everything else.
fn image_policy(pcrs: &Pcrs) -> Value {
    let register = |index: u8| {
        (
            format!("kms:RecipientAttestation:PCR{index}"),
            pcrs[&index].to_string().to_uppercase(),
        )
    };
    let registers: serde_json::Map<String, Value> = [0, 1, 2]
        .map(register)
        .into_iter()
        .map(|(key, value)| (key, value.into()))
        .collect();
    let mut statements = vec![
        json!({"Sid": "Wrap", "Effect": "Allow", "Principal": {"AWS": [PUBLISHER]}, "Action": ["kms:DescribeKey", "kms:Encrypt"], "Resource": "*"}),
        json!({"Sid": "Image0", "Effect": "Allow", "Principal": {"AWS": HOST}, "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
               "Resource": "*", "Condition": {"StringEqualsIgnoreCase": registers}}),
    ];
    for (key, value) in [0, 1, 2].map(register) {
        statements.push(json!({"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": ["kms:Decrypt", "kms:GenerateDataKey*"],
                               "Resource": "*", "Condition": {"StringNotEqualsIgnoreCase": {key: [value]}}}));
    }
    json!({"Version": "2012-10-17", "Statement": statements})
}

impl World {
    pub async fn start() -> Self {
        Self::start_when(START, &[]).await
    }

    /// From the time of this clock on.
    pub async fn start_at(clock: Arc<dyn Fn() -> SystemTime + Send + Sync>) -> Self {
        let since = clock().duration_since(SystemTime::UNIX_EPOCH);
        Self::start_when(since.unwrap(), &[]).await
    }

    /// With these callers beside the host and the publisher.
    pub async fn start_with(others: &[Principal]) -> Self {
        Self::start_when(START, others).await
    }

    async fn start_when(start: Duration, others: &[Principal]) -> Self {
        let seconds = Arc::new(AtomicU64::new(start.as_secs()));
        let now = SystemTime::UNIX_EPOCH + start;
        let pki = SimPki::generate(now);
        let tls = KmsTls::generate(&[HOST_NAME, "127.0.0.1"], now).unwrap();
        let open = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}]});
        let null = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"},
            {"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*",
             "Condition": {"Null": {"kms:RecipientAttestation:ImageSha384": "true"}}}]});
        let image = image_policy(&pcrs());
        let terraform = serde_json::from_str(TERRAFORM).unwrap();
        let keys = [
            ("terraform", &terraform),
            ("image", &image),
            ("other", &image),
            ("open", &open),
            ("null", &null),
        ];
        let mut principals = vec![
            principal(
                HOST,
                "ASIAHOST",
                Some(("a-session/token+of==AWS", start.as_secs() + 3600)),
            ),
            principal(PUBLISHER, "AKIAPUBLISHER", None),
        ];
        principals.extend_from_slice(others);
        let setup = KmsSetup {
            listen: Endpoint::Tcp("127.0.0.1:0".to_owned()),
            region: REGION.to_owned(),
            account: "111122223333".to_owned(),
            tls: tls.clone(),
            trust_anchor: pki.root_pem(),
            keys: keys
                .iter()
                .map(|(id, policy)| KeySetup {
                    id: (*id).to_owned(),
                    policy: policy.to_string(),
                })
                .collect(),
            principals: principals.clone(),
        };
        let clock = Arc::clone(&seconds);
        let server = KmsServer::bind(&setup, clock_of(clock)).await.unwrap();
        let (kms, listen) = (server.handle(), server.listen());
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(server.run(async move {
            stopped.await.ok();
        }));
        Self {
            kms,
            listen,
            tls,
            principals,
            seconds,
            pki: pki.to_json(),
            _stop: stop,
        }
    }

    pub fn clock(&self) -> Arc<dyn Fn() -> SystemTime + Send + Sync> {
        clock_of(Arc::clone(&self.seconds))
    }

    pub fn pass(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    /// A secure module under the root that the service trusts.
    pub fn nsm(&self, pcrs: Pcrs) -> Arc<dyn Attester> {
        Arc::new(SimNsm::new(
            SimPki::from_json(&self.pki).unwrap(),
            pcrs,
            self.clock(),
        ))
    }

    /// The shipped client, as this caller.
    pub fn client(&self, principal: &Principal) -> Kms {
        self.client_with(CredentialSource::Fixed(Arc::new(credentials(principal))))
    }

    pub fn client_with(&self, credentials: CredentialSource) -> Kms {
        let config = KmsConfig {
            endpoint: self.listen.clone(),
            roots: Roots::from_pem(&self.tls.root_pem).unwrap(),
            credentials,
        };
        Kms::new(config, self.clock()).unwrap()
    }

    pub fn host(&self) -> &Principal {
        &self.principals[0]
    }

    /// The owner's part: the secret under this key and context.
    pub async fn wrapped(&self, key: &str, context: &EncryptionContext) -> Vec<u8> {
        let publisher = self.client(&self.principals[1]);
        publisher.encrypt(&arn(key), SECRET, context).await.unwrap()
    }

    /// The enclave's part, with everything right but these.
    pub async fn released(
        &self,
        key: &str,
        pcrs: Pcrs,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, Error> {
        let client = self.client(self.host());
        let secret = client
            .decrypt(&self.nsm(pcrs), &arn(key), ciphertext, context)
            .await?;
        Ok(secret.expose().to_vec())
    }

    /// A document over this key by a true secure module of this image, in base64.
    pub fn document(&self, pcrs: Pcrs, spki: &[u8]) -> String {
        let request = AttestationRequest {
            user_data: b"x",
            nonce: b"x",
            public_key: spki,
        };
        STANDARD.encode(self.nsm(pcrs).attest(&request).unwrap().as_bytes())
    }

    /// Any request at all, signed rightly by this caller and then changed.
    pub async fn raw(
        &self,
        principal: &Principal,
        operation: &str,
        body: &Value,
        change: impl FnOnce(&mut Vec<(String, String)>),
    ) -> (u16, Value) {
        let body = body.to_string();
        let date = sigv4::amz_date((self.clock())());
        let target = format!("TrentService.{operation}");
        let mut signed = vec![
            ("content-type", "application/x-amz-json-1.1"),
            ("host", HOST_NAME),
            ("x-amz-date", date.as_str()),
        ];
        signed.extend(
            principal
                .session_token
                .as_deref()
                .map(|token| ("x-amz-security-token", token)),
        );
        signed.push(("x-amz-target", target.as_str()));
        let signature = sigv4::signature(
            &principal.secret_access_key,
            REGION,
            &date,
            &signed,
            body.as_bytes(),
        );
        let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={signature}",
            principal.access_key_id,
            sigv4::scope(&date, REGION),
            names.join(";")
        );
        let mut headers: Vec<(String, String)> = signed
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        headers.push(("authorization".to_owned(), authorization));
        headers.push(("x-body".to_owned(), body));
        change(&mut headers);
        let (_, body) = headers.pop().unwrap();
        let mut request = Request::post("/");
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        self.send(request.body(Full::new(Bytes::from(body))).unwrap())
            .await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> (u16, Value) {
        let mut roots = RootCertStore::empty();
        for root in identity::pem::certificates(&self.tls.root_pem).unwrap() {
            roots.add(root).unwrap();
        }
        // Certificates by the system's clock would not do: the test's is another.
        let config = ClientConfig::builder_with_details(
            Arc::new(identity::provider()),
            Arc::new(At(self.clock())),
        )
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
        let stream = self.listen.connect().await.unwrap();
        let name = ServerName::try_from(HOST_NAME).unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap();
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(driver);
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

fn clock_of(seconds: Arc<AtomicU64>) -> Arc<dyn Fn() -> SystemTime + Send + Sync> {
    Arc::new(move || SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst)))
}

struct At(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl std::fmt::Debug for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("At")
    }
}

impl rustls::time_provider::TimeProvider for At {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        let since = (self.0)().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(rustls_pki_types::UnixTime::since_unix_epoch(since))
    }
}
