//! What a storm of handshakes does to those who have nothing to do with it. A broker of its own; clients that are connected and exchange
//! messages at a fixed rate, plain and over TLCP; thousands of abusive clients, a third each of those that send a hello and nothing more, that
//! complete a handshake and go, and that send garbage, each beginning anew as soon as it can; and honest clients that want in meanwhile.
//! `make bench-storm`. All of it shares the processors of one machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark that cannot set itself up must stop, and it prints what it measured"
)]

mod attack;
mod newcomers;
mod report;
mod steady;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use gm_tls::cert::Certificate;
use gm_tls::client::{ClientOptions, ClientProtocol, Connector};
use shangmq::dev_certs::{self, DevCerts};
use testkit::BrokerProcess;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use attack::Attack;
use newcomers::Newcomers;
use report::Report;
use steady::Steady;

#[derive(Debug, Parser)]
struct Arguments {
    /// Abusive clients at the same time
    #[arg(long, default_value_t = 5000)]
    attackers: usize,
    /// Seconds that the storm lasts; it is measured as long before and after it
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Another broker than the one that was built
    #[arg(long, default_value = env!("CARGO_BIN_EXE_shangmq"))]
    program: PathBuf,
    /// Lines of configuration for the secured listener
    #[arg(long, default_value = "")]
    listener: String,
    /// Cargo's word for benchmarks
    #[arg(long, hide = true)]
    bench: bool,
}

/// Where abusive clients come from.
#[derive(Debug, Clone, Copy)]
enum From {
    OneAddress,
    ManyAddresses,
}

impl From {
    fn address(self, number: usize) -> Ipv4Addr {
        match self {
            From::OneAddress => Ipv4Addr::new(127, 0, 0, 2),
            // 127.1.0.1 and upwards.
            From::ManyAddresses => Ipv4Addr::from_bits(0x7f01_0001 + u32::try_from(number).unwrap()),
        }
    }

    fn words(self) -> &'static str {
        match self {
            From::OneAddress => "from one address",
            From::ManyAddresses => "each from an address of its own",
        }
    }
}

/// The address of honest newcomers.
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Both ends of each connection have one, in two processes.
    let wanted = arguments.attackers as u64 + 1000;
    assert!(rlimit::increase_nofile_limit(wanted).unwrap() >= wanted, "{wanted} descriptors are needed (ulimit -Hn)");
    let dir = tempfile::tempdir().unwrap();
    let certificates = dev_certs::ensure(dir.path()).unwrap();
    let mut good = true;
    for from in [From::OneAddress, From::ManyAddresses] {
        let report = storm(&arguments, &certificates, from);
        println!("{report}");
        good &= report.is_good();
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn storm(arguments: &Arguments, certificates: &DevCerts, from: From) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let broker = BrokerProcess::start(&arguments.program, &configuration(certificates, &arguments.listener)).await;
        let (plain, secured) = (broker.address("tcp:default"), broker.address("ssl:default"));
        // Who attacks does not ask whom.
        let (connector, of_attackers) = (connector(certificates, true), connector(certificates, false));
        let length = Duration::from_secs(arguments.seconds);
        let epoch = Instant::now();
        let steady = Steady::start(plain, secured, connector.clone(), epoch);
        let newcomers = Newcomers::start(secured, connector, epoch);
        tokio::time::sleep(length).await;
        let attack = Attack::begin(arguments.attackers, from, secured, of_attackers).await;
        let (began, processor) = (epoch.elapsed(), broker.processor_time());
        tokio::time::sleep(length).await;
        let (ended, processor) = (epoch.elapsed(), broker.processor_time() - processor);
        let attempts = attack.end();
        tokio::time::sleep(length).await;
        let storm = began..ended;
        let (newcomers, steady) = (newcomers.stop(), steady.stop());
        Report { attackers: arguments.attackers, from: from.words(), storm, steady, newcomers, attempts, processor }
    })
}

fn configuration(certificates: &DevCerts, listener: &str) -> String {
    let path = |path: &Path| format!("{:?}", path.to_str().unwrap());
    let (sign, enc) = (certificates.server_sign(), certificates.server_enc());
    let ecdsa = certificates.server_ecdsa();
    format!(
        "[node]\ndata_dir = \"data\"\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n\
         [listeners.tcp.default]\nbind = \"127.0.0.1:0\"\n\
         [listeners.ssl.default]\nbind = \"127.0.0.1:0\"\n{listener}\n\
         [listeners.ssl.default.ssl_options]\ncertfile = {}\nkeyfile = {}\n\
         [listeners.ssl.default.tlcp_options]\nsign_certfile = {}\nsign_keyfile = {}\nenc_certfile = {}\nenc_keyfile = {}\n",
        path(&ecdsa.cert),
        path(&ecdsa.key),
        path(&sign.cert),
        path(&sign.key),
        path(&enc.cert),
        path(&enc.key),
    )
}

fn connector(certificates: &DevCerts, verify: bool) -> Connector {
    let ca = Certificate::anchors_from_file("ca", &certificates.ca_bundle()).unwrap();
    let options =
        ClientOptions { ca, verify, verify_hostname: verify, ..ClientOptions::new(ClientProtocol::Tlcp, "localhost") };
    Connector::new(&options).unwrap()
}

/// A TCP connection from an address of this machine.
async fn dial(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
