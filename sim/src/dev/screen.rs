//! What a person sees: steps while it starts, a table of what was verified, answers as they come.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

/// Prints on stderr; a closed terminal is no reason to fail.
#[derive(Clone, Copy)]
pub(crate) struct Screen {
    colour: bool,
    live: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let live = std::io::stderr().is_terminal();
        Self {
            colour: live && std::env::var_os("NO_COLOR").is_none(),
            live,
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn put(self, text: &str) {
        let mut out = std::io::stderr().lock();
        if out.write_all(text.as_bytes()).is_ok() && out.flush().is_err() {
            tracing::debug!("stderr is closed");
        }
    }

    pub(crate) fn line(self, text: &str) {
        self.put(&format!("{text}\n"));
    }

    pub(crate) fn heading(self, text: &str) {
        self.put(&format!("\n{}\n", self.paint("1", text)));
    }

    /// One step of the start; on a terminal it is overwritten by the next.
    pub(crate) fn step(self, text: &str) {
        if self.live {
            self.put(&format!("\r\x1b[K  {}", self.paint("2", text)));
        } else {
            self.put(&format!("  {text}\n"));
        }
    }

    pub(crate) fn steps_done(self) {
        if self.live {
            self.put("\r\x1b[K");
        }
    }

    pub(crate) fn field(self, name: &str, value: &str) {
        self.put(&format!(
            "  {} {value}\n",
            self.paint("2", &format!("{name:<22}"))
        ));
    }

    pub(crate) fn good(self, text: &str) {
        self.put(&format!("  {} {text}\n", self.paint("32", "ok")));
    }

    /// Part of an answer, as it came.
    pub(crate) fn piece(self, text: &str) {
        self.put(text);
    }
}

pub(crate) fn fail(message: &str, code: u8) -> ExitCode {
    let screen = Screen::new();
    screen.steps_done();
    screen.line(&format!("{} {message}", screen.paint("31", "error:")));
    ExitCode::from(code)
}
