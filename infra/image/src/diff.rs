//! What differs between two images, and which registers that moves.

use crate::image::{Content, Image};

/// One difference between an image and another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What changed: `kernel`, `command line`, `ramdisk 1`, `metadata ImageName`, …
    pub what: String,
    /// As it was, for people; escaped.
    pub before: String,
    /// As it is, for people; escaped.
    pub after: String,
    /// The registers that this alone moves. Empty: nothing measures it.
    pub registers: &'static [u8],
}

const BOOTSTRAP: &[u8] = &[0, 1];
const APPLICATION: &[u8] = &[0, 2];
const EVERYTHING: &[u8] = &[0, 1, 2];
const CERTIFICATE: &[u8] = &[8];
const NONE: &[u8] = &[];
const ABSENT: &str = "absent";

/// Everything in which `after` differs from `before`, in the order of the file. Empty for equal images.
pub fn changes(before: &Image, after: &Image) -> Vec<Change> {
    let mut list = Changes(Vec::new());
    list.add(
        "architecture",
        before.architecture,
        after.architecture,
        NONE,
    );
    list.add(
        "default memory",
        before.default_memory,
        after.default_memory,
        NONE,
    );
    list.add(
        "default processors",
        before.default_processors,
        after.default_processors,
        NONE,
    );
    list.add("kernel", kernel(before), kernel(after), BOOTSTRAP);
    list.add(
        "command line",
        format!("{:?}", before.command_line),
        format!("{:?}", after.command_line),
        BOOTSTRAP,
    );
    list.ramdisks(before, after);
    list.metadata(before, after);
    list.signature(before, after);
    list.0
}

struct Changes(Vec<Change>);

impl Changes {
    fn add(
        &mut self,
        what: &str,
        before: impl std::fmt::Display,
        after: impl std::fmt::Display,
        registers: &'static [u8],
    ) {
        let (before, after) = (before.to_string(), after.to_string());
        if before != after {
            self.0.push(Change {
                what: what.to_owned(),
                before,
                after,
                registers,
            });
        }
    }

    /// The same ramdisks in another order are one change.
    fn ramdisks(&mut self, before: &Image, after: &Image) {
        let (old, new) = (&before.ramdisks, &after.ramdisks);
        if let Some(order) = moved(old, new) {
            let registers = match (
                old.first() == new.first(),
                old.iter().skip(1).eq(new.iter().skip(1)),
            ) {
                (true, _) => APPLICATION,
                (false, true) => BOOTSTRAP,
                (false, false) => EVERYTHING,
            };
            let first = (1..=old.len()).map(|n| n.to_string()).collect::<Vec<_>>();
            return self.add("order of ramdisks", first.join(" "), order, registers);
        }
        for index in 0..old.len().max(new.len()) {
            self.add(
                &format!("ramdisk {}", index + 1),
                show(old.get(index)),
                show(new.get(index)),
                ramdisk_registers(index),
            );
        }
    }

    fn metadata(&mut self, before: &Image, after: &Image) {
        let (Some(old), Some(new)) = (&before.metadata, &after.metadata) else {
            let show = |image: &Image| match image.metadata {
                Some(_) => "present",
                None => ABSENT,
            };
            return self.add("metadata", show(before), show(after), NONE);
        };
        let (old, new) = (old.fields(), new.fields());
        let added = new.keys().filter(|key| !old.contains_key(*key));
        for key in old.keys().chain(added) {
            let show = |value: Option<&serde_json::Value>| match value {
                Some(value) => escaped(&value.to_string()),
                None => ABSENT.to_owned(),
            };
            let what = format!("metadata {}", key.escape_debug());
            self.add(&what, show(old.get(key)), show(new.get(key)), NONE);
        }
    }

    /// A new signature by the same certificate moves nothing; ECDSA makes another one each time.
    fn signature(&mut self, before: &Image, after: &Image) {
        let certificate = |image: &Image| match &image.signature {
            Some(signature) => format!("sha384 {}", signature.certificate_sha384()),
            None => ABSENT.to_owned(),
        };
        let (old, new) = (certificate(before), certificate(after));
        if old != new {
            return self.add("signing certificate", old, new, CERTIFICATE);
        }
        let bytes = |image: &Image| match &image.signature {
            Some(signature) => format!("sha384 {}", signature.section_sha384()),
            None => ABSENT.to_owned(),
        };
        self.add("signature", bytes(before), bytes(after), NONE);
    }
}

/// The registers that a ramdisk counts into, by its position from 0.
pub fn ramdisk_registers(index: usize) -> &'static [u8] {
    match index {
        0 => BOOTSTRAP,
        _ => APPLICATION,
    }
}

/// Where the ramdisks of `new` were in `old`, as `2 1`; none where they are not the same in another order.
fn moved(old: &[Content], new: &[Content]) -> Option<String> {
    if old == new || old.len() != new.len() {
        return None;
    }
    let mut left: Vec<_> = old.iter().map(Some).collect();
    let mut order = Vec::new();
    for content in new {
        let at = left.iter().position(|other| *other == Some(content))?;
        // Each one stands for one.
        left.get_mut(at)?.take();
        order.push((at + 1).to_string());
    }
    Some(order.join(" "))
}

fn kernel(image: &Image) -> String {
    let content = show(Some(&image.kernel));
    match &image.kernel_version {
        Some(version) => format!("{version}, {content}"),
        None => content,
    }
}

fn show(content: Option<&Content>) -> String {
    match content {
        Some(content) => format!("{} bytes, sha384 {}", content.size, content.sha384),
        None => ABSENT.to_owned(),
    }
}

/// JSON as it is, but for characters that a terminal would act on or not show: JSON lets DEL and those beyond ASCII through.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '"' | '\'' | '\\' => text.push(c),
            _ => text.extend(c.escape_debug()),
        }
    }
    text
}
