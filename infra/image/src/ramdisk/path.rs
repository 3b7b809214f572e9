//! What an entry may be called.

use crate::ramdisk::error::PathError;

/// PATH_MAX of Linux, with the final NUL: the kernel skips an entry with a longer name.
pub(crate) const MAX_NAME: usize = 4096;
/// NAME_MAX of Linux.
const MAX_COMPONENT: usize = 255;
/// Bounds the work for one path: each of its directories is looked up.
const MAX_DEPTH: usize = 64;
/// The name that ends an archive.
pub(crate) const TRAILER: &str = "TRAILER!!!";

/// For the writer: a path that can be understood in one way only.
pub(crate) fn check(path: &str) -> Result<(), PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.len() >= MAX_NAME || path.split('/').any(|part| part.len() > MAX_COMPONENT) {
        return Err(PathError::TooLong);
    }
    if path == TRAILER {
        return Err(PathError::Trailer);
    }
    if !path.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(PathError::Character);
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(PathError::Component);
    }
    Ok(())
}

/// For the writer: where a symbolic link points, which may be anywhere.
pub(crate) fn check_target(target: &str) -> Result<(), PathError> {
    if target.is_empty() {
        return Err(PathError::Empty);
    }
    if target.len() >= MAX_NAME {
        return Err(PathError::TooLong);
    }
    if !target.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(PathError::Character);
    }
    Ok(())
}

/// For the reader: the path as the kernel takes it, from the root, in the one form that can be compared; the root is `.`.
/// Archives of `find .` have `./` before each.
pub(crate) fn normal(path: &str) -> Result<String, PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    let mut normal = String::with_capacity(path.len());
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    for (depth, part) in parts.enumerate() {
        // Whoever reads a list would look for it elsewhere.
        if part == ".." {
            return Err(PathError::Component);
        }
        if part.len() > MAX_COMPONENT {
            return Err(PathError::TooLong);
        }
        if depth == MAX_DEPTH {
            return Err(PathError::TooDeep);
        }
        if depth > 0 {
            normal.push('/');
        }
        normal.push_str(part);
    }
    if normal.is_empty() {
        normal.push('.');
    }
    Ok(normal)
}

/// The directories that `path` is in, from the outermost.
pub(crate) fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/')
        .map(|(at, _)| path.get(..at).unwrap_or_default())
}

/// The directory that `path` is in; none for one directly below the root.
pub(crate) fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}
