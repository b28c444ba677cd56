//! `shangmq version`.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::Outcome;

#[derive(Debug, Args)]
pub(super) struct Arguments {}

impl Arguments {
    pub(super) fn run(self) -> Outcome {
        writeln!(std::io::stdout().lock(), "shangmq {}", env!("CARGO_PKG_VERSION"))?;
        Ok(ExitCode::SUCCESS)
    }
}
