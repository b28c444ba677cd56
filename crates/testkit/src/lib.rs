//! What the integration tests speak with: a raw MQTT packet client over any byte stream, shorthand for packets, the transports,
//! peers that write TLS and TLCP by hand, and a disk that fails.
//!
//! It knows nothing of the broker: a test hands it an address or a stream. Failures panic with the packets that differ.

mod ca_service;
mod client;
mod faulty_disk;
mod packets;
mod process;
pub mod raw;
pub mod raw_tlcp;
mod transport;

pub use ca_service::{Behaviour, CaService};
pub use client::{AnyStream, Client, Stream};
pub use faulty_disk::{Dice, FaultyDisk, FaultyFile};
pub use mqtt_codec::{
    ConnAck, Connect, Disconnect, Packet, ProtocolVersion, PubAck, PubComp, PubRec, PubRel, Publish, QoS, ReasonCode,
    RetainHandling, SubAck, Subscribe, SubscriptionId, UnsubAck, Unsubscribe, Will,
};
pub use packets::{
    AckExt, ConnectExt, PublishExt, SubscribeExt, WillExt, connect, disconnect, packet_id, puback, pubcomp, publish,
    pubrec, pubrel, qos, suback, subscribe, unsubscribe, will,
};
pub use process::BrokerProcess;
pub use transport::{Dialer, Transport};

/// Makes a module with one test for each [`Transport`] from one body, named `name::tcp`, `name::tlcp` and so on:
/// `over_every_transport!(publishes, |transport| async move { ... });`
#[macro_export]
macro_rules! over_every_transport {
    ($(#[$doc:meta])* $name:ident, $body:expr) => {
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $crate::test_with!(tcp, $crate::Transport::Tcp, $body);
            $crate::test_with!(tls12, $crate::Transport::Tls12, $body);
            $crate::test_with!(tls13, $crate::Transport::Tls13, $body);
            $crate::test_with!(rfc8998, $crate::Transport::Rfc8998, $body);
            $crate::test_with!(tlcp, $crate::Transport::Tlcp, $body);
            $crate::test_with!(ws, $crate::Transport::Ws, $body);
            $crate::test_with!(wss_tls13, $crate::Transport::WssTls13, $body);
            $crate::test_with!(wss_tlcp, $crate::Transport::WssTlcp, $body);
        }
    };
}

/// Makes a module with one test for MQTT 3.1.1 and one for MQTT 5.0 from one body, named `name::v311` and `name::v5`.
#[macro_export]
macro_rules! in_both_versions {
    ($(#[$doc:meta])* $name:ident, $body:expr) => {
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $crate::test_with!(v311, $crate::ProtocolVersion::V3_1_1, $body);
            $crate::test_with!(v5, $crate::ProtocolVersion::V5, $body);
        }
    };
}

/// One asynchronous test that calls `body` with `argument`.
#[doc(hidden)]
#[macro_export]
macro_rules! test_with {
    ($name:ident, $argument:expr, $body:expr) => {
        #[tokio::test]
        async fn $name() {
            #[allow(clippy::redundant_closure_call)]
            ($body)($argument).await
        }
    };
}
