//! Answers that can be nothing but JSON of a schema. Before each token the grammar says which tokens may come; it knows the bytes of
//! each, so whatever the tokenizer, the text fits.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use llguidance::{Matcher, ParserFactory, api::TopLevelGrammar};
use serde_json::{Value, json};
use toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokRxInfo, TokTrie};

use crate::{EngineError, EngineOptions, vocabulary::TokenBytes};

/// What the library may spend before each token, which others wait for: some milliseconds at the worst. A grammar that needs more
/// fails its own request.
const STEP_FUEL: u64 = 50_000;
const STEP_ITEMS: usize = 20_000;
/// Each takes some 2 KiB.
const LEXER_STATES: usize = 10_000;
const GRAMMAR_SYMBOLS: usize = 100_000;
/// Between the parts of JSON: a space, or a new line with its indent, so that an answer is never only space.
const SPACE: &str = r"( |\n {0,40})";
/// A regular expression or a schema can nest; the library descends.
const STACK_BYTES: usize = 16 << 20;
/// The trie of the library takes no longer token.
const MAX_TOKEN_BYTES: usize = 512;

/// Makes grammars for one vocabulary.
pub(crate) struct Grammars(ParserFactory);

impl Grammars {
    /// `end` are the tokens that end a turn, at least one. `None` if the library cannot use this vocabulary.
    pub(crate) fn new(
        bytes: &TokenBytes,
        end: &BTreeSet<u32>,
        options: &EngineOptions,
    ) -> Option<Self> {
        let built = catch_unwind(AssertUnwindSafe(|| Self::build(bytes, end, options)));
        built.ok().flatten()
    }

    fn build(bytes: &TokenBytes, end: &BTreeSet<u32>, options: &EngineOptions) -> Option<Self> {
        let word = |(bytes, special): (&Vec<u8>, &bool)| match special {
            _ if bytes.len() > MAX_TOKEN_BYTES => Vec::new(),
            true => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes.as_slice()].concat(),
            false => bytes.clone(),
        };
        let words: Vec<_> = bytes.of.iter().zip(&bytes.special).map(word).collect();
        let end: Vec<u32> = end.iter().copied().collect();
        let info = TokRxInfo::new(u32::try_from(words.len()).ok()?, *end.first()?);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&end);
        let environment: toktrie::TokEnv = std::sync::Arc::new(ApproximateTokEnv::new(trie));
        let slices = llguidance::earley::SlicedBiasComputer::json_slices();
        let mut factory =
            ParserFactory::new(&environment, InferenceCapabilities::default(), &slices).ok()?;
        // Its words may hold a caller's.
        factory.quiet();
        let limits = factory.limits_mut();
        limits.initial_lexer_fuel = options.max_grammar_cost;
        limits.step_lexer_fuel = STEP_FUEL;
        limits.step_max_items = STEP_ITEMS;
        limits.max_lexer_states = LEXER_STATES;
        limits.max_grammar_size = GRAMMAR_SYMBOLS;
        limits.verbose_errors = false;
        Some(Self(factory))
    }

    /// `field` is what the schema came in, for the error.
    ///
    /// # Errors
    /// The schema is no object, says what the library does not know, or costs too much.
    pub(crate) fn compile(
        &self,
        field: &'static str,
        mut schema: Value,
    ) -> Result<Grammar, EngineError> {
        let refused = |problem| EngineError::Schema { field, problem };
        let object = schema
            .as_object_mut()
            .ok_or(refused("the schema must be an object"))?;
        // How the library is told, whatever a caller may have written there.
        object.insert("x-guidance".into(), json!({"whitespace_pattern": SPACE}));
        let matcher = std::thread::scope(|scope| {
            let compile = || {
                let grammar = TopLevelGrammar::from_json_schema(schema);
                Matcher::new(self.0.create_parser(grammar))
            };
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let thread = thread.spawn_scoped(scope, compile).ok()?;
            thread.join().ok()
        });
        // The library's words hold the schema's.
        let matcher = matcher.filter(|matcher| !matcher.is_error()).ok_or(refused(
            "the schema is not a JSON schema, cannot be met, uses what is not supported, or costs too much",
        ))?;
        Ok(Grammar {
            field,
            matcher,
            mask: None,
        })
    }
}

/// One answer on its way through a grammar.
pub(crate) struct Grammar {
    field: &'static str,
    matcher: Matcher,
    /// Which tokens may come next; `None` if that was not looked at yet.
    mask: Option<SimpleVob>,
}

impl Grammar {
    /// At its beginning, for another choice.
    pub(crate) fn again(&self) -> Self {
        Self {
            field: self.field,
            matcher: self.matcher.deep_clone(),
            mask: None,
        }
    }

    /// At its beginning, or behind the token with which the text began; `None` if it is too late.
    pub(crate) fn joined(&self, begun: &str, token: u32, bytes: &[u8]) -> Option<Self> {
        let mut grammar = self.again();
        if begun.trim().is_empty() {
            return Some(grammar);
        }
        let taken = begun.as_bytes() == bytes
            && grammar.matcher.try_consume_tokens(&[token]).ok() == Some(1);
        taken.then_some(grammar)
    }

    /// Finds out which tokens may come next. Where that fails, [`Self::restrict`] does.
    pub(crate) fn look_ahead(&mut self) {
        if self.mask.is_none() {
            self.mask = self.matcher.compute_mask_or_eos().ok();
        }
    }

    /// Makes all other tokens impossible.
    ///
    /// # Errors
    /// The grammar costs more than one token may.
    pub(crate) fn restrict(&mut self, logits: &mut [f32]) -> Result<(), EngineError> {
        self.look_ahead();
        let mask = self.mask.take().ok_or(EngineError::Schema {
            field: self.field,
            problem: "the schema costs too much to follow",
        })?;
        let known = mask.len();
        for (word, logits) in mask.as_slice().iter().zip(logits.chunks_mut(32)) {
            match *word {
                u32::MAX => {}
                0 => logits.fill(f32::NEG_INFINITY),
                word => {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        if word & (1 << bit) == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
        // Rows of the model that no token has.
        if let Some(unknown) = logits.get_mut(known..) {
            unknown.fill(f32::NEG_INFINITY);
        }
        Ok(())
    }

    /// A token has come. True if nothing may follow.
    pub(crate) fn advance(&mut self, token: u32) -> Result<bool, EngineError> {
        self.mask = None;
        self.matcher
            .consume_token(token)
            .map_err(|_text_inside| EngineError::Internal)?;
        Ok(self.matcher.is_stopped())
    }
}

#[cfg(test)]
mod tests;
