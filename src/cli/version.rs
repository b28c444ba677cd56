//! `shangmq version`: of the program and of the library that does its cryptography, which an assessment asks for.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::Outcome;

#[derive(Debug, Args)]
pub(super) struct Arguments {}

impl Arguments {
    pub(super) fn run(self) -> Outcome {
        writeln!(std::io::stdout().lock(), "shangmq {}\n{}", env!("CARGO_PKG_VERSION"), gm_tls::library_version())?;
        Ok(ExitCode::SUCCESS)
    }
}
