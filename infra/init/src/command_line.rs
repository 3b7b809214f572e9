//! The kernel's command line: the measured one, and what the machine's starter put behind it.
//!
//! On Nitro only the hypervisor can add words, and adds where devices are. Other starters let their user add anything,
//! unmeasured: `mitigations=off`, `rdinit=…`. So a word that is neither in the image nor says where something lies is refused.

/// What every image of ours starts its kernel with. `panic=1`: a machine whose init failed ends at once.
pub const COMMAND_LINE: &str =
    "reboot=k panic=1 pci=off console=ttyS0 loglevel=5 random.trust_cpu=on";

/// How a machine is ended: AWS's images say `k`, which QEMU's machine does not know.
const TRIPLE_FAULT: &str = "reboot=t";

/// More words than any starter adds.
const MAX_BYTES: usize = 4096;

/// Why the command line is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    #[error("the kernel's command line lacks {0:?}, which the image gave it")]
    Missing(&'static str),
    #[error(
        "the kernel was started with {0:?}, which is not part of the image; nothing may be added to its command line"
    )]
    Added(String),
    #[error(
        "the kernel's command line has quotation marks or unprintable characters in it, and the image's has none"
    )]
    Unprintable,
    #[error("the kernel's command line is longer than {MAX_BYTES} bytes")]
    TooLong,
}

/// Checks `actual`, as `/proc/cmdline` has it.
///
/// # Errors
/// The first word that is missing or was added.
pub fn check(actual: &str) -> Result<(), CommandLineError> {
    if actual.len() > MAX_BYTES {
        return Err(CommandLineError::TooLong);
    }
    // Between quotation marks the kernel sees one word where this would see several, and it takes other bytes for spaces, too.
    let line = actual.strip_suffix('\n').unwrap_or(actual);
    let plain = |b: u8| matches!(b, b' '..=b'~') && b != b'"';
    if !line.bytes().all(plain) {
        return Err(CommandLineError::Unprintable);
    }
    let mut words: Vec<&str> = actual.split_ascii_whitespace().collect();
    for expected in COMMAND_LINE.split(' ') {
        match words.iter().position(|word| *word == expected) {
            Some(at) => drop(words.remove(at)),
            None => return Err(CommandLineError::Missing(expected)),
        }
    }
    let describes = |word: &str| word == TRIPLE_FAULT || device(word);
    match words.iter().find(|word| !describes(word)) {
        Some(word) => Err(CommandLineError::Added(word.chars().take(64).collect())),
        None => Ok(()),
    }
}

/// `virtio_mmio.device=<size>@<address>:<interrupt>[:<id>]` (kernel: admin-guide/kernel-parameters): where a device lies.
fn device(word: &str) -> bool {
    let hex = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'x' | b'K' | b'M' | b'G');
    let number = |text: &str| !text.is_empty() && text.len() <= 20 && text.bytes().all(hex);
    let place = word.strip_prefix("virtio_mmio.device=");
    place
        .and_then(|place| place.split_once('@'))
        .and_then(|(size, rest)| Some((size, rest.split_once(':')?)))
        .is_some_and(|(size, (address, interrupt))| {
            number(size) && number(address) && interrupt.split(':').all(number)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(more: &str) -> Result<(), CommandLineError> {
        check(&format!("{COMMAND_LINE} {more}\n"))
    }

    #[test]
    fn takes_what_the_image_says_and_where_devices_are() {
        with("").unwrap();
        with("reboot=t virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=4K@0xd0000000:5")
            .unwrap();
        check(&format!(
            "virtio_mmio.device=4K@0xd0000000:5 {COMMAND_LINE}"
        ))
        .unwrap();
    }

    #[test]
    fn refuses_every_other_word() {
        for word in [
            "mitigations=off",
            "nokaslr",
            "rdinit=/app/enclave",
            "init=/bin/sh",
            "init_on_alloc=0",
            "random.trust_cpu=off",
            "loglevel=8",
            "debug",
            "RUST_LOG=trace",
            "GLIBC_TUNABLES=x",
            "--config",
            "--",
            "virtio_mmio.device",
            "virtio_mmio.devices=1",
            "root=/dev/vda",
            "initrd=0x2000000,3228672",
            "pci=on",
            "acpi_rsdp=0x1",
            "reboot=w",
            "virtio_mmio.device=512",
            "virtio_mmio.device=512@:12",
            "virtio_mmio.device=512@0xfeb00e00:12,nokaslr",
            "console=hvc0",
        ] {
            let error = with(word).unwrap_err();
            assert_eq!(error, CommandLineError::Added(word.to_owned()));
        }
    }

    #[test]
    fn refuses_what_the_kernel_would_split_elsewhere() {
        let swallowed = format!("reboot=\"t {COMMAND_LINE}\"");
        let device = "virtio_mmio.device=512@0xfeb00e00:12";
        for line in [
            swallowed,
            format!("{COMMAND_LINE} {device}\u{b}mitigations=off"),
            format!("{COMMAND_LINE} {device}\u{a0}nokaslr"),
            format!("{COMMAND_LINE}\n{device}"),
            format!("{COMMAND_LINE}\t{device}"),
        ] {
            assert_eq!(check(&line), Err(CommandLineError::Unprintable), "{line:?}");
        }
    }

    #[test]
    fn refuses_a_measured_word_given_twice() {
        assert!(with("panic=1").is_err());
    }

    #[test]
    fn refuses_a_line_that_lacks_a_word_of_the_image() {
        let lacking = COMMAND_LINE.replace("panic=1 ", "");
        assert_eq!(check(&lacking), Err(CommandLineError::Missing("panic=1")));
        assert_eq!(check(""), Err(CommandLineError::Missing("reboot=k")));
    }

    #[test]
    fn refuses_an_endless_line() {
        assert_eq!(with(&"x".repeat(5000)), Err(CommandLineError::TooLong));
    }
}
