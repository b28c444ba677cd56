//! Turns at something that few can do at once, shared by addresses: of the addresses that wait each gets one turn in a round, however many
//! of its clients wait. What waits is bounded elsewhere.

use crate::per_address::key;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::IpAddr;
use tokio::sync::oneshot;

#[derive(Debug)]
pub struct Turns(Mutex<Round>);

/// A turn, which goes to the next when it is dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Turns);

/// The turns as one address has them.
#[derive(Debug)]
pub struct Share<'a> {
    turns: &'a Turns,
    key: IpAddr,
}

#[derive(Debug)]
struct Round {
    /// Turns that nobody has. Then nobody waits.
    free: usize,
    /// The number of the client that waits next; within an address they ascend.
    next: u64,
    /// By address, in order of arrival. One that is empty has lost all its clients since the last round.
    waiting: HashMap<IpAddr, VecDeque<(u64, oneshot::Sender<()>)>>,
    /// Every address of `waiting` once, the next first.
    order: VecDeque<IpAddr>,
}

/// A client in the line of its address, until it has got its turn or gone away.
struct InLine<'a> {
    turns: &'a Turns,
    key: IpAddr,
    number: u64,
    /// Kept until the place is given up, so that no turn is sent to nobody.
    called: oneshot::Receiver<()>,
    took: bool,
}

impl Turns {
    /// `at_once` turns at the same time.
    pub fn new(at_once: usize) -> Turns {
        let (waiting, order) = (HashMap::new(), VecDeque::new());
        Turns(Mutex::new(Round { free: at_once.max(1), next: 0, waiting, order }))
    }

    pub fn of(&self, address: IpAddr) -> Share<'_> {
        Share { turns: self, key: key(address) }
    }
}

impl gm_tls::stream::Turns for Share<'_> {
    type Turn<'a>
        = Turn<'a>
    where
        Self: 'a;

    async fn turn(&self) -> Turn<'_> {
        let Share { turns, key } = *self;
        let place = turns.0.lock().enter(key);
        if let Some((number, called)) = place {
            let mut in_line = InLine { turns, key, number, called, took: false };
            // It fails when the sender is gone, and that stays in the line until it has called.
            let _ = (&mut in_line.called).await;
            in_line.took = true;
        }
        Turn(turns)
    }
}

impl Round {
    /// Takes a free turn, or a place in the line of the address.
    fn enter(&mut self, key: IpAddr) -> Option<(u64, oneshot::Receiver<()>)> {
        if self.free > 0 {
            self.free -= 1;
            return None;
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        let (call, called) = oneshot::channel();
        let line = self.waiting.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            VecDeque::new()
        });
        line.push_back((number, call));
        Some((number, called))
    }

    /// Gives a turn that is over to the next, or keeps it.
    fn pass_on(&mut self) {
        while let Some(key) = self.order.pop_front() {
            let Some(line) = self.waiting.get_mut(&key) else { continue };
            let next = line.pop_front();
            if line.is_empty() {
                self.waiting.remove(&key);
            } else {
                self.order.push_back(key);
            }
            if let Some((_, call)) = next
                && call.send(()).is_ok()
            {
                return;
            }
        }
        self.free += 1;
        // A crowd that has gone leaves no empty tables behind.
        if self.waiting.capacity() > 1024 {
            self.waiting.shrink_to_fit();
            self.order.shrink_to_fit();
        }
    }

    /// Gives a place up; `false` if it was called already.
    fn leave(&mut self, key: IpAddr, number: u64) -> bool {
        let Some(line) = self.waiting.get_mut(&key) else { return false };
        let Ok(at) = line.binary_search_by_key(&number, |(number, _)| *number) else { return false };
        line.remove(at);
        true
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.took {
            return;
        }
        let mut round = self.turns.0.lock();
        if !round.leave(self.key, self.number) {
            // Called, and gone before it heard of it.
            round.pass_on();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.0.lock().pass_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gm_tls::stream::Turns as _;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    type Waiting<'a> = Pin<Box<dyn Future<Output = u32> + 'a>>;

    /// A client that waits and then, having had its turn, says its name.
    fn client<'a>(share: &'a Share<'a>, name: u32) -> Waiting<'a> {
        Box::pin(async move {
            drop(share.turn().await);
            name
        })
    }

    /// Names of those that are done now, in the order in which they had their turns.
    fn done(clients: &mut Vec<Waiting<'_>>) -> Vec<u32> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut names = Vec::new();
        loop {
            let before = names.len();
            clients.retain_mut(|client| match client.as_mut().poll(&mut cx) {
                Poll::Ready(name) => {
                    names.push(name);
                    false
                }
                Poll::Pending => true,
            });
            if names.len() == before {
                return names;
            }
        }
    }

    fn is_empty(turns: &Turns) -> bool {
        let round = turns.0.lock();
        round.waiting.is_empty() && round.order.is_empty() && round.free == 1
    }

    // With one line for all, a client waited for the thousand handshakes that another address had begun before.
    #[test]
    fn a_client_waits_for_one_turn_of_each_other_address_however_many_clients_those_have() {
        let turns = Turns::new(1);
        let (crowd, quiet) = (turns.of(address(1)), turns.of(address(2)));
        let first = pin!(crowd.turn());
        let Poll::Ready(turn) = first.poll(&mut Context::from_waker(Waker::noop())) else { panic!("nobody is before") };
        let mut clients: Vec<Waiting<'_>> = (0..5000).map(|name| client(&crowd, name)).collect();
        assert!(done(&mut clients).is_empty());
        clients.push(client(&quiet, 10_000));
        clients.push(client(&quiet, 10_001));
        assert!(done(&mut clients).is_empty());
        drop(turn);
        let names = done(&mut clients);
        assert_eq!(names.len(), 5002);
        let place = |name| names.iter().position(|found| *found == name).unwrap();
        assert!(place(10_000) <= 2 && place(10_001) <= 4, "{} {}", place(10_000), place(10_001));
        assert!(names.iter().filter(|name| **name < 5000).is_sorted(), "within an address it goes by arrival");
        assert!(is_empty(&turns));
    }

    #[test]
    fn who_goes_away_keeps_nobody_waiting() {
        let turns = Turns::new(1);
        let (one, other) = (turns.of(address(1)), turns.of(address(2)));
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(turn) = pin!(one.turn()).poll(&mut cx) else { panic!("nobody is before") };
        let mut gone = vec![client(&one, 0), client(&other, 1), client(&one, 2)];
        let mut patient = vec![client(&other, 3)];
        assert!(done(&mut gone).is_empty() && done(&mut patient).is_empty());
        gone.truncate(1);
        drop(turn);
        // The first was called and never heard of it.
        drop(gone);
        assert_eq!(done(&mut patient), [3]);
        assert!(is_empty(&turns));
        // Again, with nobody left to get the turn.
        let Poll::Ready(turn) = pin!(one.turn()).poll(&mut cx) else { panic!("nobody is before") };
        let mut gone = vec![client(&one, 4)];
        assert!(done(&mut gone).is_empty());
        drop(gone);
        drop(turn);
        assert!(is_empty(&turns));
    }

    #[test]
    fn no_more_turns_are_had_at_once_than_there_are() {
        let turns = Turns::new(3);
        let share = turns.of(address(1));
        let mut cx = Context::from_waker(Waker::noop());
        let mut had = Vec::new();
        for _ in 0..3 {
            let Poll::Ready(turn) = pin!(share.turn()).poll(&mut cx) else { panic!("a turn is free") };
            had.push(turn);
        }
        let mut fourth = pin!(share.turn());
        assert!(fourth.as_mut().poll(&mut cx).is_pending());
        had.pop();
        assert!(fourth.poll(&mut cx).is_ready());
        drop(had);
        assert_eq!(turns.0.lock().free, 3);
    }
}
