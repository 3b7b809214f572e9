//! What people see: lines on stdout, progress on stderr while it is a terminal.

use std::io::{self, Write as _};
use std::path::Path;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use sealed_model::SealProgress;

use crate::failure::Failure;

/// Prints to stdout. A reader that went away, as `head` does, is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::io("write", Path::new("standard output"), error)),
    })
}

/// `name   value`, names aligned.
pub(crate) fn field(text: &mut String, name: &str, value: impl std::fmt::Display) {
    text.push_str(&format!("{name:<12}{value}\n"));
}

pub(crate) fn bytes(count: u64) -> String {
    HumanBytes(count).to_string()
}

/// `PCR0 PCR2`, or `none`.
pub(crate) fn registers(indices: &[u8]) -> String {
    let names: Vec<_> = indices.iter().map(|index| format!("PCR{index}")).collect();
    match names.as_slice() {
        [] => "none".into(),
        names => names.join(" "),
    }
}

/// A bar for bytes; it draws nothing where stderr is not a terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(verb: &'static str) -> Self {
        let bar = ProgressBar::new(0).with_prefix(verb);
        let template =
            "{prefix:>9} [{bar:32}] {bytes}/{total_bytes} {binary_bytes_per_sec} {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }

    pub(crate) fn show(&self, progress: SealProgress<'_>) {
        self.0.set_length(progress.total);
        // Threads report out of order.
        self.0.set_position(progress.done.max(self.0.position()));
        self.0.set_message(progress.file.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
