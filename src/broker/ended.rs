//! Whose connections operators have ended of late. A connection that is being let in has no session yet that could be ended: it asks here.

use parking_lot::RwLock;
use std::collections::VecDeque;

/// Users and holders of pre-shared keys whose connections were ended last, which are remembered by name.
const REMEMBERED: usize = 256;

#[derive(Debug, Default)]
pub struct Ended(RwLock<Names>);

/// How many were ended, and the names of the last.
#[derive(Debug, Default)]
struct Names {
    count: u64,
    last: VecDeque<Box<str>>,
}

impl Ended {
    /// To be called before the connections are ended that there are, so that one which is being let in is not missed by both.
    pub(super) fn note(&self, name: &str) {
        let mut names = self.0.write();
        names.count += 1;
        names.last.push_back(name.into());
        if names.last.len() > REMEMBERED {
            names.last.pop_front();
        }
    }

    /// How often connections were ended.
    pub fn times(&self) -> u64 {
        self.0.read().count
    }

    /// Whether connections under this name were ended since [`times`](Self::times) said this; also when that is not known any more.
    pub fn has(&self, name: &str, since: u64) -> bool {
        let names = self.0.read();
        let recent = usize::try_from(names.count.saturating_sub(since)).unwrap_or(usize::MAX);
        recent > names.last.len() || names.last.iter().rev().take(recent).any(|one| **one == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_ended_is_remembered_and_what_is_not_known_any_more_counts_as_ended() {
        let ended = Ended::default();
        ended.note("ada");
        let since = ended.times();
        assert!(!ended.has("ada", since) && ended.has("ada", 0));
        ended.note("bob");
        assert!(ended.has("bob", since) && !ended.has("ada", since));
        for _ in 1..REMEMBERED {
            ended.note("cid");
        }
        assert!(ended.has("bob", since) && !ended.has("ada", since));
        ended.note("cid");
        assert!(ended.has("ada", since));
    }
}
