//! What a kernel says of itself (kernel: Documentation/arch/x86/boot.rst).

/// How much of a bzImage has to be seen: the text is in the first sectors, and its position has 16 bits.
pub const START: u64 = 0x1_0000;
/// Twice what kernels say.
const MAX_LENGTH: usize = 512;

const BOOT_FLAG: usize = 0x1fe;
const MAGIC: usize = 0x202;
const POINTER: usize = 0x20e;
/// What positions in the setup header count from.
const BASE: usize = 0x200;

/// The text that `kernel_version` of the setup header points to, as `6.12.48 (builder@host) #1 SMP …`; escaped.
pub fn version(start: &[u8]) -> Option<String> {
    let at = |position: usize, length: usize| start.get(position..)?.get(..length);
    if at(BOOT_FLAG, 2)? != [0x55, 0xaa] || at(MAGIC, 4)? != b"HdrS" {
        return None;
    }
    let pointer = at(POINTER, 2)?.first_chunk::<2>().copied()?;
    let pointer = usize::from(u16::from_le_bytes(pointer));
    // 0 says that there is none.
    if pointer == 0 {
        return None;
    }
    let text = start.get(BASE + pointer..)?;
    let end = text.iter().take(MAX_LENGTH + 1).position(|b| *b == 0)?;
    let text = text.get(..end).filter(|text| !text.is_empty())?;
    Some(text.escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(pointer: u16, text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 0x1000];
        bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&pointer.to_le_bytes());
        bytes[0x400..0x400 + text.len()].copy_from_slice(text);
        bytes
    }

    const TEXT: &[u8] = b"6.12.48 (root@nowhere) #1 SMP\0";

    #[test]
    fn a_bzimage_tells_its_version() {
        let expected = "6.12.48 (root@nowhere) #1 SMP";
        assert_eq!(version(&kernel(0x200, TEXT)).as_deref(), Some(expected));
    }

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        let version = version(&kernel(0x200, b"6.12\x1b[2J\xff\0")).unwrap();
        assert_eq!(version, r"6.12\x1b[2J\xff");
    }

    #[test]
    fn no_version_is_read_where_there_is_none() {
        let mut flag = kernel(0x200, TEXT);
        flag[0x1fe] = 0;
        let mut magic = kernel(0x200, TEXT);
        magic[0x202] = b'h';
        for start in [
            &flag,
            &magic,
            // No pointer, one to nothing, one beyond the end.
            &kernel(0, TEXT),
            &kernel(0x300, TEXT),
            &kernel(0xffff, TEXT),
            // A text without an end.
            &kernel(0x200, &[b'a'; 600]),
            &kernel(0xdff, b"")[..0xfff].to_vec(),
            &kernel(0x200, TEXT)[..0x20f].to_vec(),
            &Vec::new(),
        ] {
            assert_eq!(version(start), None);
        }
    }
}
