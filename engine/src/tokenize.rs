//! What a tokenizer makes of text, and of tokens, for callers who count.

use zeroize::Zeroizing;

use crate::{
    Engine, EngineError, EngineOptions, Input, Text,
    engine::Side,
    turns::Turns,
    vocabulary::{Vocabulary, check_length},
};

impl Engine {
    /// The tokens of an input, up to what a request may have. `special` adds what the tokenizer itself puts around a text. Blocking, for
    /// some milliseconds.
    ///
    /// # Errors
    /// As [`Engine::chat`] and [`Engine::embed`] have before the model runs; nothing is queued.
    pub fn tokenize(
        &self,
        input: &Input,
        special: bool,
    ) -> Result<Zeroizing<Vec<u32>>, EngineError> {
        let Parts {
            vocabulary,
            turns,
            options,
        } = self.parts();
        match (input, self.side()) {
            (Input::Messages(messages), Side::Chat(chat)) => chat.tokenize(messages),
            (Input::Messages(_), Side::Embedding(_)) => Err(EngineError::WrongKind),
            (Input::Text(text), _) => {
                let bytes = text.expose().len();
                if bytes > options.max_prompt_bytes {
                    return Err(EngineError::Invalid("the text is too long"));
                }
                check_length(bytes, options.max_prompt_tokens)?;
                let _turn = turns.take();
                vocabulary.encode(text.expose(), special)
            }
            (Input::Tokens(tokens), _) => Ok(tokens.clone()),
        }
    }

    /// The text of tokens, without special ones; what is not valid UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// A token is not in the vocabulary, or there are more than a request may have.
    pub fn detokenize(&self, tokens: &[u32]) -> Result<Text, EngineError> {
        let Parts {
            vocabulary,
            turns,
            options,
        } = self.parts();
        if tokens.len() > options.max_prompt_tokens {
            return Err(EngineError::ContextLength {
                limit: options.max_prompt_tokens,
                requested: tokens.len(),
            });
        }
        let _turn = turns.take();
        if !tokens.iter().all(|token| vocabulary.has(*token)) {
            return Err(EngineError::Invalid("a token is not in the vocabulary"));
        }
        let mut text = vocabulary.decode(tokens)?;
        Ok(Text::new(std::mem::take(&mut *text)))
    }

    fn parts(&self) -> Parts<'_> {
        match self.side() {
            Side::Chat(chat) => Parts {
                vocabulary: &chat.vocabulary,
                turns: &chat.turns,
                options: &chat.options,
            },
            Side::Embedding(embedding) => Parts {
                vocabulary: &embedding.vocabulary,
                turns: &embedding.turns,
                options: &embedding.options,
            },
        }
    }
}

struct Parts<'a> {
    vocabulary: &'a Vocabulary,
    turns: &'a Turns,
    options: &'a EngineOptions,
}

#[cfg(test)]
mod tests;
