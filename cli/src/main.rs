//! `cloister`: seal, inspect and unseal models, look at evidence, build and measure enclave images.
mod artefact;
mod attest;
mod build_eif;
mod build_image;
mod describe;
mod diff;
mod failure;
mod files;
mod inspect;
mod keygen;
mod kms;
mod measure;
mod measurements;
mod output;
mod policy_text;
mod rotate;
mod seal;
mod sign;
mod spire_entries;
mod spire_preflight;
mod unseal;
mod verify;
mod verify_image;
mod verify_model;

use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Parser, Subcommand};

/// Seal a model so that only attested enclaves can open it, and look at what was sealed or attested.
///
/// Exit codes: 0 done, 1 not the same (diff), 64 usage or bad input, 69 something needed could not be read or written, 70 a bug, 77 refused.
#[derive(Parser)]
#[command(name = "cloister", version, after_help = keygen::EXAMPLE)]
struct Cloister {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Keygen(keygen::Keygen),
    Seal(Box<seal::Seal>),
    Inspect(inspect::Inspect),
    Unseal(unseal::Unseal),
    Rotate(rotate::Rotate),
    VerifyModel(verify_model::VerifyModel),
    Verify(verify::Verify),
    Measure(measure::Measure),
    Diff(diff::Diff),
    BuildEif(build_eif::BuildEif),
    BuildImage(Box<build_image::BuildImage>),
    Describe(describe::Describe),
    Sign(sign::Sign),
    Attest(attest::Attest),
    VerifyImage(verify_image::VerifyImage),
    Measurements(measurements::Measurements),
    SpirePreflight(spire_preflight::SpirePreflight),
}

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "time enters here")]
    let now = SystemTime::now();
    let outcome = match Cloister::try_parse().map(|cloister| cloister.command) {
        Ok(Command::Keygen(command)) => command.run(),
        Ok(Command::Seal(command)) => command.run(now),
        Ok(Command::Inspect(command)) => command.run(),
        Ok(Command::Unseal(command)) => command.run(),
        Ok(Command::Rotate(command)) => command.run(now),
        Ok(Command::VerifyModel(command)) => command.run(),
        Ok(Command::Verify(command)) => command.run(now),
        Ok(Command::Measure(command)) => command.run(),
        Ok(Command::Diff(command)) => command.run(),
        Ok(Command::BuildEif(command)) => command.run(),
        Ok(Command::BuildImage(command)) => command.run(),
        Ok(Command::Describe(command)) => command.run(),
        Ok(Command::Sign(command)) => command.run(),
        Ok(Command::Attest(command)) => command.run(),
        Ok(Command::VerifyImage(command)) => command.run(),
        Ok(Command::Measurements(command)) => command.run(now),
        Ok(Command::SpirePreflight(command)) => command.run(),
        Err(usage) => failure::show_usage(&usage),
    };
    outcome.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}
