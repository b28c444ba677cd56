//! The handle of a session as publishers and its connection use it.

use super::*;
use crate::broker::memory::Memory;
use crate::session::{QueueLimits, message_for_tests as delivery};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const WAIT: Millis = 500;
const LIMITS: QueueLimits =
    QueueLimits { max_messages: 10, max_bytes: 1 << 20, store_qos0: false, slow_wait: WAIT, priorities: None };

fn bounds() -> Arc<Bounds> {
    Arc::new(Bounds { queue: LIMITS, memory: Memory::new(1 << 30) })
}

/// One whose connection has drained it for the first time.
fn connected() -> Subscriber {
    let s = subscriber();
    s.connect();
    s.drain(&mut Vec::new(), 1, 1, u64::MAX, 0, 0);
    s
}

fn subscriber() -> Subscriber {
    Subscriber::new(1, "c".into(), Owner::default(), bounds())
}

#[test]
fn takes_no_more_acknowledged_messages_than_the_window_has_places() {
    let s = subscriber();
    s.connect();
    for qos in [QoS::AtLeastOnce, QoS::AtMostOnce, QoS::ExactlyOnce, QoS::AtMostOnce] {
        s.push(delivery("t", qos), &mut Changes::new(None));
    }
    let mut batch = Vec::new();
    let drained = s.drain(&mut batch, 10, 1, u64::MAX, 0, 0);
    assert_eq!((batch.len(), drained.acknowledged, drained.more), (2, 1, true));
    let drained = s.drain(&mut batch, 10, 1, u64::MAX, 0, 0);
    assert_eq!((batch.len(), drained.acknowledged, drained.more), (4, 1, false));
}

#[test]
fn the_first_reason_to_end_stands_until_the_next_connection() {
    let s = subscriber();
    s.connect();
    s.kick(ReasonCode::SessionTakenOver);
    s.kick(ReasonCode::ServerShuttingDown);
    assert_eq!(s.drain(&mut Vec::new(), 1, 1, u64::MAX, 0, 0).kick, Some(ReasonCode::SessionTakenOver));
    s.connect();
    assert_eq!(s.drain(&mut Vec::new(), 1, 1, u64::MAX, 0, 0).kick, None);
}

/// A batch was taken and dropped by a connection that was told to go, so that the next one did not send it.
#[test]
fn a_connection_that_is_to_end_takes_nothing_more() {
    let s = connected();
    s.push(delivery("t", QoS::AtLeastOnce), &mut Changes::new(None));
    s.kick(ReasonCode::SessionTakenOver);
    let mut batch = Vec::new();
    assert!(s.drain(&mut batch, 10, 10, u64::MAX, 0, 0).kick.is_some());
    assert!(batch.is_empty());
    s.disconnect(0);
    s.connect();
    s.drain(&mut batch, 10, 10, u64::MAX, 0, 0);
    assert_eq!(batch.len(), 1);
}

#[test]
fn qos_0_is_not_kept_for_an_absent_client() {
    let s = subscriber();
    assert_eq!(s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).push, Push::DroppedAway);
    assert_eq!(s.push(delivery("t", QoS::AtLeastOnce), &mut Changes::new(None)).push, Push::Queued);
}

/// A waker, and how often it was called.
fn counted() -> (Waker, Arc<AtomicUsize>) {
    struct Count(Arc<AtomicUsize>);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let calls = Arc::new(AtomicUsize::new(0));
    (Waker::from(Arc::new(Count(Arc::clone(&calls)))), calls)
}

fn crowded() -> Subscriber {
    let s = connected();
    for _ in 0..5 {
        assert!(!s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).crowded);
    }
    assert!(s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).crowded);
    s
}

/// The turn of a publisher that waits.
fn wait(s: &Subscriber, qos: QoS, turn: Option<Turn>, waker: &Waker, now: Millis) -> Option<Turn> {
    s.wait(qos, turn, waker, now).wait.map(|wait| wait.turn)
}

#[test]
fn publishers_wait_for_a_crowded_outbox_and_go_on_when_it_is_half_empty() {
    let s = crowded();
    let (waker, calls) = counted();
    let turn = wait(&s, QoS::AtMostOnce, None, &waker, 0);
    assert!(turn.is_some());
    assert_eq!(wait(&s, QoS::AtMostOnce, turn, &waker, 0), turn, "asked again, it still waits, once");
    let mut batch = Vec::new();
    s.drain(&mut batch, 3, 10, u64::MAX, 0, 0);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    s.drain(&mut batch, 4, 10, u64::MAX, 0, 0);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(wait(&s, QoS::AtMostOnce, turn, &waker, 0), None);
}

#[test]
fn nobody_waits_for_a_full_socket_with_messages_that_may_be_lost() {
    let s = crowded();
    let (waker, calls) = counted();
    let turn = wait(&s, QoS::AtMostOnce, None, &waker, 0);
    s.stall(0, 0, 0);
    assert_eq!((calls.load(Ordering::Relaxed), wait(&s, QoS::AtMostOnce, turn, &waker, 0)), (1, None));
    assert!(!s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).crowded);
    assert!(s.push(delivery("t", QoS::AtLeastOnce), &mut Changes::new(None)).crowded);
    // Bytes are taken again.
    s.drain(&mut Vec::new(), 1, 10, u64::MAX, 0, 0);
    assert!(s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).crowded);
}

/// One whose window is closed, and that has more messages than its publishers are to add to.
fn held() -> Subscriber {
    let s = connected();
    for _ in 0..10 {
        s.push(delivery("t", QoS::AtLeastOnce), &mut Changes::new(None));
    }
    s.drain(&mut Vec::new(), 10, 2, u64::MAX, 0, 0);
    s
}

#[test]
fn publishers_wait_for_a_client_that_acknowledges() {
    let s = held();
    let (waker, calls) = counted();
    let turn = wait(&s, QoS::AtLeastOnce, None, &waker, 1_000);
    assert!(turn.is_some());
    let until = |now| s.wait(QoS::AtLeastOnce, turn, &waker, now).wait.unwrap().until.unwrap();
    assert_eq!(until(1_000), 1_000 + WAIT);
    // 2 messages after 450 ms are few, but earn some time.
    s.drain(&mut Vec::new(), 10, 2, u64::MAX, 0, 1_450);
    assert!((1_450 + 50 + 20..1_450 + 50 + 25).contains(&until(1_450)));
    s.drain(&mut Vec::new(), 10, 2, u64::MAX, 0, 1_500);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    // Half of the crowd is gone.
    s.drain(&mut Vec::new(), 10, 2, u64::MAX, 0, 1_510);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(wait(&s, QoS::AtLeastOnce, turn, &waker, 1_510), None);
}

#[test]
fn nobody_waits_long_for_a_client_that_takes_nothing() {
    let s = held();
    let ((waker, calls), (other, others)) = (counted(), counted());
    let turn = wait(&s, QoS::AtLeastOnce, None, &waker, 0);
    assert!(wait(&s, QoS::ExactlyOnce, None, &other, 100).is_some());
    assert_eq!(wait(&s, QoS::AtLeastOnce, turn, &waker, WAIT - 1), turn);
    assert!(s.keeps_up());
    assert_eq!(s.wait(QoS::AtLeastOnce, turn, &waker, WAIT), Asked { wait: None, gave_up: true });
    assert_eq!((calls.load(Ordering::Relaxed), others.load(Ordering::Relaxed)), (1, 1), "all of them go on");
    assert!(!s.keeps_up());
    // Nor after one acknowledgement, until it keeps pace or has caught up.
    s.drain(&mut Vec::new(), 10, 1, u64::MAX, 0, WAIT + 1);
    assert!(!s.push(delivery("t", QoS::AtLeastOnce), &mut Changes::new(None)).crowded);
    s.drain(&mut Vec::new(), 20, 20, u64::MAX, 0, WAIT + 2);
    for _ in 0..10 {
        s.push(delivery("t", QoS::AtLeastOnce), &mut Changes::new(None));
    }
    assert!(wait(&s, QoS::AtLeastOnce, None, &waker, WAIT + 3).is_some());
}

#[test]
fn connecting_again_does_not_buy_another_wait() {
    let s = held();
    let (waker, calls) = counted();
    let mut turn = wait(&s, QoS::AtLeastOnce, None, &waker, 0);
    for at in [200, 400, WAIT] {
        assert!(turn.is_some(), "{at}");
        s.disconnect(at);
        s.connect();
        s.drain(&mut Vec::new(), 10, 0, u64::MAX, 0, at);
        turn = wait(&s, QoS::AtLeastOnce, None, &waker, at);
    }
    assert_eq!((turn, s.keeps_up(), calls.load(Ordering::Relaxed)), (None, false, 3));
    // The time away is not counted.
    let s = held();
    assert!(wait(&s, QoS::AtLeastOnce, None, &waker, 0).is_some());
    s.disconnect(100);
    s.connect();
    s.drain(&mut Vec::new(), 10, 0, u64::MAX, 0, 100_000);
    assert!(wait(&s, QoS::AtLeastOnce, None, &waker, 100_000).is_some());
}

#[test]
fn nobody_waits_for_acknowledgements_that_cannot_be_heard() {
    let s = held();
    let (waker, calls) = counted();
    let turn = wait(&s, QoS::AtLeastOnce, None, &waker, 0);
    s.set_deaf(true);
    assert_eq!((calls.load(Ordering::Relaxed), wait(&s, QoS::AtLeastOnce, turn, &waker, 0)), (1, None));
    s.set_deaf(false);
    assert!(wait(&s, QoS::AtLeastOnce, None, &waker, 0).is_some());
}

#[test]
fn nobody_waits_for_a_connection_that_has_not_drained_yet() {
    let s = subscriber();
    s.connect();
    for _ in 0..10 {
        assert!(!s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).crowded);
    }
    s.drain(&mut Vec::new(), 1, 1, u64::MAX, 0, 0);
    assert!(s.push(delivery("t", QoS::AtMostOnce), &mut Changes::new(None)).crowded);
}

#[test]
fn nobody_waits_for_a_client_that_has_gone() {
    let s = crowded();
    let (waker, calls) = counted();
    let turn = wait(&s, QoS::AtMostOnce, None, &waker, 0);
    s.disconnect(0);
    assert_eq!((calls.load(Ordering::Relaxed), wait(&s, QoS::AtMostOnce, turn, &waker, 0)), (1, None));
}
