//! Package URLs (ECMA-427).

/// A crate of crates.io.
pub(crate) fn cargo(name: &str, version: &str) -> String {
    format!("pkg:cargo/{}@{}", encode(name), encode(version))
}

/// Something that no package manager knows under this name.
pub(crate) fn generic(name: &str, version: &str) -> String {
    format!("pkg:generic/{}@{}", encode(name), encode(version))
}

/// Everything is percent-encoded but letters, digits and `.-_~`; of the colon the standard says that it is not.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_encoded() {
        assert_eq!(
            cargo("zstd-sys", "2.0.16+zstd.1.5.7"),
            "pkg:cargo/zstd-sys@2.0.16%2Bzstd.1.5.7"
        );
        assert_eq!(
            generic("gcc", "14.2.0 (Debian)"),
            "pkg:generic/gcc@14.2.0%20%28Debian%29"
        );
    }
}
