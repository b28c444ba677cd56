//! The states before a session exists: waiting for CONNECT, then for the answer of authentication.

use super::authenticate::{Extended, authenticate, read_frame};
use super::established::{Authenticated, Established, Negotiated};
use super::input::Input;
use super::output::Output;
use super::{Close, Context, Io};
use crate::auth::acl::Publishing;
use crate::auth::{Access, Admitted, AuthRequest, DenyReason, VerifiedCertificate};
use crate::broker::{OpenRequest, Opened};
use crate::config::MqttConfig;
use crate::metrics::Checked;
use crate::session::{Message, SessionExpiry, Will, millis};
use bytes::Bytes;
use bytestring::ByteString;
use mqtt_codec::{
    ConnAck, ConnAckProperties, Connect, PayloadFormat, ProtocolVersion, PublishProperties, QoS, ReasonCode, Secret,
    decode_connect,
};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Time for a refusal to reach a peer that reads.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that has not said anything yet.
pub(super) struct AwaitConnect {
    io: Box<dyn Io>,
    context: Context,
}

/// A connection whose CONNECT is well formed and waits for a decision.
struct AwaitAuth {
    io: Box<dyn Io>,
    context: Context,
    input: Input,
    connect: Connect,
}

impl AwaitConnect {
    pub fn new(io: Box<dyn Io>, context: Context) -> AwaitConnect {
        AwaitConnect { io, context }
    }

    /// Goes through all states up to an accepted CONNECT.
    pub async fn establish(mut self) -> Result<Box<Established>, Close> {
        let deadline = self.context.connect_timeout;
        match tokio::time::timeout(deadline, self.read_connect()).await {
            Ok(Ok((connect, input))) => {
                let waiting = AwaitAuth { io: self.io, context: self.context, input, connect };
                // Boxed, so that a connection that still waits for CONNECT is not as large as all that deciding takes.
                Box::pin(waiting.decide()).await
            }
            Ok(Err(close)) => Err(close),
            Err(_) => Err(Close::ConnectTimeout),
        }
    }

    async fn read_connect(&mut self) -> Result<(Connect, Input), Close> {
        let mut input = Input::default();
        let frame = read_frame(&mut *self.io, &mut input, self.context.broker.config().max_packet_size).await?;
        match decode_connect(frame) {
            Ok(connect) => Ok((connect, input)),
            Err(refused) => {
                if let Some(version) = refused.answer {
                    refuse(&mut self.io, &self.context, version, refused.error.reason_code()).await;
                }
                Err(Close::Malformed(refused.error))
            }
        }
    }
}

impl AwaitAuth {
    async fn decide(mut self) -> Result<Box<Established>, Close> {
        match self.open().await {
            Ok((opened, accepted)) => self.accept(opened, accepted).await,
            Err(close) => {
                if let Some(reason) = close.disconnect_reason() {
                    refuse(&mut self.io, &self.context, self.connect.version, reason).await;
                }
                Err(close)
            }
        }
    }

    async fn open(&mut self) -> Result<(Opened, Accepted), Close> {
        let AwaitAuth { io, context, input, connect } = &mut *self;
        let connect = &*connect;
        let config = context.broker.config();
        if connect.client_id.len() > usize::from(config.max_clientid_len) {
            return Err(Close::Refused(
                ReasonCode::ClientIdentifierNotValid,
                "client identifier is longer than mqtt.max_clientid_len",
            ));
        }
        let assigned = connect.client_id.is_empty().then(assigned_client_id).transpose()?;
        let client_id = assigned.clone().unwrap_or_else(|| connect.client_id.clone());
        let certificate = context.peer.as_ref().and_then(|peer| peer.signing.as_ref());
        let certificate = certificate.map(VerifiedCertificate::new).transpose();
        let certificate = certificate.map_err(|_| Close::Denied(DenyReason::Unavailable))?.map(Arc::new);
        let request = AuthRequest {
            client_id: &client_id,
            username: connect.username.as_deref(),
            password: connect.password.as_ref().map(|secret| secret.as_bytes()),
            certificate: certificate.as_ref(),
            remote: context.remote,
        };
        let mut data = None;
        let admitted = match &connect.properties.authentication_method {
            None => context.auth.authenticate(&request).await,
            Some(method) => {
                let exchange = authenticate(io, input, context, connect, method);
                let exchanged = tokio::time::timeout(context.connect_timeout, exchange).await;
                let (accepted, last) = exchanged.map_err(|_| Close::ConnectTimeout)??;
                data = (!last.is_empty()).then(|| Secret::from(Bytes::from(last)));
                context.auth.admit(&request, accepted)
            }
        };
        let Admitted { rights, valid_for } = admitted.map_err(Close::Denied)?;
        let mut access = Access::new(rights.clone());
        let broker = &self.context.broker;
        let will = self.will(broker.config(), &mut access)?;
        let connect = &self.connect;
        let config = broker.config();
        let expiry = session_expiry(connect, config);
        let request = OpenRequest {
            client_id: client_id.clone(),
            clean_start: connect.clean_start,
            expiry,
            will,
            owner: self.context.auth.owner(rights.identity()),
            rights,
        };
        let mut opened = broker.open(request).await?;
        // Rights may have been withdrawn while the client was away, and the identity may have others than the last.
        if opened.present {
            let (broker, subscriber, session) = opened.lease.parts();
            let refused = broker.withdraw_resumed(subscriber, session, &access);
            if !refused.is_empty() {
                opened.lease.save();
            }
            for filter in refused {
                tracing::info!(
                    client_id = &*client_id,
                    filter = &*filter,
                    "a stored subscription is not allowed any more and ended"
                );
            }
        }
        Ok((opened, Accepted { client_id, assigned, expiry, access, valid_for, data }))
    }

    /// Checks the will as if it were published now: later nobody could be told. Whether it may be published is asked again then.
    fn will(&self, config: &MqttConfig, access: &mut Access) -> Result<Option<Will>, Close> {
        let Some(will) = &self.connect.will else { return Ok(None) };
        if will.qos > config.max_qos() {
            return Err(Close::Refused(ReasonCode::QoSNotSupported, "the will's QoS is above mqtt.max_qos_allowed"));
        }
        if will.retain && !config.retain_available {
            return Err(Close::Refused(
                ReasonCode::RetainNotSupported,
                "the will is retained and mqtt.retain_available is off",
            ));
        }
        super::handle::check_topic(&will.topic, config)?;
        let wish = Publishing { topic: &will.topic, qos: will.qos, retain: will.retain };
        let allowed = access.may_publish(wish).allowed;
        self.context.metrics.authorization.count(Checked::Will, allowed);
        if !allowed {
            return Err(Close::Refused(ReasonCode::NotAuthorized, "the client may not publish its will"));
        }
        let p = &will.properties;
        let properties = PublishProperties {
            payload_format: p.payload_format,
            message_expiry_interval: p.message_expiry_interval,
            response_topic: p.response_topic.clone(),
            correlation_data: p.correlation_data.clone(),
            user_properties: p.user_properties.clone(),
            content_type: p.content_type.clone(),
            ..PublishProperties::default()
        };
        if p.payload_format == Some(PayloadFormat::Utf8) && std::str::from_utf8(&will.payload).is_err() {
            return Err(Close::Refused(
                ReasonCode::PayloadFormatInvalid,
                "the will's payload is not the UTF-8 it is said to be",
            ));
        }
        Ok(Some(Will {
            message: Message::new(
                will.topic.clone(),
                will.payload.clone(),
                will.qos,
                properties,
                self.context.broker.now(),
            ),
            retain: will.retain,
            delay: u64::from(p.will_delay_interval.unwrap_or(0)) * 1000,
        }))
    }

    async fn accept(self, opened: Opened, accepted: Accepted) -> Result<Box<Established>, Close> {
        let AwaitAuth { io, context, input, connect } = self;
        let config = context.broker.config();
        let keep_alive_secs = config.server_keepalive.unwrap_or(connect.keep_alive_secs);
        let negotiated = Negotiated {
            version: connect.version,
            keep_alive: keep_alive(keep_alive_secs, config.keepalive_multiplier).map(millis),
            write_timeout: millis(config.write_timeout),
            window: usize::from(
                connect.properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get).min(config.max_inflight),
            ),
            max_packet_size: connect.properties.maximum_packet_size.map_or(usize::MAX, |size| size.get() as usize),
            valid_until: accepted.valid_for.map(|time| context.broker.now().saturating_add(millis(time))),
            connected_without_expiry: accepted.expiry == SessionExpiry::OnDisconnect,
        };
        let ack = ConnAck {
            session_present: opened.present,
            reason: ReasonCode::Success,
            properties: if connect.version.is_v5() {
                connack_properties(&connect, config, &accepted)
            } else {
                ConnAckProperties::default()
            },
        };
        context.metrics.connect_result(ReasonCode::Success);
        tracing::debug!(
            remote = %context.remote,
            listener = &*context.listener,
            client_id = &*accepted.client_id,
            version = ?connect.version,
            protocol = context.peer.as_ref().map_or("plain", |peer| peer.protocol.name()),
            suite = context.peer.as_ref().map_or("", |peer| peer.suite),
            session_present = opened.present,
            "client connected"
        );
        let extended = connect.properties.authentication_method.map(|method| Box::new(Extended::new(method)));
        let authenticated = Authenticated { access: accepted.access, extended };
        let mut output = Output::default();
        output.push(&ack, connect.version)?;
        Ok(Established::new(io, context, input, output, opened.lease, authenticated, negotiated))
    }
}

/// What was decided about a CONNECT besides its session.
struct Accepted {
    client_id: ByteString,
    assigned: Option<ByteString>,
    expiry: SessionExpiry,
    access: Access,
    valid_for: Option<Duration>,
    /// The last data of extended authentication, for CONNACK.
    data: Option<Secret>,
}

/// Sends a CONNACK that refuses. Whether it arrives changes nothing.
async fn refuse(io: &mut Box<dyn Io>, context: &Context, version: ProtocolVersion, reason: ReasonCode) {
    context.metrics.connect_result(reason);
    let mut output = Output::default();
    // A reason that has no place in a CONNACK says less than it could, but something.
    if output.push(&ConnAck::refuse(reason), version).is_err()
        && output.push(&ConnAck::refuse(ReasonCode::UnspecifiedError), version).is_err()
    {
        return;
    }
    let send = async {
        io.write_all(output.buffer()).await?;
        io.shutdown().await
    };
    // The peer may be gone already; there is nobody to tell.
    let _unheard = tokio::time::timeout(REFUSAL_TIMEOUT, send).await;
}

fn keep_alive(secs: u16, multiplier: f64) -> Option<Duration> {
    // [MQTT-3.1.2-22]
    (secs > 0).then(|| Duration::from_secs(u64::from(secs)).mul_f64(multiplier.max(1.0)))
}

fn session_expiry(connect: &Connect, config: &MqttConfig) -> SessionExpiry {
    let wished = match (connect.version, connect.properties.session_expiry_interval) {
        (ProtocolVersion::V5, None | Some(0)) => SessionExpiry::OnDisconnect,
        (ProtocolVersion::V5, Some(u32::MAX)) => SessionExpiry::Never,
        (ProtocolVersion::V5, Some(secs)) => SessionExpiry::After(u64::from(secs) * 1000),
        // 3.1.1 [MQTT-3.1.2-6]
        _ if connect.clean_start => SessionExpiry::OnDisconnect,
        _ => SessionExpiry::After(millis(config.session_expiry_interval)),
    };
    wished.at_most(SessionExpiry::After(millis(config.max_session_expiry_interval)))
}

fn connack_properties(connect: &Connect, config: &MqttConfig, accepted: &Accepted) -> ConnAckProperties {
    let wished_secs = connect.properties.session_expiry_interval.unwrap_or(0);
    let granted_secs = match accepted.expiry {
        SessionExpiry::OnDisconnect => 0,
        SessionExpiry::After(ms) => u32::try_from(ms / 1000).unwrap_or(u32::MAX),
        SessionExpiry::Never => u32::MAX,
    };
    let off = |available: bool| (!available).then_some(false);
    ConnAckProperties {
        session_expiry_interval: (granted_secs != wished_secs).then_some(granted_secs),
        receive_maximum: NonZeroU16::new(config.max_awaiting_rel),
        maximum_qos: Some(config.max_qos()).filter(|qos| *qos != QoS::ExactlyOnce),
        retain_available: off(config.retain_available),
        maximum_packet_size: NonZeroU32::new(config.max_packet_size),
        assigned_client_id: accepted.assigned.clone(),
        topic_alias_maximum: Some(config.max_topic_alias).filter(|max| *max > 0),
        wildcard_subscription_available: off(config.wildcard_subscription),
        shared_subscription_available: off(config.shared_subscription),
        server_keep_alive_secs: config.server_keepalive,
        // [MQTT-4.12.0-5] [MQTT-4.12.0-6]
        authentication_method: connect.properties.authentication_method.clone(),
        authentication_data: accepted.data.clone(),
        ..ConnAckProperties::default()
    }
}

/// 128 random bits: two clients never get the same identifier, and nobody guesses another's.
fn assigned_client_id() -> Result<ByteString, Close> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|error| Close::Io(std::io::Error::other(error)))?;
    let mut id = String::with_capacity(5 + 32);
    id.push_str("auto-");
    for byte in random {
        id.extend([byte >> 4, byte & 0xf].map(|nibble| char::from_digit(u32::from(nibble), 16).unwrap_or('0')));
    }
    Ok(id.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assigned_identifiers_differ() {
        let (a, b) = (assigned_client_id().unwrap(), assigned_client_id().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.len(), 37);
    }

    #[test]
    fn keep_alive_zero_is_off_and_the_multiplier_stretches_it() {
        assert_eq!(keep_alive(0, 1.5), None);
        assert_eq!(keep_alive(10, 1.5), Some(Duration::from_secs(15)));
    }
}
