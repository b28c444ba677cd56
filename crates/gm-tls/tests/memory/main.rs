//! What an idle connection costs: its engine, after a mutual handshake and an exchange of data. In a process of its own, so that
//! nothing else allocates meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "tongsuo")]
#![allow(dead_code, unused_imports, unused_macros)]

#[path = "../tls/certificates.rs"]
mod certificates;
#[path = "../tls/harness.rs"]
mod harness;

pub const PROVIDER: gm_tls::provider::Provider = gm_tls::provider::Provider::Accelerated;

use std::mem::MaybeUninit;

use gm_tls::{
    client::{ClientProtocol, Connector},
    engine::{Engine, Progress, ReadOutcome},
    hello::{self, Parse},
    server::{ServerContexts, VerifyMode},
};

const CONNECTIONS: u64 = 1000;
/// What the record layer of an installed Tongsuo takes more than that of our recipe (vendor/README.md).
const WIDE_RECORD_LAYER: u64 = if option_env!("TONGSUO_NO_VENDOR").is_some() { 10 * 1024 } else { 0 };
/// Bytes with or without client certificates, of which the engine keeps no decoded copy. The goal is 20 KiB for a whole
/// connection; the broker's part of it is measured in the broker's own test of its footprint.
const CEILING: u64 = 16 * 1024 + WIDE_RECORD_LAYER;

fn proportional_set_size() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A server's engine that has shaken hands and exchanged data with a client which is gone.
fn idle(contexts: &ServerContexts, connector: &Connector) -> Engine {
    let (mut server, mut client) = harness::engines(contexts, connector);
    let mut buffer = [MaybeUninit::uninit(); 4096];
    client.write(&[1; 2000]).unwrap();
    server.receive(client.output());
    assert_eq!(server.read(&mut buffer).unwrap(), ReadOutcome::Data(2000));
    assert_eq!(server.read(&mut buffer).unwrap(), ReadOutcome::NeedsInput);
    server.write(&[1; 2000]).unwrap();
    server.consume_output(usize::MAX);
    server
}

#[test]
fn an_idle_connection_stays_below_the_ceiling() {
    // Kept to the end: memory that one protocol frees would serve the next, which would then seem to need none.
    let mut kept = Vec::new();
    let mut report = Vec::new();
    for (name, protocol, mutual) in [
        ("tls1.2", ClientProtocol::Tls12, false),
        ("tls1.3", ClientProtocol::Tls13, false),
        ("rfc8998", ClientProtocol::Rfc8998, false),
        ("tlcp", ClientProtocol::Tlcp, false),
        ("tls1.2 mutual", ClientProtocol::Tls12, true),
        ("tls1.3 mutual", ClientProtocol::Tls13, true),
        ("rfc8998 mutual", ClientProtocol::Rfc8998, true),
        ("tlcp mutual", ClientProtocol::Tlcp, true),
    ] {
        let (options, verify) = if mutual {
            (harness::mutual_options(protocol), VerifyMode::Required)
        } else {
            (harness::client_options(protocol), VerifyMode::None)
        };
        let (contexts, connector) = (harness::server(verify), Connector::new(&options).unwrap());
        // What the first connections leave in the allocator and the library is no connection's own.
        kept.extend((0..50).map(|_| idle(&contexts, &connector)));
        let before = proportional_set_size();
        kept.extend((0..CONNECTIONS).map(|_| idle(&contexts, &connector)));
        let each = proportional_set_size().saturating_sub(before) / CONNECTIONS;
        report.push((name, each));
    }
    for (name, each) in &report {
        println!("{name}: {each} bytes");
    }
    for (name, each) in report {
        assert!(each <= CEILING, "{name}: {each} bytes for an idle connection, more than {CEILING}");
    }
}
