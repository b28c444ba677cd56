//! Alerts of a peer: their names, and what they mean to who gets one.

use std::io;

use openssl::error::ErrorStack;

/// Offset at which the library reports alerts received from the peer, `SSL_AD_REASON_OFFSET`.
const ALERT_OFFSET: i32 = 1000;

/// A fatal alert that came from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("alert {0} ({name})", name = name(*.0))]
pub(crate) struct PeerAlert(pub(crate) u8);

/// The end of an established connection by an alert, within an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("the peer ended the connection with {0}")]
struct Ended(PeerAlert);

impl PeerAlert {
    /// The alert in one of the library's reasons.
    pub(crate) fn from_library(reason: i32) -> Option<Self> {
        reason.checked_sub(ALERT_OFFSET).and_then(|code| u8::try_from(code).ok()).map(Self)
    }

    /// The alert in the first of the library's errors.
    pub(crate) fn in_stack(errors: &ErrorStack) -> Option<Self> {
        Self::from_library(errors.errors().first()?.reason_code())
    }

    /// As an error of the connection that it ended.
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, Ended(self))
    }

    /// The alert that ended a connection.
    pub(crate) fn in_io(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Ended>().map(|ended| ended.0)
    }
}

/// The alert of a peer as a metric's label.
pub(crate) fn label(alert: u8) -> &'static str {
    match alert {
        40 => "alert_handshake_failure",
        42 => "alert_bad_certificate",
        43 => "alert_unsupported_certificate",
        44 => "alert_certificate_revoked",
        45 => "alert_certificate_expired",
        46 => "alert_certificate_unknown",
        47 => "alert_illegal_parameter",
        48 => "alert_unknown_ca",
        49 => "alert_access_denied",
        50 => "alert_decode_error",
        51 => "alert_decrypt_error",
        70 => "alert_protocol_version",
        71 => "alert_insufficient_security",
        80 => "alert_internal_error",
        112 => "alert_unrecognized_name",
        116 => "alert_certificate_required",
        120 => "alert_no_application_protocol",
        _ => "alert_other",
    }
}

/// What a peer most likely means by an alert, and what to do.
pub(crate) fn meaning(alert: u8) -> Option<&'static str> {
    Some(match alert {
        40 => "it found nothing in common with this side, or a certificate that it wants is missing",
        42 | 43 | 46 => {
            "it does not take this side's certificate; ask it why, its names and usages are the usual causes"
        }
        44 => "to it, this side's certificate is revoked",
        45 => "to it, this side's certificate has expired; compare the clocks",
        48 => {
            "it does not know the authority of this side's certificate: it lacks the CA, or the file of the certificate lacks an intermediate"
        }
        51 => "to it, a signature of this side is wrong; over SM2, compare the signer's identity",
        70 => "it does not speak the version that was chosen",
        71 => "the keys or suites of this side are too weak to it",
        112 => "it is not the host that was asked for",
        116 => "it asks for a certificate, and this side has shown none",
        _ => return None,
    })
}

/// Names of RFC 8446 section 6.2 and of the alert protocol of GB/T 38636-2020.
fn name(alert: u8) -> &'static str {
    match alert {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        21 => "decryption_failed",
        22 => "record_overflow",
        30 => "decompression_failure",
        40 => "handshake_failure",
        41 => "no_certificate",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        100 => "no_renegotiation",
        109 => "missing_extension",
        110 => "unsupported_extension",
        112 => "unrecognized_name",
        116 => "certificate_required",
        120 => "no_application_protocol",
        _ => "unknown",
    }
}
