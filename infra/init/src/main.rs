//! PID 1 of an enclave image. In this order, and a failure ends the machine:
//!
//! 1. Mounts: the kernel's file systems, nothing of the host's. Nobody added to the kernel's command line.
//! 2. Files: what the application ramdisk holds is what its list says.
//! 3. The root file system becomes read-only.
//! 4. Secure module: it answers, and names the image that was measured.
//! 5. Clock: the hypervisor's clock source, the secure module's time.
//! 6. Randomness: mixed in from the secure module, and the kernel's generator is ready.
//! 7. Heartbeat: the parent instance learns that the image came up.
//! 8. The enclave program: another user, no privileges, fixed arguments, no environment but a number of threads. When it ends, the machine ends.
//!
//! What the kernel makes of its command line, arguments and an environment, is neither read nor handed on.

mod machine;

use std::process::ExitCode;

use init::console::Console;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        Console::new()
            .say("error: this is the first process of an enclave image, not a program to be run");
        return ExitCode::from(64);
    }
    let mut console = Console::new();
    let outcome = machine::run(&mut console);
    match outcome {
        Ok(code) => console.say(&format!("the enclave program ended: {code}")),
        Err(error) => console.say(&format!("error: {error}")),
    }
    machine::off(&mut console)
}
