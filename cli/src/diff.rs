use std::path::PathBuf;

use clap::Args;
use image::{Image, changes};

use crate::failure::Failure;
use crate::measure::read;
use crate::output;

/// Tell what changed between two enclave images, and which registers that moves
///
/// Exit code 0 if the images say the same, 1 if they differ.
#[derive(Args)]
#[command(after_help = "\
Example:
  cloister diff released.eif rebuilt.eif")]
pub(crate) struct Diff {
    /// An enclave image.
    #[arg(value_name = "A")]
    before: PathBuf,
    /// Another one.
    #[arg(value_name = "B")]
    after: PathBuf,
}

impl Diff {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let (before, after) = (read(&self.before)?, read(&self.after)?);
        let changes = changes(&before, &after);
        let mut text = String::new();
        for change in &changes {
            let moves = match change.registers {
                [] => "measured by nothing".to_owned(),
                registers => format!("moves {}", names(registers)),
            };
            text += &format!("{}: {moves}\n", change.what);
            text += &format!("  - {}\n  + {}\n", change.before, change.after);
        }
        let registers = |image: &Image| {
            let pcrs = image.measurements;
            [
                (0, Some(pcrs.pcr0)),
                (1, Some(pcrs.pcr1)),
                (2, Some(pcrs.pcr2)),
                (8, pcrs.pcr8),
            ]
        };
        let (mut moved, mut kept) = (Vec::new(), Vec::new());
        for (old, new) in registers(&before).into_iter().zip(registers(&after)) {
            match old == new {
                true => kept.push(old.0),
                false => moved.push(old.0),
            }
        }
        text += &match moved.as_slice() {
            [] => "no register differs\n".to_owned(),
            moved => format!("differ: {}; equal: {}\n", names(moved), names(&kept)),
        };
        output::print(&text)?;
        match changes.as_slice() {
            [] => Ok(()),
            _ => Err(Failure::differs()),
        }
    }
}

fn names(registers: &[u8]) -> String {
    let names: Vec<_> = registers
        .iter()
        .map(|index| format!("PCR{index}"))
        .collect();
    match names.as_slice() {
        [] => "none".into(),
        names => names.join(" "),
    }
}
