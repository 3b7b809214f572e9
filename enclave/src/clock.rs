//! What the kernel counts time by. The hypervisor's clock follows the true time; a bare processor counter drifts from it for as
//! long as the enclave runs, and certificates are judged by the result.

use std::fs::File;
use std::io::{self, Read as _};

use crate::Error;

/// Where Linux names it (Documentation/ABI/testing/sysfs-devices-system-clocksource).
const CURRENT: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// A name has a few letters.
const MAX_NAME: u64 = 64;

/// The clock sources of enclaves: KVM's on x86-64, and on ARM the architecture's counter, which the hypervisor keeps.
#[cfg(target_arch = "aarch64")]
const HYPERVISORS: &str = "arch_sys_counter";
#[cfg(not(target_arch = "aarch64"))]
const HYPERVISORS: &str = "kvm-clock";

/// That the clock source is the hypervisor's, or one of `accepted` where the measured configuration names any: emulated
/// machines have no other. For machines with a real secure module; a simulated one says nothing about a machine.
///
/// # Errors
/// [`Error::ClockSource`] and [`Error::ClockSourceUnknown`].
pub fn check_clock_source(accepted: &[String]) -> Result<(), Error> {
    let mut name = String::new();
    let read = File::open(CURRENT).and_then(|file| file.take(MAX_NAME).read_to_string(&mut name));
    judge(read.map(|_length| name), accepted)
}

fn judge(current: io::Result<String>, accepted: &[String]) -> Result<(), Error> {
    let current = current.map_err(|source| Error::ClockSourceUnknown {
        path: CURRENT,
        source,
    })?;
    let current = current.trim();
    let is_accepted = match accepted {
        [] => current == HYPERVISORS,
        accepted => accepted.iter().any(|name| name == current),
    };
    if is_accepted {
        tracing::info!(clock_source = current, "clock source");
        return Ok(());
    }
    Err(Error::ClockSource {
        actual: current.escape_debug().to_string(),
        accepted: match accepted {
            [] => HYPERVISORS.to_owned(),
            accepted => accepted.join(", "),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(current: &str, accepted: &[&str]) -> Option<String> {
        let accepted: Vec<String> = accepted.iter().map(ToString::to_string).collect();
        let error = judge(Ok(current.to_owned()), &accepted).err()?;
        assert_eq!(error.exit_code(), 69);
        Some(error.to_string())
    }

    #[test]
    fn the_hypervisors_clock_is_accepted_without_a_word_in_the_configuration() {
        assert_eq!(line(&format!("{HYPERVISORS}\n"), &[]), None);
    }

    #[test]
    fn another_clock_is_refused_with_one_line_that_names_both() {
        for current in [
            "tsc\n",
            "tsc-early",
            "hpet",
            "acpi_pm",
            "jiffies",
            "",
            "kvm-clock2",
        ] {
            let line = line(current, &[]).unwrap();
            assert!(
                line.contains(current.trim()) && line.contains(HYPERVISORS),
                "{line}"
            );
            assert_eq!(line.lines().count(), 1);
        }
        assert!(line("a\nb", &[]).is_some_and(|line| line.lines().count() == 1));
    }

    #[test]
    fn what_the_configuration_names_replaces_the_default() {
        assert_eq!(line("tsc", &["hpet", "tsc"]), None);
        assert!(line(HYPERVISORS, &["tsc"]).is_some());
        assert!(line("TSC", &["tsc"]).is_some());
    }

    #[test]
    fn a_clock_source_that_cannot_be_read_is_refused() {
        let error = judge(Err(io::ErrorKind::NotFound.into()), &["tsc".to_owned()]).unwrap_err();
        assert_eq!(error.exit_code(), 69);
        assert!(error.to_string().contains("/sys/"), "{error}");
    }
}
