//! Peers that make the protocol itself answer on and on, with messages that carry no data.

use std::{
    ffi::c_int,
    io::{self, Read, Write},
    task::Poll,
};

use gm_tls::server::VerifyMode;
use openssl::foreign_types::ForeignTypeRef;
use openssl::ssl::{ErrorCode, Ssl, SslContextBuilder, SslMethod, SslOptions, SslStream, SslVerifyMode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, join, simplex};

use crate::harness::{serve, server};

const SSL_KEY_UPDATE_REQUESTED: c_int = 1;

unsafe extern "C" {
    fn SSL_renegotiate(ssl: *mut openssl_sys::SSL) -> c_int;
    fn SSL_key_update(ssl: *mut openssl_sys::SSL, kind: c_int) -> c_int;
}

/// What a client in memory has to read, and what it has written.
#[derive(Debug, Default)]
struct Memory {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Read for Memory {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.incoming.len().min(into.len());
        into[..count].copy_from_slice(&self.incoming[..count]);
        self.incoming.drain(..count);
        Ok(count)
    }
}

impl Write for Memory {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client of TLS 1.3 that may ask its peer for new keys at any time, or of TLCP that may begin anew.
struct Nagging(SslStream<Memory>);

impl Nagging {
    fn new() -> Nagging {
        Nagging::with(SslContextBuilder::new(SslMethod::tls_client()).unwrap())
    }

    fn tlcp() -> Nagging {
        let mut builder = SslContextBuilder::new(SslMethod::ntls_client()).unwrap();
        builder.enable_ntls();
        builder.set_options(SslOptions::DONT_INSERT_EMPTY_FRAGMENTS);
        Nagging::with(builder)
    }

    fn with(mut builder: SslContextBuilder) -> Nagging {
        builder.set_verify(SslVerifyMode::NONE);
        let mut stream = SslStream::new(Ssl::new(&builder.build()).unwrap(), Memory::default()).unwrap();
        stream.ssl_mut().set_connect_state();
        Nagging(stream)
    }

    /// Whether the handshake is complete.
    fn step(&mut self) -> bool {
        match self.0.do_handshake() {
            Ok(()) => true,
            Err(error) if error.code() == ErrorCode::WANT_READ => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn ask_for_keys(&mut self) {
        // SAFETY: the connection is live and used by this thread alone.
        let accepted = unsafe { SSL_key_update(self.0.ssl().as_ptr(), SSL_KEY_UPDATE_REQUESTED) };
        assert_eq!(accepted, 1);
        assert!(self.step());
    }

    /// A second hello; what comes of it is not waited for.
    fn begin_anew(&mut self) {
        // SAFETY: as above.
        assert_eq!(unsafe { SSL_renegotiate(self.0.ssl().as_ptr()) }, 1);
        assert!(!self.step(), "the server has not answered yet");
    }

    fn sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0.get_mut().outgoing)
    }
}

/// A server and a connected client; what the server has to read comes by `to_server`, and it can write 4 KiB before it has to wait.
async fn connected(
    mut client: Nagging,
) -> (gm_tls::TlsStream<impl AsyncRead + AsyncWrite + Unpin>, impl AsyncWrite + Unpin, impl AsyncRead + Unpin, Nagging)
{
    let (from_client, mut to_server) = simplex(1 << 20);
    let (mut from_server, to_client) = simplex(4096);
    let contexts = server(VerifyMode::None);
    let accepting = tokio::spawn(async move { serve(&contexts, join(from_client, to_client)).await.unwrap().unwrap() });
    loop {
        let complete = client.step();
        to_server.write_all(&client.sent()).await.unwrap();
        if complete {
            break;
        }
        let mut answer = vec![0; 4096];
        let count = from_server.read(&mut answer).await.unwrap();
        client.0.get_mut().incoming.extend_from_slice(&answer[..count]);
    }
    (accepting.await.unwrap(), to_server, from_server, client)
}

/// Reads as far as is possible now; how many bytes of data came. The runtime's turns are left out: a task that has had its turn would
/// wait as one does that cannot go on.
async fn read_on<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut gm_tls::TlsStream<S>) -> io::Result<usize> {
    let mut total = 0;
    let mut buffer = [0; 512];
    let reading = std::future::poll_fn(|cx| {
        loop {
            let mut buffer = ReadBuf::new(&mut buffer);
            match std::pin::Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(Ok(total)),
                Poll::Ready(Ok(())) => total += buffer.filled().len(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Ready(Ok(total)),
            }
        }
    });
    tokio::task::unconstrained(reading).await
}

// Each request was answered without end: the answers grew with what a peer sent that never read them.
#[tokio::test]
async fn a_peer_that_asks_for_keys_again_and_again_is_given_up() {
    let (mut server, mut to_server, _from_server, mut client) = connected(Nagging::new()).await;
    // One more than are answered, and one whose answer would wait for the next write.
    for _ in 0..34 {
        client.ask_for_keys();
    }
    to_server.write_all(&client.sent()).await.unwrap();
    let error = read_on(&mut server).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("without sending data"), "{error}");
}

#[tokio::test]
async fn new_keys_now_and_then_are_welcome() {
    let (mut server, mut to_server, mut from_server, mut client) = connected(Nagging::new()).await;
    for _ in 0..100 {
        client.ask_for_keys();
        client.0.write_all(b"data").unwrap();
        to_server.write_all(&client.sent()).await.unwrap();
        assert_eq!(read_on(&mut server).await.unwrap(), 4);
        server.write_all(b"ok").await.unwrap();
        server.flush().await.unwrap();
        let mut answer = vec![0; 4096];
        let count = from_server.read(&mut answer).await.unwrap();
        client.0.get_mut().incoming.extend_from_slice(&answer[..count]);
        let mut data = [0; 8];
        assert_eq!(client.0.ssl_read(&mut data).unwrap(), 2);
    }
}

// With data in between there is always a next answer; a peer that does not take them is not read any further.
#[tokio::test]
async fn a_peer_that_does_not_read_its_answers_is_not_read() {
    const ROUNDS: usize = 4000;
    let (mut server, mut to_server, mut from_server, mut client) = connected(Nagging::new()).await;
    for _ in 0..ROUNDS {
        client.ask_for_keys();
        client.0.write_all(b"x").unwrap();
    }
    to_server.write_all(&client.sent()).await.unwrap();
    let first = read_on(&mut server).await.unwrap();
    assert!((500..2000).contains(&first), "{first} of {ROUNDS} requests were answered without a reader");
    assert_eq!(read_on(&mut server).await.unwrap(), 0);
    // Once it reads, everything goes on.
    let mut read = first;
    while read < ROUNDS {
        let count = from_server.read(&mut vec![0; 4096]).await.unwrap();
        assert!(count > 0);
        read += read_on(&mut server).await.unwrap();
    }
}

// TLCP has no HelloRequest and no second handshake. The library swallows a second hello and goes on.
#[tokio::test]
async fn a_second_hello_ends_a_tlcp_connection() {
    let (mut server, mut to_server, _from_server, mut client) = connected(Nagging::tlcp()).await;
    client.0.write_all(b"data").unwrap();
    to_server.write_all(&client.sent()).await.unwrap();
    assert_eq!(read_on(&mut server).await.unwrap(), 4);
    client.begin_anew();
    let hello = client.sent();
    assert!(hello.len() > 50, "{} bytes", hello.len());
    to_server.write_all(&hello).await.unwrap();
    let error = read_on(&mut server).await.unwrap_err();
    assert!(error.to_string().contains("a second hello"), "{error}");
}
