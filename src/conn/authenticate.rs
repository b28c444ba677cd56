//! Extended authentication (MQTT 5.0 section 4.12): AUTH packets between CONNECT and CONNACK, and again on an accepted connection.
//!
//! ```text
//!   before CONNACK:  CONNECT ──step──▶ AUTH 0x18 ──AUTH 0x18──▶ step … ──▶ CONNACK, or CONNACK that refuses
//!   afterwards:      idle ──AUTH 0x19──▶ running ──AUTH 0x18──▶ running … ──AUTH 0x00 sent──▶ idle
//!                      │ AUTH 0x18        │ AUTH 0x19, another method, another identity, a wrong proof
//!                      └──▶ disconnected ◀┘
//! ```

use super::established::State;
use super::input::{Flow, Input};
use super::output::Output;
use super::{Close, Context, Io};
use crate::auth::{Accepted, Exchange, MAX_STEPS, Step};
use crate::session::millis;
use bytes::Bytes;
use bytestring::ByteString;
use mqtt_codec::{Auth, AuthProperties, Connect, Packet, ProtocolVersion, ReasonCode, Secret, decode};
use std::future::poll_fn;
use std::task::Poll;
use tokio::io::AsyncWriteExt;

/// One answer for a wrong proof and for the right one of somebody else: it must not tell whether a password was guessed.
const NOT_RENEWED: Close = Close::Refused(ReasonCode::NotAuthorized, "re-authentication failed");
const NO_SUCH_METHOD: Close = Close::Refused(ReasonCode::BadAuthenticationMethod, "no such authentication method");

/// What an accepted connection keeps of the method it was authenticated by.
#[derive(Debug)]
pub(super) struct Extended {
    method: ByteString,
    /// An exchange that was begun again and has not ended.
    running: Option<(Box<dyn Exchange>, usize)>,
}

impl Extended {
    pub fn new(method: ByteString) -> Extended {
        Extended { method, running: None }
    }
}

/// Goes through the exchange that CONNECT asks for. Returns who the client is and the data that CONNACK carries.
pub(super) async fn authenticate(
    io: &mut Box<dyn Io>,
    input: &mut Input,
    context: &Context,
    connect: &Connect,
    method: &ByteString,
) -> Result<(Accepted, Vec<u8>), Close> {
    let remote = context.remote.ip();
    context.auth.may_try(remote).map_err(Close::Denied)?;
    // [MQTT-4.12.0-1]
    let mut exchange = context.auth.method(method).ok_or(NO_SUCH_METHOD)?.begin();
    let mut data = connect.properties.authentication_data.clone();
    for _ in 0..MAX_STEPS {
        match exchange.step(bytes_of(data.as_ref())) {
            Step::Accept(accepted, last) => return Ok((accepted, last)),
            // [MQTT-4.12.0-4]
            Step::Reject => {
                context.auth.failed(remote);
                return Err(Close::Denied(crate::auth::DenyReason::BadCredentials));
            }
            Step::Continue(next) => {
                let mut output = Output::default();
                // [MQTT-4.12.0-2] [MQTT-4.12.0-5]
                output.push(&auth(ReasonCode::ContinueAuthentication, method, next), ProtocolVersion::V5)?;
                io.write_all(output.buffer()).await?;
                io.flush().await?;
            }
        }
        let frame = read_frame(&mut **io, input, context.broker.config().max_packet_size).await?;
        data = match decode(frame, ProtocolVersion::V5)? {
            // [MQTT-4.12.0-3]
            Packet::Auth(answer) if answer.reason == ReasonCode::ContinueAuthentication => {
                same_method(&answer, method)?;
                answer.properties.authentication_data
            }
            Packet::Disconnect(_) => return Err(Close::Disconnected),
            // [MQTT-3.1.2-30]
            _ => return Err(Close::Protocol("packet before the authentication asked for in CONNECT was complete")),
        };
    }
    Err(Close::Protocol("authentication takes too many steps"))
}

/// The next whole packet, also one that came together with an earlier one.
pub(super) async fn read_frame(io: &mut dyn Io, input: &mut Input, max_packet_size: u32) -> Result<Bytes, Close> {
    let mut first = None;
    if !input.is_empty() {
        input.resume(max_packet_size, |frame| {
            first = Some(Bytes::copy_from_slice(frame));
            Ok(Flow::Stop)
        })?;
    }
    poll_fn(|cx| {
        while first.is_none() {
            let read = input.poll_read(cx, io, max_packet_size, |frame| {
                first = Some(Bytes::copy_from_slice(frame));
                Ok(Flow::Stop)
            });
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Err(Close::PeerClosed)),
                Poll::Ready(Err(close)) => return Poll::Ready(Err(close)),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await?;
    first.ok_or(Close::PeerClosed)
}

impl State {
    /// AUTH on an accepted connection: the client proves again who it is, [MQTT-4.12.1-1].
    pub(super) fn handle_auth(&mut self, packet: Auth, context: &Context) -> Result<(), Close> {
        // [MQTT-4.12.0-7]
        let Some(extended) = &mut self.extended else {
            return Err(Close::Protocol("AUTH without an authentication method in CONNECT"));
        };
        same_method(&packet, &extended.method)?;
        let (mut exchange, steps) = match (packet.reason, extended.running.take()) {
            (ReasonCode::Reauthenticate, None) => {
                context.auth.may_try(context.remote.ip()).map_err(Close::Denied)?;
                let method = context.auth.method(&extended.method).ok_or(NO_SUCH_METHOD)?;
                (method.begin(), 0)
            }
            (ReasonCode::ContinueAuthentication, Some(running)) => running,
            (ReasonCode::Reauthenticate, Some(_)) => {
                return Err(Close::Protocol("re-authentication while one is under way"));
            }
            _ => return Err(Close::Protocol("AUTH that continues no authentication")),
        };
        match exchange.step(bytes_of(packet.properties.authentication_data.as_ref())) {
            Step::Continue(_) if steps + 1 >= MAX_STEPS => Err(Close::Protocol("authentication takes too many steps")),
            Step::Continue(next) => {
                let answer = auth(ReasonCode::ContinueAuthentication, &extended.method, next);
                extended.running = Some((exchange, steps + 1));
                Ok(self.output.push(&answer, self.negotiated.version)?)
            }
            // [MQTT-4.12.1-2]
            Step::Reject => {
                context.auth.failed(context.remote.ip());
                Err(NOT_RENEWED)
            }
            Step::Accept(accepted, last) => {
                let answer = auth(ReasonCode::Success, &extended.method, last);
                self.renew(accepted, context)?;
                Ok(self.output.push(&answer, self.negotiated.version)?)
            }
        }
    }

    /// Takes over what the client has proved now. It must be who it was: its session and its subscriptions are that identity's.
    fn renew(&mut self, accepted: Accepted, context: &Context) -> Result<(), Close> {
        let valid_for = accepted.valid_for;
        let Some(identity) = self.access.rights().identity().renewed(accepted) else {
            context.auth.failed(context.remote.ip());
            return Err(NOT_RENEWED);
        };
        // A pin that came since the client connected.
        context.auth.pinned(&identity).map_err(Close::Denied)?;
        self.access.renew(identity.into());
        self.negotiated.valid_until = valid_for.map(|time| context.broker.now().saturating_add(millis(time)));
        self.withdraw();
        Ok(())
    }
}

fn auth(reason: ReasonCode, method: &ByteString, data: Vec<u8>) -> Auth {
    let authentication_data = (!data.is_empty()).then(|| Secret::from(Bytes::from(data)));
    let authentication_method = Some(method.clone());
    Auth { reason, properties: AuthProperties { authentication_method, authentication_data, ..Default::default() } }
}

fn bytes_of(data: Option<&Secret>) -> &[u8] {
    data.map_or(&[], Secret::as_bytes)
}

fn same_method(packet: &Auth, method: &ByteString) -> Result<(), Close> {
    // [MQTT-4.12.0-5]
    if packet.properties.authentication_method.as_ref() == Some(method) {
        return Ok(());
    }
    Err(Close::Protocol("AUTH with another authentication method than CONNECT"))
}
