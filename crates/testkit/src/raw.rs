//! A peer of a secured port that writes its bytes by hand, since no library would send what it sends.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// Types of records.
pub const CHANGE_CIPHER_SPEC: u8 = 20;
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const APPLICATION_DATA: u8 = 23;

/// The version of TLCP in records and hellos.
pub const TLCP: u16 = 0x0101;

/// A record as it stands on the wire. Its length is that of `body`.
pub fn record(kind: u8, version: u16, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &version.to_be_bytes(), &vector_u16(body)].concat()
}

/// A handshake message. Its length is that of `body`.
pub fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &vector_u24(body)].concat()
}

/// `data` behind its length in one byte.
pub fn vector_u8(data: &[u8]) -> Vec<u8> {
    [&[u8::try_from(data.len()).expect("at most 255 bytes")], data].concat()
}

/// `data` behind its length in two bytes.
pub fn vector_u16(data: &[u8]) -> Vec<u8> {
    [&u16::try_from(data.len()).expect("at most 65535 bytes").to_be_bytes()[..], data].concat()
}

/// `data` behind its length in three bytes.
pub fn vector_u24(data: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(data.len()).expect("at most 2^24 bytes").to_be_bytes();
    [&length[..], data].concat()
}

fn list(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// A ClientHello field by field, so that each can be made wrong.
#[derive(Debug, Clone)]
pub struct RawHello {
    pub record_version: u16,
    pub client_version: u16,
    /// The bytes of the list of suites.
    pub suites: Vec<u8>,
    pub compression: Vec<u8>,
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl RawHello {
    /// TLCP with the suites that need no client certificate.
    pub fn tlcp() -> RawHello {
        RawHello {
            record_version: TLCP,
            client_version: TLCP,
            suites: list(&[0xe053, 0xe013]),
            compression: vec![0],
            extensions: Vec::new(),
        }
    }

    pub fn tls12() -> RawHello {
        RawHello { record_version: 0x0301, client_version: 0x0303, ..RawHello::tlcp() }
            .suites(&[0xc02b, 0xc02f])
            .extension(10, &vector_u16(&list(&[0x001d, 0x0017])))
            .extension(13, &vector_u16(&list(&[0x0403, 0x0804])))
    }

    /// TLS 1.3 without a key share: the server asks for one.
    pub fn tls13() -> RawHello {
        RawHello::tls12()
            .suites(&[0x1301, 0x1302])
            .extension(43, &vector_u8(&list(&[0x0304])))
            .extension(51, &vector_u16(&[]))
    }

    pub fn suites(mut self, suites: &[u16]) -> RawHello {
        self.suites = list(suites);
        self
    }

    /// Appends an extension, one that is there already too.
    pub fn extension(mut self, kind: u16, data: &[u8]) -> RawHello {
        self.extensions.push((kind, data.to_vec()));
        self
    }

    pub fn body(&self) -> Vec<u8> {
        let mut body = self.client_version.to_be_bytes().to_vec();
        body.extend(0..32u8);
        body.push(0);
        body.extend(vector_u16(&self.suites));
        body.extend(vector_u8(&self.compression));
        if !self.extensions.is_empty() {
            let each = self.extensions.iter();
            let all: Vec<u8> =
                each.flat_map(|(kind, data)| [kind.to_be_bytes().to_vec(), vector_u16(data)].concat()).collect();
            body.extend(vector_u16(&all));
        }
        body
    }

    pub fn message(&self) -> Vec<u8> {
        handshake(1, &self.body())
    }

    /// The hello in one record.
    pub fn wire(&self) -> Vec<u8> {
        self.in_records_of(1 << 14)
    }

    /// The hello spread over records of so many bytes.
    pub fn in_records_of(&self, len: usize) -> Vec<u8> {
        self.message().chunks(len).flat_map(|chunk| record(HANDSHAKE, self.record_version, chunk)).collect()
    }
}

/// What a peer got as the end of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A fatal alert with this code, and then an orderly end.
    Alert(u8),
    /// An orderly end without a word.
    Silence,
}

/// A TCP connection that says what it is told.
#[derive(Debug)]
pub struct RawPeer {
    stream: TcpStream,
}

impl RawPeer {
    pub async fn connect(address: SocketAddr) -> RawPeer {
        let stream = TcpStream::connect(address).await.expect("the listener listens");
        stream.set_nodelay(true).expect("a connected socket");
        RawPeer { stream }
    }

    /// Sends bytes to a peer that may have closed the connection: what it said before is judged by what is read.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the peer takes bytes");
    }

    /// Sends each byte in a segment of its own.
    pub async fn send_byte_by_byte(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send(&[*byte]).await;
            tokio::task::yield_now().await;
        }
    }

    pub async fn close_sending(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The next record: its type, version and body. `None` at the end of the connection.
    ///
    /// # Panics
    /// The connection was reset instead of closed, or ended within a record.
    pub async fn read_record(&mut self) -> Option<(u8, u16, Vec<u8>)> {
        let read = async {
            let kind = match self.stream.read_u8().await {
                Ok(kind) => kind,
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            };
            let version = self.stream.read_u16().await?;
            let mut body = vec![0; self.stream.read_u16().await?.into()];
            self.stream.read_exact(&mut body).await?;
            Ok(Some((kind, version, body)))
        };
        timeout(PATIENCE, read).await.expect("a record or the end").expect("no reset, and no end within a record")
    }

    /// The next record must hold the first handshake message of a server.
    pub async fn expect_server_hello(&mut self) {
        let (kind, _, body) = self.read_record().await.expect("a ServerHello, not the end");
        assert_eq!((kind, body.first()), (HANDSHAKE, Some(&2)), "a ServerHello, got {body:x?}");
    }

    /// Reads to the end of the connection, passing over anything but alerts.
    pub async fn ending(&mut self) -> Ending {
        let mut ending = Ending::Silence;
        while let Some((kind, _, body)) = self.read_record().await {
            if let (ALERT, [2, code]) = (kind, body.as_slice()) {
                ending = Ending::Alert(*code);
            }
        }
        ending
    }
}
