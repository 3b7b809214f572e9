//! The system's clock, which every certificate's validity is judged by, against the secure module's.
//!
//! A fresh kernel has the time that the machine's firmware gives it, if any. The secure module writes its own into each
//! document. On Nitro both come from the hypervisor; where they differ, the secure module is the one that is trusted.

use std::time::{Duration, SystemTime};

/// Further apart than this, the system's clock is set. Documents carry the time of their making, and making one takes
/// milliseconds; some modules cut off the milliseconds.
pub const TOLERANCE: Duration = Duration::from_secs(2);

/// Clock sources that follow the hypervisor's time, best first. Others drift as a processor's counter does.
pub const PREFERRED: [&str; 2] = ["kvm-clock", "hyperv_clocksource_tsc_page"];

/// Which of the kernel's clock sources to use, from `available_clocksource`: `None` leaves the kernel's choice.
pub fn preferred(available: &str) -> Option<&'static str> {
    PREFERRED
        .into_iter()
        .find(|name| available.split_ascii_whitespace().any(|word| word == *name))
}

/// The time to set, when the system's is too far from the secure module's.
pub fn correction(system: SystemTime, module: SystemTime) -> Option<SystemTime> {
    (distance(system, module) > TOLERANCE).then_some(module)
}

fn distance(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b)
        .unwrap_or_else(|negative| negative.duration())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn at(offset_ms: i64) -> SystemTime {
        let ms = i64::try_from(NOW.as_millis()).unwrap() + offset_ms;
        SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap())
    }

    #[test]
    fn leaves_a_clock_that_is_close() {
        for offset in [-2000, -1, 0, 999, 2000] {
            assert_eq!(correction(at(offset), at(0)), None, "{offset} ms");
        }
    }

    #[test]
    fn takes_the_modules_time_whichever_way_the_system_is_off() {
        for offset in [-86_400_000, -2001, 2001, 86_400_000] {
            assert_eq!(correction(at(offset), at(0)), Some(at(0)), "{offset} ms");
        }
        assert_eq!(correction(SystemTime::UNIX_EPOCH, at(0)), Some(at(0)));
    }

    #[test]
    fn prefers_the_hypervisors_clock_and_only_by_its_whole_name() {
        assert_eq!(preferred("tsc kvm-clock acpi_pm\n"), Some("kvm-clock"));
        assert_eq!(preferred("tsc refined-jiffies"), None);
        assert_eq!(preferred("not-kvm-clock kvm-clock2"), None);
        assert_eq!(preferred(""), None);
    }
}
