//! The local key broker: RCAR server, Nitro verifier, Rego policy, release log, SVID issuer.
