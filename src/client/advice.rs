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
            (HandshakeFailure::PeerAlert(70 | 40 | 71), _) => {
                format!("the server refuses {name}, or has none of the offered cipher suites")
            }
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
}
