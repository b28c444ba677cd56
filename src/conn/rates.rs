//! The rates of one client. One that is too fast is slowed down: its socket is not read until it may go on.

use crate::config::{Rate, RateConfig};
use crate::session::{Millis, TokenBucket, millis};

/// What has been used of each rate, and until when nothing is read.
#[derive(Debug)]
pub(super) struct Rates {
    messages: Option<TokenBucket>,
    bytes: Option<TokenBucket>,
    subscribes: Option<TokenBucket>,
    paused_until: Millis,
}

impl Rates {
    /// `None` when no rate is limited.
    pub fn new(config: &RateConfig, now: Millis) -> Option<Box<Rates>> {
        let bucket = |rate: Option<Rate>| rate.map(|r| TokenBucket::new(r.amount, millis(r.per), r.burst, now));
        let rates = Rates {
            messages: bucket(config.messages_rate),
            bytes: bucket(config.bytes_rate),
            subscribes: bucket(config.subscribes_rate),
            paused_until: 0,
        };
        let limited = rates.messages.is_some() || rates.bytes.is_some() || rates.subscribes.is_some();
        limited.then(|| Box::new(rates))
    }

    /// Bytes of a packet came; `true` when that begins a pause.
    pub fn bytes(&mut self, bytes: usize, now: Millis) -> bool {
        let wait = self.bytes.as_mut().map_or(0, |bucket| bucket.take(bytes as u64, now));
        self.pause(wait, now)
    }

    pub fn message(&mut self, now: Millis) -> bool {
        let wait = self.messages.as_mut().map_or(0, |bucket| bucket.take(1, now));
        self.pause(wait, now)
    }

    pub fn subscribes(&mut self, filters: usize, now: Millis) -> bool {
        let wait = self.subscribes.as_mut().map_or(0, |bucket| bucket.take(filters as u64, now));
        self.pause(wait, now)
    }

    /// Until when nothing is read, if that lies ahead.
    pub fn paused_until(&self, now: Millis) -> Option<Millis> {
        (self.paused_until > now).then_some(self.paused_until)
    }

    fn pause(&mut self, wait: Millis, now: Millis) -> bool {
        self.paused_until = self.paused_until.max(now.saturating_add(wait));
        wait > 0
    }
}
