//! The stream over transports that are slow, small, cut off or tampered with.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use gm_tls::{
    HandshakeFailure as Failure,
    client::{ClientProtocol, Connector},
    server::VerifyMode,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, split};

use crate::harness::{
    client_options, engines, meet_well, mutual_options, noise, over_every_protocol, send, serve, server,
};

/// A transport that moves one byte at a time, and is not ready every other time.
struct Trickle<S> {
    inner: S,
    tired: bool,
}

impl<S> Trickle<S> {
    fn new(inner: S) -> Self {
        Self { inner, tired: false }
    }

    fn rests(&mut self, cx: &mut Context<'_>) -> bool {
        self.tired = !self.tired;
        if self.tired {
            cx.waker().wake_by_ref();
        }
        self.tired
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Trickle<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rests(cx) {
            return Poll::Pending;
        }
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, &mut one))?;
        buf.put_slice(one.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Trickle<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.rests(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_write(cx, &data[..data.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

over_every_protocol!(works_byte_by_byte, |protocol| async move {
    let (here, there) = tokio::io::duplex(7);
    let (contexts, connector) = (server(VerifyMode::Required), Connector::new(&mutual_options(protocol)).unwrap());
    let (accepted, connected) =
        tokio::join!(serve(&contexts, Trickle::new(here)), connector.connect(Trickle::new(there)));
    let (mut accepted, mut connected) = (accepted.unwrap().unwrap(), connected.unwrap());
    let data = noise(40_000);
    send(&mut accepted, &mut connected, &data).await;
    send(&mut connected, &mut accepted, &data).await;
});

over_every_protocol!(both_directions_flow_at_once_in_separate_tasks, |protocol| async move {
    let (accepted, connected) = meet_well(&server(VerifyMode::None), &client_options(protocol)).await;
    let data: &'static [u8] = noise(512 * 1024).leak();
    let mut tasks = tokio::task::JoinSet::new();
    for stream in [accepted, connected] {
        let (mut reader, mut writer) = split(stream);
        tasks.spawn(async move {
            writer.write_all(data).await.unwrap();
            writer.flush().await.unwrap();
            // Kept until the other side has read everything.
            Some(writer)
        });
        tasks.spawn(async move {
            let mut got = vec![0; data.len()];
            reader.read_exact(&mut got).await.unwrap();
            assert!(got == data);
            None
        });
    }
    let kept = tasks.join_all().await;
    assert_eq!(kept.len(), 4);
});

over_every_protocol!(an_orderly_end_reads_as_the_end, |protocol| async move {
    let (mut accepted, mut connected) = meet_well(&server(VerifyMode::None), &client_options(protocol)).await;
    connected.write_all(b"last words").await.unwrap();
    connected.shutdown().await.unwrap();
    let mut got = Vec::new();
    accepted.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"last words");
    assert!(connected.write_all(b"more").await.is_err());
});

over_every_protocol!(a_cut_connection_does_not_read_as_the_end, |protocol| async move {
    let (mut accepted, mut connected) = meet_well(&server(VerifyMode::None), &client_options(protocol)).await;
    connected.write_all(b"half a ").await.unwrap();
    connected.flush().await.unwrap();
    drop(connected);
    let mut got = Vec::new();
    let error = accepted.read_to_end(&mut got).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(got, b"half a ");
});

over_every_protocol!(a_client_that_leaves_in_the_handshake_is_noticed, |protocol| async move {
    let contexts = server(VerifyMode::Required);
    let (here, mut there) = tokio::io::duplex(64 * 1024);
    let mut client = Connector::new(&mutual_options(protocol)).unwrap().engine(None).unwrap();
    client.handshake().unwrap();
    let leaves = async {
        there.write_all(client.output()).await.unwrap();
        there.read_exact(&mut [0; 100]).await.unwrap();
        drop(there);
    };
    let (outcome, ()) = tokio::join!(serve(&contexts, here), leaves);
    assert_eq!(outcome.unwrap().unwrap_err().reason(), Failure::Closed);
});

/// Flips one bit of a record on its way and returns what the reader makes of it.
async fn tampered(protocol: ClientProtocol, position: usize) -> io::Error {
    let contexts = server(VerifyMode::None);
    let connector = Connector::new(&client_options(protocol)).unwrap();
    let (mut server, mut client) = engines(&contexts, &connector);
    client.write(b"untouched").unwrap();
    let mut record = client.output().to_vec();
    let target = 5 + position % (record.len() - 5);
    record[target] ^= 0x10;
    server.receive(&record);
    let mut buffer = [std::mem::MaybeUninit::uninit(); 64];
    let error = server.read(&mut buffer).expect_err("read a record that was tampered with");
    assert!(!server.output().is_empty(), "no alert");
    error
}

over_every_protocol!(a_record_that_was_tampered_with_ends_the_connection, |protocol| async move {
    for position in 0..64 {
        assert_eq!(tampered(protocol, position).await.kind(), io::ErrorKind::InvalidData);
    }
});

over_every_protocol!(a_dropped_write_neither_loses_nor_repeats_data, |protocol| async move {
    let (here, there) = tokio::io::duplex(1024);
    let (contexts, connector) = (server(VerifyMode::None), Connector::new(&client_options(protocol)).unwrap());
    let (accepted, connected) = tokio::join!(serve(&contexts, here), connector.connect(there));
    let (mut accepted, mut connected) = (accepted.unwrap().unwrap(), connected.unwrap());
    // The reader does not read yet, so that the writer fills its output and then waits.
    let data = noise(300_000);
    let mut taken = 0;
    while let Poll::Ready(count) = poll_once(&mut connected, &data[taken..]) {
        taken += count;
    }
    assert!((64 * 1024..=128 * 1024).contains(&taken), "took {taken} bytes without a reader");
    // The write that waits is dropped, and another one with other bytes follows.
    let mut expected = data[..taken].to_vec();
    expected.extend_from_slice(b"the end");
    let writing = async {
        connected.write_all(b"the end").await.unwrap();
        connected.flush().await.unwrap();
    };
    let mut got = vec![0; expected.len()];
    let (_, read) = tokio::join!(writing, accepted.read_exact(&mut got));
    read.unwrap();
    assert!(got == expected);
});

fn poll_once<S: AsyncWrite + Unpin>(stream: &mut S, data: &[u8]) -> Poll<usize> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    Pin::new(stream).poll_write(&mut cx, data).map(Result::unwrap)
}

#[tokio::test]
async fn random_bytes_after_the_hello_end_the_handshake() {
    let contexts = server(VerifyMode::Required);
    for seed in 0..64_usize {
        let (here, mut there) = tokio::io::duplex(64 * 1024);
        let hello = crate::raw::tlcp_hello(0x0101, &[0xe053]);
        let client = async {
            there.write_all(&hello).await.unwrap();
            there.write_all(&noise(512 + seed)[seed..]).await.unwrap();
            there.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let _ = there.read_to_end(&mut rest).await;
        };
        let (outcome, ()) = tokio::join!(serve(&contexts, here), client);
        outcome.unwrap().expect_err("accepted noise");
    }
}
