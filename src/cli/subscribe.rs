//! `shangmq sub`: subscribes and prints messages until it is told to stop.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use mqtt_codec::{Publish, QoS, RetainHandling, Subscription, SubscriptionOptions, UserProperties, topic};
use tokio::time::{Instant, sleep_until};

use super::Outcome;
use super::printable::printable;
use super::session::{Interrupt, SessionArguments, block_on, establish, qos};
use super::transport::TransportArguments;
use crate::client::{Client, Event, Stream, words};

/// Exit code when the time of `-W` is over, that of mosquitto_sub.
const TIMED_OUT: u8 = 27;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct Arguments {
    /// Topic filter; may be repeated
    #[arg(short, long = "topic", value_name = "FILTER")]
    topics: Vec<String>,
    /// Do not print messages whose topic matches this filter; may be repeated
    #[arg(short = 'T', long, value_name = "FILTER")]
    filter_out: Vec<String>,
    /// Highest QoS to receive: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// Keep the session, and what comes for it meanwhile, when the connection ends; needs --id
    #[arg(short = 'c', long)]
    disable_clean_session: bool,
    /// Exit after this many messages
    #[arg(short = 'C', long, value_name = "COUNT")]
    count: Option<NonZeroU64>,
    /// Exit with code 27 after this many seconds
    #[arg(short = 'W', long, value_name = "SECS")]
    timeout: Option<u32>,
    /// Exit as soon as the server has answered the subscriptions
    #[arg(short = 'E', long)]
    exit_after_subscribe: bool,
    /// Print the topic before each payload
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
    /// Do not print messages that were retained
    #[arg(short = 'R', long)]
    no_retained: bool,
    /// Print retained messages alone
    #[arg(long, conflicts_with = "no_retained")]
    retained_only: bool,
    /// Keep the retain flag as it was published (MQTT 5)
    #[arg(long)]
    retain_as_published: bool,
    /// Print no line end after a message
    #[arg(short = 'N', long)]
    no_newline: bool,
    /// How to print a message: %t topic, %p payload, %x payload in hexadecimal, %l its length, %q QoS, %r retain,
    /// %m packet identifier, %% percent sign, \n \r \t \\ as usual
    #[arg(short = 'F', long, value_parser = Format::parse)]
    format: Option<Format>,
    #[command(flatten)]
    session: SessionArguments,
    #[command(flatten)]
    transport: TransportArguments,
}

#[derive(Debug, thiserror::Error)]
enum SubscribeError {
    #[error("no topic filter: give -t, or a topic in the URL")]
    NoFilter,
    #[error("\"{filter}\" is no topic filter: {source}")]
    Filter { filter: String, source: topic::TopicError },
    #[error("--retain-as-published needs -V 5")]
    NeedsVersion5,
}

/// How a message is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Format(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Topic,
    Payload,
    Hexadecimal,
    Length,
    QoS,
    Retain,
    PacketId,
}

impl Arguments {
    pub(super) fn run(self) -> Outcome {
        self.session.start_log();
        block_on(self.subscribe())
    }

    async fn subscribe(self) -> Outcome {
        let deadline = self.timeout.map(|secs| Instant::now() + Duration::from_secs(secs.into()));
        let subscriptions = self.subscriptions()?;
        let max_packet_size = self.session.max_packet_size();
        let endpoint = self.transport.endpoint(usize::try_from(max_packet_size).unwrap_or(usize::MAX))?;
        let mut connect =
            self.session.connect(&self.transport, self.disable_clean_session, UserProperties::default())?;
        let scram = self.session.scram(&mut connect)?;
        let io = endpoint.connect().await?;
        let (mut client, _) = establish(&endpoint, io, connect, scram, max_packet_size).await?;
        let mut interrupt = Interrupt::install()?;
        client.subscribe(subscriptions.clone())?;
        // Every branch is cancel-safe or ends the program.
        let outcome = tokio::select! {
            () = interrupt.wait() => Ok(ExitCode::SUCCESS),
            () = passed(deadline) => Ok(ExitCode::from(TIMED_OUT)),
            outcome = self.print(&mut client, &subscriptions) => outcome,
        };
        if outcome.is_ok() {
            client.disconnect().await?;
        }
        outcome
    }

    fn subscriptions(&self) -> Result<Vec<Subscription>, SubscribeError> {
        let from_url = self.transport.url.as_ref().and_then(|url| url.topic.as_ref());
        let valid = |filter: &String| {
            topic::SharedFilter::parse(filter)
                .and_then(|_| topic::validate_filter(filter))
                .map_err(|source| SubscribeError::Filter { filter: filter.clone(), source })
        };
        self.filter_out.iter().try_for_each(valid)?;
        if self.retain_as_published && !self.session.version.is_v5() {
            return Err(SubscribeError::NeedsVersion5);
        }
        let options = SubscriptionOptions {
            qos: self.qos,
            no_local: false,
            retain_as_published: self.retain_as_published,
            retain_handling: if self.no_retained && self.session.version.is_v5() && !self.retain_as_published {
                RetainHandling::DoNotSend
            } else {
                RetainHandling::SendAtSubscribe
            },
        };
        let mut subscriptions = Vec::new();
        for filter in self.topics.iter().chain(from_url) {
            valid(filter)?;
            subscriptions.push(Subscription { filter: filter.as_str().into(), options });
        }
        if subscriptions.is_empty() { Err(SubscribeError::NoFilter) } else { Ok(subscriptions) }
    }

    /// Prints messages until there were enough of them or nobody reads them any more.
    async fn print(&self, client: &mut Client<Box<dyn Stream>>, subscriptions: &[Subscription]) -> Outcome {
        let format = self.format();
        let mut left = self.count.map(NonZeroU64::get);
        let mut line = Vec::new();
        loop {
            match client.next().await? {
                Event::Subscribed { reasons, .. } => {
                    if let Some(refused) = report(subscriptions, &reasons) {
                        return Ok(ExitCode::from(refused));
                    }
                    if self.exit_after_subscribe {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                Event::Message(message) if self.is_wanted(&message) => {
                    line.clear();
                    format.print(&message, &mut line)?;
                    match write(&line) {
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                        written => written?,
                    }
                    line.shrink_to(64 * 1024);
                    left = left.map(|left| left - 1);
                    if left == Some(0) {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                Event::Message(_) | Event::Published { .. } => {}
            }
        }
    }

    fn is_wanted(&self, message: &Publish) -> bool {
        let retained = if message.retain { !self.no_retained } else { !self.retained_only };
        retained && !self.filter_out.iter().any(|filter| topic::matches(filter, &message.topic))
    }

    fn format(&self) -> Format {
        let mut format = match &self.format {
            Some(format) => format.clone(),
            None if self.verbose => Format(vec![Piece::Topic, Piece::Text(" ".to_owned()), Piece::Payload]),
            None => Format(vec![Piece::Payload]),
        };
        if !self.no_newline {
            format.0.push(Piece::Text("\n".to_owned()));
        }
        format
    }
}

impl Format {
    fn parse(text: &str) -> Result<Format, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars();
        while let Some(char) = rest.next() {
            if char == '\\' {
                plain.push(match rest.next() {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some('\\') => '\\',
                    other => return Err(format!("\\{} is unknown", other.map(String::from).unwrap_or_default())),
                });
                continue;
            }
            if char != '%' {
                plain.push(char);
                continue;
            }
            let piece = match rest.next() {
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                Some('t') => Piece::Topic,
                Some('p') => Piece::Payload,
                Some('x') => Piece::Hexadecimal,
                Some('l') => Piece::Length,
                Some('q') => Piece::QoS,
                Some('r') => Piece::Retain,
                Some('m') => Piece::PacketId,
                other => return Err(format!("%{} is unknown", other.map(String::from).unwrap_or_default())),
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Format(pieces))
    }

    fn print(&self, message: &Publish, out: &mut Vec<u8>) -> io::Result<()> {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Topic => out.extend_from_slice(message.topic.as_bytes()),
                Piece::Payload => out.extend_from_slice(&message.payload),
                Piece::Hexadecimal => message.payload.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?,
                Piece::Length => write!(out, "{}", message.payload.len())?,
                Piece::QoS => write!(out, "{}", u8::from(message.qos))?,
                Piece::Retain => write!(out, "{}", u8::from(message.retain))?,
                Piece::PacketId => write!(out, "{}", message.packet_id.map_or(0, |id| id.get()))?,
            }
        }
        Ok(())
    }
}

/// Says which filters were refused. The reason of the last, if it is all of them.
fn report(subscriptions: &[Subscription], reasons: &[mqtt_codec::ReasonCode]) -> Option<u8> {
    let mut refused = None;
    for (subscription, reason) in subscriptions.iter().zip(reasons).filter(|(_, reason)| reason.is_error()) {
        refused = Some(reason.as_u8());
        let (filter, words) = (&subscription.filter, words(*reason));
        // With standard error closed there is nobody left to tell; the exit code still says it.
        let _ = writeln!(io::stderr().lock(), "shangmq: the server refused the subscription {filter}: {words}");
    }
    refused.filter(|_| reasons.iter().all(|reason| reason.is_error()))
}

fn write(line: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if out.is_terminal() { out.write_all(&printable(line)) } else { out.write_all(line) }?;
    out.flush()
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mqtt_codec::{PublishProperties, ReasonCode};

    use super::*;

    fn parse(arguments: &[&str]) -> Arguments {
        crate::cli::tests::try_parse(arguments).unwrap()
    }

    fn message(topic: &str, retain: bool) -> Publish {
        Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain,
            topic: topic.into(),
            packet_id: std::num::NonZeroU16::new(7),
            properties: PublishProperties::default(),
            payload: Bytes::from_static(b"\xffhi"),
        }
    }

    fn printed(arguments: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        parse(arguments).format().print(&message("a/b", false), &mut out).unwrap();
        out
    }

    #[test]
    fn prints_the_payload_as_it_is() {
        assert_eq!(printed(&["-t", "x"]), b"\xffhi\n");
        assert_eq!(printed(&["-t", "x", "-N"]), b"\xffhi");
        assert_eq!(printed(&["-t", "x", "-v"]), b"a/b \xffhi\n");
    }

    #[test]
    fn prints_by_a_format() {
        assert_eq!(printed(&["-F", r"%t|%x|%l|%q|%r|%m|%%\t", "-N"]), b"a/b|ff6869|3|1|0|7|%\t");
        for wrong in ["%", "%z", r"\", r"\q"] {
            assert!(Format::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn filters_come_from_arguments_and_the_url() {
        let arguments = parse(&["-L", "mqtt://host/c/%23", "-t", "a", "-t", "$share/g/b/+", "-q", "1"]);
        let subscriptions = arguments.subscriptions().unwrap();
        let filters: Vec<_> = subscriptions.iter().map(|subscription| &*subscription.filter).collect();
        assert_eq!(filters, ["a", "$share/g/b/+", "c/#"]);
        assert!(subscriptions.iter().all(|subscription| subscription.options.qos == QoS::AtLeastOnce));
    }

    #[test]
    fn refuses_filters_that_are_none() {
        assert!(matches!(parse(&[]).subscriptions(), Err(SubscribeError::NoFilter)));
        for wrong in ["a/#/b", "a+", "$share/g"] {
            assert!(matches!(parse(&["-t", wrong]).subscriptions(), Err(SubscribeError::Filter { .. })), "{wrong}");
        }
    }

    #[test]
    fn leaves_out_what_is_not_wanted() {
        let arguments = parse(&["-t", "#", "-T", "a/#", "-R"]);
        assert!(!arguments.is_wanted(&message("a/b", false)));
        assert!(!arguments.is_wanted(&message("b", true)));
        assert!(arguments.is_wanted(&message("b", false)));
        let arguments = parse(&["-t", "#", "--retained-only"]);
        assert!(arguments.is_wanted(&message("b", true)));
        assert!(!arguments.is_wanted(&message("b", false)));
    }

    #[test]
    fn ends_only_if_every_subscription_was_refused() {
        let subscriptions = parse(&["-t", "a", "-t", "b"]).subscriptions().unwrap();
        let refused = ReasonCode::NotAuthorized;
        assert_eq!(report(&subscriptions, &[refused, ReasonCode::Success]), None);
        assert_eq!(report(&subscriptions, &[refused, refused]), Some(0x87));
    }
}
