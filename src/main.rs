//! The `shangmq` program: arguments in, exit code out.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use shangmq::causes::Causes;
use shangmq::cli::Cli;

fn main() -> ExitCode {
    gm_tls::init();
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            // With standard error closed there is nobody left to tell; the exit code still says it.
            let _ = writeln!(std::io::stderr().lock(), "shangmq: {}", Causes(&*error));
            ExitCode::FAILURE
        }
    }
}
