//! `shangmq bench`: measures a server from the outside.

mod handshake;
mod report;

use clap::{Args, Subcommand};

use super::Outcome;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure handshakes per second and how long they take.
    ///
    /// Each attempt opens a new TCP connection; a handshake counts when it is complete, and with --mqtt when CONNACK has come.
    /// On the machine of the server this program takes a good part of the processor: the rate is then that of both sides.
    Handshake(Box<handshake::Arguments>),
}

impl Arguments {
    pub(super) fn run(self) -> Outcome {
        match self.command {
            Command::Handshake(arguments) => arguments.run(),
        }
    }
}
