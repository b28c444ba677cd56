//! The loop of an accepted connection: one task, woken by its socket, its outbox or its timer.

use super::ahead::Crowded;
use super::authenticate::Extended;
use super::close::Close;
use super::input::Input;
use super::names::{ClientNames, Topics};
use super::output::Output;
use super::rates::Rates;
use super::replies::{Audience, Replies};
use super::stored::StoredSide;
use super::{Context, Io};
use crate::auth::Access;
use crate::broker::Subscriber;
use crate::broker::{Cache, Lease, Publisher, RetainedScan, Scanned};
use crate::metrics::Traffic;
use crate::session::{Delivery, Held, InboundAliases, Millis, OutboundAliases, Resend, Sending, TopicAs, Wire};
use bytestring::ByteString;
use mqtt_codec::{Disconnect, DisconnectProperties, Encode, ProtocolVersion, PubRel, QoS, ReasonCode};
use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{self, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tracing::debug;

/// Rounds of reading, draining and writing before other tasks get a turn.
const ROUNDS: usize = 16;
/// Messages taken from the outbox at once.
const BATCH: usize = 64;
/// Time for the last packets to reach a peer that reads.
const FAREWELL: Duration = Duration::from_secs(2);

thread_local! {
    static BATCH_BUFFER: Cell<Vec<Delivery>> = const { Cell::new(Vec::new()) };
}

/// What CONNECT, CONNACK and the configuration settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Negotiated {
    pub version: ProtocolVersion,
    /// Silence after which the client is gone; `None` is never.
    pub keep_alive: Option<Millis>,
    /// How long the peer may take no bytes that wait for it.
    pub write_timeout: Millis,
    /// QoS 1 and 2 messages the client takes before it must acknowledge.
    pub window: usize,
    /// Largest packet the client takes, in bytes.
    pub max_packet_size: usize,
    /// Topic aliases set towards the client at most.
    pub topic_aliases: u16,
    /// Whether the client wants failures explained in words, [MQTT-3.1.2-29].
    pub explain: bool,
    /// When the credentials of the client end.
    pub valid_until: Option<Millis>,
    /// CONNECT asked for no session expiry, so DISCONNECT must not either, MQTT 5 section 3.14.2.2.2.
    pub connected_without_expiry: bool,
}

impl Negotiated {
    /// How answers are written.
    pub fn audience(&self) -> Audience {
        let Negotiated { version, explain, max_packet_size, .. } = *self;
        Audience { version, explain, max_packet_size }
    }
}

/// A connection with a session. It lives in a box, so that the connection's task holds it once, and not once for each state that it
/// could be moved through.
pub struct Established {
    pub(super) io: Box<dyn Io>,
    pub(super) context: Context,
    pub(super) input: Input,
    pub(super) state: State,
    /// Packets to send again, before anything new, [MQTT-4.4.0-1].
    resend: VecDeque<Resend>,
    timer: Option<Pin<Box<Sleep>>>,
    pub(super) last_heard: Millis,
    /// Since when bytes wait and the socket takes none.
    stalled_since: Option<Millis>,
    /// What the socket had taken when it was last written to.
    taken: u64,
    /// Nothing was read because the client is over its rate.
    paused: bool,
    /// Acknowledgements of the client cannot be reached behind what it publishes.
    pub(super) deaf: bool,
    /// The end of the stream, behind packets that are not handled yet.
    pub(super) ended: Option<Box<Close>>,
    bytes_out: u64,
}

impl fmt::Debug for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Established")
            .field("remote", &self.context.remote)
            .field("client_id", self.client_id())
            .finish_non_exhaustive()
    }
}

/// What is known of the client, and by which method.
pub(super) struct Authenticated {
    pub access: Access,
    /// Where CONNECT named an authentication method.
    pub extended: Option<Box<Extended>>,
    pub topics: Topics,
}

/// What packets are handled with: everything but the stream.
pub(super) struct State {
    pub lease: Lease,
    /// What the client may do.
    pub access: Access,
    /// Where CONNECT named an authentication method.
    pub extended: Option<Box<Extended>>,
    pub output: Output,
    pub cache: Cache,
    pub publisher: Publisher,
    pub aliases: InboundAliases,
    pub own_aliases: OutboundAliases,
    pub topics: Topics,
    /// `None` where no rate is limited.
    pub rates: Option<Box<Rates>>,
    pub scans: VecDeque<RetainedScan>,
    /// A subscriber that has to catch up before more is handled from this publisher.
    pub crowded: Option<Crowded>,
    pub replies: Replies,
    pub stored: StoredSide,
    pub traffic: Traffic,
    pub negotiated: Negotiated,
}

impl Established {
    pub(super) fn new(
        io: Box<dyn Io>,
        context: Context,
        input: Input,
        output: Output,
        mut lease: Lease,
        authenticated: Authenticated,
        negotiated: Negotiated,
    ) -> Box<Established> {
        let Authenticated { access, extended, topics } = authenticated;
        let resend = lease.session().inflight.resend().into();
        let stored = StoredSide::new(lease.session().rows_changed);
        let last_heard = context.broker.now();
        let state = State {
            cache: context.broker.route_cache(),
            publisher: context.broker.publisher(lease.subscriber()),
            lease,
            access,
            extended,
            output,
            aliases: InboundAliases::default(),
            own_aliases: OutboundAliases::new(negotiated.topic_aliases),
            topics,
            rates: Rates::new(&context.policy.rates, last_heard),
            scans: VecDeque::new(),
            crowded: None,
            replies: Replies::default(),
            stored,
            traffic: Traffic::default(),
            negotiated,
        };
        Box::new(Established {
            io,
            context,
            input,
            state,
            resend,
            timer: None,
            last_heard,
            stalled_since: None,
            taken: 0,
            paused: false,
            deaf: false,
            ended: None,
            bytes_out: 0,
        })
    }

    pub fn client_id(&self) -> &ByteString {
        self.state.lease.subscriber().client_id()
    }

    /// What others reach the session by.
    pub fn subscriber(&self) -> &Arc<Subscriber> {
        self.state.lease.subscriber()
    }

    pub(super) fn auto_subscribe(&mut self, names: &ClientNames) {
        self.state.auto_subscribe(names, &self.context);
    }

    /// Runs to the end of the connection; the session goes back to the broker when `self` is dropped.
    pub async fn run(mut self: Box<Self>) {
        let close = poll_fn(|cx| self.poll(cx)).await;
        Box::pin(self.end(close)).await;
    }

    async fn end(mut self: Box<Self>, close: Close) {
        self.context.metrics.traffic(&mut self.state.traffic);
        self.report_routes();
        if matches!(close, Close::Disconnected) {
            self.state.lease.forget_will();
        }
        let client_id = self.client_id().clone();
        let Established { io, context, state: State { lease, output, negotiated, .. }, .. } = *self;
        close.count_limit(context.broker.metrics());
        // The session is free for the next connection before this one's last bytes are written.
        drop(lease);
        if !matches!(close, Close::Kicked(ReasonCode::ServerShuttingDown | ReasonCode::UseAnotherServer)) {
            context.broker.connection_ended(&client_id);
        }
        let server = context.broker.config().server_reference.as_deref();
        farewell(io, output, &close, negotiated, server).await;
        let remote = context.remote;
        debug!(%remote, listener = &*context.listener, client_id = &*client_id, cause = %close, "connection ended");
    }

    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Close> {
        for _ in 0..ROUNDS {
            match self.poll_round(cx) {
                Ok(true) => {}
                Ok(false) => {
                    return match self.poll_timer(cx) {
                        Some(close) => Poll::Ready(close),
                        None => Poll::Pending,
                    };
                }
                Err(close) => return Poll::Ready(close),
            }
        }
        // A connection that is never idle has an end all the same.
        if let Some(close) = self.poll_timer(cx) {
            return Poll::Ready(close);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads, drains and writes once; `true` if there may be more to do at once.
    fn poll_round(&mut self, cx: &mut task::Context<'_>) -> Result<bool, Close> {
        // Before anything is delivered or granted by rules that have been replaced.
        if self.state.access.refresh() {
            self.state.withdraw();
        }
        let read = self.poll_input(cx)?;
        let drained = self.poll_outbox(cx)?;
        // What the input earned and what became durable meanwhile goes out with this write.
        let answered = self.state.flush_replies(cx)?;
        self.context.metrics.traffic(&mut self.state.traffic);
        let was_full = self.state.output.is_full();
        let before = self.bytes_out;
        let written = self.state.output.poll_write(cx, &mut *self.io, &mut self.bytes_out)?;
        if self.bytes_out != before {
            self.context.metrics.bytes_sent.fetch_add(self.bytes_out - before, Ordering::Relaxed);
        }
        let taken = self.context.taken.load(Ordering::Relaxed);
        match written {
            Poll::Ready(()) => self.stalled_since = None,
            Poll::Pending if taken != self.taken || self.stalled_since.is_none() => {
                self.stalled_since = Some(self.context.broker.now());
            }
            Poll::Pending => {}
        }
        self.taken = taken;
        if self.state.output.is_full() {
            let taken = usize::try_from(self.bytes_out - before).unwrap_or(usize::MAX);
            self.state.lease.subscriber().stall(taken, self.context.broker.now());
        }
        let room_again = was_full && !self.state.output.is_full();
        Ok(read || drained || answered || room_again)
    }

    fn poll_input(&mut self, cx: &mut task::Context<'_>) -> Result<bool, Close> {
        if self.state.waits(&self.context, cx.waker()) {
            return self.poll_ahead(cx);
        }
        if self.state.output.is_full() || self.state.poll_must_wait(cx) {
            return Ok(false);
        }
        if self.state.paused_until(&self.context).is_some() {
            self.paused = true;
            return Ok(false);
        }
        let max_packet_size = self.context.broker.config().max_packet_size;
        let Established { context, input, state, .. } = self;
        if !input.is_empty() {
            input.resume(max_packet_size, |frame| state.handle_next(frame, context))?;
            // It came while nothing was read, and counts as heard now.
            self.last_heard = context.broker.now();
        }
        let stop = state.output.is_full() || state.crowded.is_some() || state.must_wait();
        if stop || state.paused_until(context).is_some() {
            return Ok(true);
        }
        self.caught_up()?;
        let Established { io, context, input, state, .. } = self;
        match input.poll_read(cx, &mut **io, max_packet_size, |frame| state.handle_next(frame, context)) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(true)) => {
                self.last_heard = self.context.broker.now();
                Ok(true)
            }
            Poll::Ready(Ok(false)) => Err(Close::PeerClosed),
            Poll::Ready(Err(close)) => Err(close),
        }
    }

    /// Encodes what waits for the client: first what must be sent again, then the outbox, then retained messages.
    fn poll_outbox(&mut self, cx: &mut task::Context<'_>) -> Result<bool, Close> {
        let now = self.context.broker.now();
        while let Some(resend) = self.resend.front() {
            let under_way = self.state.lease.session().inflight.len().saturating_sub(self.resend.len());
            if self.state.output.is_full() || !self.state.send_again(resend, under_way, now)? {
                break;
            }
            self.resend.pop_front();
        }
        self.state.lease.subscriber().register(cx.waker());
        if self.state.output.is_full() {
            // Even a peer that does not read can be told to go.
            return self.state.kicked().map(|()| false);
        }
        let loaded = self.state.poll_queue(cx)?;
        let mut batch = BATCH_BUFFER.take();
        let result = self.state.drain(&mut batch, now, cx);
        batch.clear();
        BATCH_BUFFER.set(batch);
        result.map(|drained| drained || loaded)
    }

    /// The keep alive and the write timeout; the timer is set anew only when it fires, not with every packet.
    fn poll_timer(&mut self, cx: &mut task::Context<'_>) -> Option<Close> {
        loop {
            let now = self.context.broker.now();
            let Negotiated { keep_alive, write_timeout, valid_until, .. } = self.state.negotiated;
            if valid_until.is_some_and(|at| at <= now) {
                return Some(Close::Refused(ReasonCode::MaximumConnectTime, "the client's credentials have expired"));
            }
            let silence = keep_alive.map(|limit| self.last_heard.saturating_add(limit));
            let stall = self.stalled_since.map(|since| since.saturating_add(write_timeout));
            if stall.is_some_and(|at| at <= now) {
                return Some(Close::WriteTimeout);
            }
            let pause = self.state.paused_until(&self.context);
            if self.paused && pause.is_none() {
                // It may go on: what it sent in the meantime is read before anything is decided about it.
                self.paused = false;
                cx.waker().wake_by_ref();
                return None;
            }
            // A peer whose bytes we do not read, because it takes none, is too fast, or a subscriber or the store is behind, is not
            // silent.
            let behind = self.state.crowded.is_some() || self.state.must_wait();
            let unheard = self.state.output.is_full() || behind || pause.is_some();
            if silence.is_some_and(|at| at <= now) && !unheard {
                return Some(Close::KeepAlive);
            }
            let crowded = self.state.waits_until();
            if crowded.is_some_and(|at| at <= now) {
                // Whoever waits looks whether it still has to.
                cx.waker().wake_by_ref();
                return None;
            }
            let awaited = [silence.filter(|at| *at > now), stall, pause, valid_until, crowded];
            let Some(at) = awaited.into_iter().flatten().min() else {
                self.timer = None;
                return None;
            };
            let deadline = Instant::now() + Duration::from_millis(at.saturating_sub(now));
            let timer = match &mut self.timer {
                Some(timer) => {
                    // An earlier timer stays: it costs one wake-up, which finds that there is more time.
                    if timer.is_elapsed() || timer.deadline() > deadline {
                        timer.as_mut().reset(deadline);
                    }
                    timer
                }
                None => self.timer.insert(Box::pin(tokio::time::sleep_until(deadline))),
            };
            if timer.as_mut().poll(cx).is_pending() {
                return None;
            }
            self.state.cache.drop_stale();
            self.report_routes();
        }
    }

    /// Counted in the cache and handed over now and then: publishers share no counter for each message.
    fn report_routes(&mut self) {
        let (hits, misses) = self.state.cache.take_counts();
        self.context.broker.metrics().route_cache(hits, misses);
    }
}

impl State {
    /// Takes a batch from the outbox and encodes it; when the outbox is empty, retained messages refill it.
    fn drain(&mut self, batch: &mut Vec<Delivery>, now: Millis, cx: &mut task::Context<'_>) -> Result<bool, Close> {
        self.settle();
        let (broker, subscriber, session) = self.lease.parts();
        // [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-2] [MQTT-4.9.0-3]: answers do not wait for the window.
        let window = self.negotiated.window.saturating_sub(session.inflight.len());
        let drained = subscriber.drain(batch, BATCH, window, session.inflight.ids_below(), now);
        if let Some(reason) = drained.kick {
            return Err(Close::Kicked(reason));
        }
        if drained.expired > 0 {
            broker.metrics().dropped_expired.fetch_add(drained.expired as u64, Ordering::Relaxed);
        }
        let full = batch.len() >= BATCH;
        let mut sent = Ok(());
        for delivery in batch.drain(..) {
            if delivery.stored.released {
                if let Some(id) = self.lease.session().inflight.restore_released(delivery.stored.seq) {
                    self.output.push(&PubRel::new(id), self.negotiated.version)?;
                }
                continue;
            }
            let packet_id = match delivery.qos {
                QoS::AtMostOnce => None,
                _ => self.lease.session().inflight.begin(delivery.clone(), self.negotiated.window),
            };
            self.traffic.sent(delivery.qos);
            let dup = delivery.stored.again && packet_id.is_some();
            // What comes after a failure counts as under way too, so that it is sent on the next connection.
            if sent.is_ok() {
                sent = self.send(&delivery, Sending { packet_id, dup, ..Sending::default() }, now);
            }
        }
        sent?;
        match drained.held {
            // A commit that came in between is looked at again at once.
            Some(Held::Ticket(_)) => return Ok(!self.poll_commit(cx)),
            // Whoever reads wakes the task.
            Some(_) => return self.poll_queue(cx),
            None => {}
        }
        if drained.more {
            // More is there. The batch was full: only the next look says whether the client's window is closed, and publishers that wait
            // need to know. Or the window was closed, and an acknowledgement will wake us, unless it was closed by a message that the
            // client does not take.
            let (window, inflight) = (self.negotiated.window, self.lease.session().inflight.len());
            return Ok(full || window > inflight);
        }
        let (broker, subscriber, _) = self.lease.parts();
        match self.scans.front_mut() {
            Some(scan) => {
                let scanned = broker.poll_retained(cx, subscriber, scan, BATCH);
                if scanned == Scanned::Done {
                    self.scans.pop_front();
                }
                Ok(scanned != Scanned::Reading)
            }
            None => Ok(false),
        }
    }

    /// Sends retained messages for a new subscription, once however often it is repeated meanwhile.
    pub(super) fn start_scan(&mut self, scan: Option<RetainedScan>) {
        let Some(scan) = scan else { return };
        self.stop_scan(scan.filter());
        self.scans.push_back(scan);
    }

    /// Sends no further retained messages for a subscription.
    pub(super) fn stop_scan(&mut self, filter: &str) {
        self.scans.retain(|scan| scan.filter() != filter);
    }

    /// Ends what the rules in force refuse, and the retained messages on their way for it.
    pub(super) fn withdraw(&mut self) {
        let (broker, subscriber, session) = self.lease.parts();
        let refused = broker.withdraw(subscriber, session, &self.access);
        for filter in &refused {
            tracing::info!(
                client_id = &**self.lease.subscriber().client_id(),
                filter = &**filter,
                "a subscription is not allowed any more and ended"
            );
        }
        self.scans.retain(|scan| !refused.contains(scan.filter()));
        if !refused.is_empty() {
            self.lease.save();
        }
    }

    fn kicked(&mut self) -> Result<(), Close> {
        match self.lease.subscriber().kicked() {
            Some(reason) => Err(Close::Kicked(reason)),
            None => Ok(()),
        }
    }

    /// `false` when the message must wait: `under_way` are on their way on this connection, and its window may be smaller than the
    /// one before, [MQTT-4.9.0-2].
    fn send_again(&mut self, resend: &Resend, under_way: usize, now: Millis) -> Result<bool, Close> {
        match resend {
            Resend::Publish(..) if under_way >= self.negotiated.window => return Ok(false),
            Resend::Publish(id, delivery) => {
                // [MQTT-3.3.1-1]
                self.send(delivery, Sending { packet_id: Some(*id), dup: true, ..Sending::default() }, now)?;
            }
            Resend::Release(id) => self.output.push(&PubRel::new(*id), self.negotiated.version)?,
        }
        Ok(true)
    }

    /// Writes one PUBLISH. What is larger than the client takes is dropped as if it had been sent, [MQTT-3.1.2-24] [MQTT-3.1.2-25].
    fn send(&mut self, delivery: &Delivery, mut sending: Sending, now: Millis) -> Result<(), Close> {
        let State { own_aliases, topics, output, negotiated, .. } = self;
        let wire = Wire { version: negotiated.version, hidden_prefix: topics.mount() };
        if !own_aliases.is_off() {
            sending.topic_as = own_aliases.propose(delivery.visible_topic(wire));
        }
        if negotiated.max_packet_size < usize::MAX {
            let mut len = delivery.packet_len(wire, sending, now)?;
            if len > negotiated.max_packet_size && matches!(sending.topic_as, TopicAs::NameAndAlias(_)) {
                // A new alias makes this packet larger, and only later ones smaller.
                sending.topic_as = TopicAs::Name;
                len = delivery.packet_len(wire, sending, now)?;
            }
            if len > negotiated.max_packet_size {
                self.lease.broker().metrics().dropped_too_large.fetch_add(1, Ordering::Relaxed);
                if let Some(id) = sending.packet_id {
                    let row = self.lease.session().inflight.row(id);
                    self.lease.session().inflight.forget(id);
                    self.row_done(row);
                }
                return Ok(());
            }
        }
        delivery.encode(wire, sending, now, output.buffer())?;
        own_aliases.commit(delivery.visible_topic(wire), sending.topic_as);
        Ok(())
    }

    /// Until when the client's rates allow nothing to be read.
    fn paused_until(&self, context: &Context) -> Option<Millis> {
        self.rates.as_ref()?.paused_until(context.broker.now())
    }
}

/// Sends what is left and the reason for the end, as far as the peer takes it in time.
async fn farewell(
    mut io: Box<dyn Io>,
    mut output: Output,
    close: &Close,
    negotiated: Negotiated,
    server: Option<&str>,
) {
    if matches!(close, Close::PeerClosed | Close::Io(_) | Close::WriteTimeout) {
        return;
    }
    if let Some(reason) = close.disconnect_reason().filter(|_| negotiated.version.is_v5()) {
        // [MQTT-3.14.2-2] [MQTT-4.13.1-1] [MQTT-4.13.2-1]
        let mut packet = Disconnect::new(reason);
        packet.properties.reason_string = close.reason_string().filter(|_| negotiated.explain);
        if matches!(reason, ReasonCode::UseAnotherServer | ReasonCode::ServerMoved) {
            packet.properties.server_reference = server.map(Into::into);
        }
        let fits = |packet: &Disconnect| {
            packet.encoded_len(negotiated.version).is_ok_and(|len| len <= negotiated.max_packet_size)
        };
        // [MQTT-3.14.2-3]: what makes the packet too large is left out.
        if !fits(&packet) {
            packet.properties.reason_string = None;
        }
        if !fits(&packet) {
            packet.properties = DisconnectProperties::default();
        }
        if fits(&packet) {
            // It encoded a moment ago.
            let _encoded = output.push(&packet, negotiated.version);
        } else if fits(&Disconnect::new(ReasonCode::UnspecifiedError)) {
            // A reason that DISCONNECT may not carry.
            let _encoded = output.push(&Disconnect::new(ReasonCode::UnspecifiedError), negotiated.version);
        }
    }
    let mut written = 0;
    let send = async {
        poll_fn(|cx| output.poll_write(cx, &mut *io, &mut written)).await?;
        // [MQTT-3.14.4-1] [MQTT-3.14.4-2]
        tokio::io::AsyncWriteExt::shutdown(&mut io).await.map_err(Close::from)
    };
    // The peer may not read any more; the connection ends all the same.
    let sent = tokio::time::timeout(FAREWELL, send).await;
    if matches!(sent, Ok(Ok(()))) && !matches!(close, Close::Disconnected | Close::DisconnectedWithWill) {
        super::linger(&mut io).await;
    }
}
