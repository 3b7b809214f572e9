//! A chat answer as server-sent events: the role, the text as it is made, the reason it ended, `[DONE]`.

use std::collections::HashMap;

use engine::{ChatEvent, Usage};

use super::answer::Head;
use super::chunk::Chunk;
use super::whole::with_id;
use crate::api::error::ApiError;
use crate::api::server_sent::{Events, Writer};

pub(crate) struct Chunks {
    head: Head,
    /// Choices whose role was not told yet.
    silent: u32,
    with_usage: bool,
    usage: Usage,
    /// How many calls each choice has made.
    calls: HashMap<u32, u32>,
}

impl Chunks {
    pub(crate) fn new(head: Head, choices: u32, with_usage: bool) -> Self {
        Self {
            head,
            silent: choices,
            with_usage,
            usage: Usage::default(),
            calls: HashMap::new(),
        }
    }
}

impl Writer for Chunks {
    fn write(&mut self, _only: usize, event: ChatEvent, to: &mut Events) -> Result<(), ApiError> {
        let asked = self.with_usage;
        for choice in 0..std::mem::take(&mut self.silent) {
            to.push(&Chunk::role(&self.head, choice).with_usage(asked));
        }
        match event {
            ChatEvent::Delta(piece) => to.push(&Chunk::text(&self.head, &piece).with_usage(asked)),
            ChatEvent::ToolCall { choice, call } => {
                let call = with_id(call)?;
                let made = self.calls.entry(choice).or_default();
                to.push(&Chunk::call(&self.head, choice, *made, &call).with_usage(asked));
                *made += 1;
            }
            ChatEvent::Ended {
                choice,
                finish_reason,
            } => to.push(&Chunk::finish(&self.head, choice, finish_reason).with_usage(asked)),
            ChatEvent::Done { usage } => self.usage = usage,
            ChatEvent::Failed(error) => return Err(ApiError::engine(&error, self.param())),
        }
        Ok(())
    }

    fn param(&self) -> &'static str {
        "messages"
    }

    fn finish(&mut self, to: &mut Events) {
        if self.with_usage {
            to.push(&Chunk::usage(&self.head, self.usage));
        }
    }
}
