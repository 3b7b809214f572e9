//! The verifier's steps by name.

/// One step of [`crate::Verifier`], in the order in which they run. Step 6 of the verifier has two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// 1.
    Structure,
    /// 2.
    Chain,
    /// 3.
    Signature,
    /// 4.
    Debug,
    /// 5.
    Nonce,
    /// 6, the key.
    PublicKey,
    /// 6, everything else that the document commits to.
    Binding,
    /// 7.
    Measurements,
    /// 8.
    Freshness,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 9] = [
        Self::Structure,
        Self::Chain,
        Self::Signature,
        Self::Debug,
        Self::Nonce,
        Self::PublicKey,
        Self::Binding,
        Self::Measurements,
        Self::Freshness,
    ];

    /// The name in reports, as in `docs/verifying.md`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Structure => "structure",
            Self::Chain => "chain",
            Self::Signature => "signature",
            Self::Debug => "debug",
            Self::Nonce => "nonce",
            Self::PublicKey => "public-key",
            Self::Binding => "binding",
            Self::Measurements => "measurements",
            Self::Freshness => "freshness",
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
