//! Publishes or receives MQTT 3.1.1 messages over TLCP with the `gm-tlcp` crate. MQTT packets are written out by hand, so that
//! nothing in this program comes from the broker under test.
//!
//! gm-tlcp-client --address HOST:PORT --suite E013 --ca CA.pem --server-certificate SIGN.pem
//!     [--sign-cert F --sign-key F --enc-cert F --enc-key F] [--qos N]
//!     publish TOPIC FILE | [--count N] subscribe TOPIC
//!
//! `publish` sends the bytes of FILE. `subscribe` prints `READY` once the broker has confirmed, then `MESSAGE topic qos retain hex`
//! for each message. Every error names the step that failed; the exit code is then 1.

use gm_tlcp::tlcp::{TlcpConnector, TlcpStream};
use shim::SpareRecord;
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::time::Duration;
use tokio::net::TcpStream;

mod shim;

type Failure = Box<dyn Error>;

/// The signer ID that GM/T 0009 gives every SM2 signature without one of its own.
const SIGNER_ID: &str = "1234567812345678";
/// AlgorithmIdentifier { id-ecPublicKey, SM2 } and the head of the BIT STRING with an uncompressed point.
const SM2_KEY_HEAD: [u8; 24] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01,
    0x82, 0x2d, 0x03, 0x42, 0x00,
];
/// A TLCP record carries at most this much.
const RECORD: usize = 16 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let (options, words) = arguments()?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut mqtt = tokio::time::timeout(Duration::from_secs(10), Mqtt::connect(&options))
        .await
        .map_err(|_| "connect: timed out")??;
    let qos: u8 = options.get("qos").map_or(Ok(0), |qos| qos.parse())?;
    let count: u32 = options.get("count").map_or(Ok(1), |count| count.parse())?;
    let work = async {
        match words.as_slice() {
            ["publish", topic, file] => mqtt.publish(topic, &fs::read(file)?, qos).await,
            ["subscribe", topic] => mqtt.subscribe(topic, qos, count).await,
            _ => Err("usage: ... publish TOPIC FILE | subscribe TOPIC".into()),
        }
    };
    tokio::time::timeout(Duration::from_secs(30), work).await.map_err(|_| "mqtt: timed out")?
}

/// `--name value` pairs, and the words between them.
fn arguments() -> Result<(HashMap<String, String>, Vec<String>), Failure> {
    let (mut options, mut words) = (HashMap::new(), Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--") {
            Some(name) => {
                let value = arguments.next().ok_or_else(|| format!("--{name} needs a value"))?;
                options.insert(name.to_owned(), value);
            }
            None => words.push(argument),
        }
    }
    Ok((options, words))
}

fn pem_to_der(path: &str) -> Result<Vec<u8>, Failure> {
    let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let body: String = text
        .lines()
        .skip_while(|l| !l.starts_with("-----BEGIN"))
        .skip(1)
        .take_while(|l| !l.starts_with("-----END"))
        .collect();
    base64(&body).ok_or_else(|| format!("{path}: not PEM").into())
}

fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for byte in text.bytes().filter(|b| *b != b'=' && !b.is_ascii_whitespace()) {
        let value = ALPHABET.iter().position(|a| *a == byte)? as u32;
        (bits, held) = ((bits << 6) | value, held + 6);
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}

/// The uncompressed point of the SM2 key in a certificate.
fn sm2_public_key(der: &[u8]) -> Result<Vec<u8>, Failure> {
    let at = der
        .windows(SM2_KEY_HEAD.len())
        .position(|window| window == SM2_KEY_HEAD)
        .ok_or("the server certificate holds no SM2 key")?;
    let point =
        der.get(at + SM2_KEY_HEAD.len()..at + SM2_KEY_HEAD.len() + 65).ok_or("the server certificate is cut short")?;
    Ok(point.to_vec())
}

/// One MQTT connection, with bytes that were read and not yet consumed.
struct Mqtt {
    stream: TlcpStream<SpareRecord<TcpStream>>,
    pending: Vec<u8>,
}

impl Mqtt {
    async fn connect(options: &HashMap<String, String>) -> Result<Mqtt, Failure> {
        let option = |name: &str| options.get(name).ok_or_else(|| format!("--{name} is missing"));
        let suite = u16::from_str_radix(option("suite")?, 16)?;
        let server = pem_to_der(option("server-certificate")?)?;
        let mut connector = TlcpConnector::new()
            .with_cipher_suites(vec![suite.to_be_bytes()])
            .with_server_sign_key(sm2_public_key(&server)?, SIGNER_ID.to_owned())
            .with_server_ca_chain(vec![pem_to_der(option("ca")?)?])
            .with_handshake_timeout(Duration::from_secs(8));
        if let Ok(sign_cert) = option("sign-cert") {
            let certificates = vec![pem_to_der(sign_cert)?, pem_to_der(option("enc-cert")?)?];
            let (sign_key, enc_key) =
                (fs::read_to_string(option("sign-key")?)?, fs::read_to_string(option("enc-key")?)?);
            connector = connector.with_client_certs(certificates, sign_key, Some(enc_key), None);
        }
        let tcp = TcpStream::connect(option("address")?).await?;
        tcp.set_nodelay(true)?;
        let stream =
            connector.connect_with_certs(SpareRecord::new(tcp)).await.map_err(|e| format!("handshake: {e}"))?;
        let mut mqtt = Mqtt { stream, pending: Vec::new() };
        let client_id = format!("gm-tlcp-{}", std::process::id());
        let mut connect = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60];
        connect.extend(string(&client_id));
        mqtt.send(0x10, &connect).await?;
        match mqtt.receive().await? {
            (0x20, body) if body == [0, 0] => Ok(mqtt),
            other => Err(format!("mqtt: expected CONNACK, got {other:02x?}").into()),
        }
    }

    async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8) -> Result<(), Failure> {
        let mut body = string(topic);
        if qos > 0 {
            body.extend([0, 1]);
        }
        body.extend(payload);
        self.send(0x30 | (qos << 1), &body).await?;
        match qos {
            0 => {}
            1 => self.expect(0x40).await?,
            _ => {
                self.expect(0x50).await?;
                self.send(0x62, &[0, 1]).await?;
                self.expect(0x70).await?;
            }
        }
        self.send(0xe0, &[]).await
    }

    async fn subscribe(&mut self, topic: &str, qos: u8, count: u32) -> Result<(), Failure> {
        let mut body = vec![0, 1];
        body.extend(string(topic));
        body.push(qos);
        self.send(0x82, &body).await?;
        self.expect(0x90).await?;
        println!("READY");
        let mut left = count;
        while left > 0 {
            let (kind, body) = self.receive().await?;
            if kind >> 4 == 3 {
                self.take(kind, &body).await?;
                left -= 1;
            }
        }
        self.send(0xe0, &[]).await
    }

    /// Prints a PUBLISH and acknowledges it.
    async fn take(&mut self, kind: u8, body: &[u8]) -> Result<(), Failure> {
        let (qos, retain) = ((kind >> 1) & 3, kind & 1);
        let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..topic_end].to_vec())?;
        let payload = if qos == 0 { &body[topic_end..] } else { &body[topic_end + 2..] };
        let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("MESSAGE {topic} {qos} {retain} {hex}");
        match qos {
            0 => Ok(()),
            1 => self.send(0x40, &body[topic_end..topic_end + 2]).await,
            _ => {
                self.send(0x50, &body[topic_end..topic_end + 2]).await?;
                let pubrel = self.receive().await?;
                if pubrel.0 != 0x62 {
                    return Err(format!("mqtt: expected PUBREL, got {pubrel:02x?}").into());
                }
                self.send(0x70, &pubrel.1).await
            }
        }
    }

    async fn expect(&mut self, kind: u8) -> Result<(), Failure> {
        match self.receive().await? {
            (got, body) if got == kind && body.starts_with(&[0, 1]) => Ok(()),
            other => Err(format!("mqtt: expected {kind:02x}, got {other:02x?}").into()),
        }
    }

    async fn send(&mut self, kind: u8, body: &[u8]) -> Result<(), Failure> {
        let mut packet = vec![kind];
        let mut left = body.len();
        loop {
            let byte = (left % 128) as u8;
            left /= 128;
            packet.push(if left > 0 { byte | 0x80 } else { byte });
            if left == 0 {
                break;
            }
        }
        packet.extend(body);
        for record in packet.chunks(RECORD) {
            self.stream.write_application_data(record).await.map_err(|e| format!("write: {e}"))?;
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<(u8, Vec<u8>), Failure> {
        loop {
            if let Some((used, kind, body)) = packet(&self.pending) {
                self.pending.drain(..used);
                return Ok((kind, body));
            }
            let record = self.stream.read_application_data().await.map_err(|e| format!("read: {e}"))?;
            self.pending.extend(record);
        }
    }
}

/// Length prefix and text.
fn string(text: &str) -> Vec<u8> {
    let mut out = (text.len() as u16).to_be_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

/// The first whole packet: bytes it takes, first byte, body.
fn packet(bytes: &[u8]) -> Option<(usize, u8, Vec<u8>)> {
    let kind = *bytes.first()?;
    let mut length = 0usize;
    for index in 0..4 {
        let byte = *bytes.get(1 + index)?;
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let start = 2 + index;
            return Some((start + length, kind, bytes.get(start..start + length)?.to_vec()));
        }
    }
    None
}
