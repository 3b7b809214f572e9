//! The models that are open. Text reaches an engine only together with the [`Permit`] for that model.
//!
//! A connection belongs to the [`Generation`] that was current when it was accepted: its evidence names those models, and none but
//! those answer on it. Replacing the generation asks such connections to end; the old one is freed with the last of them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use attestation::ModelIdentity;
use engine::{
    ChatEvent, ChatRequest, Embeddings, Engine, EngineError, Input, ModelKind, Ranking, Stats, Text,
};
use http::HeaderValue;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::authz::{Chat, Embed, ModelFacts, Permit, Rerank};

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

    /// Embeds `inputs`, which are all texts or all tokens; dropping the future cancels it.
    ///
    /// # Errors
    /// As [`Model::chat`].
    pub(crate) async fn embed(
        &self,
        permit: Permit<Embed>,
        inputs: Vec<Input>,
        caller: Arc<str>,
    ) -> Result<Embeddings, EngineError> {
        self.require(permit.resource())?;
        let engine = self.engine.clone();
        let (mut texts, mut tokens) = (Vec::new(), Vec::new());
        for input in inputs {
            match input {
                Input::Text(text) => texts.push(text),
                Input::Tokens(list) => tokens.push(list),
                Input::Messages(_) => return Err(EngineError::WrongKind),
            }
        }
        if tokens.is_empty() {
            let queued = spawn_blocking(move || engine.embed(texts, caller));
            return queued.await.unwrap_or(Err(EngineError::Internal))?.await;
        }
        match texts.is_empty() {
            true => engine.embed_tokens(tokens, caller)?.await,
            false => Err(EngineError::Invalid("texts and token ids in one request")),
        }
    }

    /// What the tokenizer makes of `input`.
    ///
    /// # Errors
    /// As [`Model::chat`].
    pub(crate) async fn tokenize(
        &self,
        permit: Tokenize,
        input: Input,
        special: bool,
    ) -> Result<Zeroizing<Vec<u32>>, EngineError> {
        self.require(&permit.0)?;
        let engine = self.engine.clone();
        spawn_blocking(move || engine.tokenize(&input, special))
            .await
            .unwrap_or(Err(EngineError::Internal))
    }

    /// The text of `tokens`.
    ///
    /// # Errors
    /// As [`Model::chat`].
    pub(crate) async fn detokenize(
        &self,
        permit: Tokenize,
        tokens: Zeroizing<Vec<u32>>,
    ) -> Result<Text, EngineError> {
        self.require(&permit.0)?;
        let engine = self.engine.clone();
        spawn_blocking(move || engine.detokenize(&tokens))
            .await
            .unwrap_or(Err(EngineError::Internal))
    }

    /// Scores `documents` by how relevant they are for `query`; dropping the future cancels it.
    ///
    /// # Errors
    /// As [`Model::chat`].
    pub(crate) async fn rerank(
        &self,
        permit: Permit<Rerank>,
        query: Text,
        documents: Arc<[Text]>,
        caller: Arc<str>,
    ) -> Result<Ranking, EngineError> {
        self.require(permit.resource())?;
        let engine = self.engine.clone();
        let queued = spawn_blocking(move || engine.rerank(&query, &documents, caller));
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

/// A permit to use a model in its own way covers knowing its tokens.
pub(crate) struct Tokenize(String);

impl From<Permit<Chat>> for Tokenize {
    fn from(permit: Permit<Chat>) -> Self {
        Self(permit.resource().to_owned())
    }
}

impl From<Permit<Embed>> for Tokenize {
    fn from(permit: Permit<Embed>) -> Self {
        Self(permit.resource().to_owned())
    }
}

/// What may be read from an engine without a permit: nothing that a caller sent.
pub(crate) struct EngineFacts<'a>(&'a Engine);

impl EngineFacts<'_> {
    pub(crate) fn kind(&self) -> &'static str {
        match self.0.kind() {
            ModelKind::Chat => "chat",
            ModelKind::Embedding => "embedding",
            ModelKind::Rerank => "rerank",
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

    /// When a caller should come back who was turned away.
    pub(crate) fn retry_after(&self) -> Duration {
        self.0.retry_after()
    }
}

/// All models of this enclave at one time, in the order of the configuration. Models that did not change are in the next
/// generation as well.
pub(crate) struct Generation {
    /// 1 for what was opened at boot.
    number: u64,
    models: Vec<Arc<Model>>,
}

impl Generation {
    pub(crate) fn find(&self, name: &str) -> Option<&Model> {
        self.iter().find(|model| model.name() == name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Model> {
        self.models.iter().map(Arc::as_ref)
    }

    pub(crate) fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// The identities as evidence commits to them.
    pub(crate) fn identities(&self) -> Vec<ModelIdentity> {
        self.iter().map(|model| model.identity.clone()).collect()
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        tracing::info!(generation = self.number, "model generation closed");
    }
}

/// The current generation, and the one before it while connections still use it.
pub(crate) struct Models {
    current: watch::Sender<Arc<Generation>>,
    turnover: watch::Sender<()>,
    before: std::sync::Mutex<Weak<Generation>>,
}

impl Models {
    pub(crate) fn new(models: Vec<Model>) -> Self {
        let first = Generation {
            number: 1,
            models: models.into_iter().map(Arc::new).collect(),
        };
        Self {
            current: watch::Sender::new(Arc::new(first)),
            turnover: watch::Sender::new(()),
            before: std::sync::Mutex::default(),
        }
    }

    pub(crate) fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.current.borrow())
    }

    /// Whether connections still use the generation before.
    pub(crate) fn draining(&self) -> bool {
        let before = self.before.lock();
        let before = before.unwrap_or_else(std::sync::PoisonError::into_inner);
        before.strong_count() > 0
    }

    /// Changes whenever the generation does, after it has.
    pub(crate) fn turnover(&self) -> watch::Receiver<()> {
        self.turnover.subscribe()
    }

    /// Makes `models` the current generation and asks connections of the one before to end.
    pub(crate) fn replace(&self, models: Vec<Arc<Model>>) -> Arc<Generation> {
        let number = self.current().number.saturating_add(1);
        let next = Arc::new(Generation { number, models });
        let before = self.current.send_replace(Arc::clone(&next));
        let mut weak = self
            .before
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *weak = Arc::downgrade(&before);
        drop(weak);
        drop(before);
        // Only now: a connection that is accepted in between has the new generation and is asked to end for nothing, while one
        // with the old generation cannot miss it.
        self.turnover.send_replace(());
        tracing::info!(generation = number, "model generation opened");
        next
    }

    pub(crate) fn stop(&self) {
        self.current().iter().for_each(Model::stop);
    }
}

#[cfg(test)]
mod tests;
