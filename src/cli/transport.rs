//! The arguments that say where a server is and how to secure the way to it, shared by `pub`, `sub` and `bench`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args};
use gm_tls::ContextError;
use gm_tls::cert::{CertError, Certificate, CertificateChain};
use gm_tls::client::{ClientIdentity, ClientOptions, ClientProtocol, Connector, Identity};
use gm_tls::key::{KeyError, Password, PasswordError, PrivateKey};
use gm_tls::pair::{CertificatePair, PairError, PairParts};

use super::url::{Hidden, Protocol, Url};
use crate::client::{Advice, Endpoint, Security};
use crate::net::websocket::DEFAULT_PATH;

/// Where the server is and how to speak to it.
#[derive(Debug, Args)]
pub struct TransportArguments {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Name or address of the server [default: localhost]
    #[arg(short = 'h', long, help_heading = "Server")]
    host: Option<String>,
    /// Port [default: 1883 over tcp, 8883 secured, 8083 over ws, 8084 over ws secured]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Server")]
    port: Option<u16>,
    /// All of it in one, such as mqtts+tlcp://user:password@host:port/topic, where all but scheme and host may be left out; the
    /// schemes are mqtt, mqtts, mqtts+tlcp, mqtts+rfc8998, ws, wss, wss+tlcp and wss+rfc8998
    #[arg(short = 'L', long, value_parser = Url::parse, conflicts_with_all = ["host", "port", "protocol", "ws"], help_heading = "Server")]
    pub(super) url: Option<Url>,
    /// What secures the connection [default: tlcp with --sign-cert, tls with --cafile or --cert, else tcp]
    #[arg(long, visible_alias = "tls-version", value_enum, help_heading = "Server")]
    protocol: Option<Protocol>,
    /// Speak MQTT over WebSocket, secured or not as --protocol says
    #[arg(long, help_heading = "Server")]
    ws: bool,
    /// Path of the WebSocket
    #[arg(long, default_value = DEFAULT_PATH, help_heading = "Server")]
    ws_path: String,
    /// Seconds that each step of connecting may take
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600), help_heading = "Server")]
    connect_timeout: u64,
    /// CA certificates (PEM) that the server's certificates must lead to
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    cafile: Option<PathBuf>,
    /// Client certificate (PEM), for TLS or, with an SM2 key, for RFC 8998
    #[arg(long, value_name = "FILE", requires = "key", help_heading = "Security")]
    cert: Option<PathBuf>,
    /// Private key of --cert
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Security")]
    key: Option<PathBuf>,
    /// Client signing certificate (PEM) for TLCP
    #[arg(long, value_name = "FILE", conflicts_with = "cert", help_heading = "Security")]
    sign_cert: Option<PathBuf>,
    /// Private key of --sign-cert
    #[arg(long, value_name = "FILE", conflicts_with = "cert", help_heading = "Security")]
    sign_key: Option<PathBuf>,
    /// Client encryption certificate (PEM) for TLCP
    #[arg(long, value_name = "FILE", conflicts_with = "cert", help_heading = "Security")]
    enc_cert: Option<PathBuf>,
    /// Private key of --enc-cert
    #[arg(long, value_name = "FILE", conflicts_with = "cert", help_heading = "Security")]
    enc_key: Option<PathBuf>,
    /// Password of the private keys: file:///path, env:NAME or, visible to other users, the password itself
    #[arg(long, value_name = "PASSWORD", value_parser = hidden, help_heading = "Security")]
    keypass: Option<Hidden>,
    /// Cipher suites to offer, in order of preference
    #[arg(long, value_name = "SUITE", value_delimiter = ':', help_heading = "Security")]
    ciphers: Vec<String>,
    /// Groups of the key exchange to offer, in order of preference, such as X25519MLKEM768:X25519; not over TLCP
    #[arg(long, value_name = "GROUP", value_delimiter = ':', help_heading = "Security")]
    groups: Vec<String>,
    /// Application protocols to offer by ALPN, in order of preference
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Security")]
    alpn: Vec<String>,
    /// Name to ask for (SNI) and to find in the server's certificates [default: the host]
    #[arg(long, visible_alias = "servername", value_name = "NAME", help_heading = "Security")]
    sni: Option<String>,
    /// Do not verify the server's certificates. Anyone on the way can then read and change everything.
    #[arg(long, help_heading = "Security")]
    insecure: bool,
}

/// Arguments of the transport that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error(
        "--cafile is missing: give the CA that the server's certificates must lead to, or --insecure to trust any server"
    )]
    NoCa,
    #[error("{0} secures the connection, but the protocol is tcp: give --protocol tls, rfc8998 or tlcp")]
    NotSecured(&'static str),
    #[error(
        "TLCP needs a pair of client certificates: give --sign-cert, --sign-key, --enc-cert and --enc-key instead of --cert"
    )]
    PairNeeded,
    #[error("--sign-cert and --enc-cert are for TLCP: give --protocol tlcp, or --cert and --key")]
    SingleNeeded,
    #[error("--groups is for TLS and RFC 8998: TLCP exchanges keys by SM2 on its one curve")]
    NoGroups,
    #[error("--cafile {}: the file holds no certificate", .0.display())]
    EmptyCa(PathBuf),
    #[error(transparent)]
    Certificate(#[from] CertError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("--keypass")]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Pair(#[from] PairError),
    #[error("--ciphers")]
    Ciphers(#[source] ContextError),
    #[error(
        "--ciphers: {0} needs client certificates: give --sign-cert, --sign-key, --enc-cert and --enc-key, or name another suite"
    )]
    PairForSuite(&'static str),
    #[error("--groups")]
    Groups(#[source] ContextError),
    #[error("--key {} is not the key of the certificate in --cert {}", key.display(), cert.display())]
    ForeignKey { cert: PathBuf, key: PathBuf },
    #[error("--cert {}", path.display())]
    Unusable { path: PathBuf, source: ContextError },
    #[error("--alpn")]
    Alpn(#[source] ContextError),
    #[error("--sni")]
    ServerName(#[source] ContextError),
    #[error(transparent)]
    Context(ContextError),
}

/// Keeps a secret out of what clap prints.
pub(super) fn hidden(text: &str) -> Result<Hidden, std::convert::Infallible> {
    Ok(Hidden::from(text.to_owned()))
}

impl TransportArguments {
    /// The protocol that is to be spoken.
    pub(super) fn protocol(&self) -> Protocol {
        match (&self.url, self.protocol) {
            (Some(url), _) => url.protocol,
            (None, Some(protocol)) => protocol,
            (None, None) if self.has_pair() => Protocol::Tlcp,
            (None, None) if self.security_option().is_some() => Protocol::Tls,
            (None, None) => Protocol::Tcp,
        }
    }

    /// Loads certificates and keys, and says on standard error if the server is not going to be verified.
    ///
    /// # Errors
    /// Arguments that contradict each other and files that cannot be used.
    pub(super) fn endpoint(&self, max_message_len: usize) -> Result<Endpoint, TransportError> {
        let url = self.url.as_ref();
        let host =
            url.map(|url| url.host.clone()).or_else(|| self.host.clone()).unwrap_or_else(|| "localhost".to_owned());
        let websocket = self.ws || url.is_some_and(|url| url.websocket);
        let (protocol, name) = match self.protocol() {
            Protocol::Tcp => (None, "TCP"),
            Protocol::Tls => (Some(ClientProtocol::Tls), "TLS"),
            Protocol::Tls12 => (Some(ClientProtocol::Tls12), "TLS 1.2"),
            Protocol::Tls13 => (Some(ClientProtocol::Tls13), "TLS 1.3"),
            Protocol::Rfc8998 => (Some(ClientProtocol::Rfc8998), "RFC 8998"),
            Protocol::Tlcp => (Some(ClientProtocol::Tlcp), "TLCP"),
        };
        let security = match protocol {
            Some(protocol) => {
                Some(Security { connector: self.connector(protocol, &host)?, name, advice: self.advice() })
            }
            None => match self.security_option() {
                Some(option) => return Err(TransportError::NotSecured(option)),
                None => None,
            },
        };
        let default_port = match (websocket, security.is_some()) {
            (false, false) => 1883,
            (false, true) => 8883,
            (true, false) => 8083,
            (true, true) => 8084,
        };
        Ok(Endpoint {
            host,
            port: url.and_then(|url| url.port).or(self.port).unwrap_or(default_port),
            addresses: Vec::new(),
            security,
            websocket: websocket.then(|| self.ws_path.clone()),
            max_message_len,
            timeout: Duration::from_secs(self.connect_timeout),
        })
    }

    /// What the user gave, for errors of the handshake.
    fn advice(&self) -> Advice {
        let shown = [("--cert", &self.cert), ("--sign-cert", &self.sign_cert)];
        let named = |option: &str, path: &Path| format!("{option} {}", path.display());
        Advice {
            trusted: self.cafile.as_deref().map(|path| named("--cafile", path)),
            shown: shown.into_iter().find_map(|(option, path)| Some(named(option, path.as_deref()?))),
            wanted: match self.protocol() {
                Protocol::Tlcp => "--sign-cert, --sign-key, --enc-cert and --enc-key",
                _ => "--cert and --key",
            },
            suites: (!self.ciphers.is_empty()).then(|| format!("--ciphers {}", self.ciphers.join(":"))),
            groups: (!self.groups.is_empty()).then(|| format!("--groups {}", self.groups.join(":"))),
        }
    }

    /// Whether the client has certificates to show.
    pub(super) fn has_identity(&self) -> bool {
        self.cert.is_some() || self.has_pair()
    }

    fn has_pair(&self) -> bool {
        [&self.sign_cert, &self.sign_key, &self.enc_cert, &self.enc_key].into_iter().any(Option::is_some)
    }

    /// An argument that has a meaning for a secured connection only.
    fn security_option(&self) -> Option<&'static str> {
        let given = [
            (self.cafile.is_some(), "--cafile"),
            (self.cert.is_some(), "--cert"),
            (self.has_pair(), "a pair of client certificates"),
            (!self.ciphers.is_empty(), "--ciphers"),
            (!self.groups.is_empty(), "--groups"),
            (!self.alpn.is_empty(), "--alpn"),
            (self.insecure, "--insecure"),
        ];
        given.into_iter().find_map(|(given, name)| given.then_some(name))
    }

    fn connector(&self, protocol: ClientProtocol, host: &str) -> Result<Connector, TransportError> {
        let mut options = ClientOptions::new(protocol, self.sni.clone().unwrap_or_else(|| host.to_owned()));
        options.ciphers.clone_from(&self.ciphers);
        if !self.groups.is_empty() {
            if protocol == ClientProtocol::Tlcp {
                return Err(TransportError::NoGroups);
            }
            options.groups = Some(self.groups.join(":"));
        }
        options.alpn = self.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        if let Some(path) = &self.cafile {
            options.ca = Certificate::anchors_from_file("--cafile", path)?;
            if options.ca.is_empty() {
                return Err(TransportError::EmptyCa(path.clone()));
            }
        } else if !self.insecure {
            return Err(TransportError::NoCa);
        }
        if self.insecure {
            options.verify = false;
            options.verify_hostname = false;
            // With standard error closed there is nobody to warn.
            let _ = writeln!(
                std::io::stderr().lock(),
                "warning: --insecure: the server is not verified, the connection is not protected against interception"
            );
        }
        options.identity = self.identity(protocol)?;
        Connector::new(&options).map_err(|cause| self.of_option(cause))
    }

    /// What keeps a context from being built, by the option that is wrong.
    fn of_option(&self, cause: ContextError) -> TransportError {
        use ContextError as Cause;
        match (cause, &self.cert) {
            (Cause::SuiteNeedsClientCertificates { name, .. }, _) => TransportError::PairForSuite(name),
            (
                cause @ (Cause::UnknownSuite { .. }
                | Cause::ForeignSuite { .. }
                | Cause::SuiteNeedsRsa { .. }
                | Cause::NoSuites { .. }
                | Cause::BadList { field: "ciphers", .. }),
                _,
            ) => TransportError::Ciphers(cause),
            (
                cause @ (Cause::UnknownGroup { .. }
                | Cause::ForeignGroup { .. }
                | Cause::BadList { field: "groups", .. }),
                _,
            ) => TransportError::Groups(cause),
            (cause @ (Cause::WrongKeyKind { .. } | Cause::Certificate { .. }), Some(path)) => {
                TransportError::Unusable { path: path.clone(), source: cause }
            }
            (cause @ Cause::BadAlpn { .. }, _) => TransportError::Alpn(cause),
            (cause @ Cause::BadServerName { .. }, _) => TransportError::ServerName(cause),
            (cause, _) => TransportError::Context(cause),
        }
    }

    fn identity(&self, protocol: ClientProtocol) -> Result<Option<ClientIdentity>, TransportError> {
        let password = self.keypass.as_ref().map(|value| Password::resolve(value.expose())).transpose()?;
        let chain = |field: &str, path: &Option<PathBuf>| {
            path.as_deref().map(|path| CertificateChain::from_file(field, path)).transpose()
        };
        let key = |field: &str, path: &Path| PrivateKey::from_file(field, path, password.as_ref());
        if let (Some(cert), Some(key_path)) = (&self.cert, &self.key) {
            if protocol == ClientProtocol::Tlcp {
                return Err(TransportError::PairNeeded);
            }
            let chain = CertificateChain::from_file("--cert", cert)?;
            let key = key("--key", key_path)?;
            if !chain.leaf.belongs_to(&key) {
                return Err(TransportError::ForeignKey { cert: cert.clone(), key: key_path.clone() });
            }
            return Ok(Some(ClientIdentity::Single(Identity { chain, key })));
        }
        if !self.has_pair() {
            return Ok(None);
        }
        if protocol != ClientProtocol::Tlcp {
            return Err(TransportError::SingleNeeded);
        }
        let parts = PairParts {
            sign: chain("--sign-cert", &self.sign_cert)?,
            sign_key: self.sign_key.as_deref().map(|path| key("--sign-key", path)).transpose()?,
            enc: chain("--enc-cert", &self.enc_cert)?,
            enc_key: self.enc_key.as_deref().map(|path| key("--enc-key", path)).transpose()?,
        };
        let pair = CertificatePair::from_parts(parts, ["--sign-cert", "--sign-key", "--enc-cert", "--enc-key"])?;
        Ok(Some(ClientIdentity::Pair(pair)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> TransportArguments {
        crate::cli::tests::try_parse(arguments).unwrap()
    }

    fn endpoint(arguments: &[&str]) -> Result<Endpoint, TransportError> {
        parse(arguments).endpoint(1024)
    }

    #[test]
    fn the_port_follows_from_the_transport() {
        for (arguments, port) in [
            (&[][..], 1883),
            (&["--ws"], 8083),
            (&["--protocol", "tls", "--insecure"], 8883),
            (&["--protocol", "tlcp", "--insecure", "--ws"], 8084),
            (&["-L", "wss+rfc8998://host", "--insecure"], 8084),
            (&["-L", "mqtt://host:99"], 99),
            (&["-p", "77"], 77),
        ] {
            assert_eq!(endpoint(arguments).unwrap().port, port, "{arguments:?}");
        }
    }

    #[test]
    fn h_is_the_host_as_in_other_clients() {
        assert_eq!(endpoint(&["-h", "broker.example"]).unwrap().host, "broker.example");
        assert_eq!(endpoint(&["-h", "::1"]).unwrap().authority(), "[::1]:1883");
    }

    #[test]
    fn a_secured_protocol_wants_a_ca() {
        for protocol in ["tls", "tls1.2", "tls1.3", "rfc8998", "tlcp"] {
            assert!(matches!(endpoint(&["--protocol", protocol]), Err(TransportError::NoCa)), "{protocol}");
        }
    }

    #[test]
    fn nothing_that_secures_is_ignored_over_tcp() {
        for option in
            [&["--insecure"][..], &["--cafile", "ca.pem"], &["--ciphers", "X"], &["--groups", "X"], &["--alpn", "mqtt"]]
        {
            let arguments = [&["--protocol", "tcp"][..], option].concat();
            assert!(matches!(endpoint(&arguments), Err(TransportError::NotSecured(_))), "{option:?}");
        }
    }

    #[test]
    fn the_protocol_follows_from_the_certificates() {
        assert_eq!(parse(&["--cafile", "ca.pem"]).protocol(), Protocol::Tls);
        assert_eq!(parse(&["--cafile", "ca.pem", "--sign-cert", "s.pem"]).protocol(), Protocol::Tlcp);
        assert_eq!(parse(&["--tls-version", "tls1.3"]).protocol(), Protocol::Tls13);
    }

    #[test]
    fn half_a_pair_names_what_is_missing() {
        let error = endpoint(&["--protocol", "tlcp", "--insecure", "--enc-cert", "/nonexistent/enc.pem"]).unwrap_err();
        assert!(error.to_string().contains("--enc-cert"), "{error}");
        let single = endpoint(&["--protocol", "tlcp", "--insecure", "--cert", "a", "--key", "b"]);
        assert!(matches!(single, Err(TransportError::PairNeeded)));
        let pair = endpoint(&["--protocol", "tls", "--insecure", "--sign-cert", "a"]);
        assert!(matches!(pair, Err(TransportError::SingleNeeded)));
    }

    #[test]
    fn suites_groups_and_keys_that_are_wrong_name_their_option() {
        let dir = tempfile::tempdir().unwrap();
        let set = crate::dev_certs::ensure(dir.path()).unwrap();
        let file = |name: &str| set.dir().join(name).display().to_string();
        let (ecdsa, rsa_key) = (file("client-ecdsa.crt"), file("client-rsa.key"));
        let (ecdsa_key, sm2_key) = (file("client-ecdsa.key"), file("client-sm2.key"));
        let pair = [file("client-sign.crt"), file("client-enc.crt"), file("client-enc.key")];
        let key_words = format!("--key {rsa_key} is not the key of the certificate in --cert {ecdsa}");
        let cert_words = format!("--cert {ecdsa}: rfc8998: the certificate of ");
        for (arguments, words) in [
            (&["--protocol", "tls", "--ciphers", "FOO"][..], "--ciphers: tls: unknown cipher suite \"FOO\""),
            (
                &["--protocol", "tls", "--ciphers", "TLS_AES_128_GCM_SHA256:BAR"],
                "--ciphers: tls: unknown cipher suite \"BAR\"",
            ),
            (&["--protocol", "tlcp", "--ciphers", "TLS_AES_128_GCM_SHA256"], "--ciphers: tlcp: cipher suite "),
            (
                &["--protocol", "tlcp", "--ciphers", "ECDHE_SM4_GCM_SM3"],
                "needs client certificates: give --sign-cert, ",
            ),
            (&["--protocol", "tls", "--groups", "FOO"], "--groups: tls: unknown group \"FOO\""),
            (&["--protocol", "tls", "--groups", "X25519:BAR"], "--groups: tls: unknown group \"BAR\""),
            (&["--protocol", "rfc8998", "--groups", "BAR"], "--groups: rfc8998: unknown group \"BAR\""),
            (&["--protocol", "tls", "--cert", &ecdsa, "--key", &rsa_key], &key_words),
            (&["--protocol", "rfc8998", "--cert", &ecdsa, "--key", &ecdsa_key], &cert_words),
            (
                &["--sign-cert", &pair[0], "--sign-key", &sm2_key, "--enc-cert", &pair[1], "--enc-key", &pair[2]],
                "is not the key of the signing certificate in --sign-cert",
            ),
        ] {
            let error = endpoint(&[arguments, &["--insecure"]].concat()).unwrap_err();
            let said = crate::causes::Causes(&error).to_string();
            assert!(said.contains(words), "{arguments:?}: {said}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let arguments = parse(&["--keypass", "opensesame"]);
        assert!(!format!("{arguments:?}").contains("opensesame"));
    }
}
