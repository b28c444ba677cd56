//! A subscriber with a session that outlives its connections: it vanishes at random moments, and keeps of QoS 2 what a client must.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use mqtt_codec::{Packet, QoS};
use testkit::{Dice, disconnect, puback, pubcomp, pubrec, subscribe};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::Phase;
use crate::history::Logs;
use crate::link::Link;

pub struct Subscriber {
    index: usize,
    address: SocketAddr,
    filter: &'static str,
    qos: u8,
    logs: Arc<Logs>,
    random: Dice,
    /// QoS 2 identifiers whose message was taken and whose PUBREL has not come.
    unreleased: HashSet<u16>,
}

impl Subscriber {
    pub fn new(
        index: usize,
        address: SocketAddr,
        filter: &'static str,
        qos: u8,
        logs: Arc<Logs>,
        random: Dice,
    ) -> Subscriber {
        Subscriber { index, address, filter, qos, logs, random, unreleased: HashSet::new() }
    }

    /// Tells once the subscription is granted, and goes on until the last phase.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>, subscribed: oneshot::Sender<()>) {
        let mut subscribed = Some(subscribed);
        let name = format!("subscriber-{}", self.index);
        while *phase.borrow() != Phase::Stop {
            let (mut link, present) = Link::open(self.address, &name, 20).await;
            if !present {
                if subscribed.is_none() {
                    self.logs.session_lost(name.clone());
                    self.unreleased.clear();
                }
                // Ends with the connection, and is then asked again.
                let _ = link.send(subscribe(1, &[(self.filter, self.qos)])).await;
            }
            if self.converse(&mut link, &mut phase, &mut subscribed).await.is_ok() && self.random.below(2) == 0 {
                // As good as vanishing, but said.
                let _ = link.send(disconnect(Default::default())).await;
            }
            drop(link);
            if *phase.borrow() == Phase::Load {
                sleep(self.random.millis(0, 300)).await;
            }
        }
    }

    /// `Ok` when this side wants to go, `Err` when the connection ended.
    async fn converse(
        &mut self,
        link: &mut Link,
        phase: &mut watch::Receiver<Phase>,
        subscribed: &mut Option<oneshot::Sender<()>>,
    ) -> std::io::Result<()> {
        let gone = Instant::now() + self.random.millis(100, 1500);
        loop {
            let now = *phase.borrow();
            if now == Phase::Stop {
                return Ok(());
            }
            tokio::select! {
                packet = link.recv() => match packet? {
                    Packet::SubAck(ack) => {
                        assert!(ack.reasons.iter().all(|reason| !reason.is_error()), "{ack:?}");
                        if let Some(tell) = subscribed.take() {
                            tell.send(()).expect("the test waits for it");
                        }
                    }
                    packet => self.handle(link, packet).await?,
                },
                () = sleep_until(gone), if now == Phase::Load && subscribed.is_none() => return Ok(()),
                _ = phase.changed() => {}
            }
        }
    }

    async fn handle(&mut self, link: &mut Link, packet: Packet) -> std::io::Result<()> {
        match packet {
            Packet::Publish(message) => {
                let id = message.packet_id.map_or(0, |id| id.get());
                match message.qos {
                    QoS::ExactlyOnce => {
                        if self.unreleased.insert(id) {
                            self.logs.delivered(self.index, &message);
                        }
                        link.send(pubrec(id)).await
                    }
                    QoS::AtLeastOnce => {
                        self.logs.delivered(self.index, &message);
                        // Some acknowledgements are late, so that messages are under way whenever something happens.
                        if self.random.below(50) == 0 {
                            sleep(self.random.millis(0, 20)).await;
                        }
                        link.send(puback(id)).await
                    }
                    QoS::AtMostOnce => panic!("nothing was published with QoS 0"),
                }
            }
            Packet::PubRel(release) => {
                self.unreleased.remove(&release.packet_id.get());
                link.send(pubcomp(release.packet_id.get())).await
            }
            other => Err(std::io::Error::other(format!("{other:?}"))),
        }
    }
}
