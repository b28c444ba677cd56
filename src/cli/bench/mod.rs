//! `shangmq bench`: measures a server from the outside.

mod cause;
mod connections;
mod flow;
mod handshake;
mod idle;
mod options;
mod pool;
mod progress;
mod report;
mod shapes;

use std::fmt::Display;
use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde::Serialize;

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
    /// Measure connections per second: CONNECT, CONNACK, DISCONNECT, closed by the server.
    Conn(Box<connections::Arguments>),
    /// Publish, and count what the server takes.
    Pub(Box<shapes::PubArguments>),
    /// Subscribe, and count what comes; messages of `bench pub` by their sequence.
    Sub(Box<shapes::SubArguments>),
    /// Pairs of one publisher and one subscriber on a topic of their own.
    ///
    /// Rates count what subscribers received while publishers were publishing. At QoS 0 a server may drop what it cannot deliver:
    /// compare what was received, and look at what is missing.
    Pair(Box<shapes::PairArguments>),
    /// Few publishers to many subscribers.
    Fanout(Box<shapes::FanoutArguments>),
    /// Many publishers to few subscribers, by a filter with a wildcard.
    Fanin(Box<shapes::FaninArguments>),
    /// Open connections that do nothing, and see what they cost a server on this machine.
    Idle(Box<idle::Arguments>),
}

impl Arguments {
    pub(super) fn run(self) -> Outcome {
        match self.command {
            Command::Handshake(arguments) => arguments.run(),
            Command::Conn(arguments) => arguments.run(),
            Command::Pub(arguments) => arguments.run(),
            Command::Sub(arguments) => arguments.run(),
            Command::Pair(arguments) => arguments.run(),
            Command::Fanout(arguments) => arguments.run(),
            Command::Fanin(arguments) => arguments.run(),
            Command::Idle(arguments) => arguments.run(),
        }
    }
}

/// Runs `measurement` on this thread. The end does not wait for what the measurement has left behind.
fn on_this_thread(measurement: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(measurement);
    runtime.shutdown_background();
    outcome
}

/// Writes a report to standard output, for machines or for people.
fn write_report(report: &(impl Serialize + Display), json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()
}
