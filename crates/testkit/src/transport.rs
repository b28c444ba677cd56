//! Everything MQTT can be carried over, up to but without WebSocket, whose client the broker's own module provides.

use std::net::SocketAddr;

use gm_tls::cert::{Certificate, CertificateChain};
use gm_tls::client::{ClientIdentity, ClientOptions, ClientProtocol, Connector, Identity};
use gm_tls::key::PrivateKey;
use gm_tls::pair::CertificatePair;
use gm_tls::pki::development::{CertKey, DevCerts};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client::AnyStream;

/// A way to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Tcp,
    Tls12,
    Tls13,
    Rfc8998,
    Tlcp,
    Ws,
    WssTls13,
    WssTlcp,
}

impl Transport {
    pub const ALL: [Transport; 8] = [
        Transport::Tcp,
        Transport::Tls12,
        Transport::Tls13,
        Transport::Rfc8998,
        Transport::Tlcp,
        Transport::Ws,
        Transport::WssTls13,
        Transport::WssTlcp,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Tls12 => "tls12",
            Transport::Tls13 => "tls13",
            Transport::Rfc8998 => "rfc8998",
            Transport::Tlcp => "tlcp",
            Transport::Ws => "ws",
            Transport::WssTls13 => "wss_tls13",
            Transport::WssTlcp => "wss_tlcp",
        }
    }

    /// The kind of listener that answers it: `tcp`, `ssl`, `ws` or `wss`.
    pub fn listener(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Tls12 | Transport::Tls13 | Transport::Rfc8998 | Transport::Tlcp => "ssl",
            Transport::Ws => "ws",
            Transport::WssTls13 | Transport::WssTlcp => "wss",
        }
    }

    pub fn is_websocket(self) -> bool {
        matches!(self, Transport::Ws | Transport::WssTls13 | Transport::WssTlcp)
    }

    /// What secures it, if anything.
    pub fn protocol(self) -> Option<ClientProtocol> {
        match self {
            Transport::Tcp | Transport::Ws => None,
            Transport::Tls12 => Some(ClientProtocol::Tls12),
            Transport::Tls13 | Transport::WssTls13 => Some(ClientProtocol::Tls13),
            Transport::Rfc8998 => Some(ClientProtocol::Rfc8998),
            Transport::Tlcp | Transport::WssTlcp => Some(ClientProtocol::Tlcp),
        }
    }

    /// Connects to the listener at `address` as a client without certificates; the server's are verified. WebSocket transports still
    /// need their upgrade.
    pub async fn open(self, address: SocketAddr, certificates: &DevCerts) -> AnyStream {
        self.dialer(certificates, false).open(address).await
    }

    /// As [`open`](Self::open), over a connection that is there already.
    pub async fn open_on(self, stream: TcpStream, certificates: &DevCerts) -> AnyStream {
        self.dialer(certificates, false).open_on(stream).await
    }

    /// The bytes that a client of this transport begins its handshake with.
    pub async fn hello(self, certificates: &DevCerts) -> Vec<u8> {
        let protocol = self.protocol().expect("a secured transport");
        let connector = Connector::new(&client_options(protocol, certificates)).expect("valid options");
        let (near, mut far) = tokio::io::duplex(16 * 1024);
        let mut hello = Vec::with_capacity(16 * 1024);
        tokio::select! {
            biased;
            outcome = connector.connect(near) => panic!("nobody has answered: {outcome:?}"),
            read = far.read_buf(&mut hello) => { read.expect("a pipe"); }
        }
        hello
    }

    /// As [`open`](Self::open), with the client certificates of the development set where the transport is secured.
    pub async fn open_with_identity(self, address: SocketAddr, certificates: &DevCerts) -> AnyStream {
        self.dialer(certificates, true).open(address).await
    }

    /// What opens many connections with one set-up, with or without client certificates.
    pub fn dialer(self, certificates: &DevCerts, with_identity: bool) -> Dialer {
        let connector = self.protocol().map(|protocol| {
            let identity = with_identity.then(|| client_identity(protocol, certificates));
            let options = ClientOptions { identity, ..client_options(protocol, certificates) };
            Connector::new(&options).expect("client options of the development set are valid")
        });
        Dialer { transport: self, connector }
    }
}

/// A client's set-up for one transport.
#[derive(Debug, Clone)]
pub struct Dialer {
    transport: Transport,
    connector: Option<Connector>,
}

impl Dialer {
    /// As [`Transport::open`].
    pub async fn open(&self, address: SocketAddr) -> AnyStream {
        self.open_on(dial(address).await).await
    }

    /// As [`Transport::open_on`].
    pub async fn open_on(&self, stream: TcpStream) -> AnyStream {
        match &self.connector {
            Some(connector) => {
                let secured = connector.connect(stream).await;
                Box::new(secured.unwrap_or_else(|error| panic!("{}: {error}", self.transport.name())))
            }
            None => Box::new(stream),
        }
    }
}

async fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("the listener listens");
    stream.set_nodelay(true).expect("a connected socket");
    stream
}

/// Options of a client that trusts the development authorities.
fn client_options(protocol: ClientProtocol, certificates: &DevCerts) -> ClientOptions {
    let ca = Certificate::anchors_from_file("ca", &certificates.ca_bundle()).expect("the authorities of the set");
    ClientOptions { ca, ..ClientOptions::new(protocol, "localhost") }
}

fn client_identity(protocol: ClientProtocol, certificates: &DevCerts) -> ClientIdentity {
    match protocol {
        ClientProtocol::Tlcp => {
            let (sign, sign_key) = load(&certificates.client_sign());
            let (enc, enc_key) = load(&certificates.client_enc());
            let pair = CertificatePair::new(sign, sign_key, enc, enc_key);
            ClientIdentity::Pair(pair.expect("the client's pair of the set"))
        }
        ClientProtocol::Rfc8998 => single(&certificates.client_sm2()),
        _ => single(&certificates.client_ecdsa()),
    }
}

fn single(files: &CertKey) -> ClientIdentity {
    let (chain, key) = load(files);
    ClientIdentity::Single(Identity { chain, key })
}

fn load(files: &CertKey) -> (CertificateChain, PrivateKey) {
    let chain = CertificateChain::from_file("certificate", &files.cert).expect("a certificate of the set");
    let key = PrivateKey::from_file("key", &files.key, None).expect("a key of the set");
    (chain, key)
}
