//! How likely tokens were, by the model itself.

use std::collections::VecDeque;

use zeroize::Zeroizing;

use super::sampling::{Likeliest, Scratch, highest};
use crate::{EngineError, TokenChance, TokenLogprob, vocabulary::Vocabulary};

/// What JSON can say of a token that cannot come; OpenAI's number.
const NEVER: f32 = -9999.0;

/// The logits of one step, before anything else changes them.
pub(crate) struct Chances {
    /// The logarithm of the sum of all exponentials.
    whole: f32,
    top: Vec<(u32, f32)>,
}

impl Chances {
    /// # Errors
    /// `Internal` if the logits are not numbers.
    pub(crate) fn look(
        logits: &[f32],
        count: u8,
        scratch: &mut Scratch,
    ) -> Result<Self, EngineError> {
        let (_, highest) = highest(logits).ok_or(EngineError::Internal)?;
        let sum = scratch.keep(logits, highest);
        let mut top = Likeliest::default();
        top.largest(logits, count.into());
        top.sort();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a logarithm of a vocabulary's size"
        )]
        Ok(Self {
            whole: highest + sum.ln() as f32,
            top: top.iter().collect(),
        })
    }

    /// Of the token that was drawn then.
    pub(crate) fn of(
        &self,
        token: u32,
        scratch: &Scratch,
        vocabulary: &Vocabulary,
    ) -> Result<TokenLogprob, EngineError> {
        let chance = |token: u32, logit: f32| {
            Ok(TokenChance {
                bytes: Zeroizing::new(vocabulary.bytes(token)?),
                logprob: (logit - self.whole).max(NEVER),
            })
        };
        let top = self.top.iter().map(|(token, logit)| chance(*token, *logit));
        Ok(TokenLogprob {
            token: chance(token, scratch.kept(token).unwrap_or(NEVER))?,
            top: top.collect::<Result<_, EngineError>>()?,
        })
    }
}

/// Tokens whose text was not shown yet, each with the bytes of text up to its end. Those of a stop string never are.
#[derive(Default)]
pub(crate) struct Pending(VecDeque<(usize, TokenLogprob)>);

impl Pending {
    /// A token whose text is not known yet: it may be part of a character.
    pub(crate) fn push(&mut self, token: TokenLogprob) {
        self.0.push_back((usize::MAX, token));
    }

    /// The text of all tokens so far ends here.
    pub(crate) fn settle(&mut self, bytes: usize) {
        let open = self.0.iter_mut().rev();
        let open = open.take_while(|(end, _)| *end == usize::MAX);
        open.for_each(|(end, _)| *end = bytes);
    }

    /// The tokens of the first `bytes` of the text.
    pub(crate) fn take(&mut self, bytes: usize) -> Vec<TokenLogprob> {
        let ready = self.0.iter().take_while(|(end, _)| *end <= bytes).count();
        self.0.drain(..ready).map(|(_, token)| token).collect()
    }
}
