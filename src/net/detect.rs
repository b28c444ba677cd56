//! What a peer's first bytes are, before anything is read in earnest: the right protocol for the port, or a mistake worth naming.
//!
//! Pure, and stable: an answer other than [`Detected::NeedMore`] is given for every longer input too.

use super::proxy;

/// No more bytes than these are ever needed for an answer: the signature of a PROXY v2 header is the longest.
pub const MAX_DETECT_LEN: usize = proxy::V2_SIGNATURE.len();

/// The kinds of first bytes told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detected {
    /// Too few bytes for an answer yet.
    NeedMore,
    /// A TLS handshake record, `16 03 xx`.
    Tls,
    /// A TLCP handshake record, `16 01 01`.
    Tlcp,
    /// A record of TLS or TLCP that is not of the handshake, `14 03 xx` and the like.
    OtherRecord,
    /// An SSL 2.0 record with a hello in it.
    Ssl2,
    /// The fixed header of an MQTT CONNECT.
    PlainMqtt,
    /// The request line of HTTP/1, or the preface of HTTP/2.
    Http,
    /// A PROXY protocol header of either version.
    ProxyHeader,
    Unknown,
}

/// What a port was configured to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Port {
    /// TLS or TLCP, whatever is inside.
    Secure,
    /// MQTT without encryption.
    Mqtt,
    /// HTTP without encryption, to be upgraded to WebSocket.
    WebSocket,
}

const HANDSHAKE: u8 = 22;
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;
const CONNECT: u8 = 0x10;
const CLIENT_HELLO: u8 = 1;
const HTTP_STARTS: [&[u8]; 10] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"TRACE ", b"PATCH ", b"PRI * HTTP/2"];

/// Judges the first bytes of a connection, or those behind a PROXY header that was expected.
pub fn detect(prefix: &[u8]) -> Detected {
    match *prefix {
        [] => Detected::NeedMore,
        [CONNECT, ..] => Detected::PlainMqtt,
        [HANDSHAKE, 3, ..] => Detected::Tls,
        [HANDSHAKE, 1, 1, ..] => Detected::Tlcp,
        [HANDSHAKE] | [HANDSHAKE, 1] => Detected::NeedMore,
        [CHANGE_CIPHER_SPEC | ALERT | APPLICATION_DATA, 3, ..]
        | [CHANGE_CIPHER_SPEC | ALERT | APPLICATION_DATA, 1, 1, ..] => Detected::OtherRecord,
        [CHANGE_CIPHER_SPEC | ALERT | APPLICATION_DATA] | [CHANGE_CIPHER_SPEC | ALERT | APPLICATION_DATA, 1] => {
            Detected::NeedMore
        }
        // Hellos of SSL 2.0 are short, so that their two length bytes begin with 80 to 83.
        [0x80..=0x83, _, CLIENT_HELLO, ..] => Detected::Ssl2,
        [0x80..=0x83] | [0x80..=0x83, _] => Detected::NeedMore,
        _ => by_text(prefix),
    }
}

fn by_text(prefix: &[u8]) -> Detected {
    let candidates = HTTP_STARTS
        .iter()
        .map(|start| (*start, Detected::Http))
        .chain([(proxy::V1_SIGNATURE, Detected::ProxyHeader), (proxy::V2_SIGNATURE, Detected::ProxyHeader)]);
    let mut answer = Detected::Unknown;
    for (start, found) in candidates {
        if prefix.starts_with(start) {
            return found;
        }
        if start.starts_with(prefix) {
            answer = Detected::NeedMore;
        }
    }
    answer
}

impl Detected {
    /// The word by which such first bytes are counted.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NeedMore => "incomplete",
            Self::Tls => "tls",
            Self::Tlcp => "tlcp",
            Self::OtherRecord => "no_hello",
            Self::Ssl2 => "ssl2",
            Self::PlainMqtt => "plain_mqtt",
            Self::Http => "http",
            Self::ProxyHeader => "proxy_header",
            Self::Unknown => "unknown",
        }
    }

    /// What to tell the operator when these bytes came to a port that does not expect them: what the peer did, and what it must do instead.
    pub const fn describe(self, port: Port) -> &'static str {
        match (self, port) {
            (Self::NeedMore, _) => "the peer closed or fell silent before its protocol could be told",
            (Self::Tls | Self::Tlcp, Port::Secure) => "a TLS or TLCP hello",
            (Self::PlainMqtt, Port::Mqtt) => "an MQTT CONNECT",
            (Self::Http, Port::WebSocket) => "an HTTP request",
            (Self::PlainMqtt, Port::Secure) => {
                "a plain MQTT CONNECT arrived on a TLS port; the client must use mqtts:// or another port"
            }
            (Self::PlainMqtt, Port::WebSocket) => {
                "a plain MQTT CONNECT arrived on a WebSocket port; the client must use ws:// or another port"
            }
            (Self::Http, Port::Secure) => {
                "a plain HTTP request arrived on a TLS port; the client must use https:// or wss://"
            }
            (Self::Http, Port::Mqtt) => {
                "an HTTP request arrived on an MQTT port; a WebSocket client must use the WebSocket port"
            }
            (Self::Tls, Port::Mqtt) => {
                "a TLS hello arrived on a plain MQTT port; the client must use mqtt:// or the TLS port"
            }
            (Self::Tls, Port::WebSocket) => {
                "a TLS hello arrived on a plain WebSocket port; the client must use ws:// or the wss port"
            }
            (Self::Tlcp, Port::Mqtt) => {
                "a TLCP hello arrived on a plain MQTT port; the client must use the TLS and TLCP port"
            }
            (Self::Tlcp, Port::WebSocket) => {
                "a TLCP hello arrived on a plain WebSocket port; the client must use the wss port"
            }
            (Self::OtherRecord, Port::Secure) => {
                "a TLS or TLCP alert, ChangeCipherSpec or data came where a connection begins with a hello"
            }
            (Self::OtherRecord, _) => "a TLS or TLCP record arrived on a plain port; the client must use the TLS port",
            (Self::Ssl2, Port::Secure) => {
                "an SSL 2.0 hello arrived on a TLS port; the client must use TLS 1.2, TLS 1.3 or TLCP"
            }
            (Self::Ssl2, _) => "an SSL 2.0 hello arrived on a plain port; the client must use TLS and the TLS port",
            (Self::ProxyHeader, _) => {
                "a PROXY protocol header arrived where none is accepted; set proxy_protocol on the listener, or turn it off in the proxy"
            }
            (Self::Unknown, Port::Secure) => "the first bytes are neither TLS nor TLCP",
            (Self::Unknown, Port::Mqtt) => "the first bytes are not an MQTT CONNECT",
            (Self::Unknown, Port::WebSocket) => "the first bytes are not an HTTP request",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tells_the_protocols_apart() {
        let cases: [(&[u8], Detected); 18] = [
            (&[0x15, 3, 3, 0, 2], Detected::OtherRecord),
            (&[0x14, 3], Detected::OtherRecord),
            (&[0x17, 1, 1], Detected::OtherRecord),
            (&[0x17, 1, 2], Detected::Unknown),
            (&[0x16, 3, 1, 2, 0], Detected::Tls),
            (&[0x16, 3], Detected::Tls),
            (&[0x16, 1, 1], Detected::Tlcp),
            (&[0x16, 1, 2], Detected::Unknown),
            (&[0x16, 2], Detected::Unknown),
            (&[0x10], Detected::PlainMqtt),
            (&[0x80, 0x2e, 1, 0, 2], Detected::Ssl2),
            (&[0xc0, 0], Detected::Unknown),
            (b"GET / HTTP/1.1\r\n", Detected::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Detected::Http),
            (b"PROPFIND /", Detected::Unknown),
            (b"PROXY TCP4 1.2.3.4", Detected::ProxyHeader),
            (proxy::V2_SIGNATURE, Detected::ProxyHeader),
            (b"SSH-2.0-x", Detected::Unknown),
        ];
        for (bytes, expected) in cases {
            assert_eq!(detect(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn asks_for_more_only_while_the_answer_is_open() {
        for open in [
            &b""[..],
            b"\x16",
            b"\x16\x01",
            b"\x15",
            b"\x17\x01",
            b"P",
            b"PR",
            b"PRO",
            b"OPTIONS",
            b"\r\n\r\n\0\r\nQUIT",
            b"\x80\x2e",
        ] {
            assert_eq!(detect(open), Detected::NeedMore, "{open:?}");
            assert!(open.len() < MAX_DETECT_LEN);
        }
    }

    #[test]
    fn names_the_mistake_and_the_cure() {
        assert!(Detected::PlainMqtt.describe(Port::Secure).contains("mqtts://"));
        assert!(Detected::Http.describe(Port::Secure).contains("TLS port"));
        assert!(Detected::Tlcp.describe(Port::Mqtt).contains("TLCP hello arrived on a plain"));
    }

    proptest! {
        #[test]
        fn an_answer_never_changes(mut bytes in proptest::collection::vec(any::<u8>(), 0..20), start in 0..HTTP_STARTS.len() + 4) {
            let starts: Vec<&[u8]> = HTTP_STARTS.iter().copied().chain([proxy::V1_SIGNATURE, proxy::V2_SIGNATURE, &[0x16, 1, 1], &[0x17, 1, 1]]).collect();
            let cut = bytes.first().map_or(0, |byte| usize::from(*byte) % (starts[start].len() + 1));
            bytes.splice(0..0, starts[start][..cut].iter().copied());
            let mut settled = None;
            for end in 0..=bytes.len() {
                let answer = detect(&bytes[..end]);
                if let Some(first) = settled {
                    prop_assert_eq!(answer, first);
                } else if answer != Detected::NeedMore {
                    settled = Some(answer);
                }
                prop_assert!(end < MAX_DETECT_LEN || settled.is_some());
            }
        }
    }
}
