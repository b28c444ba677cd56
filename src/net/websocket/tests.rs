//! Tests of MQTT over WebSocket: how messages are cut, and what is refused.

use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::*;

const MIB: usize = 1 << 20;
const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

const BINARY: u8 = 0x82;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A frame as a client must send it: masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut wire = vec![first];
    match payload.len() {
        length @ 0..=125 => wire.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..=0xffff => {
            wire.push(0x80 | 126);
            wire.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            wire.push(0x80 | 127);
            wire.extend((length as u64).to_be_bytes());
        }
    }
    wire.extend(MASK);
    wire.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    wire
}

/// Reads one short frame as a server sends it: not masked.
async fn read_frame(raw: &mut DuplexStream) -> (u8, Vec<u8>) {
    let (first, length) = (raw.read_u8().await.unwrap(), raw.read_u8().await.unwrap());
    let length = match length {
        126 => usize::from(raw.read_u16().await.unwrap()),
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    raw.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

async fn read_response(raw: &mut DuplexStream) -> String {
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        response.push(raw.read_u8().await.unwrap());
    }
    String::from_utf8(response).unwrap()
}

/// A server with messages of up to `max_message_len` bytes, and the raw end of its client after the upgrade.
async fn upgraded(max_message_len: usize) -> (WebSocket<DuplexStream>, DuplexStream) {
    let (server, mut raw) = duplex(64 * 1024);
    raw.write_all(REQUEST.as_bytes()).await.unwrap();
    let server = accept(server, &WebSocketOptions::new(max_message_len)).await.unwrap();
    let response = read_response(&mut raw).await;
    assert!(response.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{response}");
    assert!(response.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
    assert!(response.contains("sec-websocket-protocol: mqtt\r\n"), "{response}");
    (server, raw)
}

/// Both ends over a pipe that holds but `pipe` bytes.
async fn pair(pipe: usize, max_message_len: usize) -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
    let (server, client) = duplex(pipe);
    let options = WebSocketOptions::new(max_message_len);
    let (server, client) =
        tokio::join!(accept(server, &options), connect(client, "[::1]:8083", DEFAULT_PATH, max_message_len));
    (server.unwrap(), client.unwrap())
}

/// The error of a server that gets `request`, and everything it answers.
async fn refused(request: &[u8]) -> (WsError, String) {
    let (server, mut raw) = duplex(64 * 1024);
    raw.write_all(request).await.unwrap();
    let answered = async move {
        let mut response = String::new();
        raw.read_to_string(&mut response).await.unwrap();
        response
    };
    let options = WebSocketOptions::new(MIB);
    let (outcome, response) = tokio::join!(accept(server, &options), answered);
    (outcome.unwrap_err(), response)
}

#[tokio::test]
async fn carries_every_length_both_ways() {
    for length in [1, 125, 126, MAX_WRITE_LEN, MAX_WRITE_LEN + 1, 65_535, 65_536, MIB] {
        let (server, client) = pair(1000, MIB).await;
        let data: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let echo = async {
            let mut server = server;
            let mut got = vec![0; length];
            server.read_exact(&mut got).await.unwrap();
            server.write_all(&got).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let ask = async {
            let (mut reader, mut writer) = tokio::io::split(client);
            let send = async {
                writer.write_all(&data).await.unwrap();
                writer.flush().await.unwrap();
            };
            let mut back = Vec::new();
            let (result, ()) = tokio::join!(reader.read_to_end(&mut back), send);
            assert_eq!(result.unwrap(), length);
            assert!(back == data, "{length} bytes came back changed");
        };
        tokio::join!(echo, ask);
    }
}

#[tokio::test]
async fn message_borders_mean_nothing() {
    let (mut server, mut raw) = upgraded(100).await;
    let mut wire = Vec::new();
    wire.extend(frame(BINARY, b"\x10"));
    wire.extend(frame(BINARY, b""));
    wire.extend(frame(BINARY, b"\x0c\0\x04MQ"));
    // One message of three frames with a ping between them.
    wire.extend(frame(0x02, b"TT"));
    wire.extend(frame(PING, b"are you there"));
    wire.extend(frame(0x00, b"\x04\x02"));
    wire.extend(frame(0x80, b"\0\x3c\0\0\xc0\0"));
    raw.write_all(&wire).await.unwrap();
    let mut got = [0; 16];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0\xc0\0");
    assert_eq!(read_frame(&mut raw).await, (PONG, b"are you there".to_vec()));
}

#[tokio::test]
async fn each_write_is_one_message() {
    let (mut server, mut raw) = upgraded(100).await;
    server.write_all(b"one").await.unwrap();
    let parts = [IoSlice::new(b"t"), IoSlice::new(b""), IoSlice::new(b"wo")];
    assert!(server.is_write_vectored());
    assert_eq!(server.write_vectored(&parts).await.unwrap(), 3);
    assert_eq!(server.write(b"").await.unwrap(), 0);
    server.flush().await.unwrap();
    assert_eq!(read_frame(&mut raw).await, (BINARY, b"one".to_vec()));
    assert_eq!(read_frame(&mut raw).await, (BINARY, b"two".to_vec()));
    let long = vec![7; MAX_WRITE_LEN];
    let parts = [IoSlice::new(b"x"), IoSlice::new(&long), IoSlice::new(b"y")];
    assert_eq!(server.write_vectored(&parts).await.unwrap(), MAX_WRITE_LEN);
    assert_eq!(read_frame(&mut raw).await.1.len(), MAX_WRITE_LEN);
}

#[tokio::test]
async fn a_writer_waits_for_a_slow_reader_and_is_woken() {
    let (mut server, mut client) = pair(64, MIB).await;
    let writer = tokio::spawn(async move {
        for _ in 0..100 {
            server.write_all(&[5; 300]).await.unwrap();
        }
        server.shutdown().await.unwrap();
    });
    let mut total = 0;
    let mut buf = [0; 7];
    loop {
        tokio::task::yield_now().await;
        match client.read(&mut buf).await.unwrap() {
            0 => break,
            count => total += count,
        }
    }
    assert_eq!(total, 30_000);
    writer.await.unwrap();
}

/// What the reader says when the client sends `wire`, and the code of the close frame that the client gets.
async fn failure(max_message_len: usize, wire: &[u8]) -> (io::Error, u16) {
    let (mut server, mut raw) = upgraded(max_message_len).await;
    raw.write_all(wire).await.unwrap();
    let mut buf = [0; 8];
    let read = timeout(Duration::from_secs(1), server.read(&mut buf)).await;
    let error = read.expect("fails without waiting for more").unwrap_err();
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    server.shutdown().await.unwrap();
    let (first, payload) = read_frame(&mut raw).await;
    assert_eq!(first, CLOSE);
    let mut rest = Vec::new();
    raw.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"", "only one close frame is sent");
    raw.shutdown().await.unwrap();
    let mut tail = Vec::new();
    server.read_to_end(&mut tail).await.unwrap();
    assert!(wire.ends_with(&tail), "what came after the end is thrown away unread");
    (error, u16::from_be_bytes([payload[0], payload[1]]))
}

// [MQTT-6.0.0-1]
#[tokio::test(start_paused = true)]
async fn refuses_text_messages() {
    for text in [&b"\x10\x0c"[..], b"", b"\xff\xfe"] {
        let (error, code) = failure(100, &frame(TEXT, text)).await;
        assert_eq!((error.kind(), code), (ErrorKind::InvalidData, 1003));
    }
}

#[tokio::test(start_paused = true)]
async fn refuses_messages_over_the_limit_before_they_arrive() {
    let announced = &frame(BINARY, &[0; 101])[..6];
    let (error, code) = failure(100, announced).await;
    assert_eq!((error.kind(), code), (ErrorKind::InvalidData, 1009));
    let huge = [BINARY, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    assert_eq!(failure(100, &huge).await.1, 1009);
}

#[tokio::test(start_paused = true)]
async fn refuses_fragments_that_together_exceed_the_limit() {
    let mut wire = frame(0x02, &[0; 60]);
    wire.extend(frame(0x00, &[0; 60]));
    assert_eq!(failure(100, &wire).await.1, 1009);
}

#[tokio::test(start_paused = true)]
async fn refuses_frames_that_break_the_protocol() {
    let unmasked = vec![BINARY, 1, 0];
    let reserved_bit = frame(0xc2, b"x");
    let reserved_opcode = frame(0x83, b"x");
    let fragmented_ping = frame(0x09, b"x");
    let stray_continuation = frame(0x80, b"x");
    let long_ping = frame(PING, &[0; 126]);
    for wire in [unmasked, reserved_bit, reserved_opcode, fragmented_ping, stray_continuation, long_ping] {
        let (error, code) = failure(1000, &wire).await;
        assert_eq!((error.kind(), code), (ErrorKind::InvalidData, 1002), "{wire:x?}");
    }
}

#[tokio::test]
async fn a_close_frame_ends_the_stream_and_is_answered() {
    let (mut server, mut raw) = upgraded(100).await;
    raw.write_all(&[frame(BINARY, b"last"), frame(CLOSE, &[0x03, 0xe8])].concat()).await.unwrap();
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"last");
    assert_eq!(read_frame(&mut raw).await, (CLOSE, vec![0x03, 0xe8]));
    assert_eq!(server.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    server.shutdown().await.unwrap();
    assert_eq!(raw.read(&mut [0; 8]).await.unwrap(), 0);
}

/// RFC 6455 section 7.1.1: the server closes the connection below when both have sent a close frame, and not before.
#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_peers_close_frame() {
    let (mut server, mut raw) = upgraded(100).await;
    let peer = async {
        assert_eq!(read_frame(&mut raw).await.0, CLOSE);
        // Messages that were on their way are no answer.
        raw.write_all(&frame(BINARY, b"late")).await.unwrap();
        assert!(timeout(Duration::from_secs(60), raw.read_u8()).await.is_err(), "nothing follows, and no end either");
        raw.write_all(&frame(CLOSE, &[0x03, 0xe8])).await.unwrap();
        assert_eq!(raw.read(&mut [0; 8]).await.unwrap(), 0);
        raw.shutdown().await.unwrap();
    };
    let close = async {
        server.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    };
    tokio::join!(close, peer);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_with_a_peer_that_leaves_without_a_close_frame() {
    let (mut server, mut raw) = upgraded(100).await;
    let peer = async move {
        assert_eq!(read_frame(&mut raw).await.0, CLOSE);
    };
    let (closed, ()) = tokio::join!(timeout(Duration::from_secs(1), server.shutdown()), peer);
    closed.expect("does not wait for one who is gone").unwrap();
}

#[tokio::test]
async fn a_lost_connection_is_no_orderly_end() {
    let (mut server, raw) = upgraded(100).await;
    drop(raw);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn shutdown_sends_a_normal_close() {
    let (mut server, mut raw) = upgraded(100).await;
    server.write_all(b"bye").await.unwrap();
    let peer = async {
        assert_eq!(read_frame(&mut raw).await, (BINARY, b"bye".to_vec()));
        assert_eq!(read_frame(&mut raw).await, (CLOSE, vec![0x03, 0xe8]));
        raw.write_all(&frame(CLOSE, &[0x03, 0xe8])).await.unwrap();
        assert_eq!(raw.read(&mut [0; 8]).await.unwrap(), 0);
    };
    let (closed, ()) = tokio::join!(server.shutdown(), peer);
    closed.unwrap();
}

#[tokio::test]
async fn accepts_a_request_that_comes_byte_by_byte() {
    let (server, mut raw) = duplex(1);
    let client = async {
        for byte in REQUEST.as_bytes() {
            raw.write_all(&[*byte]).await.unwrap();
        }
        read_response(&mut raw).await
    };
    let options = WebSocketOptions::new(100);
    let (server, response) = tokio::join!(accept(server, &options), client);
    server.unwrap();
    assert!(response.starts_with("HTTP/1.1 101 "));
}

#[tokio::test]
async fn keeps_frames_that_came_with_the_request() {
    let (server, mut raw) = duplex(4096);
    raw.write_all(&[REQUEST.as_bytes(), &frame(BINARY, b"early")].concat()).await.unwrap();
    let mut server = accept(server, &WebSocketOptions::new(100)).await.unwrap();
    let mut got = [0; 5];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"early");
}

#[tokio::test]
async fn picks_the_first_subprotocol_it_speaks() {
    for (offer, picked) in [("x, mqttv3.1, mqtt", "mqttv3.1"), ("a\r\nSec-WebSocket-Protocol: mqtt", "mqtt")] {
        let (server, mut raw) = duplex(4096);
        raw.write_all(REQUEST.replace("Protocol: mqtt", &format!("Protocol: {offer}")).as_bytes()).await.unwrap();
        accept(server, &WebSocketOptions::new(100)).await.unwrap();
        let response = read_response(&mut raw).await;
        assert!(response.contains(&format!("sec-websocket-protocol: {picked}\r\n")), "{response}");
    }
}

#[tokio::test]
async fn ignores_the_query_of_the_path() {
    let (server, mut raw) = duplex(4096);
    raw.write_all(REQUEST.replace("/mqtt ", "/mqtt?client=1 ").as_bytes()).await.unwrap();
    accept(server, &WebSocketOptions::new(100)).await.unwrap();
}

// Any page in a browser inside of the network could connect.
#[tokio::test]
async fn refuses_browsers_that_show_pages_of_others() {
    let options = WebSocketOptions {
        allowed_origins: vec!["https://console.example".to_owned(), "localhost".to_owned(), "[::1]".to_owned()],
        ..WebSocketOptions::new(100)
    };
    for (origin, allowed) in [
        ("", true),
        ("Origin: https://console.example", true),
        ("Origin: http://localhost:3000", true),
        ("Origin: http://[::1]:8080", true),
        ("Origin: http://[::1]", true),
        ("Origin: https://console.example:8443", false),
        ("Origin: http://console.example", false),
        ("Origin: https://localhost.evil.example", false),
        ("Origin: null", false),
        ("Origin: http://localhost\r\nOrigin: http://evil.example", false),
    ] {
        let (server, mut raw) = duplex(64 * 1024);
        let line = if origin.is_empty() { String::new() } else { format!("{origin}\r\n") };
        raw.write_all(REQUEST.replace("Host: h\r\n", &format!("Host: h\r\n{line}")).as_bytes()).await.unwrap();
        let outcome = accept(server, &options).await;
        assert_eq!(outcome.is_ok(), allowed, "{origin}");
        if let Err(error) = outcome {
            assert!(matches!(error, WsError::Origin { .. }), "{error}");
            assert!(read_response(&mut raw).await.starts_with("HTTP/1.1 403 Forbidden\r\n"));
        }
    }
    // Without a list nobody is asked.
    let (server, mut raw) = duplex(64 * 1024);
    raw.write_all(REQUEST.replace("Host: h", "Host: h\r\nOrigin: http://evil.example").as_bytes()).await.unwrap();
    accept(server, &WebSocketOptions::new(100)).await.unwrap();
}

// [MQTT-6.0.0-3]
#[tokio::test]
async fn refuses_requests_without_the_subprotocol() {
    for request in [
        REQUEST.replace("Sec-WebSocket-Protocol: mqtt\r\n", ""),
        REQUEST.replace("Protocol: mqtt", "Protocol: chat, MQTT"),
    ] {
        let (error, response) = refused(request.as_bytes()).await;
        assert!(matches!(error, WsError::NoSubprotocol { .. }), "{error}");
        assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\noffer the WebSocket subprotocol mqtt\n"), "{response}");
    }
}

#[tokio::test]
async fn goes_without_a_subprotocol_where_the_operator_allows_it() {
    for request in [REQUEST.replace("Sec-WebSocket-Protocol: mqtt\r\n", ""), REQUEST.replace(": mqtt", ": chat")] {
        let (server, mut raw) = duplex(4096);
        raw.write_all(request.as_bytes()).await.unwrap();
        let lenient = WebSocketOptions { require_subprotocol: false, ..WebSocketOptions::new(100) };
        accept(server, &lenient).await.unwrap();
        let response = read_response(&mut raw).await;
        assert!(response.starts_with("HTTP/1.1 101 ") && !response.contains("protocol"), "{response}");
    }
}

#[tokio::test]
async fn refuses_other_paths() {
    for path in ["/", "/mqtt/", "/mqttx", "/MQTT", "/../mqtt"] {
        let (error, response) = refused(REQUEST.replace("/mqtt ", &format!("{path} ")).as_bytes()).await;
        assert!(matches!(&error, WsError::UnknownPath { path: named } if named == path), "{error}");
        assert!(response.starts_with("HTTP/1.1 404 Not Found\r\n"), "{response}");
    }
}

#[tokio::test]
async fn refuses_what_is_no_upgrade_request() {
    let cases = [
        (REQUEST.replace("GET", "POST"), "405"),
        (REQUEST.replace("HTTP/1.1", "HTTP/1.0"), "505"),
        (REQUEST.replace("Upgrade: websocket", "Upgrade: h2c"), "426"),
        (REQUEST.replace("Connection: Upgrade", "Connection: close"), "426"),
        (REQUEST.replace("Version: 13", "Version: 8"), "426"),
        (REQUEST.replace("Key: dGhl", "Key: !!!!"), "400"),
        (REQUEST.replace("Host: h", "Host: h\r\nContent-Length: 5"), "400"),
        (REQUEST.replace("Host: h", "Host: h\r\nTransfer-Encoding: chunked"), "400"),
        (REQUEST.replace("Host: h", "Ho st: h"), "400"),
        (REQUEST.replace("Host: h", &"A: b\r\n".repeat(130)), "400"),
        (REQUEST.replace("Host: h\r\n", "Host: h\n\n"), "400"),
        ("\r\n\r\n".to_owned(), "400"),
    ];
    for (request, status) in cases {
        let (error, response) = refused(request.as_bytes()).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{error}\n{response}");
        assert!(response.contains("close\r\n"), "{response}");
    }
}

#[tokio::test]
async fn refuses_a_request_that_never_ends() {
    let endless = format!("GET /mqtt HTTP/1.1\r\nA: {}", "b".repeat(DEFAULT_MAX_REQUEST_LEN));
    let (error, response) = refused(endless.as_bytes()).await;
    assert!(matches!(error, WsError::RequestTooLong { limit: DEFAULT_MAX_REQUEST_LEN }), "{error}");
    assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
}

#[tokio::test]
async fn notices_a_peer_that_leaves_during_the_upgrade() {
    let (server, mut raw) = duplex(4096);
    raw.write_all(&REQUEST.as_bytes()[..50]).await.unwrap();
    drop(raw);
    let error = accept(server, &WebSocketOptions::new(100)).await.unwrap_err();
    assert!(matches!(error, WsError::Closed), "{error}");
}

#[tokio::test]
async fn a_client_learns_that_it_is_refused() {
    let (server, client) = duplex(4096);
    let options = WebSocketOptions::new(100);
    let (server, client) = tokio::join!(accept(server, &options), connect(client, "h:1", "/other", 100));
    assert!(matches!(server, Err(WsError::UnknownPath { .. })));
    let Err(WsError::Refused(cause)) = client else { panic!("not refused") };
    assert!(cause.to_string().contains("404"), "{cause}");
    for (host, path) in [("", "/mqtt"), ("a b", "/mqtt"), ("h", "/a b"), ("h\r\nX: y", "/mqtt")] {
        let error = connect(duplex(1).0, host, path, 100).await.unwrap_err();
        assert!(matches!(error, WsError::Address { .. } | WsError::Refused(_)), "{host:?} {path:?}: {error}");
    }
}
