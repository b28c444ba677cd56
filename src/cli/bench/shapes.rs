//! The flows by name: `pub`, `sub`, `pair`, `fanout` and `fanin` differ in who publishes to whom.

use bytestring::ByteString;
use clap::Args;
use mqtt_codec::topic;

use super::flow::{FlowArguments, Shape};
use crate::cli::Outcome;

/// Stands for the number of a client in a topic.
const NUMBER: &str = "%i";

/// Most clients of a run.
const MAX_CLIENTS: i64 = 1_000_000;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct PubArguments {
    /// Publishers
    #[arg(short = 'c', long = "clients", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_CLIENTS))]
    clients: u32,
    /// Topic; %i becomes the number of the publisher
    #[arg(short, long, default_value = "bench/%i")]
    topic: String,
    #[command(flatten)]
    flow: FlowArguments,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct SubArguments {
    /// Subscribers
    #[arg(short = 'c', long = "clients", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_CLIENTS))]
    clients: u32,
    /// Topic filter; %i becomes the number of the subscriber. --count is then of messages received by all together.
    #[arg(short, long, default_value = "bench/%i")]
    topic: String,
    #[command(flatten)]
    flow: FlowArguments,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct PairArguments {
    /// Pairs
    #[arg(short = 'c', long = "pairs", visible_alias = "clients", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=MAX_CLIENTS))]
    pairs: u32,
    /// Subscriptions, half of them with wildcards, that other clients hold meanwhile and that nothing is published to
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    idle_subscriptions: u32,
    #[command(flatten)]
    flow: FlowArguments,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct FanoutArguments {
    /// Publishers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_CLIENTS))]
    publishers: u32,
    /// Subscribers
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=MAX_CLIENTS))]
    subscribers: u32,
    #[command(flatten)]
    flow: FlowArguments,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct FaninArguments {
    /// Publishers
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=MAX_CLIENTS))]
    publishers: u32,
    /// Subscribers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_CLIENTS))]
    subscribers: u32,
    #[command(flatten)]
    flow: FlowArguments,
}

/// A topic that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--topic {text:?}: {cause}")]
struct WrongTopic {
    text: String,
    cause: topic::TopicError,
}

impl PubArguments {
    pub(super) fn run(&self) -> Outcome {
        topic::validate_name(&self.topic).map_err(|cause| WrongTopic { text: self.topic.clone(), cause })?;
        self.flow.run(|_| Shape { name: "pub", topics: numbered(&self.topic, self.clients), ..Shape::default() })
    }
}

impl SubArguments {
    pub(super) fn run(&self) -> Outcome {
        topic::validate_filter(&self.topic).map_err(|cause| WrongTopic { text: self.topic.clone(), cause })?;
        self.flow.run(|_| Shape { name: "sub", filters: numbered(&self.topic, self.clients), ..Shape::default() })
    }
}

impl PairArguments {
    pub(super) fn run(&self) -> Outcome {
        self.flow.run(|run| pair(run, self.pairs, self.idle_subscriptions))
    }
}

impl FanoutArguments {
    pub(super) fn run(&self) -> Outcome {
        self.flow.run(|run| fanout(run, self.publishers, self.subscribers))
    }
}

impl FaninArguments {
    pub(super) fn run(&self) -> Outcome {
        self.flow.run(|run| fanin(run, self.publishers, self.subscribers))
    }
}

pub(super) fn pair(run: u32, pairs: u32, idle_subscriptions: u32) -> Shape {
    let topics = numbered(&format!("bench/{run:08x}/{NUMBER}"), pairs);
    let idle_subscriptions = usize::try_from(idle_subscriptions).unwrap_or(usize::MAX);
    Shape { name: "pair", filters: topics.clone(), topics, heard: 1, idle_subscriptions }
}

pub(super) fn fanout(run: u32, publishers: u32, subscribers: u32) -> Shape {
    let topic = format!("bench/{run:08x}/all");
    let topics = numbered(&topic, publishers);
    Shape { name: "fanout", filters: numbered(&topic, subscribers), heard: topics.len(), topics, idle_subscriptions: 0 }
}

pub(super) fn fanin(run: u32, publishers: u32, subscribers: u32) -> Shape {
    let topics = numbered(&format!("bench/{run:08x}/{NUMBER}"), publishers);
    let filters = numbered(&format!("bench/{run:08x}/+"), subscribers);
    Shape { name: "fanin", filters, heard: topics.len(), topics, idle_subscriptions: 0 }
}

fn numbered(topic: &str, count: u32) -> Vec<ByteString> {
    (0..count).map(|number| ByteString::from(topic.replace(NUMBER, &number.to_string()))).collect()
}
