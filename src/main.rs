//! The `shangmq` program: arguments in, exit code out.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use shangmq::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run().map_err(anyhow::Error::from_boxed) {
        Ok(code) => code,
        Err(error) => {
            // With standard error closed there is nobody left to tell; the exit code still says it.
            let _ = writeln!(std::io::stderr().lock(), "shangmq: {error:#}");
            ExitCode::FAILURE
        }
    }
}
