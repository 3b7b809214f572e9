use candle_core::Result;

use crate::{
    kv::{Held, KvPool, KvShape},
    parallel::Threads,
};

/// A causal language model. One seam, so that the scheduler does not know the family and a test can script it.
pub(crate) trait Decoder: Send {
    /// What a token of a sequence takes.
    fn shape(&self) -> KvShape;

    /// Where its products are made, and so everything else.
    fn threads(&self) -> Threads {
        Threads::Rayon
    }

    /// Runs the new tokens of every row, each behind what its sequence holds, in one pass. Rows may differ in length and position:
    /// prompt chunks and single steps mix. Returns, per row, the logits after its last token if asked for.
    fn forward(&self, kv: &mut KvPool, rows: &[Row<'_>]) -> Result<Vec<Option<Vec<f32>>>>;
}

#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) tokens: &'a [u32],
    /// Tokens that are there before; the blocks have room for the new ones.
    pub(crate) held: Held<'a>,
    /// Tokens that the sequence may come to have.
    pub(crate) limit: usize,
    /// False for all but the last chunk of a prompt, which saves the vocabulary projection.
    pub(crate) wants_logits: bool,
}
