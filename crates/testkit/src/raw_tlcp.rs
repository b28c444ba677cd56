//! A TLCP client by hand, as far as a server needs it to refuse: it sends any certificates and any key exchange.

use std::net::SocketAddr;

use sm3::{Digest, Sm3};

use crate::raw::{CHANGE_CIPHER_SPEC, HANDSHAKE, RawHello, RawPeer, TLCP, handshake, record, vector_u16, vector_u24};

const CERTIFICATE: u8 = 11;
const CERTIFICATE_REQUEST: u8 = 13;
const SERVER_HELLO_DONE: u8 = 14;
const CERTIFICATE_VERIFY: u8 = 15;
const CLIENT_KEY_EXCHANGE: u8 = 16;

/// The base point of the SM2 curve (GB/T 32918.5), uncompressed and without its first byte.
const BASE_POINT: [u8; 64] = [
    0x32, 0xc4, 0xae, 0x2c, 0x1f, 0x19, 0x81, 0x19, 0x5f, 0x99, 0x04, 0x46, 0x6a, 0x39, 0xc9, 0x94, 0x8f, 0xe3, 0x0b,
    0xbf, 0xf2, 0x66, 0x0b, 0xe1, 0x71, 0x5a, 0x45, 0x89, 0x33, 0x4c, 0x74, 0xc7, 0xbc, 0x37, 0x36, 0xa2, 0xf4, 0xf6,
    0x77, 0x9c, 0x59, 0xbd, 0xce, 0xe3, 0x6b, 0x69, 0x21, 0x53, 0xd0, 0xa9, 0x87, 0x7c, 0xc6, 0x2a, 0x47, 0x40, 0x02,
    0xdf, 0x32, 0xe5, 0x21, 0x39, 0xf0, 0xa0,
];

/// A client that has the server's first flight.
#[derive(Debug)]
pub struct RawTlcpClient {
    pub peer: RawPeer,
    /// The server's certificates in DER: the signing one, the encryption one, and what else it sent.
    pub server_certificates: Vec<Vec<u8>>,
    pub asked_for_certificate: bool,
}

impl RawTlcpClient {
    /// Offers `suites` and reads up to ServerHelloDone.
    pub async fn hello(address: SocketAddr, suites: &[u16]) -> RawTlcpClient {
        let mut peer = RawPeer::connect(address).await;
        peer.send(&RawHello::tlcp().suites(suites).wire()).await;
        let mut client = RawTlcpClient { peer, server_certificates: Vec::new(), asked_for_certificate: false };
        let mut flight: Vec<u8> = Vec::new();
        loop {
            while let Some((kind, body, rest)) = split_message(&flight) {
                match kind {
                    CERTIFICATE => client.server_certificates = certificates(&body),
                    CERTIFICATE_REQUEST => client.asked_for_certificate = true,
                    SERVER_HELLO_DONE => return client,
                    _ => {}
                }
                flight = rest;
            }
            let (kind, version, body) = client.peer.read_record().await.expect("the server's flight, not the end");
            assert_eq!((kind, version), (HANDSHAKE, TLCP), "a handshake record, got {body:x?}");
            flight.extend(body);
        }
    }

    async fn send_message(&mut self, kind: u8, body: &[u8]) {
        for chunk in handshake(kind, body).chunks(1 << 14) {
            self.peer.send(&record(HANDSHAKE, TLCP, chunk)).await;
        }
    }

    /// Sends a Certificate message with these certificates in DER, whatever they are.
    pub async fn send_certificates(&mut self, certificates: &[Vec<u8>]) {
        let entries: Vec<u8> = certificates.iter().flat_map(|der| vector_u24(der)).collect();
        self.send_message(CERTIFICATE, &vector_u24(&entries)).await;
    }

    /// Sends a ClientKeyExchange with this ciphertext.
    pub async fn send_key_exchange(&mut self, ciphertext: &[u8]) {
        self.send_message(CLIENT_KEY_EXCHANGE, &vector_u16(ciphertext)).await;
    }

    /// Sends all that comes after a Certificate message, none of it true.
    pub async fn send_rest(&mut self) {
        self.send_key_exchange(&Sm2Ciphertext::garbage().der()).await;
        self.send_message(CERTIFICATE_VERIFY, &vector_u16(&[0x30, 6, 2, 1, 1, 2, 1, 1])).await;
        self.send_finished().await;
    }

    /// Sends ChangeCipherSpec and a Finished that no key has encrypted.
    pub async fn send_finished(&mut self) {
        self.peer.send(&record(CHANGE_CIPHER_SPEC, TLCP, &[1])).await;
        self.peer.send(&record(HANDSHAKE, TLCP, &[7; 40])).await;
    }

    /// The public point of the server's encryption key: 32 bytes each of x and y.
    pub fn server_encryption_point(&self) -> [u8; 64] {
        let der = self.server_certificates.get(1).expect("the server's encryption certificate");
        // The BIT STRING of an uncompressed SM2 point, behind the curve's identifier 1.2.156.10197.1.301.
        let marker = [0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01, 0x82, 0x2d, 0x03, 0x42, 0x00, 0x04];
        let at = der.windows(marker.len()).position(|window| window == marker).expect("an SM2 key") + marker.len();
        der.get(at..at + 64).and_then(|point| point.try_into().ok()).expect("a whole point")
    }
}

fn split_message(bytes: &[u8]) -> Option<(u8, Vec<u8>, Vec<u8>)> {
    let [kind, a, b, c, rest @ ..] = bytes else { return None };
    let (body, rest) = rest.split_at_checked(u32::from_be_bytes([0, *a, *b, *c]) as usize)?;
    Some((*kind, body.to_vec(), rest.to_vec()))
}

fn certificates(body: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut rest = body.get(3..).unwrap_or_default();
    while let [a, b, c, more @ ..] = rest {
        let Some((der, more)) = more.split_at_checked(u32::from_be_bytes([0, *a, *b, *c]) as usize) else { break };
        all.push(der.to_vec());
        rest = more;
    }
    all
}

/// An SM2 ciphertext (GM/T 0009 section 7.2) part by part, so that each can be made wrong.
#[derive(Debug, Clone)]
pub struct Sm2Ciphertext {
    pub x: Vec<u8>,
    pub y: Vec<u8>,
    pub hash: Vec<u8>,
    pub cipher: Vec<u8>,
}

impl Sm2Ciphertext {
    /// A premaster secret of TLCP for the key with the point `recipient`. The ephemeral key is 1, so that the shared point is the
    /// recipient's own and no arithmetic is needed (GB/T 32918.4 section 6.1).
    pub fn premaster(recipient: &[u8; 64]) -> Sm2Ciphertext {
        let mut secret = [7; 48];
        secret[..2].copy_from_slice(&TLCP.to_be_bytes());
        let (x2, y2) = recipient.split_at(32);
        let stream = (1u32..).flat_map(|counter| {
            let block = Sm3::new().chain_update(recipient).chain_update(counter.to_be_bytes()).finalize();
            block.to_vec()
        });
        let cipher = secret.iter().zip(stream).map(|(byte, key)| byte ^ key).collect();
        let hash = Sm3::new().chain_update(x2).chain_update(secret).chain_update(y2).finalize().to_vec();
        let (x, y) = BASE_POINT.split_at(32);
        Sm2Ciphertext { x: x.to_vec(), y: y.to_vec(), hash, cipher }
    }

    /// Well formed and on the curve, but encrypted for nobody.
    pub fn garbage() -> Sm2Ciphertext {
        let (x, y) = BASE_POINT.split_at(32);
        Sm2Ciphertext { x: x.to_vec(), y: y.to_vec(), hash: vec![1; 32], cipher: vec![2; 48] }
    }

    pub fn der(&self) -> Vec<u8> {
        let parts = [integer(&self.x), integer(&self.y), tagged(4, &self.hash), tagged(4, &self.cipher)];
        tagged(0x30, &parts.concat())
    }
}

/// A non-negative INTEGER of DER.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let significant = bytes.get(zeros..).unwrap_or_default();
    let sign: &[u8] = if significant.first().is_none_or(|first| *first >= 0x80) { &[0] } else { &[] };
    tagged(2, &[sign, significant].concat())
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match u8::try_from(length) {
        Ok(short @ ..0x80) => vec![tag, short],
        Ok(byte) => vec![tag, 0x81, byte],
        Err(_) => [&[tag, 0x82][..], &u16::try_from(length).expect("at most 65535 bytes").to_be_bytes()].concat(),
    };
    [&head[..], content].concat()
}

#[cfg(test)]
mod tests {
    use libsm::sm2::{encrypt::DecryptCtx, signature::SigCtx};

    use super::*;

    #[test]
    fn another_implementation_decrypts_the_premaster_secret() {
        let context = SigCtx::new();
        let (public, secret) = context.new_keypair().unwrap();
        let point = context.serialize_pubkey(&public, false).unwrap();
        let made = Sm2Ciphertext::premaster(point[1..].try_into().unwrap());
        let wire = [&[4][..], &made.x, &made.y, &made.cipher, &made.hash].concat();
        let premaster = DecryptCtx::new(48, secret).decrypt(&wire).unwrap();
        assert_eq!(premaster[..2], [1, 1]);
        assert_eq!(premaster[2..], [7; 46]);
    }
}
