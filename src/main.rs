//! The `shangmq` program: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use shangmq::causes::Causes;
use shangmq::cli::{Cli, complain};

fn main() -> ExitCode {
    gm_tls::init();
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            complain(&Causes(&*error));
            ExitCode::FAILURE
        }
    }
}
