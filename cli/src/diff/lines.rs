//! Small text files, line by line.

use std::sync::atomic::{AtomicUsize, Ordering};

use image::Entry;
use similar::TextDiff;

/// The comparison takes the product of lines and changes: this bounds it to a second.
const MAX_LINES: usize = 2000;
/// In all files of this run together, so that many small files take no longer than a few large ones.
static LINES_LEFT: AtomicUsize = AtomicUsize::new(40_000);
/// What people still read.
const MAX_SHOWN: usize = 200;
const CONTEXT: usize = 2;

/// A unified diff without its file names, escaped and cut off; none where the files are not small text that differs.
pub(super) fn unified(before: &Entry, after: &Entry) -> Option<Vec<String>> {
    let (old, new) = (text(before)?, text(after)?);
    if old == new {
        return None;
    }
    let cost = lines(old) + lines(new);
    let spend = |left: usize| left.checked_sub(cost);
    LINES_LEFT
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
        .ok()?;
    let diff = TextDiff::from_lines(old, new);
    let whole = diff.unified_diff().context_radius(CONTEXT).to_string();
    let mut lines: Vec<_> = split(&whole).map(escaped).collect();
    let more = lines.len().saturating_sub(MAX_SHOWN);
    if more > 0 {
        lines.truncate(MAX_SHOWN);
        lines.push(format!("… and {more} lines more"));
    }
    Some(lines)
}

/// At newlines only: what else ends a line for others has to be seen.
fn split(text: &str) -> impl Iterator<Item = &str> {
    text.strip_suffix('\n').unwrap_or(text).split('\n')
}

fn text(entry: &Entry) -> Option<&str> {
    let text = std::str::from_utf8(entry.content.as_deref()?).ok()?;
    (!text.contains('\0') && lines(text) <= MAX_LINES).then_some(text)
}

/// As the comparison counts them, for which a carriage return ends a line, too.
fn lines(text: &str) -> usize {
    text.matches(['\n', '\r']).count()
}

/// Tabs stay; a terminal acts on nothing else.
fn escaped(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '\t' | '"' | '\'' | '\\' => text.push(c),
            _ => text.extend(c.escape_debug()),
        }
    }
    text
}
