//! Fetches what authorities publish, by HTTP, and by HTTPS over TLS, RFC 8998 and TLCP. The addresses come out of certificates, so that
//! where a fetch may go, how much it may bring and how long it may take is bounded here; what it brings is judged by its signature.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gm_tls::cert::Certificate;
use gm_tls::client::{ClientOptions, ClientProtocol, Connector};
use http_body_util::{BodyExt, Full};
use hyper::header::{ACCEPT, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::causes::Causes;
use crate::config::RevocationConfig;

/// Redirects that one fetch follows.
const MAX_REDIRECTS: usize = 3;
/// Bytes of the head of an answer, and its header fields.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("not an address by http:// or https:// with a host and without a user name")]
    Address,
    #[error("{0} is not in revocation.allowed_hosts")]
    NotAllowed(String),
    #[error(
        "{host} is {address}, an address of this machine; name the host in revocation.allowed_hosts if that is meant"
    )]
    OwnAddress { host: String, address: IpAddr },
    #[error("cannot resolve {host}: {cause}")]
    Resolve { host: String, cause: std::io::Error },
    #[error("cannot connect to {address}: {cause}")]
    Connect { address: SocketAddr, cause: std::io::Error },
    #[error("an https:// address needs revocation.cacertfile with the authority of that server")]
    NoCa,
    #[error("TLS with {host}: {cause}")]
    Tls { host: String, cause: String },
    #[error("HTTP: {0}")]
    Http(String),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
    #[error("the answer is compressed, which was not asked for")]
    Compressed,
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    #[error("no whole answer within {}ms", .0.as_millis())]
    Timeout(Duration),
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub url: &'a str,
    /// An OCSP request, which is posted.
    pub ocsp: Option<Vec<u8>>,
    pub max_bytes: usize,
    pub timeout: Duration,
}

/// Fetches, so many at a time.
#[derive(Debug)]
pub(super) struct Fetcher {
    turns: Semaphore,
    allowed_hosts: Vec<String>,
    ca: Vec<Certificate>,
}

impl Fetcher {
    pub(super) fn new(config: &RevocationConfig, ca: Vec<Certificate>) -> Fetcher {
        let allowed_hosts = config.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Fetcher { turns: Semaphore::new(config.max_fetches), allowed_hosts, ca }
    }

    /// The body of a good answer. Waiting for a turn does not count.
    pub(super) async fn fetch(&self, question: Question<'_>) -> Result<Bytes, FetchError> {
        // The semaphore is never closed; were it, fetching would go on without a bound on how many.
        let _turn = self.turns.acquire().await.ok();
        let limit = question.timeout;
        timeout(limit, Box::pin(self.follow(&question))).await.unwrap_or(Err(FetchError::Timeout(limit)))
    }

    async fn follow(&self, question: &Question<'_>) -> Result<Bytes, FetchError> {
        let mut target: Uri = question.url.parse().map_err(|_| FetchError::Address)?;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.ask(&target, question).await?;
            let response = &answer.response;
            match response.status() {
                StatusCode::OK => return read(answer, question.max_bytes).await,
                status if status.is_redirection() && question.ocsp.is_none() => {
                    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
                    target = resolve(&target, location.ok_or(FetchError::Status(status))?)?;
                }
                status => return Err(FetchError::Status(status)),
            }
        }
        Err(FetchError::Redirects)
    }

    async fn ask(&self, target: &Uri, question: &Question<'_>) -> Result<Answer, FetchError> {
        let secure = match target.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(FetchError::Address),
        };
        let authority = target.authority().filter(|authority| !authority.as_str().contains('@'));
        let host = authority.map(|authority| authority.host()).filter(|host| !host.is_empty());
        let (Some(authority), Some(host)) = (authority, host) else { return Err(FetchError::Address) };
        let port = target.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = self.addresses(host, port).await?;
        let path = target.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder()
            .uri(path)
            .header(HOST, authority.as_str())
            .header(USER_AGENT, concat!("shangmq/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close");
        let body = match &question.ocsp {
            Some(body) => {
                let kind = "application/ocsp-request";
                request =
                    request.method(Method::POST).header(CONTENT_TYPE, kind).header(ACCEPT, "application/ocsp-response");
                Bytes::copy_from_slice(body)
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(body)).map_err(|_| FetchError::Address)?;
        if !secure {
            return exchange(connect(&addresses).await?, request).await;
        }
        if self.ca.is_empty() {
            return Err(FetchError::NoCa);
        }
        // A server of either world: what it has is known only by asking. What it sends is judged by its own signature, so that
        // nothing is lost by an attacker who chooses.
        let mut refused = String::new();
        for protocol in [ClientProtocol::Tls, ClientProtocol::Rfc8998, ClientProtocol::Tlcp] {
            let options = ClientOptions { ca: self.ca.clone(), ..ClientOptions::new(protocol, host) };
            let connector = Connector::new(&options)
                .map_err(|cause| FetchError::Tls { host: host.to_owned(), cause: Causes(&cause).to_string() })?;
            match connector.connect(connect(&addresses).await?).await {
                Ok(stream) => return exchange(stream, request).await,
                Err(cause) => refused = cause.to_string(),
            }
        }
        Err(FetchError::Tls { host: host.to_owned(), cause: refused })
    }

    /// Where a host is, if anything may be fetched from there.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, FetchError> {
        let listed = self.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host));
        if !listed && !self.allowed_hosts.is_empty() {
            return Err(FetchError::NotAllowed(host.to_owned()));
        }
        let found = lookup_host((host, port)).await;
        let found: Vec<SocketAddr> =
            found.map_err(|cause| FetchError::Resolve { host: host.to_owned(), cause })?.collect();
        let own = found.iter().map(SocketAddr::ip).find(|address| is_own(*address));
        match own {
            Some(address) if !listed => Err(FetchError::OwnAddress { host: host.to_owned(), address }),
            _ => Ok(found),
        }
    }
}

/// Addresses that lead to this machine or to what is attached to it, such as the metadata of a cloud: a certificate that names one
/// would make the broker ask where only the broker can.
fn is_own(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.octets()[0] == 0
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || CLOUD_METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6 == CLOUD_METADATA_V6
        }
    }
}

/// Metadata services of clouds that are not on a link-local address: Alibaba Cloud's and Oracle Cloud's.
const CLOUD_METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
/// The same of Amazon's EC2.
const CLOUD_METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, FetchError> {
    let mut failed = FetchError::Address;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(cause) => failed = FetchError::Connect { address: *address, cause },
        }
    }
    Err(failed)
}

async fn exchange<S>(io: S, request: Request<Full<Bytes>>) -> Result<Answer, FetchError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let wrong = |cause: hyper::Error| FetchError::Http(Causes(&cause).to_string());
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
    let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(wrong)?;
    let mut running = JoinSet::new();
    running.spawn(connection);
    let response = sender.send_request(request).await.map_err(wrong)?;
    Ok(Answer { response, _running: running })
}

/// The head of an answer. The connection that brings the rest ends with it, whatever the server does.
struct Answer {
    response: Response<Incoming>,
    _running: JoinSet<hyper::Result<()>>,
}

async fn read(answer: Answer, max: usize) -> Result<Bytes, FetchError> {
    let Answer { response, _running } = answer;
    let encoding = response.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(FetchError::Compressed);
    }
    let mut body = response.into_body();
    let mut contents = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|cause| FetchError::Http(Causes(&cause).to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if contents.len().saturating_add(data.len()) > max {
            return Err(FetchError::TooLarge(max));
        }
        contents.extend_from_slice(&data);
    }
    Ok(contents.freeze())
}

/// Where a redirect leads: to a whole address, or to another path on the same server.
fn resolve(from: &Uri, location: &str) -> Result<Uri, FetchError> {
    if !location.starts_with('/') || location.starts_with("//") {
        return location.parse().map_err(|_| FetchError::Address);
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(location.parse().map_err(|_| FetchError::Address)?);
    Uri::from_parts(parts).map_err(|_| FetchError::Address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_machine_and_its_surroundings_are_its_own() {
        for own in [
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "0.0.0.0",
            "::1",
            "::",
            "fe80::1",
            "::ffff:127.0.0.1",
            "224.0.0.1",
            "0.1.2.3",
            "100.100.100.200",
            "192.0.0.192",
            "::ffff:100.100.100.200",
            "fd00:ec2::254",
        ] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        for other in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "100.64.0.1", "fd00::1", "2001:db8::1"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn redirects_lead_to_whole_addresses_or_paths() {
        let from: Uri = "http://a:8080/x?y".parse().unwrap();
        assert_eq!(resolve(&from, "/z").unwrap().to_string(), "http://a:8080/z");
        assert_eq!(resolve(&from, "https://b/z").unwrap().to_string(), "https://b/z");
        assert!(resolve(&from, "").is_err());
    }

    #[tokio::test]
    async fn addresses_that_lead_elsewhere_are_refused_before_anything_is_asked() {
        let fetch = |allowed: &'static [&'static str], url: &'static str| async move {
            let allowed_hosts = allowed.iter().map(|host| (*host).to_owned()).collect();
            let fetcher = Fetcher::new(&RevocationConfig { allowed_hosts, ..RevocationConfig::default() }, Vec::new());
            let timeout = Duration::from_secs(5);
            fetcher.fetch(Question { url, ocsp: None, max_bytes: 1, timeout }).await.unwrap_err()
        };
        for url in ["ldap://a/b", "file:///etc/passwd", "http://user@127.0.0.1/", "http:///x", "x", "http://a\r\nb/"] {
            assert!(matches!(fetch(&[], url).await, FetchError::Address), "{url}");
        }
        assert!(matches!(fetch(&[], "http://127.0.0.1:1/").await, FetchError::OwnAddress { .. }));
        assert!(matches!(fetch(&["b"], "http://127.0.0.1:1/").await, FetchError::NotAllowed(_)));
        assert!(matches!(fetch(&["127.0.0.1"], "http://127.0.0.1:1/").await, FetchError::Connect { .. }));
        assert!(matches!(fetch(&["127.0.0.1"], "https://127.0.0.1:1/").await, FetchError::NoCa));
    }
}
