//! Who a client is, as far as something vouched for it, and what a session remembers of its owner.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytestring::ByteString;
use gm_tls::cert::{AlternativeName, CertError};
use gm_tls::identity::PeerCertificate;

use super::acl::Rules;
use super::certified::check_name;
use super::{Accepted, Peer};

/// Who a connected client is. A user name that nothing verified is not here.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Chosen by the client.
    pub client_id: ByteString,
    /// A user name that an authenticator accepted.
    pub username: Option<ByteString>,
    pub remote: IpAddr,
    /// What its connection says of it.
    pub peer: Peer,
    /// Rules that came with the credentials and alone decide: what they do not allow is refused.
    pub rules: Option<Arc<Rules>>,
}

/// What rules can ask of a verified certificate.
#[derive(Debug)]
pub struct VerifiedCertificate {
    pub(super) certificate: PeerCertificate,
    common_name: Option<String>,
    subject: String,
    issuer: String,
}

impl VerifiedCertificate {
    /// Reads what rules ask most, so that nothing decoded is kept.
    ///
    /// # Errors
    /// There is no memory to decode it.
    pub fn new(certificate: &PeerCertificate) -> Result<VerifiedCertificate, CertError> {
        let decoded = certificate.decode()?;
        Ok(VerifiedCertificate {
            // A name that different programs or people read differently names nobody.
            common_name: decoded.common_name().ok().flatten().filter(|name| check_name(name).is_ok()),
            subject: decoded.subject(),
            issuer: decoded.issuer(),
            certificate: certificate.clone(),
        })
    }

    /// What a store keeps.
    pub fn as_der(&self) -> &[u8] {
        self.certificate.as_der()
    }

    /// From what a store kept.
    ///
    /// # Errors
    /// It is no certificate.
    pub fn from_stored(der: &[u8]) -> Result<VerifiedCertificate, CertError> {
        VerifiedCertificate::new(&PeerCertificate::from_kept_der(der))
    }

    /// The subject's common name, if it has exactly one.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// As RFC 4514 writes it.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The alternative name of a kind, if it has exactly one. The certificate is decoded for it each time.
    pub fn alternative_name(&self, kind: AlternativeName) -> Option<String> {
        let name = self.certificate.decode().ok()?.alternative_name(kind).ok().flatten()?;
        check_name(&name).is_ok().then_some(name)
    }

    /// Lower-case hexadecimal.
    pub fn fingerprint_sha256(&self) -> String {
        self.certificate.fingerprint_sha256()
    }

    /// Lower-case hexadecimal.
    pub fn fingerprint_sm3(&self) -> String {
        self.certificate.fingerprint_sm3()
    }
}

impl Identity {
    /// The certificate's common name, if it has exactly one.
    pub fn common_name(&self) -> Option<&str> {
        self.peer.common_name()
    }

    /// A certificate that the transport verified; over TLCP the signing certificate.
    pub fn certificate(&self) -> Option<&VerifiedCertificate> {
        self.peer.certificate.as_deref()
    }

    /// The same client with what it was granted by authenticating again; `None` if it is somebody else now.
    pub fn renewed(&self, accepted: Accepted) -> Option<Identity> {
        (accepted.username == self.username).then(|| Identity { rules: accepted.rules, ..self.clone() })
    }

    /// To whom a session that this client opens below a mount point belongs.
    pub fn owner(&self, mount: &str) -> Owner {
        match (&self.username, &self.peer.certificate, self.peer.proxied_name.as_ref(), &self.peer.psk) {
            (Some(username), ..) => Owner::new(mount, &format!("user {username}")),
            // Not the fingerprint: a renewed certificate is the same owner.
            (None, Some(certificate), ..) => {
                Owner::new(mount, &format!("certificate {} of {}", certificate.subject, certificate.issuer))
            }
            (None, None, Some(name), _) => Owner::new(mount, &format!("certificate {name} seen by a proxy")),
            (None, None, None, Some(identity)) => Owner::new(mount, &format!("pre-shared key of {identity}")),
            (None, None, None, None) => Owner::new(mount, ""),
        }
    }
}

/// To whom a session belongs: a verified user name, a verified certificate's subject and issuer, or nobody; and the mount point that its
/// topics are below. One text, in which a NUL ends the mount point, as no topic has one.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Owner(ByteString);

impl Owner {
    fn new(mount: &str, who: &str) -> Owner {
        let nothing = mount.is_empty() && who.is_empty();
        Owner(if nothing { ByteString::new() } else { format!("{mount}\0{who}").into() })
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once('\0').unwrap_or_default()
    }

    /// Whether its topics are below the same mount point.
    pub fn has_mount_of(&self, other: &Owner) -> bool {
        self.parts().0 == other.parts().0
    }

    /// Whether it is the same client, or nobody as the other is.
    pub fn is_who(&self, other: &Owner) -> bool {
        self.parts().1 == other.parts().1
    }

    /// Whether it is the user of this verified name.
    pub fn is_user(&self, username: &str) -> bool {
        self.parts().1.strip_prefix("user ") == Some(username)
    }

    /// Whether something vouched for it.
    pub fn is_verified(&self) -> bool {
        !self.parts().1.is_empty()
    }

    /// The text that a store keeps; empty is nobody without a mount point.
    pub fn as_text(&self) -> &ByteString {
        &self.0
    }

    /// From the text that a store kept.
    pub fn from_text(text: ByteString) -> Owner {
        Owner(text)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mount, who) = self.parts();
        write!(f, "{} at {mount:?}", if who.is_empty() { "nobody" } else { who })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn identity(client_id: &str, username: Option<&str>) -> Identity {
        Identity {
            client_id: client_id.into(),
            username: username.map(ByteString::from),
            remote: [192, 0, 2, 1].into(),
            peer: Peer::default(),
            rules: None,
        }
    }

    #[test]
    fn owners_differ_by_what_was_verified() {
        let owner = |client_id, username, mount| identity(client_id, username).owner(mount);
        assert_eq!(owner("a", Some("u"), "m/"), owner("b", Some("u"), "m/"));
        assert!(!owner("a", Some("u"), "").is_who(&owner("a", Some("v"), "")));
        assert!(!owner("a", Some("u"), "").is_who(&owner("a", None, "")));
        assert_eq!(owner("a", None, ""), Owner::default());
        assert!(!owner("a", None, "m/").is_verified());
        assert!(owner("a", Some("u"), "m/").is_user("u") && !owner("a", None, "m/").is_user(""));
        for (username, mount) in [(Some("u"), ""), (Some("u"), "m/"), (None, "m/"), (Some("x\0y"), "")] {
            let owner = owner("a", username, mount);
            let read = Owner::from_text(owner.as_text().clone());
            assert_eq!(read, owner);
            assert!(read.is_who(&super::tests::identity("b", username).owner("other/")));
            assert!(!read.has_mount_of(&super::tests::identity("b", username).owner("other/")));
            assert!(read.has_mount_of(&super::tests::identity("b", None).owner(mount)));
        }
    }
}
