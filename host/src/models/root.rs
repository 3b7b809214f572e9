use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A package is a directory of files; a few levels more do no harm.
const MAX_SEGMENTS: usize = 6;

/// The directory whose files are served.
pub(crate) struct Root(PathBuf);

impl Root {
    /// # Errors
    /// The directory does not exist or cannot be read.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        let dir = dir.canonicalize()?;
        if !dir.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self(dir))
    }

    /// Opens a file below the directory; gives it and its size in bytes.
    ///
    /// # Errors
    /// `InvalidInput` for a path that is not `/<package>/<file>` in plain characters; `NotFound` for everything that is
    /// absent, no regular file, or outside the directory once symbolic links are followed.
    pub(super) async fn open(&self, path: &str) -> io::Result<(File, u64)> {
        let relative = relative(path).ok_or(io::ErrorKind::InvalidInput)?;
        let root = self.0.clone();
        let opened = tokio::task::spawn_blocking(move || open(&root, &relative)).await;
        opened.map_err(io::Error::other)?
    }
}

/// Plain segments only (`~` stands for a slash in a sealed file's name). Nothing is decoded, so an escaped dot or slash is just
/// a character that is not allowed.
fn relative(path: &str) -> Option<PathBuf> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    if !(2..=MAX_SEGMENTS).contains(&segments.len()) {
        return None;
    }
    let plain = |segment: &&str| {
        !segment.is_empty()
            && segment.len() <= 255
            && !segment.starts_with('.')
            && segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~'))
    };
    segments
        .iter()
        .all(plain)
        .then(|| segments.iter().collect())
}

fn open(root: &Path, relative: &Path) -> io::Result<(File, u64)> {
    let absent = || io::Error::from(io::ErrorKind::NotFound);
    let path = match root.join(relative).canonicalize() {
        Ok(path) => path,
        Err(e) if is_absence(&e) => return Err(absent()),
        Err(e) => return Err(e),
    };
    // A link may lead to another place below the directory (`current -> 2026-11`), never out of it.
    // Looked at before it is opened: opening a pipe would wait for its writer.
    if !path.starts_with(root) || !std::fs::metadata(&path)?.is_file() {
        return Err(absent());
    }
    let file = File::open(&path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(absent());
    }
    Ok((file, metadata.len()))
}

fn is_absence(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_packages_and_files() {
        for path in [
            "/demo/manifest.json",
            "/demo-1.0_a/model.safetensors.enc",
            "/a/b/c/d",
        ] {
            assert_eq!(relative(path).unwrap(), Path::new(&path[1..]));
        }
    }

    #[test]
    fn refuses_every_other_spelling() {
        let long = format!("/a/{}", "x".repeat(256));
        for path in [
            "",
            "/",
            "a/b",
            "/a",
            "/a/",
            "//a",
            "/a//b",
            "/../a",
            "/a/..",
            "/a/../b",
            "/a/./b",
            "/./a/b",
            "/.git/config",
            "/a/.hidden",
            "/a/%2e%2e/b",
            "/a/..%2fb",
            "/a/%2Fb",
            "/a/b%00",
            "/a/b\\..\\c",
            "/a/\u{2025}/b",
            "/a/b c",
            "/a/b;c",
            "/a/b:c",
            "/a/~b/c d",
            "/a/b\0",
            "/a/…/b",
            "/a/b/c/d/e/f/g",
            long.as_str(),
        ] {
            assert_eq!(relative(path), None, "{path:?}");
        }
    }
}
