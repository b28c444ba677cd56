//! How many of something a client's address has, and how often it does something, in bounded memory.
//!
//! A host usually has a whole IPv6 /64, which counts as one address. Behind a load balancer it is the address of the PROXY header.

use hashbrown::HashMap;
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Addresses whose rate is remembered. Whoever has more does not need to be fast with any of them.
const MAX_REMEMBERED: usize = 65_536;

/// What counts as one address.
pub fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

/// How many places each address has taken. What takes one is bounded elsewhere, and so is this table.
#[derive(Debug)]
pub struct Places {
    limit: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One place of an address, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    key: IpAddr,
}

impl Places {
    pub fn new(limit: usize) -> Places {
        Places { limit, taken: Mutex::default() }
    }

    /// `None` when the address has all its places.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let key = key(address);
        let mut taken = self.taken.lock();
        let count = taken.entry(key).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Place { places: Arc::clone(self), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        match taken.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.key);
                // A crowd that has gone leaves no empty table behind.
                if taken.capacity() > 1024 && taken.len() < taken.capacity() / 8 {
                    taken.shrink_to_fit();
                }
            }
        }
    }
}

/// Lines in which the clients of each address wait, so many of them being served at once. What waits is bounded elsewhere.
#[derive(Debug)]
pub struct Lines {
    limit: usize,
    lines: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
}

/// A client's turn, or its wait for one; the line is forgotten with the last.
#[derive(Debug)]
struct InLine<'a> {
    lines: &'a Lines,
    key: IpAddr,
    line: Option<Arc<Semaphore>>,
}

/// A turn, which ends when it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    // Given back before the line is looked at.
    _permit: OwnedSemaphorePermit,
    _in_line: InLine<'a>,
}

impl Lines {
    pub fn new(limit: usize) -> Lines {
        Lines { limit: limit.min(Semaphore::MAX_PERMITS), lines: Mutex::default() }
    }

    /// Waits for the address's next turn, in order of arrival; `waits` is called if it does not come at once. Dropping the future
    /// leaves the line.
    pub async fn turn(&self, address: IpAddr, waits: impl FnOnce()) -> Option<Turn<'_>> {
        let key = key(address);
        let new = || Arc::new(Semaphore::new(self.limit));
        let line = Arc::clone(self.lines.lock().entry(key).or_insert_with(new));
        let in_line = InLine { lines: self, key, line: Some(Arc::clone(&line)) };
        let permit = match Arc::clone(&line).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                waits();
                // Only a closed semaphore fails, and this one is never closed.
                line.acquire_owned().await.ok()?
            }
        };
        Some(Turn { _permit: permit, _in_line: in_line })
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut lines = self.lines.lines.lock();
        self.line = None;
        if lines.get(&self.key).is_some_and(|line| Arc::strong_count(line) == 1) {
            lines.remove(&self.key);
        }
    }
}

/// How often each address may do something: steadily once an interval, and a burst after a pause.
#[derive(Debug)]
pub struct Rates {
    interval: Duration,
    /// How far an address may be ahead of its steady rate.
    ahead: Duration,
    /// When each address would be back at its steady rate.
    due: Mutex<HashMap<IpAddr, Instant>>,
}

impl Rates {
    /// `events` in each `period`, all of them at once if the address was silent before. `events` is at least one.
    pub fn new(events: u32, period: Duration) -> Rates {
        let interval = period / events.max(1);
        Rates { interval, ahead: period.saturating_sub(interval), due: Mutex::default() }
    }

    /// Whether the address may do it once more now.
    pub fn has_room(&self, address: IpAddr) -> bool {
        let due = self.due.lock().get(&key(address)).copied();
        due.is_none_or(|due| due <= Instant::now() + self.ahead)
    }

    /// Notes that the address did it; `false` when it may not and nothing is noted.
    pub fn take(&self, address: IpAddr) -> bool {
        let (key, now) = (key(address), Instant::now());
        let mut table = self.due.lock();
        if !table.contains_key(&key) && table.len() >= MAX_REMEMBERED {
            table.retain(|_, due| *due > now);
            if table.len() >= MAX_REMEMBERED {
                return true;
            }
        }
        let due = table.entry(key).or_insert(now);
        if *due > now + self.ahead {
            return false;
        }
        *due = (*due).max(now) + self.interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_gets_its_places_back() {
        let places = Arc::new(Places::new(2));
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = places.take(a).unwrap();
        // The same host, as a dual-stack socket names it.
        let _second = places.take(address("::ffff:192.0.2.1")).unwrap();
        assert!(places.take(a).is_none());
        assert!(places.take(b).is_some());
        drop(first);
        assert!(places.take(a).is_some());
        assert_eq!(places.taken.lock().len(), 1, "an address without places is forgotten");
    }

    #[test]
    fn a_host_has_a_whole_prefix_of_ipv6() {
        let places = Arc::new(Places::new(1));
        let _one = places.take(address("2001:db8::1")).unwrap();
        assert!(places.take(address("2001:db8::ffff:2")).is_none());
        assert!(places.take(address("2001:db8:0:1::1")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_clients_of_an_address_wait_for_each_other_and_for_no_others() {
        let lines = Arc::new(Lines::new(1));
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = lines.turn(a, || panic!("nobody is before")).await;
        let other = lines.turn(b, || panic!("nobody is before")).await;
        let mut waited = false;
        let patience = tokio::time::timeout(Duration::from_secs(3600), lines.turn(a, || waited = true)).await;
        assert!(patience.is_err() && waited);
        let next = {
            let lines = Arc::clone(&lines);
            tokio::spawn(async move { lines.turn(a, || {}).await.is_some() })
        };
        tokio::task::yield_now().await;
        drop(first);
        assert!(next.await.unwrap());
        drop(other);
        assert_eq!(lines.lines.lock().len(), 0, "a line in which nobody stands is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_allows_a_burst_and_then_its_steady_pace() {
        let rates = Rates::new(6, Duration::from_secs(60));
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!((0..10).filter(|_| rates.take(a)).count(), 6);
        assert!(!rates.has_room(a));
        assert!(rates.has_room(b));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(rates.has_room(a) && rates.take(a) && !rates.take(a));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!((0..10).filter(|_| rates.take(a)).count(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_of_rates_has_a_bound_and_forgets_the_silent() {
        let rates = Rates::new(1, Duration::from_secs(1));
        for bits in 0..u32::try_from(MAX_REMEMBERED).unwrap() + 10 {
            assert!(rates.take(std::net::Ipv4Addr::from_bits(bits).into()));
        }
        assert_eq!(rates.due.lock().len(), MAX_REMEMBERED);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(rates.take(address("192.0.2.1")));
        assert_eq!(rates.due.lock().len(), 1);
    }
}
