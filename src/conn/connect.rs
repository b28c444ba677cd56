//! The states before a session exists: waiting for CONNECT, then for the answer of authentication.

use super::authenticate::{Extended, authenticate, read_frame};
use super::established::{Authenticated, Established, Negotiated};
use super::input::Input;
use super::names::{ClientNames, Topics};
use super::output::Output;
use super::peer::{Known, certificate_shown};
use super::{Close, Context, Io, refused};
use crate::auth::acl::Publishing;
use crate::auth::{Access, Admitted, AuthRequest};
use crate::broker::{Delay, OpenRequest, Opened};
use crate::config::{MqttConfig, Redirect};
use crate::metrics::Checked;
use crate::session::{Message, SessionExpiry, Will, millis};
use crate::telemetry::shortened;
use bytes::Bytes;
use bytestring::ByteString;
use mqtt_codec::{
    ConnAck, ConnAckProperties, Connect, Encode, PayloadFormat, ProtocolVersion, PublishProperties, QoS, ReasonCode,
    Secret, decode_connect,
};
use std::future::{Future, poll_fn};
use std::num::{NonZeroU16, NonZeroU32};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

/// Time for a refusal to reach a peer that reads.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes read from a client that is not let in yet, after which it has to wait; one read may exceed it by as much.
const MAX_KEPT: usize = 4 * 1024;

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
    /// By then CONNECT is authenticated or refused.
    deadline: Instant,
}

impl AwaitConnect {
    pub fn new(io: Box<dyn Io>, context: Context) -> AwaitConnect {
        AwaitConnect { io, context }
    }

    /// Goes through all states up to an accepted CONNECT.
    pub async fn establish(mut self) -> Result<Box<Established>, Close> {
        let deadline = Instant::now() + self.context.connect_timeout;
        let close = match timeout_at(deadline, self.read_connect()).await {
            Ok(Ok((connect, input))) => {
                let waiting = AwaitAuth { io: self.io, context: self.context, input, connect, deadline };
                // Boxed, so that a connection that still waits for CONNECT is not as large as all that deciding takes.
                return Box::pin(waiting.decide()).await;
            }
            Ok(Err(close)) => close,
            Err(_) => Close::ConnectTimeout,
        };
        close.count_limit(self.context.broker.metrics());
        // TLS and WebSocket have a word for an end that is meant.
        let _unheard = tokio::time::timeout(REFUSAL_TIMEOUT, self.io.shutdown()).await;
        Err(close)
    }

    async fn read_connect(&mut self) -> Result<(Connect, Input), Close> {
        let mut input = Input::default();
        let frame = read_frame(&mut *self.io, &mut input, self.context.broker.config().max_packet_size).await?;
        match decode_connect(frame) {
            Ok(connect) => Ok((connect, input)),
            Err(refused) => {
                // [MQTT-3.1.4-1]
                let close = Close::Malformed(refused.error);
                if let Some(version) = refused.answer {
                    // What the client wants to be told is not known of a packet that could not be read.
                    let quiet = Refusal { version, explain: false, max_packet_size: usize::MAX };
                    refuse(&mut self.io, &self.context, quiet, &close).await;
                }
                Err(close)
            }
        }
    }
}

impl AwaitAuth {
    async fn decide(mut self) -> Result<Box<Established>, Close> {
        match self.open().await {
            Ok((opened, accepted)) => self.accept(opened, accepted).await,
            Err(close) => {
                self.report(&close);
                close.count_limit(self.context.broker.metrics());
                refuse(&mut self.io, &self.context, Refusal::of(&self.connect), &close).await;
                Err(close)
            }
        }
    }

    /// What secures the connection.
    fn protocol(&self) -> &'static str {
        match (&self.context.peer, &self.context.proxied) {
            (Some(peer), _) => peer.protocol.name(),
            (None, Some(_)) => "proxied",
            (None, None) => "plain",
        }
    }

    /// Tells the operator of a client that was refused; who tries out passwords is to be seen.
    fn report(&self, close: &Close) {
        let about = match close {
            Close::Denied(_) | Close::AuthTimeout => "denied",
            Close::Refused(..) | Close::Banned(_) | Close::OverLimit(..) | Close::Session(_) => "refused",
            _ => return,
        };
        if self.context.reports.may_say(about) {
            tracing::info!(
                listener = &*self.context.listener,
                remote = %self.context.remote,
                client_id = shortened(&self.connect.client_id),
                username = self.connect.username.as_deref().map(shortened),
                protocol = self.protocol(),
                suite = self.context.peer.as_ref().map_or("", |peer| peer.suite),
                certificate = certificate_shown(self.context.peer.as_deref()),
                cause = %close,
                "CONNECT refused"
            );
        }
    }

    async fn open(&mut self) -> Result<(Opened, Accepted), Close> {
        let AwaitAuth { io, context, input, connect, deadline } = &mut *self;
        let connect = &*connect;
        let config = context.broker.config();
        let known = Known::of(context)?;
        let chosen = known.client_id.as_ref().unwrap_or(&connect.client_id);
        // [MQTT-3.1.3-8]
        if chosen.len() > usize::from(config.max_clientid_len) {
            return Err(Close::OverLimit(ReasonCode::ClientIdentifierNotValid, "mqtt.max_clientid_len"));
        }
        // [MQTT-3.1.3-5] [MQTT-3.1.3-6] [MQTT-3.1.3-7]
        let assign = || known.client_id.clone().map_or_else(assigned_client_id, Ok);
        let assigned = connect.client_id.is_empty().then(assign).transpose()?;
        let client_id = assigned.clone().unwrap_or_else(|| chosen.clone());
        if let Some(by) = context.broker.banned_by(&client_id, connect.username.as_ref(), context.remote.ip()) {
            return Err(Close::Banned(by));
        }
        let request = AuthRequest {
            client_id: &client_id,
            username: known.username(connect.username.as_deref(), connect.password.is_some()),
            password: connect.password.as_ref().map(|secret| secret.as_bytes()),
            peer: &known.peer,
            remote: context.remote,
        };
        let mut data = None;
        let admitted = match &connect.properties.authentication_method {
            None => {
                let authenticated = while_open(&mut **io, input, context.auth.authenticate(&request));
                timeout_at(*deadline, authenticated).await.map_err(|_| Close::AuthTimeout)??
            }
            Some(method) => {
                let exchange = authenticate(io, input, context, connect, method);
                let exchanged = timeout_at(*deadline, exchange).await;
                let (accepted, last) = exchanged.map_err(|_| Close::ConnectTimeout)??;
                data = (!last.is_empty()).then(|| Secret::from(Bytes::from(last)));
                context.auth.admit(&request, accepted)
            }
        };
        // [MQTT-3.1.4-2]
        let Admitted { rights, valid_for } = admitted.map_err(Close::Denied)?;
        let broker = &self.context.broker;
        let connect = &self.connect;
        let config = broker.config();
        // The name may have come with a token or in an exchange, and not with CONNECT.
        if let Some(by) = broker.banned_by(&client_id, rights.identity().username.as_ref(), self.context.remote.ip()) {
            return Err(Close::Banned(by));
        }
        // Only who may connect here learns where else to go.
        if let (Some(reason), Some(server)) = (redirection(config.redirect_clients), &config.server_reference) {
            return Err(Close::Redirected(reason, server.as_str().into()));
        }
        // A name that nobody verified chooses no topic: neither the tenant that a mount point stands for, nor what rules make of it.
        let names = ClientNames {
            client_id: client_id.clone(),
            username: rights.identity().username.clone(),
            host: self.context.remote.ip().to_canonical(),
        };
        let mountpoint = names.mountpoint(&self.context.policy.mountpoint)?;
        let topics = Topics::new(mountpoint, &broker.features().rewrite, &names);
        let mut access = Access::new(rights.clone());
        // [MQTT3-3.1.2-12]: a client without a will leaves none.
        let will = self.will(config, &topics, &mut access)?;
        let wished = session_expiry(connect, config);
        let expiry = wished.at_most(SessionExpiry::After(millis(config.max_session_expiry_interval)));
        if expiry != wished {
            broker.metrics().limit_hit("mqtt.max_session_expiry_interval");
        }
        let request = OpenRequest {
            client_id: client_id.clone(),
            clean_start: connect.clean_start,
            expiry,
            will,
            owner: rights.identity().owner(topics.mount()),
            bound: self.context.auth.binds_sessions(),
            rights,
        };
        let mut opened = broker.open(request).await?;
        // Whoever was banned or ended since the checks above, while an older connection let go of the session, had none to be ended; nor
        // had the holder of a key that was removed since the handshake.
        let identity = access.rights().identity();
        let username = identity.username.as_ref();
        let mut proved = username.into_iter().chain(&identity.peer.psk);
        let was_ended = proved.any(|name| broker.ended().has(name, self.context.ended));
        let is_banned = broker.banned_by(&client_id, username, self.context.remote.ip()).is_some();
        if was_ended || is_banned {
            opened.lease.forget_will();
            let reason = if is_banned { ReasonCode::Banned } else { ReasonCode::NotAuthorized };
            return Err(Close::Refused(reason, "banned, or ended by an operator, while it was let in"));
        }
        // Rights may have been withdrawn while the client was away, and the identity may have others than the last.
        if opened.present {
            let inherited = opened.lease.is_inherited();
            let (broker, subscriber, session) = opened.lease.parts();
            let refused = broker.withdraw_resumed(subscriber, session, &access, inherited);
            if inherited || !refused.is_empty() {
                opened.lease.save();
            }
            for filter in refused {
                if !self.context.reports.may_say("withdrawn") {
                    continue;
                }
                tracing::info!(
                    client_id = shortened(&client_id),
                    filter = shortened(&filter),
                    "a stored subscription is not allowed any more and ended"
                );
            }
        }
        Ok((opened, Accepted { assigned, expiry, topics, names, access, valid_for, data }))
    }

    /// Checks the will as if it were published now: later nobody could be told. Whether it may be published is asked again then.
    fn will(&self, config: &MqttConfig, topics: &Topics, access: &mut Access) -> Result<Option<Will>, Close> {
        let Some(will) = &self.connect.will else { return Ok(None) };
        if will.qos > config.max_qos() {
            // [MQTT-3.2.2-12]
            return Err(Close::OverLimit(ReasonCode::QoSNotSupported, "mqtt.max_qos_allowed"));
        }
        if will.retain && !config.retain_available {
            // [MQTT-3.2.2-13]
            return Err(Close::OverLimit(ReasonCode::RetainNotSupported, "mqtt.retain_available"));
        }
        let (delay, topic) = self.will_topic(will.topic.clone(), config, topics)?;
        let wish = Publishing { topic: &topic, qos: will.qos, retain: will.retain };
        let allowed = access.may_publish(wish).allowed;
        self.context.metrics.authorization.count(Checked::Will, allowed);
        if !allowed {
            refused::will(&self.context, access, wish);
            return Err(Close::Refused(ReasonCode::NotAuthorized, "the client may not publish its will"));
        }
        let topic = match delay {
            None => topic,
            Some(secs) => ByteString::from(format!("$delayed/{secs}/{topic}")),
        };
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
        // [MQTT-3.1.2-7]
        Ok(Some(Will {
            message: Message::new(topic, will.payload.clone(), will.qos, properties, self.context.broker.now()),
            retain: will.retain,
            delay: u64::from(p.will_delay_interval.unwrap_or(0)) * 1000,
        }))
    }

    /// The will's topic as the broker keeps it, what a PUBLISH to it would reach, and the seconds that topic delays it by.
    fn will_topic(
        &self,
        topic: ByteString,
        config: &MqttConfig,
        topics: &Topics,
    ) -> Result<(Option<u64>, ByteString), Close> {
        let broker = &self.context.broker;
        let invalid = |reason| Close::Refused(reason, "the broker takes no such topic for a will");
        let (delay, topic) = match broker.delay_of(&topic) {
            Delay::None => (None, topic),
            Delay::After(ms, topic) => (Some(ms / 1000), topic),
            Delay::Malformed => return Err(invalid(ReasonCode::TopicNameInvalid)),
        };
        let topic = topics.rewrite_name(topic, &broker.features().rewrite).map_err(invalid)?;
        super::handle::check_topic(&topic, config)?;
        Ok((delay, topics.mount_name(topic).map_err(invalid)?))
    }

    async fn accept(mut self, mut opened: Opened, accepted: Accepted) -> Result<Box<Established>, Close> {
        let config = self.context.broker.config();
        let wishes = &self.connect.properties;
        // [MQTT-3.2.2-22]
        let keep_alive_secs = config.server_keepalive.unwrap_or(self.connect.keep_alive_secs);
        let negotiated = Negotiated {
            version: self.connect.version,
            keep_alive: keep_alive(keep_alive_secs, config.keepalive_multiplier).map(millis),
            write_timeout: millis(config.write_timeout),
            window: usize::from(wishes.receive_maximum.map_or(u16::MAX, NonZeroU16::get).min(config.max_inflight)),
            max_packet_size: max_packet_size(&self.connect),
            valid_until: accepted.valid_for.map(|time| self.context.broker.now().saturating_add(millis(time))),
            topic_aliases: wishes.topic_alias_maximum.unwrap_or(0).min(config.max_outbound_topic_alias),
            explain: wants_explanations(&self.connect),
            connected_without_expiry: accepted.expiry == SessionExpiry::OnDisconnect,
        };
        let ack = ConnAck {
            session_present: opened.present,
            reason: ReasonCode::Success,
            properties: if self.connect.version.is_v5() {
                connack_properties(&self.connect, config, &accepted)
            } else {
                ConnAckProperties::default()
            },
        };
        // [MQTT-3.1.2-24]
        if negotiated.max_packet_size < usize::MAX
            && ack.encoded_len(self.connect.version)? > negotiated.max_packet_size
        {
            // The session is given back before a client that may be slow is told, and a CONNECT that was refused leaves no will.
            opened.lease.forget_will();
            drop(opened);
            refuse(&mut self.io, &self.context, Refusal::of(&self.connect), &Close::AnswerTooLarge).await;
            return Err(Close::AnswerTooLarge);
        }
        let protocol = self.protocol();
        let AwaitAuth { io, context, input, connect, .. } = self;
        context.metrics.connect_result(ReasonCode::Success);
        tracing::debug!(
            remote = %context.remote,
            listener = &*context.listener,
            client_id = &*accepted.names.client_id,
            version = ?connect.version,
            protocol,
            suite = context.peer.as_ref().map_or("", |peer| peer.suite),
            session_present = opened.present,
            "client connected"
        );
        let extended = connect.properties.authentication_method.map(|method| Box::new(Extended::new(method)));
        let authenticated = Authenticated { access: accepted.access, extended, topics: accepted.topics };
        let mut output = Output::default();
        // [MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.0-2]
        output.push(&ack, connect.version)?;
        let mut established = Established::new(io, context, input, output, opened.lease, authenticated, negotiated);
        established.auto_subscribe(&accepted.names);
        Ok(established)
    }
}

/// Waits for a decision about the client, and no longer than the client does: one that closes its connection ends the waiting. What
/// it sent after CONNECT is kept; if it sent something and closed, what it sent is still handled, as it would be without waiting.
async fn while_open<T>(io: &mut dyn Io, input: &mut Input, decision: impl Future<Output = T>) -> Result<T, Close> {
    let mut decision = pin!(decision);
    let mut listening = true;
    poll_fn(|cx| {
        if let Poll::Ready(decided) = decision.as_mut().poll(cx) {
            return Poll::Ready(Ok(decided));
        }
        while listening {
            match input.poll_keep(cx, io, MAX_KEPT) {
                Poll::Pending => break,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) if input.is_empty() => return Poll::Ready(Err(Close::PeerClosed)),
                // Either it closed, or there is as much as is kept unread.
                Poll::Ready(Ok(false)) => listening = false,
                Poll::Ready(Err(close)) => return Poll::Ready(Err(close)),
            }
        }
        Poll::Pending
    })
    .await
}

/// What was decided about a CONNECT besides its session.
struct Accepted {
    assigned: Option<ByteString>,
    expiry: SessionExpiry,
    topics: Topics,
    names: ClientNames,
    access: Access,
    valid_for: Option<Duration>,
    /// The last data of extended authentication, for CONNACK.
    data: Option<Secret>,
}

/// How a refusal is written for one client.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    version: ProtocolVersion,
    /// Whether the client wants reasons in words.
    explain: bool,
    max_packet_size: usize,
}

impl Refusal {
    fn of(connect: &Connect) -> Refusal {
        Refusal {
            version: connect.version,
            explain: wants_explanations(connect),
            max_packet_size: max_packet_size(connect),
        }
    }
}

/// Request Problem Information, whose default is to have it.
fn wants_explanations(connect: &Connect) -> bool {
    connect.version.is_v5() && connect.properties.request_problem_information != Some(false)
}

fn max_packet_size(connect: &Connect) -> usize {
    connect.properties.maximum_packet_size.map_or(usize::MAX, |size| size.get() as usize)
}

/// Sends a CONNACK that refuses, unless nobody is left to tell. Whether it arrives changes nothing.
async fn refuse(io: &mut Box<dyn Io>, context: &Context, to: Refusal, close: &Close) {
    // [MQTT-3.2.2-7] [MQTT-3.1.4-6] [MQTT-3.14.0-1] [MQTT-4.13.2-1]: the connection ends, whatever becomes of the answer.
    let Some(reason) = close.disconnect_reason() else { return };
    context.metrics.connect_result(reason);
    let mut ack = ConnAck::refuse(reason);
    if to.version.is_v5() {
        // [MQTT-3.2.2-19]: what makes the packet too large is left out.
        ack.properties.server_reference = close.server_reference().cloned();
        ack.properties.reason_string = close.reason_string().filter(|_| to.explain);
        if ack.encoded_len(to.version).is_ok_and(|len| len > to.max_packet_size) {
            ack.properties.reason_string = None;
        }
        if ack.encoded_len(to.version).is_ok_and(|len| len > to.max_packet_size) {
            ack.properties = ConnAckProperties::default();
        }
    }
    let mut output = Output::default();
    // A reason that has no place in a CONNACK says less than it could, but something.
    if output.push(&ack, to.version).is_err()
        && output.push(&ConnAck::refuse(ReasonCode::UnspecifiedError), to.version).is_err()
    {
        return;
    }
    if output.buffer().len() > to.max_packet_size {
        return;
    }
    let send = async {
        io.write_all(output.buffer()).await?;
        io.shutdown().await
    };
    // The peer may be gone already; there is nobody to tell.
    if let Ok(Ok(())) = tokio::time::timeout(REFUSAL_TIMEOUT, send).await {
        super::linger(io).await;
    }
}

fn redirection(redirect: Redirect) -> Option<ReasonCode> {
    match redirect {
        Redirect::Off => None,
        Redirect::UseAnotherServer => Some(ReasonCode::UseAnotherServer),
        Redirect::ServerMoved => Some(ReasonCode::ServerMoved),
    }
}

fn keep_alive(secs: u16, multiplier: f64) -> Option<Duration> {
    // [MQTT-3.1.2-22]
    (secs > 0).then(|| Duration::from_secs(u64::from(secs)).mul_f64(multiplier.max(1.0)))
}

fn session_expiry(connect: &Connect, config: &MqttConfig) -> SessionExpiry {
    match (connect.version, connect.properties.session_expiry_interval) {
        // [MQTT-3.1.2-23]
        (ProtocolVersion::V5, None | Some(0)) => SessionExpiry::OnDisconnect,
        (ProtocolVersion::V5, Some(u32::MAX)) => SessionExpiry::Never,
        (ProtocolVersion::V5, Some(secs)) => SessionExpiry::After(u64::from(secs) * 1000),
        // [MQTT3-3.1.2-6]
        _ if connect.clean_start => SessionExpiry::OnDisconnect,
        _ => SessionExpiry::After(millis(config.session_expiry_interval)),
    }
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
        // [MQTT-3.2.2-9]
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
        // [MQTT-3.1.2-28]
        response_information: (connect.properties.request_response_information == Some(true)
            && !config.response_information.is_empty())
        .then(|| config.response_information.as_str().into()),
        ..ConnAckProperties::default()
    }
}

/// 128 random bits: two clients never get the same identifier, and nobody guesses another's.
fn assigned_client_id() -> Result<ByteString, Close> {
    // [MQTT-3.2.2-16]
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
