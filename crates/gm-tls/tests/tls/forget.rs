//! Connections whose client certificates the library has been made to forget: whatever a peer may still do to the session finds it
//! whole. That the memory is given back is seen in the test of memory.

use std::{
    ffi::c_int,
    io::{Read, Write},
    mem::MaybeUninit,
    net::TcpStream as BlockingStream,
};

use gm_tls::{
    client::{ClientProtocol, Connector},
    engine::{Engine, ReadOutcome},
    server::{Identity, VerifyMode},
};
use openssl::{
    foreign_types::ForeignTypeRef,
    ssl::{SslContext, SslContextBuilder, SslMethod, SslOptions, SslStream, SslVerifyMode, SslVersion},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    certificates::pki,
    harness::{engines, mutual_options, noise, over_every_protocol, server},
    raw,
};

unsafe extern "C" {
    fn SSL_key_update(ssl: *mut openssl_sys::SSL, kind: c_int) -> c_int;
    fn SSL_renegotiate(ssl: *mut openssl_sys::SSL) -> c_int;
    fn SSL_CTX_set_tlsext_max_fragment_length(ctx: *mut openssl_sys::SSL_CTX, mode: u8) -> c_int;
}

const SSL_KEY_UPDATE_REQUESTED: c_int = 1;
const TLSEXT_MAX_FRAGMENT_LENGTH_512: u8 = 1;

fn load(builder: &mut SslContextBuilder, identity: &Identity) {
    builder.set_certificate(identity.chain.leaf.x509()).unwrap();
    builder.set_private_key(identity.key.pkey()).unwrap();
}

/// A context of the library as it comes, with the certificates that the server asks for.
fn client(protocol: ClientProtocol, suite: Option<&str>) -> SslContextBuilder {
    let pki = pki();
    let tlcp = protocol == ClientProtocol::Tlcp;
    let method = if tlcp { SslMethod::ntls_client() } else { SslMethod::tls_client() };
    let mut builder = SslContextBuilder::new(method).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    match protocol {
        ClientProtocol::Tlcp => {
            builder.enable_ntls();
            builder.set_options(SslOptions::DONT_INSERT_EMPTY_FRAGMENTS);
            let pair = &pki.client_pair;
            builder.set_sign_certificate(pair.sign().x509()).unwrap();
            builder.set_sign_private_key(pair.sign_key().pkey()).unwrap();
            builder.set_enc_certificate(pair.enc().x509()).unwrap();
            builder.set_enc_private_key(pair.enc_key().pkey()).unwrap();
            builder.set_cipher_list("ECC-SM2-SM4-GCM-SM3").unwrap();
        }
        ClientProtocol::Rfc8998 => {
            load(&mut builder, &pki.client_sm2);
            builder.set_groups_list("curveSM2").unwrap();
            builder.set_ciphersuites(suite.unwrap_or("TLS_SM4_GCM_SM3")).unwrap();
        }
        _ => load(&mut builder, &pki.client_p256),
    }
    if protocol == ClientProtocol::Tls12 {
        builder.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
    }
    builder
}

/// A client in a thread and a server that sends back what comes until the connection ends; how it ended is returned.
async fn echo<F>(context: SslContext, client: F) -> std::io::Result<()>
where
    F: FnOnce(&mut SslStream<BlockingStream>) + Send + 'static,
{
    let contexts = server(VerifyMode::Required);
    let run = move |address| raw::connect(&context, address, None, client);
    let mut accepted = raw::client(&contexts, run).await.unwrap().unwrap();
    let identity = accepted.peer_identity();
    let name = identity.signing.as_ref().unwrap().decode().unwrap().common_name().unwrap();
    assert_eq!(name.as_deref(), Some("client"));
    let mut buffer = [0; 4096];
    loop {
        match accepted.read(&mut buffer).await? {
            0 => return accepted.shutdown().await,
            count => {
                accepted.write_all(&buffer[..count]).await?;
                accepted.flush().await?;
            }
        }
    }
}

fn ask(stream: &mut SslStream<BlockingStream>, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text);
}

async fn survives_new_keys(protocol: ClientProtocol, suite: Option<&'static str>) {
    let outcome = echo(client(protocol, suite).build(), |stream| {
        for _ in 0..3 {
            ask(stream, b"before");
            // SAFETY: the connection is live and used by this thread alone.
            assert_eq!(unsafe { SSL_key_update(stream.ssl().as_ptr(), SSL_KEY_UPDATE_REQUESTED) }, 1);
            ask(stream, b"after");
        }
        stream.shutdown().unwrap();
    });
    outcome.await.unwrap();
}

#[tokio::test]
async fn a_client_may_change_keys() {
    survives_new_keys(ClientProtocol::Tls13, None).await;
    survives_new_keys(ClientProtocol::Rfc8998, Some("TLS_SM4_GCM_SM3")).await;
    survives_new_keys(ClientProtocol::Rfc8998, Some("TLS_SM4_CCM_SM3")).await;
}

#[tokio::test]
async fn a_second_hello_is_refused() {
    for protocol in [ClientProtocol::Tls12, ClientProtocol::Tlcp] {
        let outcome = echo(client(protocol, None).build(), move |stream| {
            ask(stream, b"before");
            // The library's client over TLCP overhears the refusal, and would wait for ever.
            stream.get_ref().set_nonblocking(true).unwrap();
            // SAFETY: as above.
            assert_eq!(unsafe { SSL_renegotiate(stream.ssl().as_ptr()) }, 1);
            stream.do_handshake().expect_err("renegotiated");
        });
        assert!(outcome.await.is_err(), "{protocol:?}: the client closed in order");
    }
}

#[tokio::test]
async fn the_agreed_fragment_length_still_holds() {
    for protocol in [ClientProtocol::Tls12, ClientProtocol::Tls13, ClientProtocol::Rfc8998] {
        let builder = client(protocol, None);
        // SAFETY: the context is live and nothing else uses it.
        let done = unsafe { SSL_CTX_set_tlsext_max_fragment_length(builder.as_ptr(), TLSEXT_MAX_FRAGMENT_LENGTH_512) };
        assert_eq!(done, 1);
        let outcome = echo(builder.build(), |stream| {
            stream.write_all(&noise(3000)).unwrap();
            let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
            while got.len() < 3000 {
                // The library returns one record at a time.
                let count = stream.read(&mut buffer).unwrap();
                assert!((1..=512).contains(&count), "a record of {count} bytes");
                got.extend_from_slice(&buffer[..count]);
            }
            assert_eq!(got, noise(3000));
            stream.shutdown().unwrap();
        });
        outcome.await.unwrap();
    }
}

fn pass(from: &mut Engine, to: &mut Engine, data: &[u8]) {
    for part in data.chunks(gm_tls::engine::MAX_WRITE) {
        assert_eq!(from.write(part).unwrap(), Some(part.len()));
        to.receive(from.output());
        from.consume_output(usize::MAX);
        let mut buffer = vec![MaybeUninit::uninit(); part.len()];
        assert_eq!(to.read(&mut buffer).unwrap(), ReadOutcome::Data(part.len()));
    }
}

over_every_protocol!(a_fatal_alert_ends_the_connection, |protocol| async move {
    let connector = Connector::new(&mutual_options(protocol)).unwrap();
    let (mut server, mut client) = engines(&server(VerifyMode::Required), &connector);
    pass(&mut client, &mut server, &noise(100_000));
    server.write(b"damaged on its way").unwrap();
    let mut damaged = server.output().to_vec();
    server.consume_output(usize::MAX);
    *damaged.last_mut().unwrap() ^= 1;
    client.receive(&damaged);
    let mut buffer = [MaybeUninit::uninit(); 64];
    client.read(&mut buffer).expect_err("damaged data was read");
    server.receive(client.output());
    let error = server.read(&mut buffer).expect_err("an alert was overheard").to_string();
    assert!(error.contains("alert 20"), "{error}");
    server.close();
    assert!(server.write(b"after the end").is_err());
});

over_every_protocol!(a_connection_closes_in_order, |protocol| async move {
    let connector = Connector::new(&mutual_options(protocol)).unwrap();
    let (mut server, mut client) = engines(&server(VerifyMode::Required), &connector);
    pass(&mut client, &mut server, &noise(100_000));
    pass(&mut server, &mut client, &noise(100_000));
    client.close();
    server.receive(client.output());
    assert_eq!(server.read(&mut [MaybeUninit::uninit(); 64]).unwrap(), ReadOutcome::Closed);
    server.close();
});
