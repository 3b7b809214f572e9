use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

use crate::{
    ChatEvent, ChatRequest, Embeddings, EngineError, EngineOptions, Health, LoadError, ModelFiles,
    Ranking, Stats, Text, chat::Chat, embedding::Embedding, load, shared::Shared,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    Chat,
    Embedding,
    /// Scores pairs of texts.
    Rerank,
}

/// A loaded model and the thread that runs it. Clones are handles to the same thread; when the last one is dropped, the
/// thread finishes what it has accepted and ends.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    side: Side,
    shared: Arc<Shared>,
}

pub(crate) enum Side {
    Chat(Box<Chat>),
    Embedding(Box<Embedding>),
}

impl Engine {
    /// Reads a model and starts its thread. Blocking, for as long as reading the weights takes.
    ///
    /// # Errors
    /// Anything missing, malformed, out of bounds or unsupported, by file and field.
    pub fn load(files: Arc<dyn ModelFiles>, options: EngineOptions) -> Result<Self, LoadError> {
        load::load(files, options)
    }

    pub(crate) fn new(side: Side, shared: Arc<Shared>) -> Self {
        Self(Arc::new(Inner { side, shared }))
    }

    pub fn kind(&self) -> ModelKind {
        match &self.0.side {
            Side::Chat(_) => ModelKind::Chat,
            Side::Embedding(embedding) => match embedding.dimensions {
                Some(_) => ModelKind::Embedding,
                None => ModelKind::Rerank,
            },
        }
    }

    /// Tokens of prompt and answer together, of one input to embed, or of a query and a document.
    pub fn context_length(&self) -> usize {
        match &self.0.side {
            Side::Chat(chat) => chat.settings.context,
            Side::Embedding(embedding) => embedding.max_input_tokens,
        }
    }

    /// Length of an embedding; `None` for other models.
    pub fn dimensions(&self) -> Option<usize> {
        match &self.0.side {
            Side::Chat(_) => None,
            Side::Embedding(embedding) => embedding.dimensions,
        }
    }

    /// Queues a conversation. Template and tokenizer run here, on the caller's thread: for long prompts that takes some
    /// milliseconds. Dropping the receiver cancels within one step.
    ///
    /// # Errors
    /// Whatever is known before the model runs; later failures come as [`ChatEvent::Failed`]. If the receiver ends without
    /// `Done` or `Failed`, the engine's thread is gone.
    pub fn chat(&self, request: ChatRequest) -> Result<mpsc::Receiver<ChatEvent>, EngineError> {
        match &self.0.side {
            Side::Chat(chat) => chat.start(request),
            Side::Embedding(_) => Err(EngineError::WrongKind),
        }
    }

    /// Queues texts to embed; the tokenizer runs here, on the caller's thread. `caller` is who asks: callers share the model evenly.
    /// Dropping the future cancels before the next pass.
    ///
    /// # Errors
    /// Whatever is known before the model runs; later failures come out of the future.
    pub fn embed(
        &self,
        inputs: Vec<Text>,
        caller: Arc<str>,
    ) -> Result<impl Future<Output = Result<Embeddings, EngineError>> + Send + use<>, EngineError>
    {
        match &self.0.side {
            Side::Embedding(embedding) => embedding.embed(&inputs, caller),
            Side::Chat(_) => Err(EngineError::WrongKind),
        }
    }

    /// Queues documents to be scored by how relevant they are for `query`. Otherwise like [`Engine::embed`].
    ///
    /// # Errors
    /// As [`Engine::embed`].
    pub fn rerank(
        &self,
        query: &Text,
        documents: &[Text],
        caller: Arc<str>,
    ) -> Result<impl Future<Output = Result<Ranking, EngineError>> + Send + use<>, EngineError>
    {
        match &self.0.side {
            Side::Embedding(embedding) => embedding.rank(query, documents, caller),
            Side::Chat(_) => Err(EngineError::WrongKind),
        }
    }

    /// As [`Engine::embed`], of token ids as they are.
    ///
    /// # Errors
    /// As [`Engine::embed`].
    pub fn embed_tokens(
        &self,
        inputs: Vec<Zeroizing<Vec<u32>>>,
        caller: Arc<str>,
    ) -> Result<impl Future<Output = Result<Embeddings, EngineError>> + Send + use<>, EngineError>
    {
        match &self.0.side {
            Side::Embedding(embedding) => embedding.embed_tokens(inputs, caller),
            Side::Chat(_) => Err(EngineError::WrongKind),
        }
    }

    pub(crate) fn side(&self) -> &Side {
        &self.0.side
    }

    pub fn stats(&self) -> Stats {
        let waiting = match &self.0.side {
            Side::Chat(chat) => chat.queue.depth(),
            Side::Embedding(embedding) => embedding.queue.depth(),
        };
        self.0.shared.counters.snapshot(waiting)
    }

    /// When to come back after [`EngineError::Overloaded`]: until as many answers have ended as wait now, at the rate of late, from a
    /// second to a minute.
    pub fn retry_after(&self) -> Duration {
        let waiting = usize::try_from(self.stats().queue_depth).unwrap_or(usize::MAX);
        let ahead = self.0.shared.pace.ahead(waiting.saturating_add(1));
        ahead.clamp(Duration::from_secs(1), Duration::from_secs(60))
    }

    pub fn healthy(&self) -> bool {
        *self.0.shared.health.borrow() == Health::Serving
    }

    /// For whoever wants to know when health changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.0.shared.health.subscribe()
    }

    /// Accepts nothing more. What was accepted is finished, then the thread ends; [`Engine::stopped`] waits for that.
    pub fn stop(&self) {
        match &self.0.side {
            Side::Chat(chat) => chat.queue.close(),
            Side::Embedding(embedding) => embedding.queue.close(),
        }
    }

    /// Like [`Engine::stop`], and what was accepted fails with [`EngineError::Stopped`] within one step: for when a drain
    /// has taken too long.
    pub fn abort(&self) {
        self.0.shared.abort.store(true, Ordering::Relaxed);
        self.stop();
    }

    /// Returns once the thread has ended and the model is freed.
    pub async fn stopped(&self) {
        let mut health = self.health();
        if health
            .wait_for(|health| *health == Health::Stopped)
            .await
            .is_err()
        {
            tracing::trace!("the engine's state is gone");
        }
    }
}

#[cfg(test)]
mod tests;
