//! A throwaway root: simulated NSM, SPIFFE development authority, cloister-dev.

pub mod authority;
pub mod nsm;
