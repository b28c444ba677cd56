//! What a row holds and its bytes. Every row carries a checksum over its table, its key and its contents, so that damage is found
//! when it is read, whatever let it through.
//!
//! ```text
//!   CRC-32C of all that follows, of the table's name and of the key (4 bytes, little-endian) · format (1 byte) · contents
//! ```
//! Messages are stored as the MQTT 5 PUBLISH packet that carries them. Times are written as milliseconds of the wall clock.

use super::key::{Key, SessionId, Table};
use crate::session::{Delivery, Message, Millis, SessionExpiry, ShareName, SubscriptionOptions, Will};
use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use mqtt_codec::{Packet, ProtocolVersion, QoS, SubscriptionId, decode};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

const FORMAT: u8 = 1;
const HEADER: usize = 5;
/// Larger messages cannot be stored: their packet would not be one.
pub const MAX_STORED_PAYLOAD: usize = 268_000_000;

/// The contents of one row.
#[derive(Debug, Clone)]
pub enum Row {
    Session(Box<SessionRow>),
    Subscription(SubscriptionOptions),
    /// A message for a session that was not acknowledged.
    Delivery(Delivery),
    /// The same after PUBREC: only the identifier is still needed.
    Released,
    Inbound,
    Retained(Arc<Message>),
    Ban(BanRow),
    User(UserRow),
    /// A list of rules for topics, as text.
    Acl(ByteString),
    Delayed(Box<DelayedRow>),
}

/// A ban as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanRow {
    /// When it ends; `None` is never.
    pub until: Option<Millis>,
    pub reason: ByteString,
}

/// What is kept of a user's password, as text. It can be attacked offline, so that nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRow(pub ByteString);

impl fmt::Debug for UserRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserRow(…)")
    }
}

/// A message that waits for its time, as it is stored.
#[derive(Debug, Clone)]
pub struct DelayedRow {
    /// When it is published.
    pub due: Millis,
    /// The durable session that published it; 0 for any other publisher.
    pub from: SessionId,
    pub retain: bool,
    /// Its lifetime begins when it is published.
    pub message: Arc<Message>,
}

/// A session as it is stored.
#[derive(Debug, Clone)]
pub struct SessionRow {
    pub client_id: ByteString,
    /// To whom it belongs, as text; empty is nobody.
    pub owner: ByteString,
    pub expiry: SessionExpiry,
    /// It has a connection.
    pub connected: bool,
    /// It has ended, and other members of its shared subscriptions have not got everything yet.
    pub ended: bool,
    /// When it ends, if it has no connection; `None` is never.
    pub ends_at: Option<Millis>,
    /// When the will is due, if the connection has ended, and the will.
    pub will: Option<(Option<Millis>, Will)>,
    /// Who wants the will published.
    pub author: Option<WillAuthor>,
    /// Deliveries below this number may have been sent before.
    pub sent_below: u64,
    /// The number of the next delivery.
    pub next_seq: u64,
    /// A subscription was taken away: deliveries that none of those left brings are not sent.
    pub judged: bool,
}

/// What rules are asked about when a will is published after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WillAuthor {
    pub username: Option<ByteString>,
    pub remote: IpAddr,
    /// The certificate that the transport verified, encoded.
    pub certificate: Option<Arc<[u8]>>,
    /// The names of the protocol and the suite that its connection had; empty in rows of a version that did not keep them.
    pub channel: ByteString,
    pub suite: ByteString,
    /// The common name that a trusted proxy saw.
    pub proxied_name: Option<ByteString>,
    /// The identity whose pre-shared key it had proved.
    pub psk: Option<ByteString>,
    /// Rules that came with its credentials and are not stored decide.
    pub known_by_more: bool,
}

#[cfg(test)]
impl WillAuthor {
    /// One of many, for tests that write and read rows.
    pub(super) fn sample(value: u8) -> WillAuthor {
        let named = value.is_multiple_of(2);
        WillAuthor {
            username: named.then(|| "a".into()),
            remote: [192, 0, 2, value].into(),
            certificate: value.is_multiple_of(3).then(|| [0x30, value].into()),
            channel: if named { "tlcp".into() } else { ByteString::new() },
            suite: if named { "ECC_SM4_GCM_SM3".into() } else { ByteString::new() },
            proxied_name: value.is_multiple_of(7).then(|| "b".into()),
            psk: value.is_multiple_of(3).then(|| "c".into()),
            known_by_more: value.is_multiple_of(4),
        }
    }
}

/// Why bytes are not a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("its checksum does not fit")]
    Checksum,
    #[error("its checksum fits, but its contents are not what this version writes")]
    Contents,
}

/// Translates between the broker's clock and the wall clock of stored times. The offset is fixed when the store is opened, so that a
/// clock that is set while the broker runs moves nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct WallClock {
    /// Wall clock at moment 0 of the broker's clock.
    pub origin: Millis,
}

impl WallClock {
    fn to_wall(self, at: Millis) -> u64 {
        at.saturating_add(self.origin)
    }

    fn to_broker(self, wall: u64) -> Millis {
        if wall == u64::MAX { u64::MAX } else { wall.saturating_sub(self.origin) }
    }
}

impl Row {
    /// Bytes that the row takes while it waits to be written.
    pub fn cost(&self) -> usize {
        const SMALL: usize = 96;
        match self {
            Row::Session(row) => {
                let certificate = row.author.as_ref().and_then(|author| author.certificate.as_ref());
                let will = row.will.as_ref().map_or(0, |(_, will)| will.message.cost());
                SMALL + row.client_id.len() + will + certificate.map_or(0, |der| der.len())
            }
            Row::Delivery(delivery) => delivery.cost(),
            Row::Retained(message) => message.cost(),
            Row::Ban(ban) => SMALL + ban.reason.len(),
            Row::User(UserRow(text)) | Row::Acl(text) => SMALL + text.len(),
            Row::Delayed(delayed) => SMALL + delayed.message.cost(),
            Row::Subscription(_) | Row::Released | Row::Inbound => SMALL,
        }
    }

    /// Appends the row's bytes to the empty `out`.
    pub fn encode(&self, table: Table, key: &[u8], clock: WallClock, out: &mut BytesMut) {
        out.put_bytes(0, HEADER - 1);
        out.put_u8(FORMAT);
        match self {
            Row::Session(row) => encode_session(row, clock, out),
            Row::Subscription(options) => encode_options(options, out),
            Row::Delivery(delivery) => {
                match &delivery.share {
                    None => out.put_u8(KIND_DELIVERY),
                    Some(share) => {
                        out.put_u8(KIND_SHARED);
                        put_bytes(out, share.group.as_bytes());
                        put_bytes(out, share.filter.as_bytes());
                    }
                }
                encode_delivery(delivery, clock, out);
            }
            Row::Released => out.put_u8(KIND_RELEASED),
            Row::Inbound => {}
            Row::Retained(message) => {
                encode_delivery(&whole(Arc::clone(message)), clock, out);
            }
            Row::Ban(ban) => {
                put_moment(out, ban.until, clock);
                put_bytes(out, ban.reason.as_bytes());
            }
            Row::User(UserRow(text)) | Row::Acl(text) => put_bytes(out, text.as_bytes()),
            Row::Delayed(delayed) => {
                put_moment(out, Some(delayed.due), clock);
                out.put_u64_le(delayed.from);
                out.put_u8(u8::from(delayed.retain));
                encode_unpublished(&delayed.message, clock, out);
            }
        }
        let sum = checksum(table, key, out.get(4..).unwrap_or_default());
        if let Some(place) = out.first_chunk_mut::<4>() {
            *place = sum.to_le_bytes();
        }
    }

    /// Checks the checksum and returns what it covers.
    pub fn verify<'a>(table: Table, key: &[u8], value: &'a [u8]) -> Result<&'a [u8], RowError> {
        let (sum, rest) = value.split_first_chunk::<4>().ok_or(RowError::Checksum)?;
        match checksum(table, key, rest) == u32::from_le_bytes(*sum) {
            true => Ok(rest),
            false => Err(RowError::Checksum),
        }
    }

    /// Whether the bytes of a row are those of a delivery that came by a shared subscription.
    pub fn is_shared(value: &[u8]) -> bool {
        value.get(HEADER) == Some(&KIND_SHARED)
    }

    /// Reads the row that `key` had in `table`.
    pub fn decode(key: &Key, key_bytes: &[u8], value: &[u8], clock: WallClock) -> Result<Row, RowError> {
        let rest = Row::verify(key.table(), key_bytes, value)?;
        let (format, contents) = rest.split_first().ok_or(RowError::Contents)?;
        if *format != FORMAT {
            return Err(RowError::Contents);
        }
        let mut reader = Reader { rest: contents };
        let row = match key.table() {
            Table::Sessions => decode_session(&mut reader, clock).map(|row| Row::Session(Box::new(row))),
            Table::Subscriptions => decode_options(&mut reader).map(Row::Subscription),
            Table::Deliveries => match reader.u8() {
                Some(KIND_DELIVERY) => decode_delivery(&mut reader, clock).map(Row::Delivery),
                Some(KIND_RELEASED) => Some(Row::Released),
                Some(KIND_SHARED) => decode_shared(&mut reader, clock).map(Row::Delivery),
                _ => None,
            },
            Table::Inbound => Some(Row::Inbound),
            Table::Retained => decode_delivery(&mut reader, clock).map(|stored| Row::Retained(stored.message)),
            Table::Bans => decode_ban(&mut reader, clock).map(Row::Ban),
            Table::Users => reader.text().map(|text| Row::User(UserRow(text))),
            Table::Acl => reader.text().map(Row::Acl),
            Table::Delayed => decode_delayed(&mut reader, clock).map(|row| Row::Delayed(Box::new(row))),
        };
        row.filter(|_| reader.rest.is_empty()).ok_or(RowError::Contents)
    }
}

const KIND_DELIVERY: u8 = 0;
const KIND_RELEASED: u8 = 1;
const KIND_SHARED: u8 = 2;

fn checksum(table: Table, key: &[u8], contents: &[u8]) -> u32 {
    let sum = crc32c::crc32c(table.name().as_bytes());
    let sum = crc32c::crc32c_append(sum, &(key.len() as u64).to_le_bytes());
    let sum = crc32c::crc32c_append(sum, key);
    crc32c::crc32c_append(sum, contents)
}

/// A message by itself, as a delivery of it to nobody in particular.
fn whole(message: Arc<Message>) -> Delivery {
    Delivery::new(message.qos, message)
}

fn encode_session(row: &SessionRow, clock: WallClock, out: &mut BytesMut) {
    put_bytes(out, row.client_id.as_bytes());
    let expiry = match row.expiry {
        SessionExpiry::OnDisconnect => 0,
        SessionExpiry::After(ms) => ms.clamp(1, u64::MAX - 1),
        SessionExpiry::Never => u64::MAX,
    };
    out.put_u64_le(expiry);
    put_bytes(out, row.owner.as_bytes());
    out.put_u8(u8::from(row.connected) | u8::from(row.ended) << 1);
    put_moment(out, row.ends_at, clock);
    out.put_u64_le(row.sent_below);
    out.put_u64_le(row.next_seq);
    out.put_u8(u8::from(row.judged));
    match &row.author {
        None => out.put_u8(0),
        Some(author) => {
            let certificate = u8::from(author.certificate.is_some()) << 3;
            let username = u8::from(author.username.is_some()) << 2;
            let channel = u8::from(!author.channel.is_empty()) << 4;
            let proxied = u8::from(author.proxied_name.is_some()) << 5;
            let psk = u8::from(author.psk.is_some()) << 6;
            out.put_u8(1 | u8::from(author.known_by_more) << 1 | username | certificate | channel | proxied | psk);
            put_bytes(out, author.username.as_ref().map_or(&[], |name| name.as_bytes()));
            put_bytes(out, author.remote.to_string().as_bytes());
            if let Some(der) = &author.certificate {
                put_bytes(out, der);
            }
            if !author.channel.is_empty() {
                put_bytes(out, author.channel.as_bytes());
                put_bytes(out, author.suite.as_bytes());
            }
            for name in author.proxied_name.iter().chain(&author.psk) {
                put_bytes(out, name.as_bytes());
            }
        }
    }
    match &row.will {
        None => out.put_u8(0),
        Some((due, will)) => {
            out.put_u8(1);
            put_moment(out, *due, clock);
            out.put_u8(u8::from(will.retain));
            out.put_u64_le(will.delay);
            encode_unpublished(&will.message, clock, out);
        }
    }
}

fn decode_session(reader: &mut Reader<'_>, clock: WallClock) -> Option<SessionRow> {
    let client_id = reader.text()?;
    let expiry = match reader.u64()? {
        0 => SessionExpiry::OnDisconnect,
        u64::MAX => SessionExpiry::Never,
        ms => SessionExpiry::After(ms),
    };
    let owner = reader.text()?;
    let state = reader.u8()?;
    let (connected, ended) = (state & 1 != 0, state & 2 != 0);
    let ends_at = reader.moment(clock)?;
    let sent_below = reader.u64()?;
    let next_seq = reader.u64()?;
    let judged = reader.u8()? != 0;
    let author = match reader.u8()? {
        0 => None,
        bits => {
            let username = Some(reader.text()?).filter(|_| bits & 4 != 0);
            let remote = reader.text()?.parse().ok()?;
            let certificate = if bits & 8 != 0 { Some(reader.bytes()?.into()) } else { None };
            let (channel, suite) = if bits & 16 != 0 { (reader.text()?, reader.text()?) } else { Default::default() };
            let proxied_name = if bits & 32 != 0 { Some(reader.text()?) } else { None };
            let psk = if bits & 64 != 0 { Some(reader.text()?) } else { None };
            let known_by_more = bits & 2 != 0;
            Some(WillAuthor { username, remote, certificate, channel, suite, proxied_name, psk, known_by_more })
        }
    };
    let will = match reader.u8()? {
        0 => None,
        1 => {
            let due = reader.moment(clock)?;
            let retain = reader.u8()? != 0;
            let delay = reader.u64()?;
            let message = decode_unpublished(reader, clock)?;
            Some((due, Will { message, retain, delay }))
        }
        _ => return None,
    };
    Some(SessionRow { client_id, owner, expiry, connected, ended, ends_at, will, author, sent_below, next_seq, judged })
}

fn decode_ban(reader: &mut Reader<'_>, clock: WallClock) -> Option<BanRow> {
    Some(BanRow { until: reader.moment(clock)?, reason: reader.text()? })
}

fn decode_delayed(reader: &mut Reader<'_>, clock: WallClock) -> Option<DelayedRow> {
    let due = reader.moment(clock)??;
    let from = reader.u64()?;
    let retain = reader.u8()? != 0;
    Some(DelayedRow { due, from, retain, message: Arc::new(decode_unpublished(reader, clock)?) })
}

/// A message whose lifetime begins when it is published, so that the interval is kept and not the moment.
fn encode_unpublished(message: &Message, clock: WallClock, out: &mut BytesMut) {
    out.put_u64_le(message.properties.message_expiry_interval.map_or(u64::MAX, u64::from));
    let mut message = message.clone();
    message.expires_at = None;
    encode_delivery(&whole(Arc::new(message)), clock, out);
}

/// The rest of the row is the message.
fn decode_unpublished(reader: &mut Reader<'_>, clock: WallClock) -> Option<Message> {
    let interval = reader.u64()?;
    let mut message = Arc::unwrap_or_clone(decode_delivery(reader, clock)?.message);
    message.properties.message_expiry_interval = match interval {
        u64::MAX => None,
        secs => Some(u32::try_from(secs).ok()?),
    };
    Some(message)
}

fn encode_options(options: &SubscriptionOptions, out: &mut BytesMut) {
    out.put_u8(options.qos as u8 | u8::from(options.no_local) << 2 | u8::from(options.retain_as_published) << 3);
    out.put_u32_le(options.identifier.map_or(0, SubscriptionId::get));
}

fn decode_options(reader: &mut Reader<'_>) -> Option<SubscriptionOptions> {
    let bits = reader.u8()?;
    let identifier = match reader.u32()? {
        0 => None,
        id => Some(SubscriptionId::new(id)?),
    };
    Some(SubscriptionOptions {
        qos: QoS::try_from(bits & 3).ok()?,
        no_local: bits & 4 != 0,
        retain_as_published: bits & 8 != 0,
        identifier,
    })
}

fn encode_delivery(delivery: &Delivery, clock: WallClock, out: &mut BytesMut) {
    out.put_u8(delivery.message.qos as u8);
    put_moment(out, delivery.message.expires_at, clock);
    let id = (delivery.qos != QoS::AtMostOnce).then_some(NonZeroU16::MIN);
    // Cannot fail: the message came as such a packet, and the caller bounds its payload.
    let _encodes = delivery.encode_stored(id, out);
}

/// The rest of the row is the packet.
fn decode_delivery(reader: &mut Reader<'_>, clock: WallClock) -> Option<Delivery> {
    let published = QoS::try_from(reader.u8()?).ok()?;
    let expires_at = reader.moment(clock)?;
    let frame = Bytes::copy_from_slice(std::mem::take(&mut reader.rest));
    let Ok(Packet::Publish(publish)) = decode(frame, ProtocolVersion::V5) else { return None };
    let mut properties = publish.properties;
    let subscription_ids = std::mem::take(&mut properties.subscription_ids);
    let mut message = Message::new(publish.topic, publish.payload, published, properties, 0);
    message.expires_at = expires_at;
    let mut delivery = Delivery::new(publish.qos, Arc::new(message));
    delivery.retain = publish.retain;
    delivery.subscription_ids = subscription_ids.into_iter().collect();
    Some(delivery)
}

/// A delivery behind the shared subscription by which it came.
fn decode_shared(reader: &mut Reader<'_>, clock: WallClock) -> Option<Delivery> {
    let share = ShareName { group: (*reader.text()?).into(), filter: (*reader.text()?).into() };
    let mut delivery = decode_delivery(reader, clock)?;
    delivery.share = Some(Arc::new(share));
    Some(delivery)
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    // Strings of MQTT are shorter than 64 KiB, lists of rules have a bound.
    out.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

/// A moment as its wall clock plus one; 0 is none.
fn put_moment(out: &mut BytesMut, moment: Option<Millis>, clock: WallClock) {
    out.put_u64_le(moment.map_or(0, |at| clock.to_wall(at).saturating_add(1)));
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn moment(&mut self, clock: WallClock) -> Option<Option<Millis>> {
        Some(self.u64()?.checked_sub(1).map(|wall| clock.to_broker(wall)))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    fn text(&mut self) -> Option<ByteString> {
        std::str::from_utf8(self.bytes()?).ok().map(ByteString::from)
    }
}
