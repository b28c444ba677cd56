//! TLCP handshakes over Tongsuo as the published recipe builds it, with the library's default settings and with the broker's own.
//! Prints one line for each round that it is told to make: handshakes per second of the server's time, both ways.
//!
//! The default settings are those of `SSL_CTX_new`: a pair of certificates, their keys, and a store with the authority, as a server
//! has that verifies clients. The chain is found in each handshake, since nobody said what it is.

#[path = "../../handshake/cases.rs"]
#[allow(dead_code, reason = "the benchmark that it is made for needs all of it")]
mod cases;

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use cases::{Case, Pki, processor_time};
use gm_tls::{
    client::Connector,
    engine::{Engine, Progress},
};
use openssl::{
    ssl::{ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslStream},
    x509::store::X509StoreBuilder,
};

const SUITE: &str = "ECC_SM4_GCM_SM3";

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<u32>().ok());
    let (rounds, handshakes) = (arguments.next().unwrap_or(1), arguments.next().unwrap_or(200));
    let pki = Pki::new();
    let ours = Case::named(&pki, "tlcp", SUITE);
    let defaults = Defaults { context: defaults(&pki), connector: ours.connector() };
    for _ in 0..rounds {
        let by_default: Duration = (0..handshakes).map(|_| defaults.handshake()).sum();
        let by_us: Duration = (0..handshakes).map(|_| ours.handshake().server).sum();
        let rate = |spent: Duration| f64::from(handshakes) / spent.as_secs_f64();
        println!("{:.0} {:.0}", rate(by_default), rate(by_us));
    }
}

fn defaults(pki: &Pki) -> SslContext {
    let mut context = SslContextBuilder::new(SslMethod::ntls_server()).expect("a context");
    context.enable_ntls();
    let pair = pki.server_pair();
    context.set_sign_certificate(pair.sign().x509()).expect("the signing certificate");
    context.set_sign_private_key(pair.sign_key().pkey()).expect("its key");
    context.set_enc_certificate(pair.enc().x509()).expect("the encryption certificate");
    context.set_enc_private_key(pair.enc_key().pkey()).expect("its key");
    let mut store = X509StoreBuilder::new().expect("a store");
    for anchor in pki.anchors() {
        store.add_cert(anchor.x509().to_owned()).expect("an anchor");
    }
    context.set_cert_store(store.build());
    context.build()
}

struct Defaults {
    context: SslContext,
    connector: Connector,
}

impl Defaults {
    /// The time that the server took for one handshake, and for freeing its connection.
    fn handshake(&self) -> Duration {
        let mut client = self.connector.engine(None).expect("a client's connection");
        client.handshake().expect("the client's hello");
        let turn = processor_time();
        let mut server =
            SslStream::new(Ssl::new(&self.context).expect("a connection"), Pipe::default()).expect("a stream");
        server.ssl_mut().set_accept_state();
        let mut spent = processor_time() - turn;
        loop {
            server.get_mut().input.extend_from_slice(client.output());
            client.consume_output(usize::MAX);
            let turn = processor_time();
            let here = step(&mut server);
            spent += processor_time() - turn;
            let output = std::mem::take(&mut server.get_mut().output);
            if finish(&mut client, &output) && here {
                let freeing = processor_time();
                drop(server);
                return spent + (processor_time() - freeing);
            }
        }
    }
}

fn step(server: &mut SslStream<Pipe>) -> bool {
    match server.do_handshake() {
        Ok(()) => true,
        Err(error) if error.code() == ErrorCode::WANT_READ => false,
        Err(error) => panic!("the server's handshake: {error}"),
    }
}

fn finish(client: &mut Engine, output: &[u8]) -> bool {
    client.receive(output);
    client.handshake().expect("the client's handshake") == Progress::Done && client.output().is_empty()
}

/// A transport in memory.
#[derive(Debug, Default)]
struct Pipe {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.input.as_slice().read(into)?;
        self.input.drain(..count);
        if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }
}

impl Write for Pipe {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
