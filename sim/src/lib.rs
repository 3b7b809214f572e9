//! A throwaway root: simulated NSM, SPIFFE development authority, cloister-dev.

pub mod authority;
pub mod dev;
pub mod kms;
pub mod machine;
pub mod nsm;
pub mod roles;
pub mod stack;
