use zeroize::Zeroizing;

/// A prompt, an answer or a piece of one.
///
/// It has no `Debug`, `Display`, `Clone` or `Serialize`, and its memory is cleared on drop, so that text of a user cannot
/// reach a log or an error by accident: whoever reads it writes [`Text::expose`].
pub struct Text(Zeroizing<String>);

impl Text {
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}
