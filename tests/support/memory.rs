//! A look into another process's memory, as its machine's owner could take.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

/// Read at a time; a match may span two reads, so they overlap by the needle's length.
const CHUNK: usize = 4 << 20;

/// How often `needle` occurs in the readable memory of process `pid`, and how many bytes were searched.
///
/// # Errors
/// When the process's memory may not be read.
pub fn occurrences(pid: u32, needle: &[u8]) -> std::io::Result<(usize, u64)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut memory = File::open(format!("/proc/{pid}/mem"))?;
    let (mut found, mut searched) = (0, 0);
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(access)) = (fields.next(), fields.next()) else {
            continue;
        };
        // The kernel's own pages cannot be read and hold nothing of ours.
        if !access.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (
            u64::from_str_radix(from, 16).unwrap(),
            u64::from_str_radix(to, 16).unwrap(),
        );
        let mut at = from;
        let mut tail: Vec<u8> = Vec::new();
        while at < to {
            let want = usize::try_from(to - at).unwrap_or(CHUNK).min(CHUNK);
            let mut buffer = vec![0; want];
            memory.seek(SeekFrom::Start(at))?;
            // A page that went away between the listing and the read is no longer theirs either.
            if memory.read_exact(&mut buffer).is_err() {
                break;
            }
            searched += want as u64;
            at += want as u64;
            tail.extend_from_slice(&buffer);
            found += count(&tail, needle);
            let keep = tail.len().saturating_sub(needle.len() - 1);
            tail.drain(..keep);
        }
    }
    Ok((found, searched))
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    let first = needle[0];
    let mut found = 0;
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|b| *b == first) {
        rest = &rest[at..];
        if rest.starts_with(needle) {
            found += 1;
        }
        rest = &rest[1..];
    }
    found
}
