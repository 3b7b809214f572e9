//! Command lines, word by word: the order of words may matter to the kernel, but what was added or removed is what people ask.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Words that only one side has, as often as it has them more.
struct Words<'a> {
    removed: Vec<&'a str>,
    added: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn new(before: &'a str, after: &'a str) -> Self {
        Self {
            removed: beyond(before, after),
            added: beyond(after, before),
        }
    }
}

fn beyond<'a>(text: &'a str, other: &str) -> Vec<&'a str> {
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for word in other.split_whitespace() {
        *left.entry(word).or_default() += 1;
    }
    let mut words = text.split_whitespace().collect::<Vec<_>>();
    words.retain(|word| match left.get_mut(word) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    });
    words
}

pub(super) fn text(before: &str, after: &str) -> String {
    let words = Words::new(before, after);
    let line = |verb: &str, words: &[&str]| match words {
        [] => String::new(),
        words => format!("    {verb}: {}\n", words.join(" ").escape_debug()),
    };
    match line("removed", &words.removed) + &line("added", &words.added) {
        same if same.is_empty() => "    the same words: order or white space differs\n".into(),
        text => text,
    }
}

pub(super) fn json(before: &str, after: &str) -> Value {
    let words = Words::new(before, after);
    json!({"removed": words.removed, "added": words.added})
}
