use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::State;
use http::{Request, Response};
use identity::{SpiffeId, Svid};
use kbs_client::{BrokerFuture, KeyBytes};
use sealed_model::{DataKey, SealOptions, SigningKey};
use tempfile::TempDir;
use transport::{Endpoint, ServeLimits, Stream};

use super::*;
use crate::config::{KeySource, KmsAddress};

#[test]
fn the_manifests_date_becomes_seconds() {
    assert_eq!(unix_seconds("1970-01-01T00:01:00Z"), 60);
    assert_eq!(unix_seconds("yesterday"), 0);
    assert_eq!(unix_seconds("1960-01-01T00:00:00Z"), 0);
}

#[test]
fn the_limits_reach_the_engine() {
    let limits = Limits {
        queue: 11,
        max_prompt_tokens: 12,
        max_new_tokens: 13,
        max_batch_inputs: 14,
        max_body_bytes: 2048,
        max_messages: 15,
        max_choices: 16,
        max_logit_bias: 17,
        max_stop_strings: 18,
        max_tools: 19,
        max_schema_bytes: 20,
        max_schema_depth: 21,
        max_grammar_cost: 22,
        max_sequences: 23,
        kv_cache_mib: 24,
        deadline_s: 25,
        threads: 26,
        pin_threads: true,
        ..Limits::default()
    };
    let now: Clock = Arc::new(|| UNIX_EPOCH);
    let options = engine_options(&limits, &now);
    let counts = [
        options.queue,
        options.max_prompt_tokens,
        options.max_new_tokens,
        options.max_batch_inputs,
        options.max_messages,
        options.max_choices,
        options.max_logit_bias,
        options.max_stop_strings,
        options.max_tools,
        options.max_schema_bytes,
        options.max_schema_depth,
        options.max_sequences,
    ];
    assert_eq!(counts, [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23]);
    assert_eq!((options.threads, options.pin_threads), (26, true));
    assert_eq!(options.max_prompt_bytes, 2048);
    assert_eq!(options.max_grammar_cost, 22);
    assert_eq!(options.kv_cache_bytes, 24 << 20);
    assert_eq!(options.deadline, Duration::from_secs(25));
}

/// A sealed package of a model that nothing could run, served as the host serves it.
struct Shop {
    folder: TempDir,
    signer: SigningKey,
    source: Endpoint,
}

impl Shop {
    async fn open() -> Self {
        let folder = TempDir::new().unwrap();
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("config.json"), "{}").unwrap();
        let header = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let length = u64::try_from(header.len()).unwrap().to_le_bytes();
        let weights = [&length, header.as_slice(), &[0; 4]].concat();
        std::fs::write(model.join("model.safetensors"), weights).unwrap();
        let signer = SigningKey::generate().unwrap();
        let options = SealOptions {
            name: "demo",
            epoch: 3,
            key: &DataKey::generate().unwrap(),
            signer: &signer,
            created: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            progress: &|_| {},
        };
        sealed_model::seal(&model, &folder.path().join("demo"), &options).unwrap();

        let source = serve_folder(folder.path()).await;
        Self {
            folder,
            signer,
            source,
        }
    }

    fn model(&self) -> ModelConfig {
        ModelConfig {
            name: "demo".to_owned(),
            source: self.source.clone(),
            package: "demo".to_owned(),
            publishers: vec![self.signer.public().unwrap()],
            min_epoch: 3,
            check_segments: false,
            quantize: None,
            key: KeySource::Broker,
        }
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.folder.path().join("demo").join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }
}

/// Serves the packages below `folder` as a host does.
pub(crate) async fn serve_folder(folder: &std::path::Path) -> Endpoint {
    let source = Endpoint::Unix(folder.join("models.sock"));
    let listener = source.bind().await.unwrap();
    let files = axum::Router::new()
        .fallback(range)
        .with_state(folder.to_owned());
    let accept = move |stream: Stream| {
        let files = files.clone();
        async move { Ok::<_, std::io::Error>((stream, files)) }
    };
    let forever = std::future::pending();
    tokio::spawn(transport::serve(
        listener,
        accept,
        ServeLimits::default(),
        forever,
    ));
    source
}

async fn range(State(root): State<PathBuf>, request: Request<Body>) -> Response<Body> {
    let Ok(bytes) = std::fs::read(root.join(request.uri().path().trim_start_matches('/'))) else {
        return Response::builder().status(404).body(Body::empty()).unwrap();
    };
    let Some(wanted) = request.headers().get("range") else {
        return Response::new(Body::from(bytes));
    };
    let wanted = wanted.to_str().unwrap().strip_prefix("bytes=").unwrap();
    let (first, last) = wanted.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    Response::builder()
        .status(206)
        .header("content-range", format!("bytes {wanted}/{}", bytes.len()))
        .body(Body::from(bytes[first..=last].to_vec()))
        .unwrap()
}

/// Refuses every key, and counts.
#[derive(Default)]
struct Refusing(AtomicU32);

impl KeyBroker for Refusing {
    fn issue_svid<'a>(&'a self, _id: &'a SpiffeId) -> BrokerFuture<'a, Svid> {
        Box::pin(async { Err(kbs_client::Error::Request("this broker issues nothing")) })
    }

    fn data_key<'a>(&'a self, id: &'a str) -> BrokerFuture<'a, KeyBytes> {
        assert_eq!(id, "models/demo/epoch-3");
        self.0.fetch_add(1, Ordering::SeqCst);
        let kind = "PolicyDeny".to_owned();
        Box::pin(async { Err(kbs_client::Error::Refused { kind }) })
    }
}

const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd";

/// Makes no evidence: a boot that gets this far has gone too far.
struct NoEvidence;

impl Attester for NoEvidence {
    fn attest(
        &self,
        _: &AttestationRequest<'_>,
    ) -> Result<attestation::Evidence, attestation::AttestError> {
        Err(attestation::AttestError::Platform(
            "evidence was asked for".into(),
        ))
    }

    fn measurements(&self) -> Result<attestation::Pcrs, attestation::AttestError> {
        Ok(attestation::Pcrs::new())
    }

    fn extend_and_lock(
        &self,
        index: u8,
        _: &[u8],
    ) -> Result<attestation::Pcr, attestation::AttestError> {
        Err(attestation::AttestError::Locked { index })
    }

    fn random(&self, _: &mut [u8]) -> Result<(), attestation::AttestError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_key_that_is_absent_or_none_ends_the_boot_and_the_broker_is_not_asked() {
    let shop = Shop::open().await;
    let good =
        format!(r#"{{"format": "cloister-kms-key/1", "key_arn": "{ARN}", "ciphertext": "AAAA"}}"#);
    let path = shop.folder.path().join("demo/key.kms.json");
    for (text, code, part) in [
        (None, 69, "key.kms.json: answered with status 404"),
        (Some("{}".to_owned()), 77, "is not a wrapped key"),
        (Some(good.replace("/1\"", "/2\"")), 77, "cloister-kms-key/2"),
        (
            Some(good.replace("1234abcd", "other")),
            77,
            "was wrapped by",
        ),
        (Some(" ".repeat(20_000)), 77, "more than 16384"),
        // A good one is taken to KMS, on evidence.
        (Some(good.clone()), 69, "KMS released no key"),
    ] {
        if let Some(text) = &text {
            std::fs::write(&path, text).unwrap();
        }
        let mut model = shop.model();
        model.key = KeySource::Kms(ARN.parse().unwrap());
        let (line, exit, asked) = opened(model).await;
        assert_eq!((exit, asked), (code, false), "{line}");
        assert!(line.contains(part), "{line}");
    }
}

/// The error, its exit code, and whether a key was asked for.
async fn opened(model: ModelConfig) -> (String, u8, bool) {
    let broker = Arc::new(Refusing::default());
    let steps = Steps(Arc::new(Metrics::new().unwrap()));
    let now: Clock = Arc::new(|| UNIX_EPOCH);
    let address = KmsAddress {
        endpoint: Endpoint::Unix("/nonexistent/kms".into()),
        credentials: Endpoint::Unix("/nonexistent/aws".into()),
        roots: kms_client::Roots::amazon().unwrap(),
    };
    let platform = Platform {
        attester: Arc::new(NoEvidence),
        now: Arc::clone(&now),
    };
    let keys = Keys {
        broker: Arc::clone(&broker) as Arc<dyn KeyBroker>,
        kms: Some(KmsKeys::new(&address, &platform).unwrap()),
    };
    let error = open(&model, &Limits::default(), &keys, &now, &steps)
        .await
        .err()
        .unwrap();
    let asked = broker.0.load(Ordering::SeqCst) > 0;
    (error.to_string(), error.exit_code(), asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_ends_the_boot_with_77() {
    let shop = Shop::open().await;
    let (line, code, asked) = opened(shop.model()).await;
    let expected = "the broker released no key for model demo: the broker refused: PolicyDeny";
    assert_eq!((line.as_str(), code, asked), (expected, 77, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_asked_for_a_package_that_is_not_what_was_configured() {
    let shop = Shop::open().await;
    let stranger = SigningKey::generate().unwrap().public().unwrap();
    let mut other = shop.model();
    other.publishers = vec![stranger];
    let mut newer = shop.model();
    newer.min_epoch = 4;
    let mut renamed = shop.model();
    renamed.name = "other".to_owned();
    for (model, part) in [
        (other, "publisher"),
        (newer, "older than the floor 4"),
        (renamed, "expected \"other\""),
    ] {
        let (line, code, asked) = opened(model).await;
        assert_eq!((code, asked), (77, false), "{line}");
        assert!(line.contains(part), "{line}");
    }
    shop.change("model.safetensors.enc", |bytes| {
        bytes.truncate(bytes.len() - 1)
    });
    let (line, code, asked) = opened(shop.model()).await;
    assert_eq!((code, asked), (77, false), "{line}");
    assert!(line.contains("model.safetensors.enc"), "{line}");
    shop.change("manifest.json", |bytes| bytes.push(b' '));
    let (line, code, asked) = opened(shop.model()).await;
    assert_eq!((code, asked), (77, false), "{line}");
    assert!(line.contains("manifest.json"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_not_there_ends_the_boot_with_69() {
    let shop = Shop::open().await;
    let mut model = shop.model();
    model.package = "nowhere".to_owned();
    let (line, code, asked) = opened(model).await;
    assert_eq!((code, asked), (69, false), "{line}");
    assert!(
        line.contains("nowhere/manifest.sig: answered with status 404"),
        "{line}"
    );
}
