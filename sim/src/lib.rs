//! A throwaway root: simulated NSM, SPIFFE development authority, cloister-dev, key-release-probe.

pub mod authority;
pub mod dev;
pub mod kms;
pub mod machine;
pub mod nsm;
pub mod release_probe;
pub mod roles;
pub mod stack;
