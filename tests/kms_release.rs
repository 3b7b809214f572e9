//! AWS KMS against enclaves that are what they say, against all others, and with answers that a hostile somebody made: what
//! leaves, what is refused, what is believed.

#[path = "kms_release/answers.rs"]
mod answers;
#[path = "kms_release/callers.rs"]
mod callers;
#[path = "kms_release/policies.rs"]
mod policies;
#[path = "kms_release/seal.rs"]
mod seal;
#[path = "kms_release/service.rs"]
mod service;
#[path = "kms_release/terraform.rs"]
mod terraform;
#[path = "kms_release/world.rs"]
mod world;
