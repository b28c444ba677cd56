//! Where a row stands: its table and its key, in memory and as bytes.

use bytestring::ByteString;
use std::num::NonZeroU16;

/// Identifies a session for ever: an identifier is not given out again while rows of its session are stored.
pub type SessionId = u64;
/// Numbers the deliveries of one session, from 1.
pub type Seq = u64;

/// A kind of row. Each is a table of the database; the order is that in which a transaction writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Sessions,
    Subscriptions,
    Deliveries,
    Inbound,
    Retained,
    Bans,
    Users,
    Acl,
    Delayed,
}

impl Table {
    pub const ALL: [Table; 9] = [
        Table::Sessions,
        Table::Subscriptions,
        Table::Deliveries,
        Table::Inbound,
        Table::Retained,
        Table::Bans,
        Table::Users,
        Table::Acl,
        Table::Delayed,
    ];

    /// The table's name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Table::Sessions => "sessions",
            Table::Subscriptions => "subscriptions",
            Table::Deliveries => "deliveries",
            Table::Inbound => "inbound",
            Table::Retained => "retained",
            Table::Bans => "bans",
            Table::Users => "users",
            Table::Acl => "acl",
            Table::Delayed => "delayed",
        }
    }

    /// The tables whose keys begin with a session's identifier.
    pub const OF_SESSIONS: [Table; 4] = [Table::Sessions, Table::Subscriptions, Table::Deliveries, Table::Inbound];
}

/// The key of one row. The order is that of the bytes for all keys of one session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Session(SessionId),
    Subscription(SessionId, ByteString),
    Delivery(SessionId, Seq),
    /// A QoS 2 packet identifier of a publisher that waits for its PUBREL.
    Inbound(SessionId, NonZeroU16),
    Retained(ByteString),
    /// Whom a ban is about, as text.
    Ban(ByteString),
    /// A user name.
    User(ByteString),
    /// Whom a list of rules is for, as text.
    Acl(ByteString),
    /// The number of a message that waits for its time. Numbers rise, so that those of one moment keep their order.
    Delayed(u64),
}

impl Key {
    pub fn table(&self) -> Table {
        match self {
            Key::Session(_) => Table::Sessions,
            Key::Subscription(..) => Table::Subscriptions,
            Key::Delivery(..) => Table::Deliveries,
            Key::Inbound(..) => Table::Inbound,
            Key::Retained(_) => Table::Retained,
            Key::Ban(_) => Table::Bans,
            Key::User(_) => Table::Users,
            Key::Acl(_) => Table::Acl,
            Key::Delayed(_) => Table::Delayed,
        }
    }

    pub fn session(&self) -> Option<SessionId> {
        match self {
            Key::Session(id) | Key::Subscription(id, _) | Key::Delivery(id, _) | Key::Inbound(id, _) => Some(*id),
            Key::Retained(_) | Key::Ban(_) | Key::User(_) | Key::Acl(_) | Key::Delayed(_) => None,
        }
    }

    /// Appends the key's bytes: big-endian numbers, so that bytes sort as numbers do.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if let Some(id) = self.session() {
            out.extend_from_slice(&id.to_be_bytes());
        }
        match self {
            Key::Session(_) => {}
            Key::Subscription(_, name) | Key::Retained(name) | Key::Ban(name) | Key::User(name) | Key::Acl(name) => {
                out.extend_from_slice(name.as_bytes())
            }
            Key::Delivery(_, seq) | Key::Delayed(seq) => out.extend_from_slice(&seq.to_be_bytes()),
            Key::Inbound(_, id) => out.extend_from_slice(&id.get().to_be_bytes()),
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        self.encode(&mut out);
        out
    }

    /// The key that these bytes are in `table`; `None` if they are none.
    pub fn decode(table: Table, bytes: &[u8]) -> Option<Key> {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(ByteString::from);
        match table {
            Table::Retained => return Some(Key::Retained(text(bytes)?)),
            Table::Bans => return Some(Key::Ban(text(bytes)?)),
            Table::Users => return Some(Key::User(text(bytes)?)),
            Table::Acl => return Some(Key::Acl(text(bytes)?)),
            _ => {}
        }
        let (id, rest) = bytes.split_first_chunk::<8>()?;
        let id = u64::from_be_bytes(*id);
        match table {
            Table::Delayed => rest.is_empty().then_some(Key::Delayed(id)),
            Table::Sessions => rest.is_empty().then_some(Key::Session(id)),
            Table::Subscriptions => Some(Key::Subscription(id, text(rest)?)),
            Table::Deliveries => Some(Key::Delivery(id, u64::from_be_bytes(rest.try_into().ok()?))),
            Table::Inbound => Some(Key::Inbound(id, NonZeroU16::new(u16::from_be_bytes(rest.try_into().ok()?))?)),
            Table::Retained | Table::Bans | Table::Users | Table::Acl => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_were_written() {
        let id = NonZeroU16::new(7).unwrap();
        for key in [
            Key::Session(1),
            Key::Subscription(u64::MAX, "a/+/#".into()),
            Key::Delivery(256, 255),
            Key::Inbound(3, id),
            Key::Retained("a/b".into()),
            Key::Ban("client_id c".into()),
            Key::User("ada".into()),
            Key::Acl("username ada".into()),
            Key::Delayed(1 << 40),
        ] {
            assert_eq!(Key::decode(key.table(), &key.to_bytes()), Some(key.clone()));
        }
        assert_eq!(Key::decode(Table::Sessions, &[0; 9]), None);
        assert_eq!(Key::decode(Table::Deliveries, &[0; 15]), None);
        assert_eq!(Key::decode(Table::Inbound, &[0; 10]), None);
        assert_eq!(Key::decode(Table::Retained, &[0xff]), None);
    }

    #[test]
    fn bytes_sort_as_keys_do() {
        let mut keys = [Key::Delivery(1, 256), Key::Delivery(1, 255), Key::Delivery(256, 0), Key::Delivery(2, 9)];
        keys.sort();
        let bytes: Vec<_> = keys.iter().map(Key::to_bytes).collect();
        assert!(bytes.is_sorted());
    }
}
