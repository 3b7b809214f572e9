use engine::{ChatEvent, EngineError, FinishReason, Text, TokenLogprob, ToolCall, Usage};
use tokio::sync::mpsc::Receiver;
use zeroize::Zeroizing;

use crate::api::error::ApiError;
use crate::api::random_hex;

/// All of an answer.
pub(crate) struct Whole {
    pub(crate) choices: Vec<WholeChoice>,
    pub(crate) usage: Usage,
}

#[derive(Default)]
pub(crate) struct WholeChoice {
    pub(crate) text: Zeroizing<String>,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) calls: Vec<ToolCall>,
    pub(crate) finish: Option<FinishReason>,
    parts: Vec<Text>,
}

impl Whole {
    /// # Errors
    /// What the engine says; `failed` puts it into words.
    pub(crate) async fn read(
        choices: u32,
        events: &mut Receiver<ChatEvent>,
        failed: impl Fn(EngineError) -> ApiError,
    ) -> Result<Self, ApiError> {
        let mut whole = Self {
            choices: (0..choices).map(|_| WholeChoice::default()).collect(),
            usage: Usage::default(),
        };
        while let Some(event) = events.recv().await {
            match event {
                ChatEvent::Delta(piece) => {
                    let choice = whole.choice(piece.choice)?;
                    choice.parts.push(piece.text);
                    choice.logprobs.extend(piece.logprobs);
                }
                ChatEvent::ToolCall { choice, call } => {
                    whole.choice(choice)?.calls.push(with_id(call)?);
                }
                ChatEvent::Ended {
                    choice,
                    finish_reason,
                } => whole.choice(choice)?.end(finish_reason),
                ChatEvent::Done { usage } => {
                    whole.usage = usage;
                    return Ok(whole);
                }
                ChatEvent::Failed(error) => return Err(failed(error)),
            }
        }
        Err(ApiError::internal())
    }

    fn choice(&mut self, index: u32) -> Result<&mut WholeChoice, ApiError> {
        let index = usize::try_from(index).map_err(|_huge| ApiError::internal())?;
        self.choices.get_mut(index).ok_or_else(ApiError::internal)
    }
}

impl WholeChoice {
    fn end(&mut self, finish: FinishReason) {
        self.finish = Some(finish);
        let length = self.parts.iter().map(|part| part.expose().len()).sum();
        // Allocated once, so that no unwiped copy is left behind by growing.
        self.text = Zeroizing::new(String::with_capacity(length));
        for part in &self.parts {
            self.text.push_str(part.expose());
        }
        self.parts.clear();
    }
}

/// Nine letters and digits: some templates take no other id back.
pub(crate) fn with_id(call: ToolCall) -> Result<ToolCall, ApiError> {
    let mut id = random_hex().ok_or_else(ApiError::internal)?;
    id.truncate(9);
    Ok(ToolCall { id, ..call })
}
