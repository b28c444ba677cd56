//! The broker under load: one plain listener at a port that stays the same, and queues that no run of the load fills.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use testkit::BrokerProcess;

use crate::Loaded;

/// A port that is free, to be taken after each restart, so that clients find the broker again.
pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

pub fn configuration(address: SocketAddr) -> String {
    format!(
        "[node]\ndata_dir = \"data\"\n[delayed]\nenable = true\n[auth]\nallow_anonymous = true\nno_match = \"allow\"\n\
         [mqtt]\nmax_mqueue_len = 1000000\nmax_mqueue_bytes = \"1GB\"\n\
         [listeners.tcp.default]\nbind = \"{address}\"\n"
    )
}

/// A process of its own.
#[derive(Debug)]
pub struct Process(pub BrokerProcess, SocketAddr);

impl Process {
    pub async fn start() -> Process {
        let address = free_address();
        let process = BrokerProcess::start(env!("CARGO_BIN_EXE_shangmq"), &configuration(address)).await;
        Process(process, address)
    }
}

impl Loaded for Process {
    fn address(&self) -> SocketAddr {
        self.1
    }

    fn log_tail(&self) -> String {
        self.0.log_tail()
    }
}
