use super::grammar::Grammar;
use crate::{EngineError, vocabulary::Vocabulary};

/// What one answer is held to while it is made.
#[derive(Default)]
pub(crate) struct Restraint {
    /// Of the answer, or of the call that it is in.
    grammar: Option<Grammar>,
    calls: Option<Calls>,
}

/// Holds the calls that a model makes by itself to the schemas of strict tools.
struct Calls {
    grammar: Grammar,
    /// Nothing comes after a call in this format.
    end: bool,
    /// The call that has begun was looked at.
    seen: bool,
}

impl Restraint {
    /// To one grammar from its first token on.
    pub(crate) fn whole(grammar: Grammar) -> Self {
        Self {
            grammar: Some(grammar),
            calls: None,
        }
    }

    /// To a grammar wherever the model begins a call; `end` if the answer ends with it.
    pub(crate) fn calls(grammar: Grammar, end: bool) -> Self {
        Self {
            grammar: None,
            calls: Some(Calls {
                grammar,
                end,
                seen: false,
            }),
        }
    }

    /// At its beginning, for another choice.
    pub(crate) fn again(&self) -> Self {
        let calls = self.calls.as_ref().map(|calls| Calls {
            grammar: calls.grammar.again(),
            end: calls.end,
            seen: false,
        });
        Self {
            grammar: self.grammar.as_ref().map(Grammar::again),
            calls,
        }
    }

    /// For as long as a step takes: what may come next can be found out beside it.
    pub(crate) fn lend(&mut self) -> Option<Grammar> {
        self.grammar.take()
    }

    pub(crate) fn give_back(&mut self, grammar: Grammar) {
        self.grammar = Some(grammar);
    }

    /// Makes tokens impossible that may not come.
    pub(crate) fn restrict(&mut self, logits: &mut [f32]) -> Result<(), EngineError> {
        match &mut self.grammar {
            Some(grammar) => grammar.restrict(logits),
            None => Ok(()),
        }
    }

    /// A token has come; `begun` is what there is of a call that is not whole. True if nothing may follow.
    pub(crate) fn advance(
        &mut self,
        token: u32,
        begun: Option<&str>,
        vocabulary: &Vocabulary,
    ) -> Result<bool, EngineError> {
        if let Some(grammar) = &mut self.grammar {
            if !grammar.advance(token)? {
                return Ok(false);
            }
            self.grammar = None;
            return Ok(self.calls.as_ref().is_none_or(|calls| calls.end));
        }
        if let Some(calls) = &mut self.calls {
            match begun {
                Some(begun) if !calls.seen => {
                    let bytes = vocabulary.bytes(token)?;
                    self.grammar = calls.grammar.joined(begun, token, &bytes);
                    calls.seen = true;
                }
                Some(_) => {}
                None => calls.seen = false,
            }
        }
        Ok(false)
    }
}
