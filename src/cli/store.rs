//! `shangmq store`: reads a store that a broker does not use, and saves what can be read of a damaged one.

use super::Outcome;
use crate::store::{Directory, Findings, Table, check, recover};
use clap::{Args, Subcommand};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Read the whole store of a data directory and say what it holds and what is damaged. Changes nothing.
    Check(Check),
    /// Write everything that can be read of a damaged store to a new data directory. Changes nothing in the old one.
    Recover(Recover),
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The data directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Recover {
    /// The data directory with the damaged store.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// A new data directory; made if it is not there, and without a store.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

impl StoreCommand {
    pub(super) fn run(self) -> Outcome {
        match self {
            StoreCommand::Check(arguments) => say(&check(&open(&arguments.directory)?)?, "can be read"),
            StoreCommand::Recover(arguments) => {
                let from = open(&arguments.directory)?;
                std::fs::create_dir_all(&arguments.to)
                    .map_err(|cause| format!("{}: {cause}", arguments.to.display()))?;
                say(&recover(&from, &arguments.to)?, "recovered")
            }
        }
    }
}

/// A directory without a store is most likely a wrong one.
fn open(path: &Path) -> Result<Directory, Box<dyn std::error::Error + Send + Sync>> {
    let directory = Directory::open(path)?;
    if !directory.database().is_file() {
        return Err(format!("{}: no such file", directory.database().display()).into());
    }
    Ok(directory)
}

/// Exit code 1 says that something is damaged.
fn say(findings: &Findings, what: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    for (table, rows) in Table::ALL.into_iter().zip(findings.rows) {
        writeln!(out, "{:<14} {rows:>10} rows {what}", table.name())?;
    }
    if findings.is_good() {
        writeln!(out, "no damage")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{} damaged rows", findings.damaged_rows)?;
    for fault in &findings.faults {
        writeln!(out, "damage: {fault}")?;
    }
    Ok(ExitCode::FAILURE)
}
