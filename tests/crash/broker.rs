//! The broker under load: one plain listener at a port that stays the same, and queues that no run of the load fills.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use testkit::BrokerProcess;

/// Starts the broker and says where it listens, after each restart too.
pub async fn start() -> (BrokerProcess, SocketAddr) {
    // Free a moment ago; the same port is taken after each restart, so that clients find the broker again.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let configuration = format!(
        "[node]\ndata_dir = \"data\"\n[auth]\nallow_anonymous = true\n\
         [mqtt]\nmax_mqueue_len = 1000000\nmax_mqueue_bytes = \"1GB\"\n\
         [listeners.tcp.default]\nbind = \"{address}\"\n"
    );
    (BrokerProcess::start(env!("CARGO_BIN_EXE_shangmq"), &configuration).await, address)
}
