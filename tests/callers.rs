//! Who is served: a caller with a valid X.509-SVID of an accepted trust domain whom the policy permits, and nobody else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use identity::issue::{self, Authority};
use identity::{Accept, Credentials, SpiffeId, Svid, TrustBundles, TrustDomain};
use rcgen::{CertificateParams, DistinguishedName, IsCa, KeyUsagePurpose, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sim::stack::{ENCLAVE_ID, Stack, TRUST_DOMAIN};
use tests::models;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const HOUR: Duration = Duration::from_secs(3600);

/// What a caller gets: a status of HTTP, or no TLS connection it can use.
#[derive(Debug, PartialEq)]
enum Got {
    Status(u16),
    Alert,
}

struct Run {
    stack: Stack,
    issuer: Authority,
    root_pem: String,
}

impl Run {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stack = Stack::start(tests::options(models::both(dir.path())))
            .await
            .unwrap();
        let read = |name: &str| std::fs::read_to_string(stack.layout.path(name)).unwrap();
        let issuer = Authority::from_pem(&read("issuer.pem"), &read("issuer.key")).unwrap();
        let enclave: toml::Value = toml::from_str(&read("enclave.toml")).unwrap();
        let root_pem = enclave["trust"]["bundle"].as_str().unwrap().to_owned();
        Self {
            stack,
            issuer,
            root_pem,
        }
    }

    fn svid(&self, id: &str) -> Svid {
        let id = SpiffeId::new(id).unwrap();
        issue::new_svid(&self.issuer, &id, HOUR, (tests::clock())()).unwrap()
    }

    /// Asks for the list of models with these credentials.
    async fn ask(&self, svid: Option<Svid>) -> Got {
        self.request(svid, Request::get("/v1/models"), String::new())
            .await
    }

    /// Sends one request with these credentials.
    async fn request(
        &self,
        svid: Option<Svid>,
        request: http::request::Builder,
        body: String,
    ) -> Got {
        let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
        let bundles = TrustBundles::from_pem(&domain, &self.root_pem)
            .unwrap()
            .into_handle();
        let accept = Accept::Ids(vec![SpiffeId::new(ENCLAVE_ID).unwrap()]);
        let credentials = svid.map(|svid| {
            let credentials = Arc::new(Credentials::new());
            credentials.install(svid);
            credentials
        });
        let config = identity::client_config(credentials, bundles, accept, &[b"http/1.1"]).unwrap();
        self.send(config, request, body).await
    }

    /// The same with a raw chain, which our own code would refuse to hold.
    async fn ask_raw(&self, chain: Vec<CertificateDer<'static>>, pkcs8: Vec<u8>) -> Got {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
        let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
        let bundles = TrustBundles::from_pem(&domain, &self.root_pem)
            .unwrap()
            .into_handle();
        let accept = Accept::Ids(vec![SpiffeId::new(ENCLAVE_ID).unwrap()]);
        let ours = identity::client_config(None, bundles, accept, &[b"http/1.1"]).unwrap();
        let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let mut config = (*ours).clone();
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(
            rustls::sign::CertifiedKey::new(chain, signing),
        ));
        self.send(Arc::new(config), Request::get("/v1/models"), String::new())
            .await
    }

    async fn send(
        &self,
        config: Arc<rustls::ClientConfig>,
        request: http::request::Builder,
        body: String,
    ) -> Got {
        let tcp = TcpStream::connect(("127.0.0.1", self.stack.layout.relay))
            .await
            .unwrap();
        let connector = TlsConnector::from(config);
        let Ok(tls) = connector.connect(identity::server_name(), tcp).await else {
            return Got::Alert;
        };
        // With TLS 1.3 a refused client certificate shows on the first read.
        let Ok((mut sender, connection)) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await
        else {
            return Got::Alert;
        };
        tokio::spawn(connection);
        let request = request
            .header("host", "enclave")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        match sender.send_request(request).await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                if status != 200 {
                    assert!(
                        !body.windows(4).any(|w| w == b"tiny"),
                        "a refusal says what is there"
                    );
                }
                Got::Status(status)
            }
            Err(_) => Got::Alert,
        }
    }
}

/// A leaf below the run's own issuer, spoilt by `spoil`.
fn forged(
    issuer: &Authority,
    spoil: impl FnOnce(&mut CertificateParams),
) -> (Vec<CertificateDer<'static>>, Vec<u8>) {
    let ca_key = rcgen::KeyPair::from_pem(&issuer.key_pem().unwrap()).unwrap();
    let ca = rcgen::Issuer::from_ca_cert_der(&issuer.cert_chain()[0], ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = vec![uri("spiffe://cloister.dev/app/caller")];
    let now = (tests::clock())();
    params.not_before = (now - HOUR).into();
    params.not_after = (now + HOUR).into();
    spoil(&mut params);
    let leaf = params.signed_by(&key, &ca).unwrap();
    (
        vec![leaf.into(), issuer.cert_chain()[0].clone()],
        key.serialize_der(),
    )
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_permitted_caller_with_a_valid_svid_is_served() {
    let run = Run::start().await;
    let genuine = forged(&run.issuer, |_| {});
    assert_eq!(run.ask_raw(genuine.0, genuine.1).await, Got::Status(200));
    let caller = run.svid("spiffe://cloister.dev/app/caller");
    assert_eq!(run.ask(Some(caller)).await, Got::Status(200));

    assert_eq!(run.ask(None).await, Got::Alert, "no certificate");

    let other = TrustDomain::new("elsewhere.example").unwrap();
    let now = (tests::clock())();
    let stranger = Authority::generate_root(&other, now, HOUR).unwrap();
    let id = SpiffeId::new("spiffe://elsewhere.example/app").unwrap();
    let svid = issue::new_svid(&stranger, &id, HOUR, now).unwrap();
    assert_eq!(
        run.ask(Some(svid)).await,
        Got::Alert,
        "another trust domain"
    );

    let ours = TrustDomain::new(TRUST_DOMAIN).unwrap();
    let namesake = Authority::generate_root(&ours, now, HOUR).unwrap();
    let id = SpiffeId::new("spiffe://cloister.dev/app/caller").unwrap();
    let svid = issue::new_svid(&namesake, &id, HOUR, now).unwrap();
    assert_eq!(
        run.ask(Some(svid)).await,
        Got::Alert,
        "a root of the same name"
    );

    for (what, (chain, key)) in [
        (
            "expired",
            forged(&run.issuer, |p| {
                p.not_after = (now - Duration::from_secs(60)).into();
            }),
        ),
        (
            "not yet valid",
            forged(&run.issuer, |p| p.not_before = (now + HOUR / 2).into()),
        ),
        (
            "two URI SANs",
            forged(&run.issuer, |p| {
                p.subject_alt_names
                    .push(uri("spiffe://cloister.dev/app/other"));
            }),
        ),
        (
            "a second URI SAN of another scheme",
            forged(&run.issuer, |p| {
                p.subject_alt_names.push(uri("https://example.com/"));
            }),
        ),
        (
            "no URI SAN",
            forged(&run.issuer, |p| {
                p.subject_alt_names = vec![SanType::DnsName("caller".try_into().unwrap())];
            }),
        ),
        (
            "no path",
            forged(&run.issuer, |p| {
                p.subject_alt_names = vec![uri("spiffe://cloister.dev")];
            }),
        ),
        (
            "no digitalSignature",
            forged(&run.issuer, |p| {
                p.key_usages = vec![KeyUsagePurpose::KeyAgreement];
            }),
        ),
        (
            "an ID of another trust domain below our root",
            forged(&run.issuer, |p| {
                p.subject_alt_names = vec![uri("spiffe://elsewhere.example/app")];
            }),
        ),
    ] {
        assert_eq!(run.ask_raw(chain, key).await, Got::Alert, "{what}");
    }
    run.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_permit_gets_403_and_no_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = tests::options(models::both(dir.path()));
    options.policy = Some(
        r#"permit (principal == Caller::"spiffe://cloister.dev/gateway/local", action, resource);"#
            .to_owned(),
    );
    let stack = Stack::start(options).await.unwrap();
    let read = |name: &str| std::fs::read_to_string(stack.layout.path(name)).unwrap();
    let issuer = Authority::from_pem(&read("issuer.pem"), &read("issuer.key")).unwrap();
    let enclave: toml::Value = toml::from_str(&read("enclave.toml")).unwrap();
    let root_pem = enclave["trust"]["bundle"].as_str().unwrap().to_owned();
    let run = Run {
        stack,
        issuer,
        root_pem,
    };
    let permitted = run.svid("spiffe://cloister.dev/gateway/local");
    assert_eq!(run.ask(Some(permitted)).await, Got::Status(200));
    let stranger = || Some(run.svid("spiffe://cloister.dev/app/stranger"));
    assert_eq!(run.ask(stranger()).await, Got::Status(403));
    let nonce = "A".repeat(43);
    let messages = r#"[{"role": "user", "content": "a"}]"#;
    for (path, body) in [
        ("/v1/attestation", format!(r#"{{"nonce": "{nonce}"}}"#)),
        (
            "/v1/chat/completions",
            format!(r#"{{"model": "{}", "messages": {messages}}}"#, models::CHAT),
        ),
        (
            "/v1/embeddings",
            format!(r#"{{"model": "{}", "input": "a"}}"#, models::EMBED),
        ),
    ] {
        let got = run.request(stranger(), Request::post(path), body).await;
        assert_eq!(got, Got::Status(403), "{path}");
    }
    run.stack.stop().await;
}
