use zeroize::Zeroizing;

use super::{
    CLOSE, CallFormat, LIST, OPEN,
    parse::{one, several},
};
use crate::{Tool, ToolCall};

/// Takes the calls out of an answer's text.
pub(crate) struct CallFilter {
    format: CallFormat,
    names: Vec<String>,
    /// Nothing comes after the first call.
    single: bool,
    state: State,
    /// What may become a call, or is one that is not whole.
    held: Zeroizing<String>,
    calls: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but space has come.
    Start,
    Text,
    /// A call has begun.
    Call,
    Over,
}

/// What an answer goes on with.
pub(crate) enum Passed {
    Text(Zeroizing<String>),
    Call(ToolCall),
}

impl CallFilter {
    /// `forced` if the opening was part of the prompt.
    pub(crate) fn new(format: CallFormat, tools: &[Tool], single: bool, forced: bool) -> Self {
        Self {
            format,
            names: tools.iter().map(|tool| tool.name.clone()).collect(),
            single,
            state: match forced {
                true => State::Call,
                false => State::Start,
            },
            held: Zeroizing::default(),
            calls: 0,
        }
    }

    pub(crate) fn push(&mut self, piece: &str) -> Vec<Passed> {
        self.held.push_str(piece);
        let mut passed = Vec::new();
        while self.step(&mut passed) {}
        passed
    }

    /// What was held back, since nothing follows.
    pub(crate) fn finish(&mut self) -> Vec<Passed> {
        let held = std::mem::take(&mut self.held);
        let calls = match (self.state, self.format) {
            (State::Over, _) => return Vec::new(),
            (State::Start | State::Text, _) => None,
            (State::Call, CallFormat::Tagged) => one(&held, &self.names).map(|call| vec![call]),
            (State::Call, CallFormat::Bare | CallFormat::Listed) => several(&held, &self.names),
        };
        let mut passed = Vec::new();
        match calls {
            Some(mut calls) => {
                if self.single {
                    calls.truncate(1);
                }
                self.calls += calls.len();
                passed.extend(calls.into_iter().map(Passed::Call));
            }
            None if self.state == State::Call => self.text(&self.undone(&held), &mut passed),
            None => self.text(&held, &mut passed),
        }
        self.state = State::Over;
        passed
    }

    /// Bytes that were pushed and not passed.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// What has come of a call that is not whole.
    pub(crate) fn begun(&self) -> Option<&str> {
        (self.state == State::Call).then_some(self.held.as_str())
    }

    pub(crate) fn has_called(&self) -> bool {
        self.calls > 0
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// True if there may be more to do.
    fn step(&mut self, passed: &mut Vec<Passed>) -> bool {
        match (self.state, self.format) {
            (State::Over, _) => {
                self.held = Zeroizing::default();
                false
            }
            (State::Start, CallFormat::Bare) => {
                let begun = self.held.trim_start();
                if begun.is_empty() {
                    return false;
                }
                self.state = match begun.starts_with('{') {
                    true => State::Call,
                    false => State::Text,
                };
                true
            }
            (State::Text, CallFormat::Bare) => {
                let held = std::mem::take(&mut self.held);
                self.text(&held, passed);
                false
            }
            (State::Start | State::Text, CallFormat::Tagged) => self.open(OPEN, passed),
            (State::Start | State::Text, CallFormat::Listed) => self.open(LIST, passed),
            (State::Call, CallFormat::Tagged) => self.close(passed),
            // To the end of the answer.
            (State::Call, CallFormat::Bare | CallFormat::Listed) => false,
        }
    }

    /// Passes text up to where a call begins, or may begin.
    fn open(&mut self, sign: &str, passed: &mut Vec<Passed>) -> bool {
        let found = self.held.find(sign);
        let end = found.unwrap_or_else(|| {
            let longest = (1..sign.len()).rev();
            let begun = longest.filter_map(|length| sign.get(..length));
            let begun = begun.into_iter().find(|begun| self.held.ends_with(begun));
            self.held.len() - begun.map_or(0, str::len)
        });
        let text = self.cut(end);
        self.text(&text, passed);
        if found.is_some() {
            self.cut(sign.len());
            self.state = State::Call;
        }
        found.is_some()
    }

    fn close(&mut self, passed: &mut Vec<Passed>) -> bool {
        let Some(end) = self.held.find(CLOSE) else {
            return false;
        };
        let inside = self.cut(end);
        self.cut(CLOSE.len());
        self.state = State::Text;
        match one(&inside, &self.names) {
            Some(call) => {
                self.calls += 1;
                passed.push(Passed::Call(call));
                if self.single {
                    self.state = State::Over;
                }
            }
            None => self.text(&format!("{OPEN}{}{CLOSE}", inside.as_str()), passed),
        }
        true
    }

    /// What turned out not to be a call, as it was written.
    fn undone(&self, held: &str) -> Zeroizing<String> {
        let sign = match self.format {
            CallFormat::Tagged => OPEN,
            CallFormat::Bare => "",
            CallFormat::Listed => LIST,
        };
        Zeroizing::new(format!("{sign}{held}"))
    }

    /// Space between calls and after them is nobody's text.
    fn text(&self, text: &str, passed: &mut Vec<Passed>) {
        let space = self.calls > 0 && text.trim().is_empty();
        if !text.is_empty() && !space {
            passed.push(Passed::Text(Zeroizing::new(text.to_owned())));
        }
    }

    /// Takes so many bytes from the beginning.
    fn cut(&mut self, bytes: usize) -> Zeroizing<String> {
        let rest = Zeroizing::new(self.held.get(bytes..).unwrap_or_default().to_owned());
        self.held.truncate(bytes);
        std::mem::replace(&mut self.held, rest)
    }
}
