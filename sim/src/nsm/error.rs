//! What can go wrong with keys and certificates of a simulation.

/// Making, writing or reading the simulated public key infrastructure failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A certificate or key could not be made or read.
    #[error("simulated certificate or key")]
    Certificate(#[from] rcgen::Error),
    /// A key could not be used for signing.
    #[error("simulated signing key")]
    Key,
    /// The JSON text is not what [`super::SimPki::to_json`] writes.
    // Without the parser's own words: it quotes its input, and the input holds keys.
    #[error("not the JSON of a simulated chain: {0}")]
    Json(&'static str),
    /// A document could not be encoded.
    #[error("simulated document cannot be encoded")]
    Encoding,
}
