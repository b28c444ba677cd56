//! Measured flows of messages: who publishes, who subscribes, on which topics, and the run from the first connection to the result.

mod account;
mod control;
mod link;
mod payload;
mod publisher;
mod result;
mod subscriber;
#[cfg(test)]
mod tests;
mod wire;

pub(super) use link::{Link, LinkError, MAX_PACKET_SIZE, Target};
pub(super) use payload::STAMP_LEN;

use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use clap::Args;
use mqtt_codec::QoS;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::options::{ClientArguments, allow_connections, duration, rate, time_limit};
use super::pool::Pool;
use super::progress::Progress;
use super::report::Failures;
use super::{on_this_thread, write_report};
use crate::causes::Causes;
use crate::cli::Outcome;
use crate::cli::session::{Interrupt, qos};
use account::{Account, Books};
use control::{Control, Lane, Live, Phase};
use payload::Clock;
use publisher::{Plan, Publisher, Sent};
use result::{FlowReport, Measured};
use subscriber::Subscriber;
use wire::Template;

/// Connections being made at once.
const CONNECTING: usize = 64;

/// How often the end of a run is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// What all flows can be told.
#[derive(Debug, Args)]
pub(super) struct FlowArguments {
    /// QoS of messages and subscriptions: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// Bytes of each payload
    #[arg(short, long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(STAMP_LEN as i64..=i64::from(MAX_PACKET_SIZE) - 70_000))]
    size: u32,
    /// QoS 1 and 2 messages that each publisher has in flight
    #[arg(short = 'w', long = "inflight", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// Messages a second of each publisher [default: as many as go through]
    #[arg(short, long, value_parser = rate)]
    rate: Option<Duration>,
    /// How long to publish, for instance 500ms, 10s or 2m [default: 10s without --count]
    #[arg(short, long, value_parser = duration)]
    duration: Option<Duration>,
    /// Messages of each publisher
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// How long to wait at the end for what is under way, counted from the last message that came
    #[arg(long, value_parser = duration, default_value = "1s")]
    drain: Duration,
    #[command(flatten)]
    client: ClientArguments,
}

/// Who publishes to whom.
#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    /// The subcommand, for the report.
    pub name: &'static str,
    /// The topic of each publisher.
    pub topics: Vec<ByteString>,
    /// The filter of each subscriber.
    pub filters: Vec<ByteString>,
    /// Publishers that each subscriber hears of this process; 0 if that is not known.
    pub heard: usize,
    /// Filters that nothing is published to, held by clients of their own meanwhile.
    pub idle_subscriptions: usize,
}

/// Filters in one SUBSCRIBE of a client that only holds subscriptions.
const FILTERS_PER_CLIENT: usize = 1000;

/// A run did not come about.
#[derive(Debug, thiserror::Error)]
enum FlowError {
    #[error("{failed} of {clients} clients could not connect: {example}")]
    Connect { failed: u64, clients: usize, example: String },
    #[error("interrupted before all clients were connected")]
    Interrupted,
    #[error("the system gives no thread")]
    NoThread,
}

/// A number that tells this run's topics, client identifiers and payloads from those of any other.
pub(super) fn run_number() -> Result<u32, getrandom::Error> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)?;
    Ok(u32::from_be_bytes(random))
}

struct Run<'a> {
    arguments: &'a FlowArguments,
    shape: &'a Shape,
    target: Arc<Target>,
    pool: Pool,
    lanes: Vec<Arc<Lane>>,
    control: Control,
    phase: watch::Sender<Phase>,
}

struct Clients {
    subscribers: Vec<Subscriber>,
    publishers: Vec<Publisher>,
    /// Held for their subscriptions alone.
    holders: Vec<Subscriber>,
}

impl FlowArguments {
    pub(super) fn run(&self, shape: impl FnOnce(u32) -> Shape) -> Outcome {
        on_this_thread(async {
            let number = run_number()?;
            let report = self.measure(&shape(number), number).await?;
            write_report(&report, self.client.json)?;
            Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }

    /// Connects everyone, publishes, waits for what is under way, and adds up.
    async fn measure(
        &self,
        shape: &Shape,
        number: u32,
    ) -> Result<FlowReport, Box<dyn std::error::Error + Send + Sync>> {
        let holders = shape.idle_subscriptions.div_ceil(FILTERS_PER_CLIENT);
        allow_connections(shape.topics.len() + shape.filters.len() + holders)?;
        let target = Arc::new(self.client.target().await?);
        let pool = Pool::start(Pool::threads(self.client.threads))?;
        let lanes = (0..pool.len()).map(|_| Lane::new().map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        let (phase, receiver) = watch::channel(Phase::Ready);
        let control = Control {
            run: number,
            clock: Clock::start(),
            live: Arc::new(Live::default()),
            lane: Arc::clone(lanes.first().ok_or(FlowError::NoThread)?),
            phase: receiver,
        };
        let mut interrupt = Interrupt::install()?;
        let run = Run { arguments: self, shape, target, pool, lanes, control, phase };
        let clients = tokio::select! {
            clients = run.connect() => clients?,
            () = interrupt.wait() => return Err(FlowError::Interrupted.into()),
        };
        run.go(clients, &mut interrupt).await
    }
}

impl Run<'_> {
    fn control(&self, index: usize) -> Control {
        let lane = index.checked_rem(self.lanes.len()).and_then(|index| self.lanes.get(index));
        Control { lane: Arc::clone(lane.unwrap_or(&self.control.lane)), ..self.control.clone() }
    }

    /// Subscribers first, so that they miss nothing.
    async fn connect(&self) -> Result<Clients, FlowError> {
        let gate = Arc::new(Semaphore::new(CONNECTING));
        let qos = self.arguments.qos;
        let mut holders = Vec::new();
        for index in 0..self.shape.idle_subscriptions.div_ceil(FILTERS_PER_CLIENT) {
            let first = index * FILTERS_PER_CLIENT;
            let end = self.shape.idle_subscriptions.min(first + FILTERS_PER_CLIENT);
            let run = self.control.run;
            let filters = (first..end).map(|number| idle_filter(run, number)).collect();
            holders.push(self.subscriber(&gate, index, 'h', filters));
        }
        let holders = gather(holders).await?;
        let subscribers = self.shape.filters.iter().enumerate();
        let subscribers = gather(
            subscribers.map(|(index, filter)| self.subscriber(&gate, index, 's', vec![filter.clone()])).collect(),
        )
        .await?;
        let mut publishers = Vec::new();
        for (index, topic) in self.shape.topics.iter().enumerate() {
            let (target, gate, topic) = (Arc::clone(&self.target), Arc::clone(&gate), topic.clone());
            let size = usize::try_from(self.arguments.size).unwrap_or(usize::MAX);
            let publishers_len = u32::try_from(self.shape.topics.len()).unwrap_or(u32::MAX);
            let number = u32::try_from(index).unwrap_or(u32::MAX);
            let every = self.arguments.rate;
            let mut plan = Plan {
                index: number,
                qos,
                window: self.arguments.window,
                count: self.arguments.count,
                every,
                // Spread over the interval, so that they do not all send in the same moment.
                delay: every.map_or(Duration::ZERO, |every| {
                    every.mul_f64(f64::from(number) / f64::from(publishers_len.max(1)))
                }),
            };
            let client_id = self.client_id('p', index);
            publishers.push(self.pool.spawn(index, async move {
                // The semaphore is never closed.
                let _permit = gate.acquire().await;
                let (link, ack) = target.open(client_id).await?;
                if ack.properties.maximum_qos.is_some_and(|max| max < qos) {
                    return Err(LinkError::QoS(ack.properties.maximum_qos.unwrap_or_default()));
                }
                if let Some(maximum) = ack.properties.receive_maximum {
                    plan.window = plan.window.min(maximum.get());
                }
                let template = Template::new(target.version, &topic, qos, size)?;
                Ok(Publisher::new(link, template, plan))
            }));
        }
        Ok(Clients { subscribers, publishers: gather(publishers).await?, holders })
    }

    fn subscriber(
        &self,
        gate: &Arc<Semaphore>,
        index: usize,
        kind: char,
        filters: Vec<ByteString>,
    ) -> Option<JoinHandle<Result<Subscriber, LinkError>>> {
        let (target, gate) = (Arc::clone(&self.target), Arc::clone(gate));
        let (client_id, control, qos) = (self.client_id(kind, index), self.control(index), self.arguments.qos);
        self.pool.spawn(index, async move {
            let _permit = gate.acquire().await;
            let (link, _) = target.open(client_id).await?;
            let books = Books::new(control.run);
            Subscriber::subscribe(&target, link, books, filters, qos, &control).await
        })
    }

    /// At most 23 letters and digits, as every server must take [MQTT-3.1.3-5].
    fn client_id(&self, kind: char, index: usize) -> ByteString {
        format!("bench{:08x}{kind}{index}", self.control.run).into()
    }

    async fn go(
        self,
        clients: Clients,
        interrupt: &mut Interrupt,
    ) -> Result<FlowReport, Box<dyn std::error::Error + Send + Sync>> {
        let spawn = |index, subscriber: Subscriber| self.pool.spawn(index, subscriber.run(self.control(index)));
        let holders: Vec<_> =
            clients.holders.into_iter().enumerate().filter_map(|(index, holder)| spawn(index, holder)).collect();
        let subscribers: Vec<_> = clients
            .subscribers
            .into_iter()
            .enumerate()
            .filter_map(|(index, subscriber)| spawn(index, subscriber))
            .collect();
        let publishers: Vec<_> = clients
            .publishers
            .into_iter()
            .enumerate()
            .filter_map(|(index, publisher)| self.pool.spawn(index, publisher.run(self.control(index))))
            .collect();
        let start = Instant::now();
        self.phase.send_replace(Phase::Running);
        self.running(&publishers, &subscribers, start, interrupt).await;
        let seconds = start.elapsed().as_secs_f64();
        let window = self.control.live.snapshot();
        self.phase.send_replace(Phase::Draining);
        self.draining(&publishers, &subscribers, interrupt).await;
        self.phase.send_replace(Phase::Over);
        let mut failures = Failures::default();
        let mut sent = Sent::default();
        for publisher in publishers {
            let (done, result) = publisher.await?;
            sent.sent += done.sent;
            sent.acknowledged += done.acknowledged;
            sent.refused += done.refused;
            count_failure(&mut failures, result);
        }
        let mut account = Account::default();
        for subscriber in subscribers {
            let (done, result) = subscriber.await?;
            account.add(&done);
            count_failure(&mut failures, result);
        }
        for holder in holders {
            let (_, result) = holder.await?;
            count_failure(&mut failures, result);
        }
        let measured = Measured { seconds, window, sent, account, failures };
        FlowReport::new(self.arguments, self.shape, &self.target, measured, &self.lanes)
    }

    /// Until the time is over, everyone has sent what was asked for, or nobody is left.
    async fn running(
        &self,
        publishers: &[JoinHandle<(Sent, Result<(), LinkError>)>],
        subscribers: &[JoinHandle<(Account, Result<(), LinkError>)>],
        start: Instant,
        interrupt: &mut Interrupt,
    ) {
        let mut progress = Progress::new(self.arguments.client.progress, start);
        let limit = time_limit(self.arguments.duration, self.arguments.count).map(|limit| start + limit);
        let counted = self.arguments.count.map(NonZeroU64::get);
        loop {
            tokio::select! {
                () = interrupt.wait() => break,
                () = progress.tick() => {
                    let [sent, acknowledged, received] = self.control.live.snapshot();
                    let count = if self.shape.filters.is_empty() { sent.max(acknowledged) } else { received };
                    progress.print(count, format_args!("sent {sent}  acknowledged {acknowledged}  received {received}"));
                }
                () = at(limit) => break,
                () = sleep(LOOK) => {
                    let [_, _, received] = self.control.live.snapshot();
                    let all_sent = !publishers.is_empty() && publishers.iter().all(JoinHandle::is_finished);
                    let all_came = match counted {
                        Some(count) if publishers.is_empty() => received >= count,
                        Some(_) => self.expected().is_none_or(|expected| received >= expected),
                        None => true,
                    };
                    let all_gone = !subscribers.is_empty() && subscribers.iter().all(JoinHandle::is_finished);
                    let done = if publishers.is_empty() { counted.is_some() && all_came } else { all_sent };
                    if all_gone || done {
                        break;
                    }
                }
            }
        }
        progress.end();
    }

    /// Until everything that was sent came, or nothing came or was acknowledged for a while.
    async fn draining(
        &self,
        publishers: &[JoinHandle<(Sent, Result<(), LinkError>)>],
        subscribers: &[JoinHandle<(Account, Result<(), LinkError>)>],
        interrupt: &mut Interrupt,
    ) {
        let mut last = (Instant::now(), self.control.live.snapshot());
        loop {
            let now = self.control.live.snapshot();
            let all_sent = publishers.iter().all(JoinHandle::is_finished);
            let all_gone = subscribers.iter().all(JoinHandle::is_finished);
            let [_, _, received] = now;
            let all_came = self.expected().is_some_and(|expected| received >= expected);
            if all_sent && (all_came || all_gone || self.shape.heard == 0) {
                return;
            }
            if now != last.1 {
                last = (Instant::now(), now);
            } else if last.0.elapsed() >= self.arguments.drain {
                return;
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = interrupt.wait() => return,
            }
        }
    }

    /// Messages that subscribers should have received by now; `None` if the publishers are not this process's.
    fn expected(&self) -> Option<u64> {
        let [sent, ..] = self.control.live.snapshot();
        self.shape.expected(sent)
    }
}

impl Shape {
    /// How many deliveries `sent` messages make.
    fn expected(&self, sent: u64) -> Option<u64> {
        let publishers = self.topics.len();
        if self.heard == 0 || publishers == 0 {
            return None;
        }
        // Every publisher has the same number of subscribers.
        let receivers = self.filters.len() * self.heard / publishers;
        Some(sent.saturating_mul(receivers as u64))
    }
}

/// Half with a wildcard, none of which matches a measured topic.
fn idle_filter(run: u32, number: usize) -> ByteString {
    match number % 4 {
        0 => format!("bench-idle/{run:08x}/{number}/state"),
        1 => format!("bench-idle/{run:08x}/{number}/+"),
        2 => format!("bench/{run:08x}/idle/{number}"),
        _ => format!("bench/{run:08x}/idle/{number}/#"),
    }
    .into()
}

async fn gather<T>(handles: Vec<Option<JoinHandle<Result<T, LinkError>>>>) -> Result<Vec<T>, FlowError> {
    let clients = handles.len();
    let mut done = Vec::with_capacity(clients);
    let mut failed = 0;
    let mut example = String::new();
    for handle in handles {
        let handle = handle.ok_or(FlowError::NoThread)?;
        let failure = match handle.await {
            Ok(Ok(client)) => {
                done.push(client);
                continue;
            }
            Ok(Err(error)) => Causes(&error).to_string(),
            Err(error) => error.to_string(),
        };
        if failed == 0 {
            example = failure;
        }
        failed += 1;
    }
    if failed > 0 { Err(FlowError::Connect { failed, clients, example }) } else { Ok(done) }
}

fn count_failure(failures: &mut Failures, result: Result<(), LinkError>) {
    if let Err(error) = result {
        failures.count(&error.cause(), 1, || Causes(&error).to_string());
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
