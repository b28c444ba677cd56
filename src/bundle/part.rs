//! What a bundle can hold: certificates in the clear, and secrets.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

/// One text of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// A certificate for TLS (ECDSA, RSA, Ed25519) with the issuers above it.
    Chain,
    Key,
    KeyPassword,
    /// A single SM2 certificate, for RFC 8998.
    Sm2Chain,
    Sm2Key,
    Sm2KeyPassword,
    /// The pair of TLCP.
    SignChain,
    SignKey,
    SignKeyPassword,
    EncChain,
    EncKey,
    EncKeyPassword,
    /// Authorities of clients.
    Ca,
}

impl Part {
    pub const ALL: [Part; 13] = [
        Part::Chain,
        Part::Key,
        Part::KeyPassword,
        Part::Sm2Chain,
        Part::Sm2Key,
        Part::Sm2KeyPassword,
        Part::SignChain,
        Part::SignKey,
        Part::SignKeyPassword,
        Part::EncChain,
        Part::EncKey,
        Part::EncKeyPassword,
        Part::Ca,
    ];

    /// A stable name, for files, options and interfaces.
    pub fn name(self) -> &'static str {
        match self {
            Part::Chain => "chain",
            Part::Key => "key",
            Part::KeyPassword => "key_password",
            Part::Sm2Chain => "sm2_chain",
            Part::Sm2Key => "sm2_key",
            Part::Sm2KeyPassword => "sm2_key_password",
            Part::SignChain => "sign_chain",
            Part::SignKey => "sign_key",
            Part::SignKeyPassword => "sign_key_password",
            Part::EncChain => "enc_chain",
            Part::EncKey => "enc_key",
            Part::EncKeyPassword => "enc_key_password",
            Part::Ca => "ca",
        }
    }

    pub fn from_name(name: &str) -> Option<Part> {
        Part::ALL.into_iter().find(|part| part.name() == name)
    }

    /// Whether it is encrypted at rest and never given out.
    pub fn is_secret(self) -> bool {
        !matches!(self, Part::Chain | Part::Sm2Chain | Part::SignChain | Part::EncChain | Part::Ca)
    }

    /// The password of the key that this part is.
    pub fn password(self) -> Option<Part> {
        match self {
            Part::Key => Some(Part::KeyPassword),
            Part::Sm2Key => Some(Part::Sm2KeyPassword),
            Part::SignKey => Some(Part::SignKeyPassword),
            Part::EncKey => Some(Part::EncKeyPassword),
            _ => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The texts of a bundle. Wiped when dropped; `Debug` shows which there are and no more.
#[derive(Default)]
pub struct Parts(BTreeMap<Part, Zeroizing<Vec<u8>>>);

impl Parts {
    pub fn insert(&mut self, part: Part, text: Zeroizing<Vec<u8>>) {
        self.0.insert(part, text);
    }

    pub fn get(&self, part: Part) -> Option<&[u8]> {
        self.0.get(&part).map(|text| text.as_slice())
    }

    pub fn iter(&self) -> impl Iterator<Item = (Part, &[u8])> {
        self.0.iter().map(|(part, text)| (*part, text.as_slice()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names of what there is.
    pub fn names(&self) -> String {
        if self.0.is_empty() {
            return "nothing".to_owned();
        }
        self.0.keys().map(|part| part.name()).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
