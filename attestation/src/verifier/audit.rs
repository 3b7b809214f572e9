//! The same steps for somebody who looks at evidence that was made for others, and knows only some of what they knew.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::{
    Verifier, check_binding, check_freshness, check_nonce, check_public_key, check_signature,
    not_debug,
};
use crate::binding::Binding;
use crate::document::UnverifiedDocument;
use crate::error::Error;
use crate::evidence::Evidence;
use crate::pcr::{Pcr, Pcrs};
use crate::reference_values::ReferenceValues;
use crate::step::Step;

/// What an auditor knows. What is absent is not judged, and the report says so.
#[derive(Debug, Clone, Copy, Default)]
pub struct Audit<'a> {
    /// The challenge that the document answered.
    pub nonce: Option<&'a [u8]>,
    /// The key that it attests, DER SubjectPublicKeyInfo.
    pub public_key: Option<&'a [u8]>,
    /// What its user data is the hash of.
    pub binding: Option<&'a Binding>,
    /// The accepted images.
    pub images: Option<&'a ReferenceValues>,
    /// Registers that must have these values, whichever images are accepted.
    pub registers: Option<&'a BTreeMap<u8, Pcr>>,
    /// Oldest acceptable document.
    pub max_age: Option<Duration>,
    /// Goes on after debug mode was seen, to look at the rest. Debug mode stays in the report.
    pub allow_debug: bool,
}

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not, and ends the audit.
    Refused(Error),
    /// It does not, and the auditor wanted to go on.
    Waived(Error),
    /// The auditor has nothing to compare with.
    NotAsked,
    /// An earlier step ended the audit.
    NotReached,
}

impl Verdict {
    /// The word in reports.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused(_) => "refused",
            Self::Waived(_) => "waived",
            Self::NotAsked => "not asked",
            Self::NotReached => "not reached",
        }
    }

    /// Why, where a step does not hold.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Refused(error) | Self::Waived(error) => Some(error),
            Self::Passed | Self::NotAsked | Self::NotReached => None,
        }
    }
}

impl Audit<'_> {
    /// None when nothing is asked about them.
    fn measurements(&self, measured: &Pcrs, now: SystemTime) -> Option<Result<(), Error>> {
        let registers = self.registers.map(|registers| {
            let wrong = |(index, expected): &(&u8, &Pcr)| measured.get(index) != Some(*expected);
            match registers.iter().find(wrong) {
                None => Ok(()),
                Some((index, expected)) => Err(Error::Measurement {
                    index: *index,
                    expected: *expected,
                    actual: measured.get(index).copied(),
                }),
            }
        });
        let images = self.images.map(|images| images.appraise(measured, now));
        match (registers, images) {
            (Some(Err(error)), _) => Some(Err(error)),
            (registers, images) => images.or(registers),
        }
    }
}

impl Verifier {
    /// Every step with its verdict, in order. There are no [`crate::Claims`] in it: nothing may be decided on an audit that
    /// asked for less than [`Verifier::verify`] does.
    pub fn audit(
        &self,
        evidence: &Evidence,
        known: &Audit<'_>,
        now: SystemTime,
    ) -> Vec<(Step, Verdict)> {
        let mut report = Report(Vec::with_capacity(Step::ALL.len()));
        let ended = self.run(evidence, known, now, &mut report).is_err();
        let reached = report.0.len();
        let rest = Step::ALL.into_iter().skip(reached);
        debug_assert!(ended || reached == Step::ALL.len());
        report
            .0
            .extend(rest.map(|step| (step, Verdict::NotReached)));
        report.0
    }

    fn run(
        &self,
        evidence: &Evidence,
        known: &Audit<'_>,
        now: SystemTime,
        report: &mut Report,
    ) -> Result<(), Ended> {
        let parsed = UnverifiedDocument::parse(evidence.as_bytes());
        let document = report.take(Step::Structure, parsed.map_err(Error::from))?;
        let leaf = report.take(Step::Chain, self.check_chain(&document, now))?;
        report.take(Step::Signature, check_signature(&document, &leaf))?;
        match not_debug(&document.pcrs) {
            Err(error) if known.allow_debug => {
                report.0.push((Step::Debug, Verdict::Waived(error)));
            }
            outcome => report.take(Step::Debug, outcome)?,
        }
        let nonce = known.nonce.map(|nonce| check_nonce(document.nonce, nonce));
        report.asked(Step::Nonce, nonce)?;
        let key = known.public_key;
        let key = key.map(|key| check_public_key(document.public_key, key));
        report.asked(Step::PublicKey, key)?;
        let binding = known.binding;
        let binding = binding.map(|binding| check_binding(document.user_data, binding));
        report.asked(Step::Binding, binding)?;
        report.asked(Step::Measurements, known.measurements(&document.pcrs, now))?;
        let age = known.max_age;
        let age = age.map(|max_age| check_freshness(document.timestamp, max_age, now));
        report.asked(Step::Freshness, age.map(|age| age.map_err(Error::from)))
    }
}

struct Ended;

struct Report(Vec<(Step, Verdict)>);

impl Report {
    fn take<T>(&mut self, step: Step, outcome: Result<T, Error>) -> Result<T, Ended> {
        match outcome {
            Ok(value) => {
                self.0.push((step, Verdict::Passed));
                Ok(value)
            }
            Err(error) => {
                self.0.push((step, Verdict::Refused(error)));
                Err(Ended)
            }
        }
    }

    fn asked(&mut self, step: Step, outcome: Option<Result<(), Error>>) -> Result<(), Ended> {
        match outcome {
            Some(outcome) => self.take(step, outcome),
            None => {
                self.0.push((step, Verdict::NotAsked));
                Ok(())
            }
        }
    }
}
