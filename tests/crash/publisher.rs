//! A publisher that keeps what is unacknowledged across connections and sends it again, as the specification asks of a client.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use mqtt_codec::Packet;
use testkit::{Dice, Publish, PublishExt, publish, pubrel};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::Phase;
use crate::history::{Logs, address, payload};
use crate::link::Link;

/// Messages under way at once.
const WINDOW: usize = 16;
/// One message in this time while the window has room.
const PACE: Duration = Duration::from_millis(2);

struct Pending {
    id: u16,
    seq: u64,
    /// PUBREC has come: only PUBREL is sent from here on.
    received: bool,
}

pub struct Publisher {
    index: usize,
    address: SocketAddr,
    qos: u8,
    logs: Arc<Logs>,
    random: Dice,
    pending: VecDeque<Pending>,
    next_seq: u64,
    next_id: u16,
}

impl Publisher {
    pub fn new(index: usize, address: SocketAddr, qos: u8, logs: Arc<Logs>, random: Dice) -> Publisher {
        Publisher { index, address, qos, logs, random, pending: VecDeque::new(), next_seq: 0, next_id: 1 }
    }

    /// Publishes until the phase ends and everything is acknowledged.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        let mut known = false;
        loop {
            let (mut link, present) = Link::open(self.address, &format!("publisher-{}", self.index), 100).await;
            if known && !present {
                self.logs.session_lost(format!("publisher-{}", self.index));
                // The broker forgot the exchange; what was not acknowledged begins anew.
                self.pending.iter_mut().for_each(|pending| pending.received = false);
            }
            known = true;
            if self.converse(&mut link, &mut phase).await.is_ok() {
                return;
            }
        }
    }

    /// `Ok` when there is nothing left to do, `Err` when the connection ended.
    async fn converse(&mut self, link: &mut Link, phase: &mut watch::Receiver<Phase>) -> std::io::Result<()> {
        for pending in &self.pending {
            match pending.received {
                true => link.send(pubrel(pending.id)).await?,
                false => link.send(self.message(pending.id, pending.seq).dup()).await?,
            }
        }
        let gone = Instant::now() + self.random.millis(300, 3000);
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let load = *phase.borrow() == Phase::Load;
            if !load && self.pending.is_empty() {
                return Ok(());
            }
            tokio::select! {
                packet = link.recv() => self.handle(link, packet?).await?,
                _ = pace.tick(), if load && self.pending.len() < WINDOW => self.publish(link).await?,
                () = sleep_until(gone), if load => return Err(std::io::ErrorKind::Interrupted.into()),
                // A sender that is gone leaves the last phase in place.
                _ = phase.changed() => {}
            }
        }
    }

    async fn publish(&mut self, link: &mut Link) -> std::io::Result<()> {
        let (seq, id) = (self.next_seq, self.free_id());
        self.next_seq += 1;
        self.pending.push_back(Pending { id, seq, received: false });
        self.logs.sent(self.index, seq);
        link.send(self.message(id, seq)).await
    }

    fn free_id(&mut self) -> u16 {
        loop {
            let id = self.next_id;
            self.next_id = if id == 200 { 1 } else { id + 1 };
            if self.pending.iter().all(|pending| pending.id != id) {
                return id;
            }
        }
    }

    fn message(&self, id: u16, seq: u64) -> Publish {
        publish(&address(self.index, seq), self.qos, payload(self.index, seq)).id(id)
    }

    async fn handle(&mut self, link: &mut Link, packet: Packet) -> std::io::Result<()> {
        match packet {
            Packet::PubAck(ack) if !ack.reason.is_error() => {
                // [MQTT-4.6.0-2]
                if self.pending.front().is_none_or(|first| first.id != ack.packet_id.get()) {
                    self.logs.disorder(format!("publisher-{}: PUBACK {} is not the oldest", self.index, ack.packet_id));
                }
                self.finish(ack.packet_id);
            }
            Packet::PubRec(ack) if !ack.reason.is_error() => {
                let id = ack.packet_id.get();
                if let Some(pending) = self.pending.iter_mut().find(|pending| pending.id == id) {
                    pending.received = true;
                    self.logs.acknowledge(self.index, pending.seq);
                }
                link.send(pubrel(id)).await?;
            }
            Packet::PubComp(ack) => self.finish(ack.packet_id),
            other => return Err(std::io::Error::other(format!("{other:?}"))),
        }
        Ok(())
    }

    fn finish(&mut self, id: NonZeroU16) {
        if let Some(at) = self.pending.iter().position(|pending| pending.id == id.get()) {
            let pending = self.pending.remove(at).expect("found a moment ago");
            self.logs.acknowledge(self.index, pending.seq);
        }
    }
}
