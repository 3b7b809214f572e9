mod files;
mod lines;
mod words;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use image::{Change, FileChange, Image, Listing, changes, file_changes};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::measure::read_with_files;
use crate::output;

/// Tell what changed between two enclave images, and which registers that moves
///
/// Compares kernels, command lines word by word, ramdisks file by file, and small text files line by line. Exit code 0 if the images
/// say the same, 1 if they differ.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cloister diff released.eif rebuilt.eif
  cloister diff released.eif rebuilt.eif --format json | jq -r '.files[].path'")]
pub(crate) struct Diff {
    /// An enclave image.
    #[arg(value_name = "A")]
    before: PathBuf,
    /// Another one.
    #[arg(value_name = "B")]
    after: PathBuf,
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// Everything.
    Json,
}

/// Larger files are not compared line by line.
const SMALL: u32 = 64 << 10;

impl Diff {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let before = Side::read(&self.before)?;
        let after = Side::read(&self.after)?;
        let changes = changes(&before.image, &after.image);
        output::print(&match self.format {
            Format::Text => text(&before, &after, &changes),
            Format::Json => format!("{:#}\n", json(&before, &after, &changes)),
        })?;
        match changes.as_slice() {
            [] => Ok(()),
            _ => Err(Failure::differs()),
        }
    }
}

struct Side {
    image: Image,
    listings: Vec<Listing>,
}

impl Side {
    fn read(path: &std::path::Path) -> Result<Self, Failure> {
        let (image, listings) = read_with_files(path, SMALL)?;
        Ok(Self { image, listings })
    }
}

fn text(before: &Side, after: &Side, changes: &[Change]) -> String {
    let files = file_changes(&before.listings, &after.listings);
    let mut text = String::new();
    for change in changes {
        let moves = match change.registers {
            [] => "measured by nothing".to_owned(),
            registers => format!("moves {}", output::registers(registers)),
        };
        text += &format!("{}: {moves}\n", change.what);
        text += &format!("  - {}\n  + {}\n", change.before, change.after);
        if change.what == "command line" {
            text += &words::text(&before.image.command_line, &after.image.command_line);
        }
        if let Some(index) = ramdisk(&change.what) {
            text += &files::text(index, &before.listings, &after.listings, &files);
        }
    }
    let (moved, kept) = registers(before, after);
    text += &match moved.as_slice() {
        [] => "no register differs\n".to_owned(),
        moved => format!(
            "differ: {}; equal: {}\n",
            output::registers(moved),
            output::registers(&kept)
        ),
    };
    text
}

/// The position, from 0, of the ramdisk that a change is about.
fn ramdisk(what: &str) -> Option<usize> {
    let number: usize = what.strip_prefix("ramdisk ")?.parse().ok()?;
    number.checked_sub(1)
}

fn json(before: &Side, after: &Side, changes: &[Change]) -> Value {
    let (moved, kept) = registers(before, after);
    let shown: Vec<_> = changes
        .iter()
        .map(|change| {
            json!({
                "what": change.what,
                "before": change.before,
                "after": change.after,
                "registers": change.registers,
            })
        })
        .collect();
    // Those of a ramdisk that is said to differ: one that only stands elsewhere has all its files.
    let told = |file: &FileChange| {
        let mut ramdisks = changes.iter().filter_map(|change| ramdisk(&change.what));
        ramdisks.any(|index| index + 1 == file.ramdisk)
    };
    let files: Vec<_> = file_changes(&before.listings, &after.listings)
        .iter()
        .filter(|file| told(file))
        .map(files::json)
        .collect();
    json!({
        "equal": changes.is_empty(),
        "changes": shown,
        "command_line": words::json(&before.image.command_line, &after.image.command_line),
        "files": files,
        "not_listed": {
            "before": files::not_listed(&before.listings),
            "after": files::not_listed(&after.listings),
        },
        "registers": {"differ": moved, "equal": kept},
    })
}

/// Those that differ and those that are equal.
fn registers(before: &Side, after: &Side) -> (Vec<u8>, Vec<u8>) {
    let registers = |side: &Side| {
        let pcrs = side.image.measurements;
        [
            (0, Some(pcrs.pcr0)),
            (1, Some(pcrs.pcr1)),
            (2, Some(pcrs.pcr2)),
            (8, pcrs.pcr8),
        ]
    };
    let (mut moved, mut kept) = (Vec::new(), Vec::new());
    for (old, new) in registers(before).into_iter().zip(registers(after)) {
        match old == new {
            true => kept.push(old.0),
            false => moved.push(old.0),
        }
    }
    (moved, kept)
}
