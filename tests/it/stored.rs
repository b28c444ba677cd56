//! A broker whose store is on a disk that fails when it is told to, and that is started again on what the disk kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mqtt_codec::ProtocolVersion;
use shangmq::server::{Prepared, Server};
use shangmq::store::Health;
use testkit::{AnyStream, Client, Connect, ConnectExt, Dice, FaultyDisk, connect};
use tokio::net::TcpStream;

use crate::broker::Setup;
use crate::disk_medium::DiskMedium;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct StoredBroker {
    setup: Setup,
    medium: DiskMedium,
    server: Option<Server>,
}

impl StoredBroker {
    pub async fn start() -> StoredBroker {
        StoredBroker::start_with(Setup::new()).await
    }

    pub async fn start_with(setup: Setup) -> StoredBroker {
        let mut broker = StoredBroker { setup, medium: DiskMedium::default(), server: None };
        broker.run().await;
        broker
    }

    /// What the next start is set up with.
    pub fn set_up(&mut self, setup: Setup) {
        self.setup = setup;
    }

    async fn run(&mut self) {
        let prepared = Prepared::new(self.setup.config()).unwrap().store_on(Arc::new(self.medium.clone()));
        self.server = Some(Server::run(prepared).await.unwrap());
    }

    pub fn disk(&self) -> &FaultyDisk {
        &self.medium.disk
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub fn commits(&self) -> u64 {
        self.server().metrics().store.commits.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Power goes and comes back: what was written and not synced is there, or not, or in part.
    pub async fn lose_power(&mut self, seed: u64) {
        self.medium.disk.cut_power();
        drop(self.server.take());
        self.medium.disk.restart(&mut Dice::new(seed));
        self.run().await;
    }

    /// An orderly shutdown, and a new start.
    pub async fn restart(&mut self) {
        self.server.take().unwrap().shutdown().await;
        self.run().await;
    }

    pub async fn open(&self) -> Client<AnyStream> {
        let (_, address) = self.server().addresses().first().unwrap();
        Client::new(Box::new(TcpStream::connect(address).await.unwrap()))
    }

    pub async fn connect(&self, packet: Connect) -> Client<AnyStream> {
        let mut client = self.open().await;
        client.connect(packet).await;
        client
    }

    /// A client with a session that ends with its connection.
    pub async fn client(&self, id: &str) -> Client<AnyStream> {
        self.connect(connect(id)).await
    }

    /// A client with a session that outlives its connection, and whether the session was there before.
    pub async fn persistent(&self, id: &str) -> (Client<AnyStream>, bool) {
        self.persistent_of(ProtocolVersion::V5, id).await
    }

    pub async fn persistent_of(&self, version: ProtocolVersion, id: &str) -> (Client<AnyStream>, bool) {
        let mut client = self.open().await;
        let ack = client.connect(connect(id).version(version).persistent()).await;
        (client, ack.session_present)
    }

    pub async fn until_health(&self, health: Health) {
        let store = Arc::clone(self.server().broker().store().unwrap());
        until("the store's health", move || store.health() == health).await;
    }

    /// Everything that was submitted is durable.
    pub async fn until_quiet(&self) {
        let metrics = Arc::clone(self.server().metrics());
        let store = Arc::clone(self.server().broker().store().unwrap());
        let mark = store.delete(shangmq::store::Key::Retained("no such topic".into()));
        until("what was submitted to be durable", move || store.is_durable(mark)).await;
        drop(metrics);
    }
}

impl Drop for StoredBroker {
    fn drop(&mut self) {
        // A test that fails while syncs are held must not wait for them.
        self.medium.disk.hold_syncs(false);
    }
}

pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
