//! `shangmq start`: runs the broker until it is told to stop.

use super::{ConfigArguments, Outcome};
use crate::config::ListenerKind;
use crate::dev_certs::{self, DEFAULT_DIR};
use crate::net::{PreparedListener, handshake_runtime};
use crate::operator::Trigger;
use crate::server::{Prepared, Server};
use crate::telemetry;
use clap::Args;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
}

impl Arguments {
    pub(super) fn run(self) -> Outcome {
        let made = match &self.config.config {
            None => Some(dev_certs::ensure(Path::new(DEFAULT_DIR))?),
            Some(_) => None,
        };
        // Before any key is read.
        set_core_dumps(false)?;
        let prepared = self.config.prepare()?;
        let config = prepared.config();
        if config.node.core_dumps {
            set_core_dumps(true)?;
        }
        let _logging = telemetry::init(&config.log)?;
        if let Some(made) = &made {
            warn!(
                "no configuration file: running for development, on loopback only, open to anonymous clients; use --config for anything else"
            );
            info!(
                directory = DEFAULT_DIR,
                made = made.created(),
                "development certificates; never use them outside this machine"
            );
        }
        check_user(&config.node.data_dir)?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.node.data_dir)
            .map_err(|cause| format!("node.data_dir: cannot create {}: {cause}", config.node.data_dir.display()))?;
        let listeners = prepared.listeners().iter().flat_map(PreparedListener::warnings);
        for warning in config.warnings.iter().cloned().chain(listeners) {
            warn!("{warning}");
        }
        raise_descriptor_limit(prepared.listeners());
        let is_secured = |listener: &PreparedListener| listener.config().kind.tls().is_some();
        let handshakes = prepared.listeners().iter().any(is_secured).then(handshake_runtime).transpose()?;
        let prepared = match &handshakes {
            Some(runtime) => prepared.handshakes_in(runtime.handle()),
            None => prepared,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(serve(prepared, made.is_some()));
        // Not waited for: what is not established yet ends with the process.
        if let Some(handshakes) = handshakes {
            handshakes.shutdown_background();
        }
        outcome
    }
}

async fn serve(prepared: Prepared, development: bool) -> Outcome {
    // Installed before anything listens, so that no signal finds the default action.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let kinds: Vec<(String, ListenerKind)> =
        prepared.listeners().iter().map(|listener| (listener.config().id(), listener.config().kind.clone())).collect();
    let data_dir = prepared.config().node.data_dir.clone();
    let mut server = Server::run(prepared).await?;
    if let Err(cause) = server.open_channel(&data_dir) {
        warn!(%cause, "shangmq ctl cannot reach this broker; SIGHUP reloads it all the same");
    }
    if development {
        let banner = banner(&server, &kinds);
        std::io::stdout().lock().write_all(banner.as_bytes())?;
    }
    info!("ready");
    loop {
        // Every branch is cancel-safe: a signal that is not received here is received in the next round.
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM received"),
            _ = interrupt.recv() => info!("SIGINT received"),
            _ = hangup.recv() => {
                // The outcome is in the log.
                let _ = server.operator().reload_aside(Trigger::Signal).await;
                continue;
            }
        }
        break;
    }
    server.shutdown().await;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// What root writes into the data directory of another user, that user's broker cannot use afterwards.
fn check_user(data_dir: &Path) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    // What is wrong with one that cannot be looked at, its making says.
    let owner = data_dir.metadata().map_or(0, |found| found.uid());
    misplaced_root(rustix::process::geteuid().as_raw(), owner).map_or(Ok(()), |owner| {
        Err(format!(
            "node.data_dir: {} belongs to user {owner}, whose broker could not use what root puts there; run this as that user, for \
             instance with `sudo -u`",
            data_dir.display()
        ))
    })
}

/// The owner of a directory who would be in the way of root, or root in the owner's.
fn misplaced_root(user: u32, owner: u32) -> Option<u32> {
    (user == 0 && owner != 0).then_some(owner)
}

/// Whether the kernel may write the memory of this process to a file. The limit holds for files, and not where the kernel gives dumps to
/// a program; for that the process is marked, which also keeps other processes of its user from looking into it.
fn set_core_dumps(allowed: bool) -> Result<(), std::io::Error> {
    let (_, hard) = rlimit::Resource::CORE.get()?;
    rlimit::Resource::CORE.set(if allowed { hard } else { 0 }, hard)?;
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(if allowed { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable })?;
    }
    Ok(())
}

/// A broker needs a descriptor for each connection; the soft limit of a shell is often 1,024.
fn raise_descriptor_limit(listeners: &[PreparedListener]) {
    let connections = listeners.iter().map(|listener| listener.config().max_connections as u64).sum::<u64>();
    let wanted = connections.saturating_add(1024);
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit < wanted => {
            info!(
                limit,
                wanted,
                "fewer file descriptors than the listeners' max_connections; raise the hard limit (LimitNOFILE) to use them all"
            );
        }
        Ok(_) => {}
        Err(cause) => warn!(%cause, "the file descriptor limit could not be raised"),
    }
}

/// The commands that try out each protocol, as they can be typed.
fn banner(server: &Server, kinds: &[(String, ListenerKind)]) -> String {
    let program =
        std::env::args_os().next().map_or_else(|| "shangmq".into(), |name| name.to_string_lossy().into_owned());
    let mut text = String::from("\nSubscribe in one terminal and publish in another, over any two protocols:\n");
    for (id, address) in server.addresses() {
        let Some((_, kind)) = kinds.iter().find(|(known, _)| **known == **id) else { continue };
        for (title, options) in variants(kind) {
            let target = target(*address);
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "\n# {title} ({id})\n  {program} sub {target}{options} -t demo/# -v\n  {program} pub {target}{options} -t demo/hello -m 'hello over {title}'\n"
            );
        }
    }
    text.push('\n');
    text
}

fn target(address: SocketAddr) -> String {
    format!("-h {} -p {}", address.ip(), address.port())
}

/// What can be spoken on a listener: its name and the options of the command line.
fn variants(kind: &ListenerKind) -> Vec<(&'static str, String)> {
    let file = |name: &str| format!("{DEFAULT_DIR}/{name}");
    let secure = |over: &str| {
        vec![
            ("TLS 1.3", format!("{over} --protocol tls1.3 --cafile {}", file("ecdsa-ca.crt"))),
            ("TLS 1.2", format!("{over} --protocol tls1.2 --cafile {}", file("ecdsa-ca.crt"))),
            ("RFC 8998", format!("{over} --protocol rfc8998 --cafile {}", file("sm2-ca.crt"))),
            ("TLCP", format!("{over} --protocol tlcp --cafile {}", file("sm2-ca.crt"))),
            (
                "TLCP with a client pair",
                format!(
                    "{over} --protocol tlcp --cafile {} --sign-cert {} --sign-key {} --enc-cert {} --enc-key {}",
                    file("sm2-ca.crt"),
                    file("client-sign.crt"),
                    file("client-sign.key"),
                    file("client-enc.crt"),
                    file("client-enc.key")
                ),
            ),
        ]
    };
    match kind {
        ListenerKind::Tcp => vec![("plain TCP", String::new())],
        ListenerKind::Ws(_) => vec![("WebSocket", " --ws".to_owned())],
        ListenerKind::Ssl(_) => secure(""),
        ListenerKind::Wss(..) => secure(" --ws"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Dumps held keys, wherever the machine puts them.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_with_keys_leaves_no_core_dump() {
        use rustix::process::{DumpableBehavior, dumpable_behavior};
        set_core_dumps(false).unwrap();
        assert_eq!(rlimit::Resource::CORE.get().unwrap().0, 0);
        assert!(matches!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable));
        set_core_dumps(true).unwrap();
        assert!(matches!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable));
    }

    // A broker that was started once as root left files that the one of the owner could not remove.
    #[test]
    fn root_starts_no_broker_in_the_directory_of_another_user() {
        assert_eq!(misplaced_root(0, 1000), Some(1000));
        assert_eq!((misplaced_root(0, 0), misplaced_root(1000, 1000), misplaced_root(1000, 0)), (None, None, None));
    }
}
