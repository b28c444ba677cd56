//! The broker on a disk in memory that loses power: writes that were not synced are there afterwards, or not, or in part.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shangmq::config::Config;
use shangmq::server::{Prepared, Server};
use testkit::Dice;
use tokio::runtime::{Builder, Runtime};

use crate::Loaded;
use crate::broker::{configuration, free_address};
use crate::disk_medium::DiskMedium;

#[derive(Debug)]
pub struct Powered {
    machine: DiskMedium,
    address: SocketAddr,
    /// Of this life: everything that runs in it ends with it.
    runtime: Option<Runtime>,
    server: Option<Server>,
}

impl Powered {
    pub async fn start() -> Powered {
        let mut broker =
            Powered { machine: DiskMedium::default(), address: free_address(), runtime: None, server: None };
        broker.run().await;
        broker
    }

    async fn run(&mut self) {
        let config = Config::parse(Path::new("shangmq.toml"), &configuration(self.address), []).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        // The connections of the last life may hold the port for a moment longer.
        for _ in 0..1000 {
            let prepared = Prepared::new(config.clone()).unwrap().store_on(Arc::new(self.machine.clone()));
            match runtime.spawn(Server::run(prepared)).await.unwrap() {
                Ok(server) => {
                    self.server = Some(server);
                    self.runtime = Some(runtime);
                    return;
                }
                Err(error) if error.to_string().contains("in use") => {
                    tokio::time::sleep(Duration::from_millis(10)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("{} stays in use", self.address);
    }

    /// Power goes in the middle of whatever the store does, and comes back.
    pub async fn lose_power(&mut self, random: &mut Dice) {
        self.machine.disk.cut_power_after(random.below(12) as u64);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
        while !self.machine.disk.is_dark() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.machine.disk.cut_power();
        drop(self.server.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.machine.disk.restart(&mut random.fork());
        self.run().await;
    }
}

impl Drop for Powered {
    fn drop(&mut self) {
        drop(self.server.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Loaded for Powered {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn log_tail(&self) -> String {
        "it has none".to_owned()
    }
}
