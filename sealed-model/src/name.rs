//! Names that are safe in a path, a URL and a key id. One place decides, for the writer and for the reader.

use serde::Serialize;

use crate::Error;

/// Largest integer that every JSON reader keeps exact (RFC 7493 §2.2); epochs are hashed as canonical JSON.
pub(crate) const MAX_EPOCH: u64 = (1 << 53) - 1;
const MAX_MODEL_NAME: usize = 64;
/// With `.enc` this stays below the 255 bytes a file name may have.
const MAX_PATH: usize = 240;
const MAX_DEPTH: usize = 4;

pub(crate) fn check_model(name: &str, epoch: u64) -> Result<(), Error> {
    let plain = is_plain_component(name) && !name.starts_with('_');
    if !plain || name.len() > MAX_MODEL_NAME {
        return Err(Error::ModelName { name: name.into() });
    }
    if epoch == 0 || epoch > MAX_EPOCH {
        return Err(Error::Epoch {
            epoch,
            max: MAX_EPOCH,
        });
    }
    Ok(())
}

/// A relative path that names the same file everywhere: no `..`, nothing hidden, no byte that any file system or URL treats specially.
pub(crate) fn is_safe_path(path: &str) -> bool {
    path.len() <= MAX_PATH
        && path.split('/').count() <= MAX_DEPTH
        && path.split('/').all(is_plain_component)
}

fn is_plain_component(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The name of a file's ciphertext in the package. Flat, so that a server of packages needs no folders below one; `~` needs no
/// escape in a URL (RFC 3986 §2.3) and cannot occur in a path that [`Manifest`](crate::Manifest) allows, so no two files meet.
pub fn sealed_name(path: &str) -> String {
    format!("{}.enc", path.replace('/', "~"))
}

/// The id under which a broker keeps the data key of a model version: `models/<name>/epoch-<n>`.
pub fn key_id(name: &str, epoch: u64) -> String {
    format!("models/{name}/epoch-{epoch}")
}

/// What every segment of a file is bound to: RFC 8785 JSON of its model, epoch and path.
pub fn associated_data(name: &str, epoch: u64, file: &str) -> Result<Vec<u8>, Error> {
    #[derive(Serialize)]
    struct AssociatedData<'a> {
        epoch: u64,
        file: &'a str,
        name: &'a str,
    }
    serde_json_canonicalizer::to_vec(&AssociatedData { epoch, file, name })
        .ok()
        .ok_or(Error::Internal(
            "two strings and an integer have a canonical JSON form",
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_hide_or_surprise() {
        for good in [
            "model.safetensors",
            "1_Pooling/config.json",
            "a/b/c/d.json",
            "__init__",
        ] {
            assert!(is_safe_path(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/../b",
            "/etc/passwd",
            "a//b",
            "a/",
            ".hidden",
            "a/.git/b",
            "-rf",
            "a b",
            "a\\b",
            "a~b",
            "a%2e",
            "é",
            "a\0",
            "a\n",
            "a/b/c/d/e",
        ] {
            assert!(!is_safe_path(bad), "{bad:?}");
        }
        assert!(!is_safe_path(&"a".repeat(241)));
    }

    #[test]
    fn associated_data_is_canonical_json() {
        let bytes = associated_data("demo", 7, "1_Pooling/config.json").unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            r#"{"epoch":7,"file":"1_Pooling/config.json","name":"demo"}"#
        );
    }

    #[test]
    fn model_names_and_epochs_have_bounds() {
        assert!(check_model("Qwen2.5-0.5B", 1).is_ok());
        assert!(check_model("demo", MAX_EPOCH).is_ok());
        for (name, epoch) in [
            ("", 1),
            ("a/b", 1),
            ("..", 1),
            ("_x", 1),
            ("demo", 0),
            ("demo", MAX_EPOCH + 1),
        ] {
            assert!(check_model(name, epoch).is_err(), "{name:?} {epoch}");
        }
        assert!(check_model(&"a".repeat(65), 1).is_err());
    }
}
