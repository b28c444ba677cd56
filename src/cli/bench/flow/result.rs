//! The result of a flow: rates, losses and latencies, as a table and as JSON.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::account::Account;
use super::control::Lane;
use super::link::Target;
use super::publisher::Sent;
use super::{FlowArguments, Shape};
use crate::cli::bench::report::{Failures, Latency, fmt_latencies, latencies};

/// What came of a run.
pub(super) struct Measured {
    /// Length of the phase in which was published.
    pub seconds: f64,
    /// Sent, acknowledged and received in it.
    pub window: [u64; 3],
    pub sent: Sent,
    pub account: Account,
    pub failures: Failures,
}

#[derive(Debug, Serialize)]
pub(super) struct FlowReport {
    flow: &'static str,
    server: String,
    transport: String,
    mqtt_version: u8,
    qos: u8,
    payload_bytes: u32,
    publishers: usize,
    subscribers: usize,
    idle_subscriptions: usize,
    inflight: Option<u16>,
    /// Of each publisher; absent for as many as go through.
    rate_per_second: Option<f64>,
    /// Length of the phase in which was published. Rates count what happened in it, the other numbers all that came until the end.
    seconds: f64,
    pub(super) sent_per_second: f64,
    acknowledged_per_second: f64,
    pub(super) received_per_second: f64,
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    /// Deliveries that the messages sent make; absent if the publishers are not in this process.
    pub(super) expected: Option<u64>,
    pub(super) received: u64,
    /// Expected and never received; of publishers elsewhere, the gaps in their sequences.
    pub(super) missing: u64,
    pub(super) duplicates: u64,
    pub(super) out_of_order: u64,
    /// Messages that are none of `shangmq bench`.
    pub(super) unsequenced: u64,
    /// From sending to receiving, of messages of this process.
    pub(super) delivery: Latency,
    /// From sending to PUBACK or PUBCOMP.
    pub(super) acknowledgement: Latency,
    pub(super) failed: u64,
    failures: Failures,
}

impl FlowReport {
    pub fn new(
        arguments: &FlowArguments,
        shape: &Shape,
        target: &Target,
        measured: Measured,
        lanes: &[Arc<Lane>],
    ) -> Result<FlowReport, Box<dyn std::error::Error + Send + Sync>> {
        let Measured { seconds, window, sent, account, failures } = measured;
        let (mut delivery, mut acknowledgement) = (latencies()?, latencies()?);
        for lane in lanes {
            delivery.add(&*lane.delivery.lock())?;
            acknowledgement.add(&*lane.acknowledgement.lock())?;
        }
        let [sent_rate, acknowledged_rate, received_rate] =
            window.map(|count| if seconds > 0.0 { count as f64 / seconds } else { 0.0 });
        let expected = shape.expected(sent.sent);
        let endpoint = &target.endpoint;
        let security = endpoint.security.as_ref().map(|security| security.name);
        Ok(FlowReport {
            flow: shape.name,
            server: endpoint.authority(),
            transport: match (security, &endpoint.websocket) {
                (None, None) => "TCP".to_owned(),
                (Some(name), None) => name.to_owned(),
                (None, Some(_)) => "WebSocket".to_owned(),
                (Some(name), Some(_)) => format!("WebSocket over {name}"),
            },
            mqtt_version: target.version.level(),
            qos: arguments.qos.into(),
            payload_bytes: arguments.size,
            publishers: shape.topics.len(),
            subscribers: shape.filters.len(),
            idle_subscriptions: shape.idle_subscriptions,
            inflight: (u8::from(arguments.qos) > 0).then_some(arguments.window),
            rate_per_second: arguments.rate.map(|every| 1.0 / every.as_secs_f64()),
            seconds,
            sent_per_second: sent_rate,
            acknowledged_per_second: acknowledged_rate,
            received_per_second: received_rate,
            sent: sent.sent,
            acknowledged: sent.acknowledged,
            refused: sent.refused,
            expected,
            received: account.received,
            missing: expected.map_or(account.gaps, |expected| expected.saturating_sub(account.distinct)),
            duplicates: account.duplicates,
            out_of_order: account.out_of_order,
            unsequenced: account.unsequenced,
            delivery: Latency::of(&delivery),
            acknowledgement: Latency::of(&acknowledgement),
            failed: failures.total(),
            failures,
        })
    }

    /// Nobody failed, and what a QoS promises was kept.
    pub fn is_good(&self) -> bool {
        let kept = self.qos == 0 || self.missing == 0;
        let once = self.qos != 2 || self.duplicates == 0;
        self.failed == 0 && kept && once
    }
}

impl fmt::Display for FlowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "server        {} over {}, MQTT level {}", self.server, self.transport, self.mqtt_version)?;
        write!(
            f,
            "{:<14}{} to {}, QoS {}, {} bytes",
            self.flow, self.publishers, self.subscribers, self.qos, self.payload_bytes
        )?;
        if let Some(inflight) = self.inflight {
            write!(f, ", {inflight} in flight")?;
        }
        match self.rate_per_second {
            Some(rate) => writeln!(f, ", {rate:.1}/s each, {:.2} s", self.seconds)?,
            None => writeln!(f, ", {:.2} s", self.seconds)?,
        }
        if self.publishers > 0 {
            writeln!(f, "sent          {:>12.1}/s  {} in all", self.sent_per_second, self.sent)?;
            if self.inflight.is_some() {
                write!(f, "acknowledged  {:>12.1}/s  {} in all", self.acknowledged_per_second, self.acknowledged)?;
                writeln!(
                    f,
                    "{}",
                    if self.refused > 0 { format!(", {} refused", self.refused) } else { String::new() }
                )?;
            }
        }
        if self.subscribers > 0 {
            write!(f, "received      {:>12.1}/s  {} in all", self.received_per_second, self.received)?;
            if let Some(expected) = self.expected {
                write!(f, " of {expected}")?;
            }
            writeln!(
                f,
                "\nloss          {} missing, {} duplicates, {} out of order",
                self.missing, self.duplicates, self.out_of_order
            )?;
            if self.qos > 0 && self.missing > 0 && self.failed == 0 {
                writeln!(
                    f,
                    "              a full queue drops the oldest: in ShangMQ mqtt.max_mqueue_len and mqtt.max_mqueue_bytes bound it, and\n\
                     {:14}shangmq_messages_dropped_total{{reason=\"queue_full\"}} counts what it dropped",
                    ""
                )?;
            }
            if self.unsequenced > 0 {
                writeln!(f, "              {} messages without a sequence number", self.unsequenced)?;
            }
        }
        fmt_latencies(f, &[("delivery", &self.delivery), ("acknowledge", &self.acknowledgement)])?;
        write!(f, "{}", self.failures)
    }
}
