//! The caller's side: verifies, then speaks; the local OpenAI-compatible proxy.
