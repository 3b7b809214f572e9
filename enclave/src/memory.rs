//! How much memory a model may still take.

use std::fs::File;
use std::io::Read as _;

/// Left for what runs beside the weights while they are read: buffers of ciphertext, verified segments, threads.
const RESERVE: u64 = 64 << 20;
/// The file has some fifty lines of thirty bytes.
const MAX_MEMINFO: u64 = 16 << 10;

/// Bytes that weights may take now, by the kernel's own estimate. Where that is not to be had there is no bound, and the kernel's
/// allocator decides.
pub(crate) fn for_weights() -> u64 {
    let mut text = String::new();
    let read = File::open("/proc/meminfo")
        .and_then(|file| file.take(MAX_MEMINFO).read_to_string(&mut text));
    let available = match read {
        Ok(_) => available(&text),
        Err(_) => None,
    };
    match available {
        Some(bytes) => bytes.saturating_sub(RESERVE),
        None => {
            tracing::warn!("/proc/meminfo does not say how much memory is available");
            u64::MAX
        }
    }
}

/// `MemAvailable` in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_estimate_is_read() {
        let text =
            "MemTotal:       24000000 kB\nMemFree:         1 kB\nMemAvailable:   22000000 kB\n";
        assert_eq!(available(text), Some(22_000_000 * 1024));
        for other in [
            "",
            "MemFree: 5 kB\n",
            "MemAvailable: x kB\n",
            "MemAvailable: 5\n",
        ] {
            assert_eq!(available(other), None, "{other:?}");
        }
    }

    #[test]
    fn this_machine_has_some() {
        assert!((1 << 20..u64::MAX).contains(&for_weights()));
    }
}
