//! Which names of a client's certificate become its user name and its client identifier.

use super::error::{ConfigError, Origin};
use super::listener::ListenerConfig;
use super::section::Section;
use super::value::{Choice, Word};

/// What of a certificate is a name. The words are those of EMQX, and some more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PeerCertAs {
    #[default]
    Disabled,
    /// The common name.
    Cn,
    /// The whole subject as RFC 4514 writes it.
    Dn,
    /// The encoding in hexadecimal.
    Crt,
    /// The encoding in Base64, on one line and without BEGIN and END.
    Pem,
    /// Digests of the encoding in lower-case hexadecimal.
    Md5,
    Sm3,
    Sha256,
    /// The alternative name of the kind, of which there must be one.
    SanDns,
    SanEmail,
    SanUri,
    SanIp,
    /// No certificate at all: the identity of the pre-shared key that was shown.
    Psk,
}

impl Choice for PeerCertAs {
    const WORDS: &'static [(&'static str, PeerCertAs)] = &[
        ("disabled", PeerCertAs::Disabled),
        ("cn", PeerCertAs::Cn),
        ("dn", PeerCertAs::Dn),
        ("crt", PeerCertAs::Crt),
        ("pem", PeerCertAs::Pem),
        ("md5", PeerCertAs::Md5),
        ("sm3", PeerCertAs::Sm3),
        ("sha256", PeerCertAs::Sha256),
        ("san_dns", PeerCertAs::SanDns),
        ("san_email", PeerCertAs::SanEmail),
        ("san_uri", PeerCertAs::SanUri),
        ("san_ip", PeerCertAs::SanIp),
        ("psk", PeerCertAs::Psk),
    ];
}

/// `peer_cert_as_username` and `peer_cert_as_clientid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerNames {
    pub username: PeerCertAs,
    pub client_id: PeerCertAs,
}

const KEYS: [&str; 2] = ["peer_cert_as_username", "peer_cert_as_clientid"];

impl PeerNames {
    /// Whether any name is taken from certificates.
    pub fn is_on(self) -> bool {
        self != PeerNames::default()
    }

    /// Reads both keys of a section, which override `outer`.
    pub(super) fn read(section: &mut Section<'_>, outer: PeerNames) -> PeerNames {
        let [username, client_id] = KEYS;
        PeerNames {
            username: section.read(username, Word(outer.username)).0,
            client_id: section.read(client_id, Word(outer.client_id)).0,
        }
    }

    /// Reads the keys of a listener. Where it does not learn of certificates, the keys of `[mqtt]` do not concern it, and its own are
    /// a mistake: every client would be refused, or worse, be taken for who it says it is.
    pub(super) fn read_of_listener(section: &mut Section<'_>, outer: PeerNames, learns: bool) -> PeerNames {
        let names = PeerNames::read(section, if learns { outer } else { PeerNames::default() });
        if !learns && names.is_on() {
            let key = KEYS.into_iter().find(|key| section.has(key)).unwrap_or_default();
            let reason = "this listener learns of no client certificate";
            let suggestion = "set verify = \"verify_peer\" with a cacertfile in its options, or proxy_protocol_tls";
            section.error(key, reason, Some(suggestion.to_owned()));
        }
        names
    }

    /// What `[mqtt]` asks of certificates where no listener learns of any.
    pub(super) fn useless(self, listeners: &[ListenerConfig]) -> Option<ConfigError> {
        let learns = listeners.iter().any(ListenerConfig::learns_of_certificates);
        (self.is_on() && !learns && !listeners.is_empty()).then(|| {
            let key = if self.username == PeerCertAs::Disabled {
                "mqtt.peer_cert_as_clientid"
            } else {
                "mqtt.peer_cert_as_username"
            };
            ConfigError::new(
                Origin::Default,
                key,
                "no listener learns of client certificates, so it would have no effect",
            )
            .suggest("set verify = \"verify_peer\" with a cacertfile at the listeners it is meant for, or remove it")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn listener(lines: &str, options: &str) -> String {
        let files = "certfile = \"a\"\nkeyfile = \"b\"\n";
        format!("[listeners.ssl.a]\nbind = \"127.0.0.1:0\"\n{lines}[listeners.ssl.a.ssl_options]\n{files}{options}")
    }

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("c.toml"), text, []).map_err(|errors| errors.to_string())
    }

    const VERIFIES: &str = "verify = \"verify_peer\"\ncacertfile = \"c\"\n";

    #[test]
    fn a_listener_s_own_word_goes_before_that_for_all() {
        let all = "[mqtt]\npeer_cert_as_username = \"cn\"\n";
        let names = |text: String| parse(&text).unwrap().listeners[0].peer_names;
        let of_all = PeerNames { username: PeerCertAs::Cn, client_id: PeerCertAs::Disabled };
        assert_eq!(names(all.to_owned() + &listener("", VERIFIES)), of_all);
        let own = "peer_cert_as_username = \"san_email\"\npeer_cert_as_clientid = \"sm3\"\n";
        let both = PeerNames { username: PeerCertAs::SanEmail, client_id: PeerCertAs::Sm3 };
        assert_eq!(names(all.to_owned() + &listener(own, VERIFIES)), both);
        // A listener beside it that asks for no certificate goes on as before.
        let plain = "[listeners.tcp.b]\nbind = \"127.0.0.1:0\"\n";
        let config = parse(&(all.to_owned() + &listener("", VERIFIES) + plain)).unwrap();
        let of_plain = config.listeners.iter().find(|listener| listener.name == "b").unwrap();
        assert_eq!(of_plain.peer_names, PeerNames::default());
    }

    #[test]
    fn names_from_certificates_that_nobody_asks_for_are_a_mistake() {
        let own = parse(&listener("peer_cert_as_clientid = \"cn\"\n", "")).unwrap_err();
        assert!(own.contains("listeners.ssl.a.peer_cert_as_clientid: this listener learns of no client"), "{own}");
        let all = "[mqtt]\npeer_cert_as_clientid = \"dn\"\n";
        let all = parse(&(all.to_owned() + &listener("", ""))).unwrap_err();
        assert!(all.contains("mqtt.peer_cert_as_clientid: no listener learns of client certificates"), "{all}");
        let word = parse(&listener("peer_cert_as_username = \"common_name\"\n", VERIFIES)).unwrap_err();
        assert!(word.contains("`common_name` is not a known value"), "{word}");
        let proxy = parse(&listener("proxy_protocol_tls = true\n", VERIFIES)).unwrap_err();
        assert!(proxy.contains("without proxy_protocol no proxy says anything"), "{proxy}");
    }
}
