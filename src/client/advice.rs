//! What a user can do about a handshake that failed: whose certificate it was, and which option gives another.

use gm_tls::HandshakeFailure;

/// What the client was given, as the user gave it.
#[derive(Debug, Clone, Default)]
pub struct Advice {
    /// The authorities that the server's certificate must lead to, such as `--cafile ca.crt`.
    pub trusted: Option<String>,
    /// The certificate that the client shows, such as `--cert client.crt`.
    pub shown: Option<String>,
    /// The options that give it one.
    pub wanted: &'static str,
    /// The cipher suites that it offers, such as `--ciphers ECC_SM4_GCM_SM3`; `None` for those that are usual.
    pub suites: Option<String>,
    /// The groups of the key exchange alike.
    pub groups: Option<String>,
}

impl Advice {
    /// The advice about a failure of a handshake by `name`; `None` where the failure says all that is known.
    pub fn about(&self, name: &str, failure: HandshakeFailure) -> Option<String> {
        Some(match (failure, &self.shown) {
            (HandshakeFailure::NoCertificate, _) => {
                format!("the server asks for a client certificate: give {}", self.wanted)
            }
            (HandshakeFailure::UnknownCa, _) => match &self.trusted {
                Some(trusted) => format!("the server's certificate does not lead to any CA in {trusted}"),
                None => "the server's certificate does not lead to a known CA".to_owned(),
            },
            (HandshakeFailure::WrongHost, _) => {
                "the server's certificate is for another name; --sni NAME asks for that name".to_owned()
            }
            (HandshakeFailure::Expired, _) => {
                "the server's certificate has expired; or this machine's clock is wrong".to_owned()
            }
            (HandshakeFailure::NotYetValid, _) => {
                "the server's certificate is not valid yet; or this machine's clock is wrong".to_owned()
            }
            (HandshakeFailure::PeerAlert(48), Some(shown)) => {
                format!(
                    "the server does not trust the client certificate ({shown}): it does not lead to a CA of the server"
                )
            }
            (HandshakeFailure::PeerAlert(44), Some(shown)) => {
                format!("to the server, the client certificate ({shown}) is revoked")
            }
            (HandshakeFailure::PeerAlert(45), Some(shown)) => {
                format!("to the server, the client certificate ({shown}) has expired; or its clock is wrong")
            }
            (HandshakeFailure::PeerAlert(42 | 43 | 46 | 49), Some(shown)) => {
                format!("the server does not take the client certificate ({shown}); its log says why")
            }
            (HandshakeFailure::PeerAlert(70), _) => {
                format!("the server does not speak {name}, or not in a version that was offered")
            }
            (HandshakeFailure::PeerAlert(40), _) => self.nothing_shared(name),
            (HandshakeFailure::PeerAlert(71), _) => format!(
                "to the server, the {} or the keys of this client are too weak",
                self.offered(name).join(" or the ")
            ),
            (HandshakeFailure::PeerAlert(112), _) => {
                "the server has no certificate for the name it was asked for; --sni NAME asks for another".to_owned()
            }
            (HandshakeFailure::PeerAlert(120), _) => {
                "the server speaks none of the application protocols offered; --alpn names others".to_owned()
            }
            (HandshakeFailure::Closed, _) => format!("the server ended it; perhaps nothing there speaks {name}"),
            _ => return None,
        })
    }

    /// What it can be that a server finds wrong which only says that the handshake failed.
    fn nothing_shared(&self, name: &str) -> String {
        let certificate = match &self.shown {
            Some(shown) => format!("does not take the client certificate ({shown})"),
            None => format!("wants a client certificate ({})", self.wanted),
        };
        let mut missing = self.offered(name);
        // Over TLCP the suite says it.
        if name != TLCP {
            missing.push("signature algorithms".to_owned());
        }
        let missing = missing.join(" or ");
        format!(
            "the server has none of this client's {missing}, or {certificate}, or does not serve {name}; its log says which"
        )
    }

    /// Of what the client made an offer, with what the user chose of it.
    fn offered(&self, name: &str) -> Vec<String> {
        let chosen = |what: &str, named: &Option<String>| match named {
            Some(named) => format!("{what} ({named})"),
            None => what.to_owned(),
        };
        let mut offered = vec![chosen("cipher suites", &self.suites)];
        if name != TLCP {
            offered.push(chosen("groups", &self.groups));
        }
        offered
    }
}

/// The protocol that knows no groups and no signature algorithms besides its suites.
const TLCP: &str = "TLCP";

#[cfg(test)]
mod tests {
    use super::*;

    // A client whose groups alone were wrong was told of its cipher suites.
    #[test]
    fn a_handshake_that_failed_for_whatever_reason_names_all_that_it_may_be() {
        let advice = Advice {
            wanted: "--cert and --key",
            groups: Some("--groups X25519MLKEM768".to_owned()),
            ..Advice::default()
        };
        let failed = HandshakeFailure::PeerAlert(40);
        let said = advice.about("TLS", failed).unwrap();
        for part in [
            "cipher suites",
            "groups (--groups X25519MLKEM768)",
            "signature algorithms",
            "--cert and --key",
            "serve TLS",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let advice = Advice { shown: Some("--sign-cert s.crt".to_owned()), ..advice };
        let said = advice.about("TLCP", failed).unwrap();
        assert!(said.contains("cipher suites, or does not take the client certificate (--sign-cert s.crt)"), "{said}");
        assert!(!said.contains("groups") && !said.contains("signature"), "{said}");
        assert!(advice.about("TLS", HandshakeFailure::PeerAlert(71)).unwrap().contains("groups (--groups "));
        assert!(!advice.about("TLS", HandshakeFailure::PeerAlert(70)).unwrap().contains("cipher"));
    }
}
