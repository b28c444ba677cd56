//! Who a client is, as far as something vouched for it, and what a session remembers of its owner.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytestring::ByteString;
use gm_tls::cert::{AlternativeName, CertError, Certificate};
use gm_tls::identity::PeerCertificate;
use sha2::{Digest, Sha256};

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
    /// What tells it from others of its issuer that have no subject either.
    without_subject: Option<String>,
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
            without_subject: decoded.subject().is_empty().then(|| names_without_subject(&decoded)),
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
        let owner = match (&self.username, &self.peer.certificate, self.peer.proxied_name.as_ref(), &self.peer.psk) {
            (Some(username), ..) => Owner::new(mount, &format!("user {username}")),
            // Not the fingerprint: a renewed certificate is the same owner.
            (None, Some(certificate), ..) => {
                let name = certificate.without_subject.as_deref().unwrap_or(&certificate.subject);
                Owner::new(mount, &format!("certificate {name} of {}", certificate.issuer))
            }
            (None, None, Some(name), _) => Owner::new(mount, &format!("certificate {name} seen by a proxy")),
            (None, None, None, Some(identity)) => Owner::new(mount, &format!("pre-shared key of {identity}")),
            (None, None, None, None) => Owner::new(mount, ""),
        };
        Owner { key: self.peer.psk.clone(), ..owner }
    }
}

/// A digest of the alternative names in one order, or of the certificate if there are none.
fn names_without_subject(decoded: &Certificate) -> String {
    let mut addresses: Vec<String> = decoded.san_ip().iter().map(ToString::to_string).collect();
    let (mut dns, mut email, mut uri) = (decoded.san_dns(), decoded.san_email(), decoded.san_uri());
    for names in [&mut addresses, &mut dns, &mut email, &mut uri] {
        names.sort_unstable();
    }
    if addresses.is_empty() && dns.is_empty() && email.is_empty() && uri.is_empty() {
        return format!("without names {}", decoded.fingerprint_sha256());
    }
    // Quoted, so that no name can look like two.
    let digest = Sha256::digest(format!("{dns:?}{email:?}{uri:?}{addresses:?}"));
    digest.iter().fold("with names ".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// To whom a session belongs: a verified user name, a verified certificate's subject and issuer, or nobody; and the mount point that its
/// topics are below. One text, in which a NUL ends the mount point, as no topic has one.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Owner {
    text: ByteString,
    /// The identity of the pre-shared key that it was let in by, also where it is a user besides. Not stored: whoever comes back shows it.
    key: Option<ByteString>,
}

impl Owner {
    fn new(mount: &str, who: &str) -> Owner {
        let nothing = mount.is_empty() && who.is_empty();
        let text = if nothing { ByteString::new() } else { format!("{mount}\0{who}").into() };
        Owner { text, key: None }
    }

    fn parts(&self) -> (&str, &str) {
        self.text.split_once('\0').unwrap_or_default()
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

    /// Whether it was let in by the pre-shared key of this identity.
    pub fn is_key(&self, identity: &str) -> bool {
        self.key.as_deref() == Some(identity)
    }

    /// Whether something vouched for it.
    pub fn is_verified(&self) -> bool {
        !self.parts().1.is_empty()
    }

    /// The text that a store keeps; empty is nobody without a mount point.
    pub fn as_text(&self) -> &ByteString {
        &self.text
    }

    /// From the text that a store kept.
    pub fn from_text(text: ByteString) -> Owner {
        Owner { text, key: None }
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
    use gm_tls::cert::KeyKind;
    use gm_tls::pki::{AlternativeNames, AuthorityProfile, CertificateAuthority, Profile, Subject};

    pub(crate) fn identity(client_id: &str, username: Option<&str>) -> Identity {
        Identity {
            client_id: client_id.into(),
            username: username.map(ByteString::from),
            remote: [192, 0, 2, 1].into(),
            peer: Peer::default(),
            rules: None,
        }
    }

    /// All certificates without a subject were one owner of each issuer.
    #[test]
    fn certificates_without_a_subject_differ_by_their_alternative_names() {
        let ca = Subject::common_name("ca");
        let ca = CertificateAuthority::create(&ca, KeyKind::EcP256, &AuthorityProfile::new(10, None), 0).unwrap();
        let of = |dns: &[&str]| {
            let names =
                AlternativeNames { dns: dns.iter().map(|&name| name.to_owned()).collect(), ..Default::default() };
            let subject = Subject::common_name("is not looked at");
            let issued = ca.issue_single(&subject, &names, KeyKind::EcP256, &Profile::client(1), 0).unwrap();
            names_without_subject(&issued.chain.leaf)
        };
        assert_eq!(of(&["a.test", "b.test"]), of(&["b.test", "a.test"]), "one that was renewed");
        assert_ne!(of(&["a.test"]), of(&["b.test"]));
        assert_ne!(of(&[]), of(&[]), "nothing says that they belong together");
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
        let peer = Peer { psk: Some("k".into()), ..Peer::default() };
        for username in [None, Some("u")] {
            let owner = Identity { peer: peer.clone(), ..identity("a", username) }.owner("m/");
            assert!(owner.is_key("k") && !owner.is_key("u") && owner.is_user("u") == username.is_some());
        }
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
