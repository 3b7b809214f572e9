use candle_core::Result;

/// A causal language model. One seam, so that the chat worker does not know the family and a test can script it.
pub(crate) trait Decoder: Send {
    /// Keys and values of one sequence.
    type Cache;

    /// An empty cache for a sequence of at most `limit` tokens.
    fn cache(&self, limit: usize) -> Result<Self::Cache>;

    /// Runs the new tokens of every row, each at the position its cache has reached, in one pass. Rows may differ in length
    /// and position: prompt chunks and single steps mix. Returns, per row, the logits after its last token if asked for.
    fn forward(&self, rows: &mut [Row<'_, Self::Cache>]) -> Result<Vec<Option<Vec<f32>>>>;
}

pub(crate) struct Row<'a, C> {
    pub(crate) tokens: &'a [u32],
    pub(crate) cache: &'a mut C,
    /// False for all but the last chunk of a prompt, which saves the vocabulary projection.
    pub(crate) wants_logits: bool,
}
