//! `cloister-dev`: the whole service on one machine. See `sim::dev`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

#[expect(
    clippy::disallowed_methods,
    reason = "this is the main that time enters through"
)]
fn main() -> ExitCode {
    sim::dev::main(Arc::new(SystemTime::now))
}
