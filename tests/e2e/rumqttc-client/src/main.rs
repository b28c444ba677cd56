//! Publishes a file or prints what arrives, with rumqttc. See tests/e2e/peers.py for the options
//! and the lines it prints.

#![allow(clippy::print_stdout, reason = "its output is what the tests read")]

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, Outgoing, Packet, QoS, SubscribeReasonCode};

type Failure = Box<dyn std::error::Error>;

struct Options {
    publishes: bool,
    values: HashMap<String, String>,
}

impl Options {
    fn read() -> Result<Options, Failure> {
        let mut words = std::env::args().skip(1);
        let publishes = match words.next().as_deref() {
            Some("pub") => true,
            Some("sub") => false,
            _ => return Err("pub or sub".into()),
        };
        let mut values = HashMap::new();
        while let Some(word) = words.next() {
            let name = word.trim_start_matches("--").to_owned();
            let flag = matches!(name.as_str(), "retain" | "persistent");
            let value = if flag { String::new() } else { words.next().ok_or("an option without its value")? };
            values.insert(name, value);
        }
        Ok(Options { publishes, values })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    fn number(&self, name: &str, default: u16) -> Result<u16, Failure> {
        Ok(self.get(name).map_or(Ok(default), str::parse)?)
    }

    fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    fn payload(&self) -> Result<Vec<u8>, Failure> {
        Ok(self.get("file").map_or(Ok(Vec::new()), std::fs::read)?)
    }

    /// rumqttc asks for an identifier.
    fn id(&self) -> String {
        self.get("id").map_or_else(|| format!("rumqttc-{}", std::process::id()), str::to_owned)
    }
}

fn print(topic: &str, qos: u8, retain: bool, payload: &[u8]) {
    let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("MESSAGE {topic} {qos} {} {hex}", u8::from(retain));
}

/// Goes on until everything is published, or received and acknowledged.
async fn run(options: &Options) -> Result<(), Failure> {
    let qos = match options.number("qos", 0)? {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    };
    let mut settings = MqttOptions::new(options.id(), "localhost", options.number("port", 1883)?);
    settings.set_keep_alive(Duration::from_secs(30));
    settings.set_clean_session(!options.has("persistent"));
    settings.set_max_packet_size(8 << 20, 8 << 20);
    if let Some(topic) = options.get("will-topic") {
        settings.set_last_will(LastWill::new(topic, options.text("will-payload"), QoS::AtLeastOnce, false));
    }
    let (client, mut events) = AsyncClient::new(settings, 16);
    let topic = options.text("topic");
    let mut left = options.number("count", 1)?;
    loop {
        match events.poll().await? {
            Event::Incoming(Packet::ConnAck(_)) if options.publishes => {
                client.publish(&topic, qos, options.has("retain"), options.payload()?).await?;
            }
            Event::Incoming(Packet::ConnAck(ack)) if ack.session_present => println!("READY"),
            Event::Incoming(Packet::ConnAck(_)) => client.subscribe(&topic, qos).await?,
            Event::Incoming(Packet::SubAck(ack)) => match ack.return_codes.first() {
                Some(SubscribeReasonCode::Success(_)) => println!("READY"),
                other => return Err(format!("{other:?}").into()),
            },
            Event::Incoming(Packet::Publish(message)) => {
                print(&message.topic, message.qos as u8, message.retain, &message.payload);
                left = left.saturating_sub(1);
                if left == 0 && message.qos == QoS::AtMostOnce {
                    client.disconnect().await?;
                }
            }
            Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) if options.publishes => client.disconnect().await?,
            Event::Outgoing(Outgoing::Publish(_)) if qos == QoS::AtMostOnce => client.disconnect().await?,
            // The last message is acknowledged, or it would come again to the next connection.
            Event::Outgoing(Outgoing::PubAck(_) | Outgoing::PubComp(_)) if left == 0 => client.disconnect().await?,
            Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
            _ => {}
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let all = async {
        let options = Options::read()?;
        run(&options).await
    };
    match tokio::time::timeout(Duration::from_secs(60), all).await {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            println!("refused: {error}");
            ExitCode::FAILURE
        }
        Err(_) => ExitCode::FAILURE,
    }
}
