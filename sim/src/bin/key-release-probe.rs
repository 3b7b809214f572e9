//! `key-release-probe`: one resource from any key broker, step by step. See `sim::release_probe`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

#[expect(
    clippy::disallowed_methods,
    reason = "this is the main that time enters through"
)]
fn main() -> ExitCode {
    sim::release_probe::main(Arc::new(SystemTime::now))
}
