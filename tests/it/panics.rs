//! A bug that panics in one connection's task ends that connection alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::{ConnectExt, ProtocolVersion, connect, publish};
use tokio::io::ReadBuf;

use crate::broker::Setup;
use crate::simulated::{Answered, SimulatedBroker};

#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_connection_and_leaves_its_session_to_the_next() {
    let broker = SimulatedBroker::start(Setup::new());
    let mut other = broker.connect(connect("other")).await;
    other.subscribe("t", 1).await;

    let armed = Arc::new(AtomicBool::new(false));
    let trap = Arc::clone(&armed);
    let (mut victim, task) = broker.open_through(|inner| Answered {
        inner,
        read: move |_: &mut ReadBuf<'_>| {
            assert!(!trap.load(Ordering::Relaxed), "the bug that this test is about");
            false
        },
    });
    victim.connect(connect("victim").version(ProtocolVersion::V5).persistent()).await;
    victim.subscribe("t", 1).await;
    armed.store(true, Ordering::Relaxed);
    // Wakes the connection's task, which reads.
    other.publish(publish("t", 1, "one")).await;
    other.expect_message("t", "one").await;
    assert!(task.await.unwrap_err().is_panic());
    victim.expect_closed().await;

    // The broker goes on for the others, and the session is there for its owner, with what came meanwhile.
    other.publish(publish("t", 1, "two")).await;
    other.expect_message("t", "two").await;
    let mut again = broker.open();
    let ack = again.connect(connect("victim").version(ProtocolVersion::V5).persistent()).await;
    assert!(ack.session_present);
    let mut payloads = Vec::new();
    for _ in 0..2 {
        let message = again.recv_publish().await;
        again.acknowledge(&message).await;
        payloads.push(message.payload);
    }
    assert_eq!(payloads, ["one", "two"]);
    assert_eq!(broker.broker().session_count(), 2);
}
