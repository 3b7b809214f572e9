//! What must not replace an open model, and that it goes on then. What may is tried with the whole service: `tests/generations.rs`.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use engine::{DirFiles, Engine, EngineOptions};
use identity::{SpiffeId, Svid};
use kbs_client::{BrokerFuture, KeyBroker, KeyBytes};
use sealed_model::{DataKey, SealOptions, SigningKey};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::boot::tests::serve_folder;
use crate::config::KeySource;
use crate::models::Model;

/// Has lost every key: each was retired.
struct Retired;

impl KeyBroker for Retired {
    fn issue_svid<'a>(&'a self, _id: &'a SpiffeId) -> BrokerFuture<'a, Svid> {
        Box::pin(async { Err(kbs_client::Error::Request("this broker issues nothing")) })
    }

    fn data_key<'a>(&'a self, _id: &'a str) -> BrokerFuture<'a, KeyBytes> {
        let kind = "ResourceNotFound".to_owned();
        Box::pin(async { Err(kbs_client::Error::Refused { kind }) })
    }
}

/// An enclave with the model "demo" open in epoch 3, and the host's folder of packages.
struct World {
    folder: TempDir,
    signer: SigningKey,
    reload: Reload,
}

impl World {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        tiny_llama(&folder.path().join("model"));
        let signer = SigningKey::generate().unwrap();
        let manifest = seal(folder.path(), 3, &signer);
        let engine = Engine::load(
            Arc::new(DirFiles::new(folder.path().join("model"))),
            EngineOptions::default(),
        );
        let identity = ModelIdentity {
            name: "demo".to_owned(),
            epoch: 3,
            manifest_sha256: manifest,
            publisher_sha256: (*signer.public().unwrap().digest().as_bytes()).into(),
        };
        let open = Model::new(identity, 0, engine.unwrap());
        let config = ModelConfig {
            name: "demo".to_owned(),
            source: serve_folder(folder.path()).await,
            package: "demo".to_owned(),
            publishers: vec![signer.public().unwrap()],
            min_epoch: 2,
            check_segments: false,
            quantize: None,
            key: KeySource::Broker,
        };
        let reload = Reload {
            allowed: true,
            configured: vec![config],
            limits: Limits::default(),
            keys: Arc::new(Keys {
                broker: Arc::new(Retired),
                kms: None,
            }),
            models: Arc::new(Models::new(vec![open])),
            metrics: Arc::new(Metrics::new().unwrap()),
            now: Arc::new(|| UNIX_EPOCH),
            one: Mutex::new(()),
        };
        Self {
            folder,
            signer,
            reload,
        }
    }

    fn put(&self, epoch: u64, signer: &SigningKey) {
        std::fs::remove_dir_all(self.folder.path().join("demo")).unwrap();
        seal(self.folder.path(), epoch, signer);
    }

    /// The refusal, after which the model of epoch 3 is still the one that answers.
    async fn refused(&self) -> (String, u16) {
        let before = self.reload.models.current();
        let failed = self.reload.run().await.unwrap_err();
        let now = self.reload.models.current();
        assert!(Arc::ptr_eq(&before, &now));
        let open = now.find("demo").unwrap();
        assert!(open.identity().epoch == 3 && open.engine().healthy());
        (failed.to_string(), failed.status().as_u16())
    }
}

fn seal(folder: &Path, epoch: u64, signer: &SigningKey) -> attestation::Sha256Digest {
    let options = SealOptions {
        name: "demo",
        epoch,
        key: &DataKey::generate().unwrap(),
        signer,
        created: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        progress: &|_| {},
    };
    let package = folder.join("demo");
    sealed_model::seal(&folder.join("model"), &package, &options).unwrap();
    attestation::Sha256Digest::of(&std::fs::read(package.join(sealed_model::MANIFEST)).unwrap())
}

/// One layer, all weights zero: it computes, and says nothing.
fn tiny_llama(dir: &Path) {
    std::fs::create_dir(dir).unwrap();
    let put = |name: &str, value: serde_json::Value| {
        std::fs::write(dir.join(name), value.to_string()).unwrap();
    };
    put(
        "config.json",
        json!({
            "model_type": "llama", "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1,
            "vocab_size": 3, "max_position_embeddings": 16, "tie_word_embeddings": true, "eos_token_id": 2,
        }),
    );
    put(
        "tokenizer.json",
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2}, "unk_token": "a"},
        }),
    );
    put(
        "tokenizer_config.json",
        json!({"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}),
    );
    let layer = |part: &str| format!("model.layers.0.{part}.weight");
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![3, 4]),
        ("model.norm.weight".to_owned(), vec![4]),
        (layer("input_layernorm"), vec![4]),
        (layer("post_attention_layernorm"), vec![4]),
    ];
    for part in [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
    ] {
        tensors.push((layer(part), vec![4, 4]));
    }
    for part in ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"] {
        tensors.push((layer(part), vec![4, 4]));
    }
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert(name, entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + end, 0);
    std::fs::write(dir.join("model.safetensors"), file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_has_not_changed_changes_nothing() {
    let world = World::start().await;
    let before = world.reload.models.current();
    let done = world.reload.run().await.unwrap();
    assert!(done.reloaded.is_empty());
    assert_eq!(done.unchanged, before.identities());
    assert!(Arc::ptr_eq(&before, &world.reload.models.current()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_older_package_replaces_an_open_one_although_the_measured_floor_would_let_it() {
    let world = World::start().await;
    world.put(2, &world.signer);
    let (line, status) = world.refused().await;
    assert_eq!(
        line,
        "model demo: manifest.json: epoch 2 is older than the floor 3"
    );
    assert_eq!(status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_package_of_the_same_epoch_is_refused() {
    let world = World::start().await;
    world.put(3, &world.signer);
    let (line, status) = world.refused().await;
    assert!(line.contains("give it a higher epoch"), "{line}");
    assert_eq!(status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_of_another_publisher_is_refused() {
    let world = World::start().await;
    world.put(4, &SigningKey::generate().unwrap());
    let (line, status) = world.refused().await;
    assert!(line.contains("not a trusted publisher"), "{line}");
    assert_eq!(status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_key_was_retired_is_not_opened() {
    let world = World::start().await;
    world.put(4, &world.signer);
    let (line, status) = world.refused().await;
    assert!(line.contains("released no key for model demo"), "{line}");
    assert_eq!(status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_gone_may_come_back() {
    let world = World::start().await;
    std::fs::remove_dir_all(world.folder.path().join("demo")).unwrap();
    let (line, status) = world.refused().await;
    assert!(line.contains("status 404"), "{line}");
    assert_eq!(status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reloaded_where_the_measured_configuration_fixes_the_models() {
    let mut world = World::start().await;
    world.reload.allowed = false;
    world.put(4, &world.signer);
    let (line, status) = world.refused().await;
    assert!(line.contains("reload = true"), "{line}");
    assert_eq!(status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_reload_at_a_time_and_two_generations_at_most() {
    let world = World::start().await;
    let one = world.reload.one.lock().await;
    assert_eq!(world.refused().await.1, 409);
    drop(one);

    // A connection that still uses the first generation.
    let used = world.reload.models.current();
    world.reload.models.replace(used.models().to_vec());
    let (line, status) = world.refused().await;
    assert!(line.contains("generation before"), "{line}");
    assert_eq!(status, 409);
    drop(used);
    assert!(world.reload.run().await.is_ok());
}
