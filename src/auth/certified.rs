//! Names that certificates give to their holders, and which of them can be relied on.
//!
//! Names are compared byte by byte everywhere, so that a name which reads like another one is a trap for people, not for rules. What only
//! serves as such a trap is no name: see [`check_name`].

use base64ct::{Base64, Encoding};
use gm_tls::cert::{AlternativeName, Certificate, NameError};
use unicode_normalization::is_nfc;

use super::{Peer, VerifiedCertificate};
use crate::config::PeerCertAs;

/// Why what a client has proved gives it no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    #[error("the client has no certificate")]
    NoCertificate,
    #[error("it has proved no pre-shared key: it offered none, or one whose identity is not known here")]
    NoKey,
    #[error("the certificate has no such name")]
    Missing,
    #[error("the certificate has more than one such name")]
    Several,
    #[error("the name holds a NUL, a control or an invisible character, or is no text")]
    Deceptive,
    #[error("the name begins or ends with a space")]
    Space,
    #[error("the name is not in normal form (Unicode NFC)")]
    NotNormal,
    #[error("the name mixes alphabets whose letters look alike, or writes letters in full width")]
    MixedAlphabets,
    #[error("the proxy tells the common name of the certificate only")]
    OnlyCommonName,
    #[error("there is no memory to read the certificate")]
    Memory,
}

impl From<NameError> for NameFault {
    fn from(error: NameError) -> NameFault {
        match error {
            NameError::Several => NameFault::Several,
            NameError::Deceptive => NameFault::Deceptive,
        }
    }
}

/// The name that a client's certificate gives it, by what the listener asks for.
///
/// # Errors
/// [`NameFault`]: the client must be refused, as it is not known who it is.
pub fn name_of(asked: PeerCertAs, peer: &Peer) -> Result<Option<String>, NameFault> {
    if asked == PeerCertAs::Disabled {
        return Ok(None);
    }
    if asked == PeerCertAs::Psk {
        return peer.psk.as_ref().map(|identity| Some(identity.to_string())).ok_or(NameFault::NoKey);
    }
    let name = match (&peer.certificate, &peer.proxied_name) {
        (Some(certificate), _) => certified(asked, certificate)?,
        (None, Some(name)) if asked == PeerCertAs::Cn => name.to_string(),
        (None, Some(_)) => return Err(NameFault::OnlyCommonName),
        (None, None) => return Err(NameFault::NoCertificate),
    };
    check_name(&name)?;
    Ok(Some(name))
}

fn certified(asked: PeerCertAs, certificate: &VerifiedCertificate) -> Result<String, NameFault> {
    let decoded = || certificate.certificate.decode().map_err(|_| NameFault::Memory);
    let alternative = |kind| decoded()?.alternative_name(kind)?.ok_or(NameFault::Missing);
    match asked {
        PeerCertAs::Disabled | PeerCertAs::Psk => Err(NameFault::Missing),
        PeerCertAs::Cn => decoded()?.common_name()?.ok_or(NameFault::Missing),
        PeerCertAs::Dn => distinguished_name(&decoded()?),
        PeerCertAs::Crt => Ok(base16ct::lower::encode_string(certificate.as_der())),
        PeerCertAs::Pem => Ok(Base64::encode_string(certificate.as_der())),
        PeerCertAs::Md5 => Ok(certificate.certificate.fingerprint_md5()),
        PeerCertAs::Sm3 => Ok(certificate.fingerprint_sm3()),
        PeerCertAs::Sha256 => Ok(certificate.fingerprint_sha256()),
        PeerCertAs::SanDns => alternative(AlternativeName::Dns),
        PeerCertAs::SanEmail => alternative(AlternativeName::Email),
        PeerCertAs::SanUri => alternative(AlternativeName::Uri),
        PeerCertAs::SanIp => alternative(AlternativeName::Ip),
    }
}

/// The subject as text. Its values are looked at one by one: the text has escapes for what must not be there, and may well have several
/// alphabets in several values.
fn distinguished_name(certificate: &Certificate) -> Result<String, NameFault> {
    let values = certificate.subject_values()?;
    if values.is_empty() {
        return Err(NameFault::Missing);
    }
    values.iter().try_for_each(|value| check_value(value))?;
    Ok(certificate.subject())
}

/// Whether a text may be the name of somebody: a good value, not empty, and without a space at either end, which nobody sees.
///
/// # Errors
/// The first of these that is not so.
pub fn check_name(name: &str) -> Result<(), NameFault> {
    if name.is_empty() {
        return Err(NameFault::Missing);
    }
    if name.trim() != name {
        return Err(NameFault::Space);
    }
    check_value(name)
}

/// Whether a text may be a part of a name: no character that is hidden or obeyed, in Unicode's normal form C, with letters of at most
/// one alphabet in which others have letters that look the same (Latin, Greek, Cyrillic, Armenian, Cherokee), and no Latin letters or
/// digits in full width or in mathematical styles. Han, Kana, Hangul and whatever else may stand beside any of them.
///
/// # Errors
/// The first of these that is not so.
fn check_value(name: &str) -> Result<(), NameFault> {
    if name.chars().any(gm_tls::cert::is_deceptive) {
        return Err(NameFault::Deceptive);
    }
    if !is_nfc(name) {
        return Err(NameFault::NotNormal);
    }
    let mut alphabets = name.chars().filter_map(Alphabet::of);
    let first = alphabets.next();
    let same = |alphabet: Alphabet| alphabet != Alphabet::Styled && Some(alphabet) == first;
    if first == Some(Alphabet::Styled) || !alphabets.all(same) {
        return Err(NameFault::MixedAlphabets);
    }
    Ok(())
}

/// Alphabets whose letters are taken for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alphabet {
    Latin,
    Greek,
    Cyrillic,
    Armenian,
    Cherokee,
    /// Latin letters and digits that are no letters of a language: full width, mathematical, enclosed.
    Styled,
}

impl Alphabet {
    fn of(c: char) -> Option<Alphabet> {
        match c {
            'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{2af}' | '\u{1e00}'..='\u{1eff}' | '\u{2c60}'..='\u{2c7f}' => {
                Some(Alphabet::Latin)
            }
            '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Some(Alphabet::Greek),
            '\u{400}'..='\u{52f}' | '\u{1c80}'..='\u{1c8f}' | '\u{2de0}'..='\u{2dff}' | '\u{a640}'..='\u{a69f}' => {
                Some(Alphabet::Cyrillic)
            }
            '\u{530}'..='\u{58f}' => Some(Alphabet::Armenian),
            '\u{13a0}'..='\u{13ff}' | '\u{ab70}'..='\u{abbf}' => Some(Alphabet::Cherokee),
            '\u{ff10}'..='\u{ff19}'
            | '\u{ff21}'..='\u{ff3a}'
            | '\u{ff41}'..='\u{ff5a}'
            | '\u{1d400}'..='\u{1d7ff}'
            | '\u{2100}'..='\u{214f}'
            | '\u{2460}'..='\u{24ff}' => Some(Alphabet::Styled),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_people_and_devices_are_names() {
        for name in [
            "meter-17",
            "电表-17",
            "北京（一号）",
            "Müller",
            "счётчик 17",
            "μετρητής",
            "a.b_c@d",
            "水表A１".trim_end_matches('１'),
        ] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_pass_for_others_are_none() {
        for (name, fault) in [
            ("admin\0", NameFault::Deceptive),
            ("ad\u{200b}min", NameFault::Deceptive),
            ("\u{202e}nimda", NameFault::Deceptive),
            ("a\nb", NameFault::Deceptive),
            ("", NameFault::Missing),
            (" ", NameFault::Space),
            ("admin ", NameFault::Space),
            ("\u{3000}admin", NameFault::Space),
            ("Mu\u{308}ller", NameFault::NotNormal),
            // Cyrillic а, Greek ο, full width, mathematical.
            ("\u{430}dmin", NameFault::MixedAlphabets),
            ("r\u{3bf}\u{3bf}t", NameFault::MixedAlphabets),
            ("\u{ff41}dmin", NameFault::MixedAlphabets),
            ("\u{ff11}", NameFault::MixedAlphabets),
            ("\u{1d41a}", NameFault::MixedAlphabets),
        ] {
            assert_eq!(check_name(name), Err(fault), "{name:?}");
        }
    }

    #[test]
    fn a_proxy_names_the_common_name_and_nothing_else() {
        let peer = Peer { proxied_name: Some("meter".into()), ..Peer::default() };
        assert_eq!(name_of(PeerCertAs::Cn, &peer), Ok(Some("meter".to_owned())));
        assert_eq!(name_of(PeerCertAs::Sm3, &peer), Err(NameFault::OnlyCommonName));
        assert_eq!(name_of(PeerCertAs::Cn, &Peer::default()), Err(NameFault::NoCertificate));
        assert_eq!(name_of(PeerCertAs::Disabled, &Peer::default()), Ok(None));
    }
}
