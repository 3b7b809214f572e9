//! What the first process of an enclave image does before the enclave program runs: see `main.rs` for the order.
//!
//! - `command_line`: nothing was added to it.
//! - `files`: the list of what the image holds, and the check of it from the inside.
//! - `heartbeat`: telling the parent instance that the image came up, and finding out which CID it has.
//! - `console`: where this process and the enclave program say what they do.
//! - `clock`: the system's clock against the secure module's.

pub mod clock;
pub mod command_line;
pub mod console;
pub mod files;
pub mod heartbeat;
