//! The only place where plaintext exists.
