//! `shangmq pub`: publishes one message, or each line of standard input, and waits until the server has taken them.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use bytestring::ByteString;
use clap::Args;
use mqtt_codec::{MAX_REMAINING_LENGTH, Publish, PublishProperties, QoS, ReasonCode, UserProperties, topic};
use tokio::sync::mpsc;

use super::Outcome;
use super::session::{Interrupt, SessionArguments, block_on, establish, qos};
use super::transport::TransportArguments;
use crate::client::{Client, Event, Stream, words};

/// Lines of standard input that wait to be published.
const LINES_AHEAD: usize = 16;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct Arguments {
    /// Topic name
    #[arg(short, long)]
    topic: Option<String>,
    #[command(flatten)]
    payload: PayloadArguments,
    /// QoS: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// Have the server retain the message
    #[arg(short, long)]
    retain: bool,
    /// A user property of the message (MQTT 5); may be repeated
    #[arg(short = 'D', long, num_args = 2, value_names = ["NAME", "VALUE"])]
    user_property: Vec<String>,
    /// Seconds after which the message is of no use any more (MQTT 5)
    #[arg(long, value_name = "SECS")]
    message_expiry_interval: Option<u32>,
    /// Content type of the payload (MQTT 5)
    #[arg(long, value_name = "TEXT")]
    content_type: Option<String>,
    /// Topic that a response is to be published to (MQTT 5)
    #[arg(long, value_name = "TOPIC")]
    response_topic: Option<String>,
    #[command(flatten)]
    session: SessionArguments,
    #[command(flatten)]
    transport: TransportArguments,
}

/// Where payloads come from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PayloadArguments {
    /// Payload
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Publish an empty payload
    #[arg(short = 'n', long)]
    null_message: bool,
    /// File that is the payload
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Publish each line of standard input as a message
    #[arg(short = 'l', long)]
    stdin_line: bool,
    /// Publish all of standard input as one message
    #[arg(short = 's', long)]
    stdin_file: bool,
}

#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("no topic: give -t, or a topic in the URL")]
    NoTopic,
    #[error("\"{topic}\" is no topic name: {source}")]
    Topic { topic: String, source: topic::TopicError },
    #[error("{0} needs -V 5")]
    NeedsVersion5(&'static str),
    #[error("cannot read {origin}")]
    Unreadable { origin: String, source: io::Error },
    #[error("{origin} is larger than a message may be, {MAX_REMAINING_LENGTH} bytes")]
    TooLarge { origin: String },
    #[error("interrupted before the server had taken everything; {0} messages are open")]
    Interrupted(usize),
}

/// Payloads in the order in which they are to be published.
#[derive(Debug)]
enum Payloads {
    One(Option<Bytes>),
    Lines(mpsc::Receiver<Result<Bytes, PublishError>>),
}

impl Arguments {
    pub(super) fn run(self) -> Outcome {
        self.session.start_log();
        block_on(self.publish())
    }

    async fn publish(self) -> Outcome {
        let template = self.template()?;
        let endpoint = self.transport.endpoint(self.max_message_len())?;
        let mut connect = self.session.connect(&self.transport, false, UserProperties::default())?;
        let scram = self.session.scram(&mut connect)?;
        let payloads = self.payload.open()?;
        let io = endpoint.connect().await?;
        let (client, _) = establish(&endpoint, io, connect, scram, self.session.max_packet_size()).await?;
        publish_all(client, template, payloads, Interrupt::install()?).await
    }

    fn max_message_len(&self) -> usize {
        usize::try_from(self.session.max_packet_size()).unwrap_or(usize::MAX)
    }

    /// The message without its payload.
    fn template(&self) -> Result<Publish, PublishError> {
        let from_url = || self.transport.url.as_ref().and_then(|url| url.topic.clone());
        let name = self.topic.clone().or_else(from_url).ok_or(PublishError::NoTopic)?;
        let valid = |name: &str| {
            topic::validate_name(name).map_err(|source| PublishError::Topic { topic: name.to_owned(), source })
        };
        valid(&name)?;
        self.response_topic.as_deref().map(valid).transpose()?;
        if !self.session.version.is_v5() {
            let given = [
                (!self.user_property.is_empty(), "--user-property"),
                (self.message_expiry_interval.is_some(), "--message-expiry-interval"),
                (self.content_type.is_some(), "--content-type"),
                (self.response_topic.is_some(), "--response-topic"),
            ];
            if let Some(option) = given.into_iter().find_map(|(given, name)| given.then_some(name)) {
                return Err(PublishError::NeedsVersion5(option));
            }
        }
        let mut user_properties = UserProperties::default();
        for property in self.user_property.chunks_exact(2) {
            if let [name, value] = property {
                user_properties.push(name.as_str(), value.as_str());
            }
        }
        Ok(Publish {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: name.into(),
            packet_id: None,
            properties: PublishProperties {
                message_expiry_interval: self.message_expiry_interval,
                content_type: self.content_type.clone().map(ByteString::from),
                response_topic: self.response_topic.clone().map(ByteString::from),
                user_properties,
                ..PublishProperties::default()
            },
            payload: Bytes::new(),
        })
    }
}

impl PayloadArguments {
    fn open(&self) -> Result<Payloads, PublishError> {
        if self.stdin_line {
            let (sender, receiver) = mpsc::channel(LINES_AHEAD);
            // Reading standard input cannot be cancelled: the thread ends with the input or with the process.
            std::thread::spawn(move || read_lines(&mut io::stdin().lock(), &sender));
            return Ok(Payloads::Lines(receiver));
        }
        let payload = if self.stdin_file {
            read_whole(io::stdin().lock(), "standard input")?
        } else if let Some(path) = &self.file {
            let origin = path.display().to_string();
            let file =
                File::open(path).map_err(|source| PublishError::Unreadable { origin: origin.clone(), source })?;
            read_whole(file, &origin)?
        } else {
            Bytes::from(self.message.clone().unwrap_or_default())
        };
        Ok(Payloads::One(Some(payload)))
    }
}

impl Payloads {
    /// The next payload; `None` after the last. Cancel-safe.
    async fn next(&mut self) -> Option<Result<Bytes, PublishError>> {
        match self {
            Payloads::One(payload) => payload.take().map(Ok),
            Payloads::Lines(lines) => lines.recv().await,
        }
    }
}

/// Publishes until the payloads end and the server has answered for all of them.
async fn publish_all(
    mut client: Client<Box<dyn Stream>>,
    template: Publish,
    mut payloads: Payloads,
    mut interrupt: Interrupt,
) -> Outcome {
    let mut ended = false;
    let mut refused = None;
    while !ended || client.in_flight() > 0 {
        let may_publish = !ended && client.may_publish();
        // Every branch is cancel-safe, as its function says.
        tokio::select! {
            () = interrupt.wait() => {
                let open = client.in_flight();
                client.disconnect().await?;
                return Err(PublishError::Interrupted(open).into());
            }
            event = client.next() => {
                if let Event::Published { reason, .. } = event? && reason.is_error() {
                    report(&template.topic, reason);
                    refused = Some(reason);
                }
            }
            payload = payloads.next(), if may_publish => match payload {
                Some(payload) => {
                    client.publish(Publish { payload: payload?, ..template.clone() }).await?;
                }
                None => ended = true,
            }
        }
    }
    client.disconnect().await?;
    Ok(refused.map_or(ExitCode::SUCCESS, |reason: ReasonCode| ExitCode::from(reason.as_u8())))
}

fn report(topic: &str, reason: ReasonCode) {
    // With standard error closed there is nobody left to tell; the exit code still says it.
    let _ = writeln!(io::stderr().lock(), "shangmq: the server refused a message to {topic}: {}", words(reason));
}

fn read_whole(input: impl Read, origin: &str) -> Result<Bytes, PublishError> {
    let most = u64::from(MAX_REMAINING_LENGTH);
    let mut payload = Vec::new();
    let read = input.take(most + 1).read_to_end(&mut payload);
    let read = read.map_err(|source| PublishError::Unreadable { origin: origin.to_owned(), source })?;
    if u64::try_from(read).map_or(true, |read| read > most) {
        return Err(PublishError::TooLarge { origin: origin.to_owned() });
    }
    Ok(payload.into())
}

/// Sends each line without its end, until the input or the receiver ends.
fn read_lines(input: &mut impl BufRead, lines: &mpsc::Sender<Result<Bytes, PublishError>>) {
    loop {
        let mut line = Vec::new();
        let read = input.by_ref().take(u64::from(MAX_REMAINING_LENGTH)).read_until(b'\n', &mut line);
        let item = match read {
            Ok(0) => return,
            Ok(_) if line.last() == Some(&b'\n') => {
                line.pop();
                Ok(line.into())
            }
            Ok(read) if u32::try_from(read).is_ok_and(|read| read < MAX_REMAINING_LENGTH) => Ok(line.into()),
            Ok(_) => Err(PublishError::TooLarge { origin: "a line of standard input".to_owned() }),
            Err(source) => Err(PublishError::Unreadable { origin: "standard input".to_owned(), source }),
        };
        let failed = item.is_err();
        if lines.blocking_send(item).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        crate::cli::tests::try_parse(arguments)
    }

    #[test]
    fn exactly_one_payload_is_given() {
        assert!(parse(&["-t", "a"]).is_err());
        assert!(parse(&["-t", "a", "-m", "x", "-n"]).is_err());
        for payload in [&["-m", "x"][..], &["-n"], &["-f", "x"], &["-l"], &["-s"]] {
            assert!(parse(&[&["-t", "a"][..], payload].concat()).is_ok(), "{payload:?}");
        }
    }

    #[test]
    fn arguments_become_the_message() {
        let line = ["-h", "host", "-p", "1", "-t", "a/b", "-m", "x", "-q", "2", "-r", "-D", "k", "v", "-D", "k", "w"];
        let message = parse(&line).unwrap().template().unwrap();
        assert_eq!((&*message.topic, message.qos, message.retain), ("a/b", QoS::ExactlyOnce, true));
        let properties: Vec<_> = message.properties.user_properties.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(properties, [("k", "v"), ("k", "w")]);
    }

    #[test]
    fn the_topic_may_be_in_the_url() {
        let arguments = parse(&["-L", "mqtt://host/a/b", "-n"]).unwrap();
        assert_eq!(&*arguments.template().unwrap().topic, "a/b");
        assert!(matches!(parse(&["-n"]).unwrap().template(), Err(PublishError::NoTopic)));
    }

    #[test]
    fn a_filter_is_no_topic_name() {
        assert!(matches!(parse(&["-t", "a/#", "-n"]).unwrap().template(), Err(PublishError::Topic { .. })));
    }

    #[test]
    fn properties_need_version_5() {
        let arguments = parse(&["-t", "a", "-n", "-V", "311", "-D", "k", "v"]).unwrap();
        assert!(matches!(arguments.template(), Err(PublishError::NeedsVersion5("--user-property"))));
    }

    #[test]
    fn lines_lose_their_end_and_the_last_needs_none() {
        let (sender, mut receiver) = mpsc::channel(8);
        read_lines(&mut &b"one\n\nlast"[..], &sender);
        drop(sender);
        let mut lines = Vec::new();
        while let Some(line) = receiver.blocking_recv() {
            lines.push(line.unwrap());
        }
        assert_eq!(lines, ["one", "", "last"]);
    }
}
