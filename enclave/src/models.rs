//! The models that were opened at boot. Text reaches an engine only together with the [`Permit`] for that model.

use attestation::ModelIdentity;
use engine::{ChatEvent, ChatRequest, Embeddings, Engine, EngineError, ModelKind, Stats, Text};
use http::HeaderValue;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::authz::{Chat, Embed, ModelFacts, Permit};

/// One loaded model and what was measured about it.
pub(crate) struct Model {
    identity: ModelIdentity,
    /// Seconds since 1970 at which the package was sealed.
    created: u64,
    digest: HeaderValue,
    engine: Engine,
}

impl Model {
    pub(crate) fn new(identity: ModelIdentity, created: u64, engine: Engine) -> Self {
        let digest = HeaderValue::from_str(&identity.manifest_sha256.to_string())
            .unwrap_or(HeaderValue::from_static(""));
        Self {
            identity,
            created,
            digest,
            engine,
        }
    }

    pub(crate) fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    pub(crate) fn name(&self) -> &str {
        &self.identity.name
    }

    pub(crate) fn created(&self) -> u64 {
        self.created
    }

    /// The manifest's digest, ready for a response header.
    pub(crate) fn digest(&self) -> HeaderValue {
        self.digest.clone()
    }

    pub(crate) fn engine(&self) -> EngineFacts<'_> {
        EngineFacts(&self.engine)
    }

    /// What the policy may look at.
    pub(crate) fn facts(&self) -> ModelFacts<'_> {
        ModelFacts {
            name: self.name(),
            kind: self.engine().kind(),
            epoch: self.identity.epoch,
        }
    }

    /// Queues `request`; dropping the receiver cancels it. Template and tokenizer run on a thread that may block.
    ///
    /// # Errors
    /// The engine's refusal; a permit for another model is a bug of ours and opens nothing.
    pub(crate) async fn chat(
        &self,
        permit: Permit<Chat>,
        request: ChatRequest,
    ) -> Result<mpsc::Receiver<ChatEvent>, EngineError> {
        self.require(permit.resource())?;
        let engine = self.engine.clone();
        spawn_blocking(move || engine.chat(request))
            .await
            .unwrap_or(Err(EngineError::Internal))
    }

    /// Embeds `texts`; dropping the future cancels it.
    ///
    /// # Errors
    /// As [`Model::chat`].
    pub(crate) async fn embed(
        &self,
        permit: Permit<Embed>,
        texts: Vec<Text>,
    ) -> Result<Embeddings, EngineError> {
        self.require(permit.resource())?;
        let engine = self.engine.clone();
        let queued = spawn_blocking(move || engine.embed(texts));
        queued.await.unwrap_or(Err(EngineError::Internal))?.await
    }

    fn require(&self, permitted: &str) -> Result<(), EngineError> {
        if permitted == self.name() {
            Ok(())
        } else {
            Err(EngineError::Internal)
        }
    }

    pub(crate) fn stop(&self) {
        self.engine.stop();
    }
}

/// What may be read from an engine without a permit: nothing that a caller sent.
pub(crate) struct EngineFacts<'a>(&'a Engine);

impl EngineFacts<'_> {
    pub(crate) fn kind(&self) -> &'static str {
        match self.0.kind() {
            ModelKind::Chat => "chat",
            ModelKind::Embedding => "embedding",
        }
    }

    pub(crate) fn context_length(&self) -> usize {
        self.0.context_length()
    }

    pub(crate) fn dimensions(&self) -> Option<usize> {
        self.0.dimensions()
    }

    pub(crate) fn healthy(&self) -> bool {
        self.0.healthy()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.0.stats()
    }
}

/// All models of this enclave, in the order of the configuration.
pub(crate) struct Models(Vec<Model>);

impl Models {
    pub(crate) fn new(models: Vec<Model>) -> Self {
        Self(models)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Model> {
        self.0.iter().find(|model| model.name() == name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Model> {
        self.0.iter()
    }

    /// The identities as evidence commits to them.
    pub(crate) fn identities(&self) -> Vec<ModelIdentity> {
        self.0.iter().map(|model| model.identity.clone()).collect()
    }

    pub(crate) fn stop(&self) {
        self.0.iter().for_each(Model::stop);
    }
}
