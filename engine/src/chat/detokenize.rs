use zeroize::Zeroizing;

use crate::{EngineError, vocabulary::Vocabulary};

/// Turns tokens into text as they come.
///
/// A token may end inside a character, and its text may depend on the token before it (a leading space). So a short window
/// of tokens is decoded each time, and what it adds to the text already given is passed on, without a trailing U+FFFD, which
/// stands for a character that is not complete yet.
#[derive(Default)]
pub(crate) struct Detokenizer {
    window: Zeroizing<Vec<u32>>,
    /// Tokens at the start of the window that are there for context alone.
    context: usize,
    /// The part of the window's text that was given.
    given: Zeroizing<String>,
}

/// A character has at most four bytes, so a window that stays incomplete for longer holds bytes that are no text.
const MAX_WINDOW: usize = 12;

impl Detokenizer {
    pub(crate) fn push(
        &mut self,
        token: u32,
        vocabulary: &Vocabulary,
    ) -> Result<Zeroizing<String>, EngineError> {
        self.window.push(token);
        let text = vocabulary.decode(&self.window)?;
        let complete = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let broken = self.window.len() - self.context > MAX_WINDOW;
        let new = if broken { text.as_str() } else { complete };
        let piece = Zeroizing::new(
            new.strip_prefix(self.given.as_str())
                .unwrap_or_default()
                .to_owned(),
        );

        if broken || complete.len() == text.len() {
            // All of it was given: from here on only the last tokens matter, as context.
            self.window.drain(..self.context);
            self.context = self.window.len();
            self.given = vocabulary.decode(&self.window)?;
        } else if !piece.is_empty() {
            self.given.push_str(&piece);
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests;
