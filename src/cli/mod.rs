//! The command line: one file per subcommand, each with its arguments and `run`.
//!
//! A subcommand is one variant of `Command` and one line of `Command::run`.

mod bench;
pub mod certs;
mod check_config;
mod crypto;
mod ctl;
mod passwd;
mod password;
mod printable;
mod publish;
mod session;
mod start;
mod store;
mod subscribe;
mod transport;
mod url;
mod version;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use printable::complain;

use crate::config::{Config, ConfigError, ConfigErrors, ENVIRONMENT_PREFIX, Origin};
use crate::server::Prepared;

/// The end of `shangmq --help`; docs/command-line.md says more.
const EXIT_CODES: &str = "\
Exit codes:
  0         done
  1         not done, or not good: standard error says why
  2         the command line is not understood
  27        sub: the time of -W is over
  128-162   pub, sub: the reason code by which the server refused or ended the connection";

/// MQTT broker for networks that must use Chinese national cryptography: TLS, RFC 8998 and TLCP on one port.
#[derive(Debug, Parser)]
#[command(name = "shangmq", version, arg_required_else_help = true, subcommand_required = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker.
    Start(start::Arguments),
    /// Measure a server.
    Bench(bench::Arguments),
    /// Make, explain and verify certificates and TLCP pairs.
    #[command(subcommand)]
    Certs(Box<certs::CertsCommand>),
    /// Report every mistake in a configuration.
    CheckConfig(check_config::Arguments),
    /// Speak to the broker that runs on this machine: reload it, list its certificates, ban clients, change its users and rules.
    Ctl(ctl::Arguments),
    /// Set the password of a user in a password file.
    Passwd(passwd::Arguments),
    /// Publish messages.
    #[command(name = "pub")]
    Publish(Box<publish::Arguments>),
    /// Look into the durable store of a data directory, or save what can be read of a damaged one.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Subscribe and print what comes.
    #[command(name = "sub")]
    Subscribe(Box<subscribe::Arguments>),
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
        if matches!(self, Command::Bench(_) | Command::Certs(_) | Command::Publish(_) | Command::Subscribe(_)) {
            crypto::choose_by_environment()?;
        }
        match self {
            Command::Start(arguments) => arguments.run(),
            Command::Bench(arguments) => arguments.run(),
            Command::Certs(command) => {
                command.run()?;
                Ok(ExitCode::SUCCESS)
            }
            Command::CheckConfig(arguments) => arguments.run(),
            Command::Ctl(arguments) => arguments.run(),
            Command::Passwd(arguments) => arguments.run(),
            Command::Publish(arguments) => arguments.run(),
            Command::Store(command) => command.run(),
            Command::Subscribe(arguments) => arguments.run(),
            Command::Version(arguments) => arguments.run(),
        }
    }
}

/// The arguments that choose a configuration, shared by the subcommands that need one.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// Configuration file; without one, the embedded configuration for development on loopback.
    #[arg(short, long, value_name = "PATH", env = "SHANGMQ_CONFIG", global = true)]
    pub config: Option<PathBuf>,
}

impl ConfigArguments {
    /// Loads the configuration with the environment laid over it.
    ///
    /// # Errors
    /// Every mistake there is.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(self.config.as_deref(), environment()?)
    }

    /// As [`load`](Self::load), and opens the files that the configuration names.
    ///
    /// # Errors
    /// Every mistake there is.
    pub fn prepare(&self) -> Result<Prepared, ConfigErrors> {
        Prepared::load(self.config.as_deref(), environment()?)
    }
}

/// The variables of this program. Those of others need not be text.
fn environment() -> Result<Vec<(String, String)>, ConfigErrors> {
    let mut variables = Vec::new();
    let mut errors = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        if !name.starts_with(ENVIRONMENT_PREFIX) {
            continue;
        }
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) => errors.push(ConfigError::new(Origin::Environment(name.into()), "", "not UTF-8 text")),
        }
    }
    ConfigErrors::check(errors)?;
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, CommandFactory, Error, Parser};

    /// Reads what a command line that has nothing but these arguments says.
    pub fn try_parse<A: Args>(arguments: &[&str]) -> Result<A, Error> {
        let command = A::augment_args(Command::new("test").disable_help_flag(true));
        A::from_arg_matches(&command.try_get_matches_from(std::iter::once(&"test").chain(arguments))?)
    }

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn who_gives_a_revocation_list_no_name_is_told_how_it_is_written() {
        for line in [&["shangmq", "ctl", "crl", "add", "ca.crl"][..], &["shangmq", "ctl", "crl", "add"]] {
            let said = super::Cli::try_parse_from(line).unwrap_err().to_string();
            assert!(said.contains("not provided:") && said.contains("<FILE>"), "{said}");
            assert!(said.contains("shangmq ctl crl add company company-ca.crl"), "{said}");
        }
    }
}
