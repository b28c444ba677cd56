//! `shangmq store`: reads a store that a broker does not use, and saves what can be read of a damaged one.

use super::Outcome;
use crate::store::{Directory, Findings, Table, check, recover};
use clap::{Args, Subcommand};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
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
                // Only who recovers it reads what clients sent.
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&arguments.to)
                    .map_err(|cause| format!("{}: {cause}", arguments.to.display()))?;
                say(&recover(&from, &arguments.to)?, "recovered")
            }
        }
    }
}

/// A directory without a store is most likely a wrong one, and nothing is made in it.
fn open(path: &Path) -> Result<Directory, Box<dyn std::error::Error + Send + Sync>> {
    const ASK: &str = "give the data directory of the broker, node.data_dir in its configuration";
    match path.metadata() {
        Ok(found) if !found.is_dir() => Err(format!("{} is not a directory; {ASK}", path.display()).into()),
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            Err(format!("there is no directory {}; {ASK}", path.display()).into())
        }
        Err(cause) => Err(format!("{}: {cause}", path.display()).into()),
        Ok(_) if !Directory::has_store(path) => {
            Err(format!("there is no store in the directory {}; {ASK}", path.display()).into())
        }
        Ok(_) => Ok(Directory::open(path)?),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, WallClock};
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    #[test]
    fn a_directory_that_cannot_be_the_right_one_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (directory, words) in [
            (dir.path().join("nodir"), "there is no directory "),
            (dir.path().to_owned(), "there is no store in the directory "),
            (file, "is not a directory; "),
        ] {
            let refused = StoreCommand::Check(Check { directory }).run().unwrap_err().to_string();
            assert!(refused.contains(words) && refused.contains("give the data directory of the broker"), "{refused}");
        }
        let left: Vec<_> = dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["file"]);
    }

    #[test]
    fn only_its_owner_enters_the_directory_of_a_recovered_store() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        let config = Default::default();
        let (store, _) =
            Store::open(Arc::new(directory), config, WallClock::default(), Arc::default(), |_| {}).unwrap();
        assert!(store.close());
        drop(store);
        let to = dir.path().join("recovered");
        StoreCommand::Recover(Recover { directory: dir.path().to_owned(), to: to.clone() }).run().unwrap();
        assert_eq!(to.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
