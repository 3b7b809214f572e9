//! The JSON of completions: OpenAI's `text_completion`, whole and in pieces.

use engine::{ChatEvent, FinishReason, TokenLogprob, Usage};
use serde::Serialize;

use super::PARAM;
use super::logprobs::Logprobs;
use crate::api::chat::{Counts, Finish, Head, Whole};
use crate::api::error::ApiError;
use crate::api::server_sent::{Events, Writer};

#[derive(Serialize)]
pub(crate) struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<Choice<'a>>,
    /// In chunks absent unless asked for; then `null` in all but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Counts>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<Logprobs>,
    finish_reason: Option<Finish>,
}

impl<'a> Completion<'a> {
    /// The choices of each prompt, in the order of the prompts.
    pub(crate) fn new(head: &'a Head, wholes: &'a [Whole]) -> Self {
        let choices = wholes.iter().flat_map(|whole| &whole.choices).enumerate();
        let choices = choices.map(|(index, choice)| Choice {
            index,
            text: &choice.text,
            logprobs: logprobs(head, &choice.logprobs, 0),
            finish_reason: choice.finish.map(Finish),
        });
        let usages = wholes.iter().map(|whole| whole.usage);
        Self {
            usage: Some(Some(usages.fold(Usage::default(), sum).into())),
            ..Self::of(head, choices.collect())
        }
    }

    fn of(head: &'a Head, choices: Vec<Choice<'a>>) -> Self {
        Self {
            id: &head.id,
            object: "text_completion",
            created: head.created,
            model: &head.model,
            system_fingerprint: &head.fingerprint,
            choices,
            usage: None,
        }
    }
}

fn logprobs(head: &Head, tokens: &[TokenLogprob], before: usize) -> Option<Logprobs> {
    head.logprobs.then(|| Logprobs::of(tokens, before))
}

fn sum(a: Usage, b: Usage) -> Usage {
    Usage {
        prompt_tokens: a.prompt_tokens.saturating_add(b.prompt_tokens),
        completion_tokens: a.completion_tokens.saturating_add(b.completion_tokens),
    }
}

/// Completions as they are made.
pub(crate) struct Chunks {
    head: Head,
    /// Of each prompt.
    choices: usize,
    with_usage: bool,
    usage: Usage,
    /// Characters that each choice has said.
    said: Vec<usize>,
}

impl Chunks {
    pub(crate) fn new(head: Head, choices: u32, with_usage: bool) -> Self {
        Self {
            head,
            choices: usize::try_from(choices).unwrap_or(usize::MAX),
            with_usage,
            usage: Usage::default(),
            said: Vec::new(),
        }
    }

    fn index(&self, source: usize, choice: u32) -> usize {
        let choice = usize::try_from(choice).unwrap_or(usize::MAX);
        source.saturating_mul(self.choices).saturating_add(choice)
    }

    fn push(
        &mut self,
        index: usize,
        (text, tokens): (&str, &[TokenLogprob]),
        finish: Option<FinishReason>,
        to: &mut Events,
    ) {
        if self.said.len() <= index {
            self.said.resize(index + 1, 0);
        }
        let before = self.said.get(index).copied().unwrap_or_default();
        let choice = Choice {
            index,
            text,
            logprobs: logprobs(&self.head, tokens, before),
            finish_reason: finish.map(Finish),
        };
        to.push(&Completion {
            usage: self.with_usage.then_some(None),
            ..Completion::of(&self.head, vec![choice])
        });
        if let Some(said) = self.said.get_mut(index) {
            *said += text.chars().count();
        }
    }
}

impl Writer for Chunks {
    fn write(&mut self, source: usize, event: ChatEvent, to: &mut Events) -> Result<(), ApiError> {
        match event {
            ChatEvent::Delta(piece) => {
                let index = self.index(source, piece.choice);
                self.push(index, (piece.text.expose(), &piece.logprobs), None, to);
            }
            ChatEvent::Ended {
                choice,
                finish_reason,
            } => {
                let index = self.index(source, choice);
                self.push(index, ("", &[]), Some(finish_reason), to);
            }
            ChatEvent::Done { usage } => self.usage = sum(self.usage, usage),
            ChatEvent::Failed(error) => return Err(ApiError::engine(&error, PARAM)),
            // Nobody offered tools.
            ChatEvent::ToolCall { .. } => return Err(ApiError::internal()),
        }
        Ok(())
    }

    fn param(&self) -> &'static str {
        PARAM
    }

    fn finish(&mut self, to: &mut Events) {
        if self.with_usage {
            to.push(&Completion {
                usage: Some(Some(self.usage.into())),
                ..Completion::of(&self.head, Vec::new())
            });
        }
    }
}
