//! The client's half of the protocol: acknowledgements of both directions, keep alive, the limits of the server.
//!
//! A message that is published:
//!
//! ```text
//!   QoS 0 ── sent
//!   QoS 1 ── Acknowledgement ── PUBACK ──────────────────────► Published
//!   QoS 2 ── Reception ── PUBREC, sends PUBREL ── Completion ── PUBCOMP ──► Published
//! ```

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::Bytes;
use mqtt_codec::{
    Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, Disconnect, Encode, Packet, PacketType, ProtocolVersion,
    PubAck, PubComp, PubRec, PubRel, Publish, QoS, ReasonCode, Secret, Subscribe, SubscribeProperties, Subscription,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::{ClientError, Connection, Scram, scram};

/// Most messages that wait for an acknowledgement, whatever the server allows.
const MAX_IN_FLIGHT: u16 = 20;

/// How long a PINGRESP may take at most.
const PING_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a server may take to end its side after DISCONNECT.
const LINGER: Duration = Duration::from_secs(1);

/// What the server did.
#[derive(Debug)]
pub enum Event {
    /// A message for a subscription. Its acknowledgement is written by the next call of [`Client::next`].
    Message(Publish),
    /// A message of QoS 1 or 2 was taken, or refused if the reason is an error.
    Published { packet_id: NonZeroU16, reason: ReasonCode },
    /// The answer to a SUBSCRIBE, one reason for each of its filters.
    Subscribed { packet_id: NonZeroU16, reasons: Vec<ReasonCode> },
}

/// What is awaited for a packet identifier of this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Acknowledgement,
    Reception,
    Completion,
    Subscription,
}

/// A connection after a successful CONNACK.
#[derive(Debug)]
pub struct Client<S> {
    connection: Connection<S>,
    server: ConnAckProperties,
    keep_alive: Option<Duration>,
    last_sent: Instant,
    /// When the PINGREQ was sent that has no answer yet.
    pinged: Option<Instant>,
    last_packet_id: u16,
    /// At most [`MAX_IN_FLIGHT`] messages, and the subscriptions.
    in_flight: HashMap<NonZeroU16, Stage>,
    /// Messages of QoS 2 that were delivered and not yet released. Bounded by the number of identifiers.
    unreleased: HashSet<NonZeroU16>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Sends CONNECT and waits for CONNACK. There is no deadline here: the caller puts one around this.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the server's reason, or what was wrong with the connection.
    pub async fn connect(io: S, connect: Connect, max_packet_size: u32) -> Result<(Self, ConnAck), ClientError> {
        Client::authenticate(io, connect, None, max_packet_size).await
    }

    /// As [`Client::connect`], and proves who the client is by `scram`, where there is one. The server must prove itself in turn.
    ///
    /// # Errors
    /// As [`Client::connect`], and [`ClientError::Scram`].
    pub async fn authenticate(
        io: S,
        mut connect: Connect,
        mut scram: Option<Scram>,
        max_packet_size: u32,
    ) -> Result<(Self, ConnAck), ClientError> {
        if let Some(scram) = &scram {
            let first = Secret::from(Bytes::from(scram.first()));
            connect.properties.authentication_method = Some(scram::METHOD.into());
            connect.properties.authentication_data = Some(first);
        }
        let version = connect.version;
        let keep_alive_secs = connect.keep_alive_secs;
        let mut connection = Connection::new(io, version, max_packet_size);
        debug!(client_id = &*connect.client_id, version = version.name(), level = version.level(), "sending CONNECT");
        connection.queue(&Packet::from(connect))?;
        let connack = loop {
            match (connection.receive().await?, &mut scram) {
                (Some(Packet::ConnAck(connack)), _) => break *connack,
                (Some(Packet::Auth(challenge)), Some(scram)) => {
                    debug!(reason = ?challenge.reason, "received AUTH");
                    let challenge = challenge.properties.authentication_data;
                    let answer = scram.answer(challenge.as_ref().map_or(b"", Secret::as_bytes))?;
                    let properties = AuthProperties {
                        authentication_method: Some(scram::METHOD.into()),
                        authentication_data: Some(Secret::from(Bytes::from(answer))),
                        ..AuthProperties::default()
                    };
                    connection.queue(&Packet::from(Auth { reason: ReasonCode::ContinueAuthentication, properties }))?;
                }
                (Some(other), _) => return Err(ClientError::Unexpected(other.packet_type())),
                (None, _) => return Err(ClientError::ClosedBeforeConnAck),
            }
        };
        debug!(reason = ?connack.reason, session_present = connack.session_present, "received CONNACK");
        if connack.reason != ReasonCode::Success {
            let text = connack.properties.reason_string.clone();
            return Err(ClientError::Refused { version, reason: connack.reason, text });
        }
        if let Some(scram) = scram {
            scram.check(connack.properties.authentication_data.as_ref().map(Secret::as_bytes))?;
        }
        // [MQTT-3.2.2-21]
        let keep_alive_secs = connack.properties.server_keep_alive_secs.unwrap_or(keep_alive_secs);
        let client = Self {
            connection,
            server: connack.properties.clone(),
            keep_alive: (keep_alive_secs > 0).then(|| Duration::from_secs(keep_alive_secs.into())),
            last_sent: Instant::now(),
            pinged: None,
            last_packet_id: 0,
            in_flight: HashMap::new(),
            unreleased: HashSet::new(),
        };
        Ok((client, connack))
    }

    /// The stream below.
    pub fn stream(&self) -> &S {
        self.connection.stream()
    }

    /// The version of MQTT.
    pub fn version(&self) -> ProtocolVersion {
        self.connection.version()
    }

    /// How many requests wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether another message may be published now.
    pub fn may_publish(&self) -> bool {
        self.in_flight.len() < self.max_in_flight()
    }

    /// Sends a message; `packet_id` and `dup` of `message` are set here. `None` for QoS 0, which has no answer. Waits only
    /// while much is unwritten.
    ///
    /// # Errors
    /// A message that the server has said it does not take, or one more than [`Client::may_publish`] allows.
    pub async fn publish(&mut self, mut message: Publish) -> Result<Option<NonZeroU16>, ClientError> {
        if let Some(maximum) = self.server.maximum_qos
            && message.qos > maximum
        {
            return Err(ClientError::QoSNotSupported(maximum)); // [MQTT-3.2.2-11]
        }
        if message.retain && self.server.retain_available == Some(false) {
            return Err(ClientError::RetainNotSupported); // [MQTT-3.2.2-14]
        }
        message.dup = false;
        message.packet_id = None;
        let stage = match message.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(Stage::Acknowledgement),
            QoS::ExactlyOnce => Some(Stage::Reception),
        };
        if stage.is_some() {
            if !self.may_publish() {
                return Err(ClientError::TooManyInFlight(self.in_flight.len()));
            }
            message.packet_id = Some(self.free_packet_id()?);
        }
        let (packet_id, qos) = (message.packet_id, message.qos);
        let (topic, len) = (message.topic.clone(), message.payload.len());
        self.send(Packet::Publish(message))?;
        let id = packet_id.map(NonZeroU16::get);
        debug!(packet_id = id, qos = u8::from(qos), topic = &*topic, len, "sending PUBLISH");
        if let (Some(packet_id), Some(stage)) = (packet_id, stage) {
            self.in_flight.insert(packet_id, stage);
        }
        if self.connection.is_congested() {
            self.connection.flush().await?;
        }
        Ok(packet_id)
    }

    /// Asks for subscriptions. The answer is an [`Event::Subscribed`] with the identifier that this returns.
    ///
    /// # Errors
    /// A packet that cannot be encoded, for instance without any filter.
    pub fn subscribe(&mut self, subscriptions: Vec<Subscription>) -> Result<NonZeroU16, ClientError> {
        let packet_id = self.free_packet_id()?;
        debug!(%packet_id, filters = subscriptions.len(), "sending SUBSCRIBE");
        let properties = SubscribeProperties::default();
        self.send(Packet::Subscribe(Subscribe { packet_id, properties, subscriptions }))?;
        self.in_flight.insert(packet_id, Stage::Subscription);
        Ok(packet_id)
    }

    /// Waits for what the server does next, keeping the connection alive. Cancel-safe.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            let received = match self.deadline() {
                Some(deadline) => timeout_at(deadline, self.connection.receive()).await,
                None => Ok(self.connection.receive().await),
            };
            match received {
                Ok(packet) => {
                    let packet = packet?.ok_or_else(|| ClientError::Closed(self.connection.version()))?;
                    if let Some(event) = self.handle(packet)? {
                        return Ok(event);
                    }
                }
                Err(_elapsed) => self.ping()?,
            }
        }
    }

    /// Sends DISCONNECT after everything queued, ends the stream, and gives the server a moment to end its side: closing
    /// with bytes unread would make the system reset the connection, and the server could lose the last messages.
    ///
    /// # Errors
    /// The connection failed before everything was written.
    pub async fn disconnect(mut self) -> Result<(), ClientError> {
        debug!("sending DISCONNECT");
        self.send(Packet::Disconnect(Disconnect::default()))?;
        self.connection.flush().await?;
        // A failure from here on says no more about what the server has taken: it may have closed first.
        let close = async {
            let _ = self.connection.shut_down().await;
            while let Ok(Some(_)) = self.connection.receive().await {}
        };
        let _ = timeout(LINGER, close).await;
        Ok(())
    }

    fn handle(&mut self, packet: Packet) -> Result<Option<Event>, ClientError> {
        debug!(packet = ?packet.packet_type(), "received");
        match packet {
            Packet::Publish(message) => self.handle_publish(message),
            Packet::PubAck(PubAck { packet_id, reason, .. }) => {
                self.finish(packet_id, Stage::Acknowledgement)?;
                Ok(Some(Event::Published { packet_id, reason }))
            }
            Packet::PubRec(PubRec { packet_id, reason, .. }) => self.handle_pubrec(packet_id, reason),
            Packet::PubComp(PubComp { packet_id, reason, .. }) => {
                self.finish(packet_id, Stage::Completion)?;
                Ok(Some(Event::Published { packet_id, reason }))
            }
            Packet::PubRel(PubRel { packet_id, .. }) => {
                // [MQTT-4.3.3-11]: answered whether or not the identifier is known.
                let known = self.unreleased.remove(&packet_id);
                let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
                self.send(Packet::PubComp(PubComp::with_reason(packet_id, reason)))?;
                Ok(None)
            }
            Packet::SubAck(suback) => {
                self.finish(suback.packet_id, Stage::Subscription)?;
                Ok(Some(Event::Subscribed { packet_id: suback.packet_id, reasons: suback.reasons }))
            }
            Packet::PingResp => {
                self.pinged = None;
                Ok(None)
            }
            Packet::Disconnect(disconnect) => {
                Err(ClientError::Disconnected { reason: disconnect.reason, text: disconnect.properties.reason_string })
            }
            other => Err(ClientError::Unexpected(other.packet_type())),
        }
    }

    fn handle_publish(&mut self, message: Publish) -> Result<Option<Event>, ClientError> {
        match (message.qos, message.packet_id) {
            (QoS::AtLeastOnce, Some(packet_id)) => self.send(Packet::PubAck(PubAck::new(packet_id)))?,
            (QoS::ExactlyOnce, Some(packet_id)) => {
                self.send(Packet::PubRec(PubRec::new(packet_id)))?;
                // Delivered when first seen; the identifier is kept until PUBREL (section 4.3.3, method A).
                if !self.unreleased.insert(packet_id) {
                    return Ok(None);
                }
            }
            _ => {}
        }
        Ok(Some(Event::Message(message)))
    }

    fn handle_pubrec(&mut self, packet_id: NonZeroU16, reason: ReasonCode) -> Result<Option<Event>, ClientError> {
        self.finish(packet_id, Stage::Reception)?;
        if reason.is_error() {
            // [MQTT-4.3.3-4]: no PUBREL follows a refusal.
            return Ok(Some(Event::Published { packet_id, reason }));
        }
        self.in_flight.insert(packet_id, Stage::Completion);
        self.send(Packet::PubRel(PubRel::new(packet_id)))?;
        Ok(None)
    }

    /// Ends what waits for this answer.
    fn finish(&mut self, packet_id: NonZeroU16, stage: Stage) -> Result<(), ClientError> {
        if self.in_flight.get(&packet_id) != Some(&stage) {
            return Err(ClientError::UnknownPacketId(packet_id.get()));
        }
        self.in_flight.remove(&packet_id);
        Ok(())
    }

    fn send(&mut self, packet: Packet) -> Result<(), ClientError> {
        if let Some(limit) = self.server.maximum_packet_size.map(|limit| limit.get()) {
            let size = packet.encoded_len(self.connection.version())?;
            if u32::try_from(size).map_or(true, |size| size > limit) {
                return Err(ClientError::TooLarge { size, limit }); // [MQTT-3.2.2-15]
            }
        }
        self.connection.queue(&packet)?;
        self.last_sent = Instant::now();
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        let keep_alive = self.keep_alive?;
        Some(match self.pinged {
            Some(pinged) => pinged + keep_alive.min(PING_TIMEOUT),
            None => self.last_sent + keep_alive,
        })
    }

    fn ping(&mut self) -> Result<(), ClientError> {
        if self.pinged.is_some() {
            let waited = self.keep_alive.unwrap_or(PING_TIMEOUT).min(PING_TIMEOUT);
            return Err(ClientError::NoPingResponse(waited.as_secs()));
        }
        debug!(packet = ?PacketType::PingReq, "sending");
        self.send(Packet::PingReq)?;
        self.pinged = Some(self.last_sent);
        Ok(())
    }

    fn max_in_flight(&self) -> usize {
        let allowed = self.server.receive_maximum.map_or(u16::MAX, NonZeroU16::get); // [MQTT-3.3.4-9]
        allowed.min(MAX_IN_FLIGHT).into()
    }

    fn free_packet_id(&mut self) -> Result<NonZeroU16, ClientError> {
        for _ in 0..=self.in_flight.len() {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            if let Some(packet_id) = NonZeroU16::new(self.last_packet_id)
                && !self.in_flight.contains_key(&packet_id)
            {
                return Ok(packet_id);
            }
        }
        Err(ClientError::TooManyInFlight(self.in_flight.len()))
    }
}
