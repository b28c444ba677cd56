//! One TLS or TLCP connection as a state machine without IO: bytes of the peer go in by [`Engine::receive`], bytes for the peer
//! come out by [`Engine::output`]. Nothing here waits, knows a clock or touches a socket.
//!
//! ```text
//!   handshake() -> NeedsInput | Done      read() -> Data | NeedsInput | Closed
//!                                         write() -> taken bytes
//! ```

use std::{
    io::{self, Read, Write},
    mem::MaybeUninit,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use openssl::{
    error::ErrorStack,
    ssl::{ErrorCode, ShutdownState, Ssl, SslStream},
};

use crate::{
    after::Records,
    alert::PeerAlert,
    client::Session,
    context,
    error::{HandshakeError, HandshakeFailure},
    forget,
    identity::{PeerCertificates, PeerIdentity, Protocol},
    lasting, offer, pair, psk,
    revocation::{PeerChains, chain},
    verify,
};

/// Longest plaintext that [`Engine::write`] takes at once: one record.
pub const MAX_WRITE: usize = 16 * 1024;

/// Sent bytes at the head of the output that are kept, so that few moves of the rest make room.
const SENT_KEPT: usize = 16 * 1024;

/// Records that the library may make of its own between two pieces of application data: answers to key updates and refusals to
/// renegotiate. A peer asks for one now and then; one that asks on and on makes the connection write what nobody reads.
const MAX_ANSWERS: u8 = 32;

/// `SSL_R_UNEXPECTED_EOF_WHILE_READING` of `openssl/sslerr.h`.
const UNEXPECTED_EOF: i32 = 294;

/// How far a handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing more can be done until the peer's next bytes are there. There may be output to send first.
    NeedsInput,
    /// Complete. There may be output to send.
    Done,
}

/// What reading gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes of application data, at least one.
    Data(usize),
    NeedsInput,
    /// The peer closed the connection in order, with close_notify.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

/// Whether anybody but the connection may use its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// It is the connection's own. What was to be resumed has gone to the client in a ticket.
    Private,
    /// It is kept to be resumed: in a server's cache, or by a client.
    Kept,
}

/// A connection without IO.
#[derive(Debug)]
pub struct Engine {
    stream: SslStream<Buffers>,
    role: Role,
    sessions: Sessions,
    identity: Option<Arc<PeerIdentity>>,
    chains: Option<PeerChains>,
}

/// The library's view of the transport. Each buffer gives its memory back once it is empty.
#[derive(Debug, Default)]
struct Buffers {
    prefix: Bytes,
    input: Vec<u8>,
    read: usize,
    ended: bool,
    output: Vec<u8>,
    sent: usize,
    /// Answers the library has made while reading, since the last application data.
    answers: u8,
    /// Whether what is written now is such an answer.
    answering: bool,
    /// The records of a TLCP client after its handshake.
    after: Option<Records>,
    /// Another handshake began among them.
    second_hello: bool,
}

impl Engine {
    pub(crate) fn new(mut ssl: Ssl, role: Role, sessions: Sessions, prefix: Bytes) -> Result<Self, HandshakeError> {
        chain::prepare(&mut ssl).map_err(HandshakeError::setup)?;
        let mut stream =
            SslStream::new(ssl, Buffers { prefix, ..Buffers::default() }).map_err(HandshakeError::setup)?;
        match role {
            Role::Server => stream.ssl_mut().set_accept_state(),
            Role::Client => stream.ssl_mut().set_connect_state(),
        }
        Ok(Self { stream, role, sessions, identity: None, chains: None })
    }

    /// Takes bytes that came from the peer.
    pub fn receive(&mut self, bytes: &[u8]) {
        let buffers = self.stream.get_mut();
        if buffers.read == buffers.input.len() {
            buffers.read = 0;
            buffers.input.clear();
        }
        buffers.input.extend_from_slice(bytes);
    }

    /// Notes that the peer will send no more.
    pub fn receive_end(&mut self) {
        self.stream.get_mut().ended = true;
    }

    /// Bytes to send to the peer, in order, not counting those already [`Engine::consume_output`]d.
    pub fn output(&self) -> &[u8] {
        self.stream.get_ref().unsent()
    }

    /// Removes the first `count` bytes of the output, which have been sent.
    pub fn consume_output(&mut self, count: usize) {
        self.stream.get_mut().consume(count);
    }

    /// Continues the handshake as far as the bytes at hand allow.
    ///
    /// # Errors
    /// [`HandshakeError`] when it failed; the output may then hold an alert that the peer should still get.
    pub fn handshake(&mut self) -> Result<Progress, HandshakeError> {
        if self.identity.is_some() {
            return Ok(Progress::Done);
        }
        discard_stale_errors();
        verify::begin_step();
        match self.stream.do_handshake() {
            Ok(()) => {}
            Err(error) if matches!(error.code(), ErrorCode::WANT_READ | ErrorCode::WANT_WRITE) => {
                // The library waits for ever for the first bytes of a TLCP record if none come.
                if !self.input_ended() {
                    return Ok(Progress::NeedsInput);
                }
                return Err(psk::explain(self.stream.ssl(), HandshakeError::closed()));
            }
            Err(error) => {
                let refused = verify::take_failure();
                let pair = self.role == Role::Server && self.stream.ssl_mut().is_ntls();
                let error = HandshakeError::from_library(error, refused, pair);
                let in_vain = self.role == Role::Client && context::was_asked_in_vain(self.stream.ssl());
                let error = if in_vain { error.for_want_of_a_certificate() } else { error };
                let error = if self.role == Role::Server { offer::explain(self.stream.ssl(), error) } else { error };
                return Err(psk::explain(self.stream.ssl(), error));
            }
        }
        let certificates = PeerCertificates::of(self.stream.ssl_mut());
        let identity = PeerIdentity::of(self.stream.ssl_mut(), &certificates).map_err(HandshakeError::setup)?;
        check_identity(&identity, &certificates)?;
        if self.role == Role::Server
            && identity.resumed
            && certificates.signing.is_some()
            && lasting::is_over(self.stream.ssl())
        {
            let detail = "the resumed session is older than sessions may be, or than its chain is valid";
            return Err(HandshakeError::new(HandshakeFailure::Expired, detail));
        }
        if self.sessions == Sessions::Private && certificates.signing.is_some() {
            forget::peer_certificates(self.stream.ssl_mut()).map_err(HandshakeError::setup)?;
        }
        self.chains = chain::take(self.stream.ssl());
        if self.role == Role::Server && identity.protocol == Protocol::Tlcp {
            self.stream.get_mut().after = Some(Records::default());
        }
        self.identity = Some(Arc::new(identity));
        Ok(Progress::Done)
    }

    /// The peer, once the handshake is complete.
    pub fn peer_identity(&self) -> Option<&Arc<PeerIdentity>> {
        self.identity.as_ref()
    }

    /// The verified chains of the peer, once the handshake is complete: given out once, and only where an inspector was set.
    pub fn take_peer_chains(&mut self) -> Option<PeerChains> {
        self.chains.take()
    }

    /// Reads application data into `into`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the peer's bytes ended without close_notify, so that data may be missing;
    /// [`io::ErrorKind::InvalidData`] when the peer broke the protocol, or made the library answer on and on without sending data.
    pub fn read(&mut self, into: &mut [MaybeUninit<u8>]) -> io::Result<ReadOutcome> {
        if into.is_empty() {
            return Ok(ReadOutcome::NeedsInput);
        }
        discard_stale_errors();
        self.stream.get_mut().answering = true;
        let outcome = self.stream.ssl_read_uninit(into);
        let buffers = self.stream.get_mut();
        buffers.answering = false;
        if buffers.second_hello {
            let message = "the client sent a second hello, which TLCP does not have";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if buffers.answers > MAX_ANSWERS {
            let message = "the peer made the connection answer again and again without sending data";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        match outcome {
            Ok(count) => {
                buffers.answers = 0;
                Ok(ReadOutcome::Data(count))
            }
            Err(error) => match error.code() {
                ErrorCode::ZERO_RETURN => Ok(ReadOutcome::Closed),
                ErrorCode::WANT_READ | ErrorCode::WANT_WRITE if !self.input_ended() => Ok(ReadOutcome::NeedsInput),
                _ => Err(self.transport_error(&error)),
            },
        }
    }

    /// Encrypts up to [`MAX_WRITE`] bytes of `data` into the output and returns how many. `None`: the peer has sent part of
    /// a message of the protocol itself, and the rest must come first; nothing has been taken.
    ///
    /// # Errors
    /// As [`Engine::read`]; [`io::ErrorKind::BrokenPipe`] after [`Engine::close`].
    pub fn write(&mut self, data: &[u8]) -> io::Result<Option<usize>> {
        let data = data.get(..MAX_WRITE).unwrap_or(data);
        if data.is_empty() {
            return Ok(Some(0));
        }
        discard_stale_errors();
        match self.stream.ssl_write(data) {
            Ok(count) => Ok(Some(count)),
            Err(error) => match error.code() {
                ErrorCode::WANT_READ | ErrorCode::WANT_WRITE if !self.input_ended() => Ok(None),
                ErrorCode::ZERO_RETURN => Err(io::ErrorKind::BrokenPipe.into()),
                _ => Err(self.transport_error(&error)),
            },
        }
    }

    /// Puts close_notify into the output. Reading remains possible.
    pub fn close(&mut self) {
        discard_stale_errors();
        // The outcome only says whether the peer's own close_notify has come; an error means that there is no session left to
        // close.
        let _ = self.stream.shutdown();
        discard_stale_errors();
    }

    /// Client only: the session as it can be resumed later. Under TLS 1.3 there is one only after the server's ticket came,
    /// which the first read of application data usually brings.
    pub fn session(&self) -> Option<Session> {
        (self.role == Role::Client).then(|| Session::of(self.stream.ssl())).flatten()
    }

    /// Client only: the OCSP response that came with the server's certificate, as it came.
    pub fn stapled_answer(&self) -> Option<Vec<u8>> {
        self.stream.ssl().ocsp_status().map(<[u8]>::to_vec)
    }

    /// Whether there is output to send.
    pub(crate) fn has_output(&self) -> bool {
        !self.output().is_empty()
    }

    fn input_ended(&self) -> bool {
        let buffers = self.stream.get_ref();
        buffers.ended && buffers.read == buffers.input.len() && buffers.prefix.is_empty()
    }

    fn transport_error(&self, error: &openssl::ssl::Error) -> io::Error {
        let ended = self.stream.get_ref().ended;
        if let Some(alert) = error.ssl_error().and_then(PeerAlert::in_stack) {
            return alert.into_io();
        }
        match error.ssl_error().map(ErrorStack::errors).and_then(<[_]>::first) {
            Some(first) if first.reason_code() != UNEXPECTED_EOF => {
                io::Error::new(io::ErrorKind::InvalidData, first.reason().unwrap_or("unknown TLS error"))
            }
            _ if ended => io::ErrorKind::UnexpectedEof.into(),
            _ => io::Error::new(io::ErrorKind::InvalidData, "the TLS session has failed"),
        }
    }
}

impl Drop for Engine {
    /// Lets the session be resumed after a connection that was lost. The library forgets the session of a connection which
    /// is dropped without close_notify, a rule that RFC 4346 section 7.2.1 gave up, and devices lose connections all the
    /// time. A connection that failed by a fatal alert has lost its session by then.
    fn drop(&mut self) {
        if self.identity.is_some() {
            self.stream.set_shutdown(ShutdownState::SENT | ShutdownState::RECEIVED);
        }
    }
}

/// Rules for a complete handshake. The pair was bound when it was verified; a resumed session brings back certificates that
/// were, and whose time may have run out since.
fn check_identity(identity: &PeerIdentity, certificates: &PeerCertificates) -> Result<(), HandshakeError> {
    if identity.protocol == Protocol::Tlcp {
        match (&certificates.signing, &certificates.encryption) {
            (None, None) => {}
            (Some(_), Some(_)) if !identity.resumed => {}
            (Some(sign), Some(enc)) => pair::check_peer_pair(sign, enc)
                .map_err(|error| HandshakeError::new(HandshakeFailure::WrongPair, error.to_string()))?,
            _ => {
                let detail = "the session has only one of the peer's two certificates";
                return Err(HandshakeError::new(HandshakeFailure::WrongPair, detail));
            }
        }
    }
    if identity.resumed {
        let now = unix_now();
        for certificate in certificates.signing.iter().chain(&certificates.encryption) {
            if certificate.not_after() < now {
                let subject = certificate.subject();
                let subject = crate::error::shortened(&subject);
                let detail = format!("the resumed session's certificate \"{subject}\" has expired");
                return Err(HandshakeError::new(HandshakeFailure::Expired, detail));
            }
        }
    }
    Ok(())
}

pub(crate) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The library tells a failed call by its thread's error queue, where another connection may have left something.
fn discard_stale_errors() {
    let _ = ErrorStack::get();
}

impl Buffers {
    fn unsent(&self) -> &[u8] {
        self.output.get(self.sent..).unwrap_or_default()
    }

    /// Gives back what was sent, also while there is always something unsent: a peer that reads steadily but more slowly than is
    /// written never lets the output become empty.
    fn consume(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(count);
        if self.sent >= self.output.len() {
            self.sent = 0;
            self.output = Vec::new();
        } else if self.sent >= SENT_KEPT && self.sent >= self.output.len() / 2 {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }
}

impl Read for Buffers {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.give(into)?;
        if let Some(records) = &mut self.after {
            self.second_hello |= records.begin_handshake(into.get(..count).unwrap_or_default());
        }
        if self.second_hello { Err(io::ErrorKind::InvalidData.into()) } else { Ok(count) }
    }
}

impl Buffers {
    fn give(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.prefix.is_empty() {
            let count = self.prefix.len().min(into.len());
            let head = self.prefix.split_to(count);
            if let Some(target) = into.get_mut(..count) {
                target.copy_from_slice(&head);
            }
            if self.prefix.is_empty() {
                self.prefix = Bytes::new();
            }
            return Ok(count);
        }
        let rest = self.input.get(self.read..).unwrap_or_default();
        if rest.is_empty() {
            return if self.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = rest.len().min(into.len());
        if let (Some(target), Some(source)) = (into.get_mut(..count), rest.get(..count)) {
            target.copy_from_slice(source);
        }
        self.read += count;
        if self.read == self.input.len() {
            self.read = 0;
            self.input = Vec::new();
        }
        Ok(count)
    }
}

impl Write for Buffers {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.answering {
            self.answers = self.answers.saturating_add(1);
            if self.answers > MAX_ANSWERS {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        self.output.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Sent bytes stayed in the output until all of it was sent: a peer that read steadily, but more slowly than the broker wrote, made
    // it hold every byte of the connection, 207 MB in 24 s.
    #[test]
    fn a_slow_reader_does_not_keep_what_it_has_read() {
        let mut buffers = Buffers::default();
        let record = vec![0x5a; MAX_WRITE];
        buffers.write_all(&vec![0x5a; 64 * 1024]).unwrap();
        for _ in 0..10_000 {
            buffers.write_all(&record).unwrap();
            for _ in 0..16 {
                buffers.consume(1024);
            }
            assert_eq!(buffers.unsent().len(), 64 * 1024);
            assert!(buffers.output.capacity() <= 256 * 1024, "{} bytes are kept", buffers.output.capacity());
        }
    }

    #[test]
    fn what_is_kept_and_what_is_sent_are_in_order() {
        let mut buffers = Buffers::default();
        let (mut written, mut sent) = (0u32, 0u32);
        for round in 0..50_000usize {
            for _ in 0..=round % 7 {
                buffers.write_all(&written.to_be_bytes()).unwrap();
                written += 1;
            }
            for _ in 0..=round % 6 {
                let Some(word) = buffers.unsent().first_chunk() else { break };
                assert_eq!(u32::from_be_bytes(*word), sent);
                buffers.consume(4);
                sent += 1;
            }
        }
        assert!(written > sent && sent > 100_000);
    }

    #[test]
    fn answers_while_reading_are_counted_and_have_an_end() {
        let mut buffers = Buffers { answering: true, ..Buffers::default() };
        for _ in 0..MAX_ANSWERS {
            buffers.write_all(&[0; 31]).unwrap();
        }
        assert!(buffers.write_all(&[0; 31]).is_err());
        assert_eq!(buffers.output.len(), 31 * usize::from(MAX_ANSWERS));
        buffers.answering = false;
        buffers.write_all(&[0; 31]).unwrap();
    }
}
