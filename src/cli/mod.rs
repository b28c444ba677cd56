//! The command line: one file per subcommand, each with its arguments and `run`.
//!
//! A subcommand is one variant of [`Command`] and one line of [`Command::run`].

mod check_config;
mod passwd;
mod version;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigErrors};

/// MQTT broker for networks that must use Chinese national cryptography: TLS, RFC 8998 and TLCP on one port.
#[derive(Debug, Parser)]
#[command(name = "shangmq", version, arg_required_else_help = true, subcommand_required = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report every mistake in a configuration.
    CheckConfig(check_config::Arguments),
    /// Set the password of a user in a password file.
    Passwd(passwd::Arguments),
    /// Print the version.
    Version(version::Arguments),
}

/// What a subcommand comes to: an exit code for what it reported itself, or an error for `main` to report.
pub type Outcome = Result<ExitCode, Box<dyn Error + Send + Sync>>;

impl Cli {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// What kept it from doing its work.
    pub fn run(self) -> Outcome {
        self.command.run()
    }
}

impl Command {
    fn run(self) -> Outcome {
        match self {
            Command::CheckConfig(arguments) => arguments.run(),
            Command::Passwd(arguments) => arguments.run(),
            Command::Version(arguments) => arguments.run(),
        }
    }
}

/// The arguments that choose a configuration, shared by the subcommands that need one.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// Configuration file; without one, the embedded configuration for development on loopback.
    #[arg(short, long, value_name = "PATH", env = "SHANGMQ_CONFIG")]
    pub config: Option<PathBuf>,
}

impl ConfigArguments {
    /// Loads the configuration with the environment laid over it.
    ///
    /// # Errors
    /// Every mistake there is.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        // A variable that is not text cannot be named like an override and have a value that any key accepts.
        let environment =
            std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
        Config::load(self.config.as_deref(), environment)
    }
}

fn lossy(text: std::ffi::OsString) -> String {
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
