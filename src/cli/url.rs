//! Addresses of servers as URLs, `scheme://[user[:password]@]host[:port][/topic]`.

use std::fmt;

use clap::ValueEnum;
use zeroize::Zeroizing;

/// What secures a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// No encryption
    Tcp,
    /// TLS 1.2 or 1.3, whichever the server prefers
    Tls,
    #[value(name = "tls1.2", alias = "tlsv1.2")]
    Tls12,
    #[value(name = "tls1.3", alias = "tlsv1.3")]
    Tls13,
    /// TLCP (GB/T 38636-2020) with SM2, SM3 and SM4
    Tlcp,
    /// TLS 1.3 with SM2, SM3 and SM4 (RFC 8998)
    Rfc8998,
}

/// Text that must not be printed; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Zeroizing<String>);

impl Hidden {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A parsed URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub protocol: Protocol,
    pub websocket: bool,
    pub username: Option<String>,
    pub password: Option<Hidden>,
    /// Name or address, without brackets.
    pub host: String,
    pub port: Option<u16>,
    pub topic: Option<String>,
}

/// Why a text is not such a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("no scheme; write one of {SCHEMES}, for instance mqtt://localhost")]
    NoScheme,
    #[error("unknown scheme \"{0}\"; it is one of {SCHEMES}")]
    Scheme(String),
    #[error("no host")]
    NoHost,
    #[error("an IPv6 address is written in brackets, [::1]")]
    Brackets,
    #[error("\"{0}\" is no port; it is a number from 1 to 65535")]
    Port(String),
    #[error("a percent sign is followed by two hexadecimal digits and stands for UTF-8 text")]
    Percent,
}

const SCHEMES: &str = "mqtt, mqtts, mqtts+tlcp, mqtts+rfc8998, ws, wss, wss+tlcp, wss+rfc8998";

impl Url {
    /// Parses a URL. Signature as clap asks for it.
    ///
    /// # Errors
    /// [`UrlError`] never repeats the text: it may hold a password.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::NoScheme)?;
        let (protocol, websocket) = match scheme.to_ascii_lowercase().as_str() {
            "mqtt" | "tcp" => (Protocol::Tcp, false),
            "mqtts" | "ssl" | "tls" | "mqtt+tls" => (Protocol::Tls, false),
            "mqtts+tlcp" | "mqtt+tlcp" | "tlcp" => (Protocol::Tlcp, false),
            "mqtts+rfc8998" | "mqtt+rfc8998" | "rfc8998" => (Protocol::Rfc8998, false),
            "ws" => (Protocol::Tcp, true),
            "wss" => (Protocol::Tls, true),
            "wss+tlcp" => (Protocol::Tlcp, true),
            "wss+rfc8998" => (Protocol::Rfc8998, true),
            other => return Err(UrlError::Scheme(other.to_owned())),
        };
        let (authority, topic) = match rest.split_once('/') {
            Some((authority, topic)) => (authority, Some(topic).filter(|topic| !topic.is_empty())),
            None => (rest, None),
        };
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, authority),
        };
        let (username, password) = match credentials.map(|both| both.split_once(':').unwrap_or((both, ""))) {
            None => (None, None),
            Some((username, password)) => (Some(decoded(username)?), Some(decoded(password)?)),
        };
        let (host, port) = address_parts(address)?;
        Ok(Url {
            protocol,
            websocket,
            username: username.filter(|username| !username.is_empty()),
            password: password.filter(|password| !password.is_empty()).map(Hidden::from),
            host,
            port,
            topic: topic.map(decoded).transpose()?,
        })
    }
}

fn address_parts(address: &str) -> Result<(String, Option<u16>), UrlError> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(UrlError::Brackets)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(UrlError::Brackets),
            }
        }
        None => match address.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(UrlError::Brackets),
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    let port = match port {
        None => None,
        Some(text) => {
            let port = text.parse().ok().filter(|port| *port != 0);
            Some(port.ok_or_else(|| UrlError::Port(text.to_owned()))?)
        }
    };
    Ok((host.to_owned(), port))
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit(), digit());
        let value = high.zip(low).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(value.ok_or(UrlError::Percent)?);
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_every_part_of_a_url() {
        let url = Url::parse("mqtts+tlcp://meter%2F7:p%40ss:word@broker.example:8885/plant/line%201").unwrap();
        assert_eq!(url.protocol, Protocol::Tlcp);
        assert!(!url.websocket);
        assert_eq!(url.username.as_deref(), Some("meter/7"));
        assert_eq!(url.password.as_ref().map(Hidden::expose), Some("p@ss:word"));
        assert_eq!((url.host.as_str(), url.port), ("broker.example", Some(8885)));
        assert_eq!(url.topic.as_deref(), Some("plant/line 1"));
        assert!(!format!("{url:?}").contains("ss:word"), "a password is printed");
    }

    #[test]
    fn parts_may_be_absent() {
        let url = Url::parse("wss://[::1]").unwrap();
        assert_eq!((url.protocol, url.websocket), (Protocol::Tls, true));
        assert_eq!((url.host.as_str(), url.port, url.topic), ("::1", None, None));
        assert_eq!((url.username, url.password), (None, None));
        assert_eq!(Url::parse("mqtt://host:1/").unwrap().topic, None);
    }

    #[test]
    fn refuses_what_is_no_url_of_ours() {
        for (text, error) in [
            ("localhost:1883", UrlError::NoScheme),
            ("http://localhost", UrlError::Scheme("http".into())),
            ("mqtt://", UrlError::NoHost),
            ("mqtt://user@/topic", UrlError::NoHost),
            ("mqtt://::1", UrlError::Brackets),
            ("mqtt://[::1", UrlError::Brackets),
            ("mqtt://[::1]1883", UrlError::Brackets),
            ("mqtt://host:0", UrlError::Port("0".into())),
            ("mqtt://host:65536", UrlError::Port("65536".into())),
            ("mqtt://host/%4", UrlError::Percent),
            ("mqtt://host/%ff", UrlError::Percent),
        ] {
            assert_eq!(Url::parse(text), Err(error), "{text}");
        }
    }
}
