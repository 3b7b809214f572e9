use std::collections::BTreeMap;

/// A model card's front matter takes a few KiB; a benchmark table in it some more.
const MAX_FRONT_MATTER: usize = 256 << 10;
const MAX_KEYS: usize = 64;
const MAX_ITEMS: usize = 64;
const MAX_VALUE: usize = 200;

/// What the YAML block at the start of a model card (`README.md`) says at its top level: a value, or a list of values, for each
/// key. That is all that cards use for licence, base model, task, languages and datasets; what is nested, or spread over lines,
/// is passed over, and a text without such a block says nothing.
pub fn front_matter(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut card: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Some(block) = text
        .strip_prefix("---\n")
        .or_else(|| text.strip_prefix("---\r\n"))
    else {
        return card;
    };
    let mut key: Option<String> = None;
    // Of the list's first item: what is further in belongs to an item.
    let mut indent = None;
    let mut read = 0;
    for line in block.lines() {
        read += line.len() + 1;
        if line.trim_end() == "---" {
            return card;
        }
        if read > MAX_FRONT_MATTER || card.len() > MAX_KEYS {
            break;
        }
        let item = line.trim_start().strip_prefix("- ");
        let at = line.len() - line.trim_start().len();
        match (item, key.as_ref().and_then(|key| card.get_mut(key))) {
            (Some(item), Some(values))
                if *indent.get_or_insert(at) == at && values.len() < MAX_ITEMS =>
            {
                values.extend(scalar(item));
            }
            (Some(_), _) => {}
            (None, _) if line.starts_with([' ', '\t', '#']) || line.trim().is_empty() => {}
            (None, _) => {
                indent = None;
                // A second mention of a key says nothing more.
                key = line
                    .split_once(':')
                    .map(|(key, _)| key.trim().to_owned())
                    .filter(|key| !card.contains_key(key));
                if let (Some(key), Some((_, value))) = (&key, line.split_once(':')) {
                    card.insert(key.clone(), values(value.trim()));
                }
            }
        }
    }
    // A block without an end is none.
    BTreeMap::new()
}

fn values(text: &str) -> Vec<String> {
    match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(list) => list.split(',').filter_map(scalar).take(MAX_ITEMS).collect(),
        None => scalar(text).into_iter().collect(),
    }
}

/// A plain or quoted value on one line; none for a nested one.
fn scalar(text: &str) -> Option<String> {
    let text = text.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| {
        let inner = text.strip_prefix(quote)?;
        inner.split_once(quote).map(|(inner, _)| inner)
    });
    let plain = text
        .split_once(" #")
        .map_or(text, |(value, _)| value)
        .trim();
    let value = quoted.unwrap_or(plain);
    let nested = quoted.is_none()
        && (value.starts_with(['{', '[', '&', '*', '!', '|', '>', '#', '"', '\''])
            || value.contains(": ")
            || value.ends_with(':'));
    let sound = !value.is_empty()
        && value.len() <= MAX_VALUE
        && !value.chars().any(char::is_control)
        && !matches!(value, "null" | "~");
    (sound && !nested).then(|| value.to_owned())
}
