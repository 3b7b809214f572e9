//! What a command line may be: the same for reader and writer.

use crate::error::Error;

/// # Errors
/// [`Error::CommandLine`] for anything but UTF-8 without NUL: loaders hand on a C string, so a NUL would hide what follows it.
pub(crate) fn check(bytes: &[u8]) -> Result<&str, Error> {
    let text = std::str::from_utf8(bytes)
        .ok()
        .ok_or(Error::CommandLine("is not UTF-8"))?;
    if text.contains('\0') {
        return Err(Error::CommandLine("has a NUL byte in it"));
    }
    Ok(text)
}
