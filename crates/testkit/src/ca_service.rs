//! The HTTP service of an authority: it publishes what a test tells it to, at any path, and misbehaves on demand.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Makes a body of the body of a request.
pub type Compute = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

/// What a path answers with.
#[derive(Clone)]
pub enum Behaviour {
    /// 200 with these bytes.
    Serve(Bytes),
    /// 200 with what is made of the request's body.
    Compute(Arc<Compute>),
    /// As another, after a while.
    After(Duration, Box<Behaviour>),
    /// The connection is closed without an answer.
    Down,
    /// This status and nothing else.
    Status(u16),
    /// A redirect to this address.
    Redirect(String),
    /// 200 and a body without end.
    Endless,
    /// 200 with these bytes, said to be compressed by gzip.
    Gzip(Bytes),
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Behaviour")
    }
}

#[derive(Debug, Default)]
struct Paths {
    behaviours: HashMap<String, Behaviour>,
    requests: HashMap<String, usize>,
}

/// The running service. Dropping it ends it.
#[derive(Debug)]
pub struct CaService {
    address: SocketAddr,
    paths: Arc<Mutex<Paths>>,
    accepting: JoinHandle<()>,
}

impl CaService {
    /// Listens on a loopback port of its own.
    pub async fn start() -> CaService {
        CaService::start_secured(|stream| async { Ok(stream) }).await
    }

    /// As [`start`](Self::start), with each connection secured by `secure` first.
    pub async fn start_secured<S, F>(secure: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> CaService
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: Future<Output = std::io::Result<S>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket");
        let paths: Arc<Mutex<Paths>> = Arc::default();
        let shared = Arc::clone(&paths);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (paths, secured) = (Arc::clone(&shared), secure(stream));
                tokio::spawn(async move {
                    if let Ok(stream) = secured.await {
                        // Whoever asks may go away at any time.
                        let _ = answer(stream, paths).await;
                    }
                });
            }
        });
        CaService { address, paths, accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What a path answers with from now on.
    pub fn set(&self, path: &str, behaviour: Behaviour) {
        self.lock().behaviours.insert(path.to_owned(), behaviour);
    }

    /// How often a path was asked for.
    pub fn requests(&self, path: &str) -> usize {
        self.lock().requests.get(path).copied().unwrap_or(0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Paths> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CaService {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, paths: Arc<Mutex<Paths>>) -> std::io::Result<()> {
    let Some((path, body)) = request(&mut stream).await? else { return Ok(()) };
    let mut behaviour = {
        let mut paths = paths.lock().unwrap_or_else(PoisonError::into_inner);
        *paths.requests.entry(path.clone()).or_default() += 1;
        paths.behaviours.get(&path).cloned().unwrap_or(Behaviour::Status(404))
    };
    while let Behaviour::After(pause, then) = behaviour {
        tokio::time::sleep(pause).await;
        behaviour = *then;
    }
    let (head, body) = match behaviour {
        Behaviour::Serve(body) => ("200 OK".to_owned(), body),
        Behaviour::Compute(make) => ("200 OK".to_owned(), make(&body).into()),
        Behaviour::Status(status) => (format!("{status} Whatever"), Bytes::new()),
        Behaviour::Redirect(to) => (format!("302 Found\r\nLocation: {to}"), Bytes::new()),
        Behaviour::Gzip(body) => ("200 OK\r\nContent-Encoding: gzip".to_owned(), body),
        Behaviour::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
            loop {
                stream.write_all(&[0x30; 16 * 1024]).await?;
            }
        }
        Behaviour::Down | Behaviour::After(..) => return Ok(()),
    };
    let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

/// The path and the body of a request.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut read = Vec::new();
    let head = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if read.len() > 64 * 1024 || stream.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let path = String::from_utf8_lossy(&read[..head]).split_whitespace().nth(1).unwrap_or_default().to_owned();
    while read.len() < head + length.unwrap_or(0) {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some((path, read.split_off(head))))
}
