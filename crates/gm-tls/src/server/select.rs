//! Which context answers a hello, or why none does.

use super::{ContextKind, ServerContext, ServerContexts};
use crate::hello::{ClientHello, HelloKind, TLCP_VERSION, alert, fatal_alert};

/// A hello that no context can answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct Refusal {
    pub kind: RefusalKind,
    record_version: u16,
}

/// Why a hello is refused, in words for the operator. The client learns an alert alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusalKind {
    #[error("the client speaks TLCP, which this listener does not serve; add \"tlcp\" to its protocols to serve it")]
    TlcpNotEnabled,
    #[error("the client speaks TLS, which this listener does not serve; add \"tls\" to its protocols to serve it")]
    TlsNotEnabled,
    #[error(
        "the client's record header says TLCP (0101) but its hello says version {client_version:04x}; one of them was altered or the client is broken"
    )]
    VersionsDisagree { client_version: u16 },
    #[error(
        "the client fell back to TLCP although this listener also serves TLS, which only an attack or a bug explains"
    )]
    Fallback,
    #[error("the client and the {block} block of this listener have no cipher suite in common: it offers {offered}")]
    NoSharedSuite { block: &'static str, offered: String },
    #[error(
        "this listener serves TLS only by RFC 8998, and the client does not offer {missing}; add \"tls\" to the listener's protocols to serve ordinary TLS"
    )]
    NotRfc8998 { missing: &'static str },
}

impl RefusalKind {
    /// A stable name in snake case, for metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::TlcpNotEnabled => "tlcp_not_enabled",
            Self::TlsNotEnabled => "tls_not_enabled",
            Self::VersionsDisagree { .. } => "versions_disagree",
            Self::Fallback => "fallback",
            Self::NoSharedSuite { .. } => "no_shared_suite",
            Self::NotRfc8998 { .. } => "not_rfc8998",
        }
    }
}

impl Refusal {
    fn new(kind: RefusalKind, hello: &ClientHello) -> Self {
        Self { kind, record_version: hello.record_version }
    }

    /// The alert to send before closing: its code (RFC 8446 section 6.2, GB/T 38636-2020).
    pub fn alert(&self) -> u8 {
        match self.kind {
            RefusalKind::TlcpNotEnabled | RefusalKind::TlsNotEnabled | RefusalKind::VersionsDisagree { .. } => {
                alert::PROTOCOL_VERSION
            }
            RefusalKind::Fallback => INAPPROPRIATE_FALLBACK,
            RefusalKind::NoSharedSuite { .. } | RefusalKind::NotRfc8998 { .. } => HANDSHAKE_FAILURE,
        }
    }

    /// The alert as a record in the version of the client's own, level fatal.
    pub fn alert_record(&self) -> [u8; 7] {
        fatal_alert(self.record_version, self.alert())
    }
}

const HANDSHAKE_FAILURE: u8 = 40;
/// RFC 7507.
const INAPPROPRIATE_FALLBACK: u8 = 86;
/// Longest list of suites put into a refusal's words.
const MAX_SUITES_SHOWN: usize = 16;

impl ServerContexts {
    /// Chooses the context for a hello.
    ///
    /// TLCP is told by the record's version, and the hello's must agree with it. A TLS client gets RFC 8998 if it offers all
    /// that needs (an SM suite, curveSM2 or its hybrid, sm2sig_sm3) and either there is no context for TLS proper, or
    /// `prefer_sm` is set, or the first suite of TLS 1.3 in its list that this server has is an SM suite.
    ///
    /// # Errors
    /// [`Refusal`] with the alert to send.
    pub fn select(&self, hello: &ClientHello) -> Result<&ServerContext, Refusal> {
        let refuse = |kind| Err(Refusal::new(kind, hello));
        match hello.kind() {
            HelloKind::Tlcp => {
                if hello.client_version != TLCP_VERSION {
                    return refuse(RefusalKind::VersionsDisagree { client_version: hello.client_version });
                }
                let Some(tlcp) = &self.tlcp else { return refuse(RefusalKind::TlcpNotEnabled) };
                // The TLCP implementation of the library ignores this signal.
                if hello.is_fallback() && (self.tls.is_some() || self.rfc8998.is_some()) {
                    return refuse(RefusalKind::Fallback);
                }
                with_shared_suite(tlcp, hello)
            }
            HelloKind::Rfc8998Capable => match (&self.rfc8998, &self.tls) {
                (None, None) => refuse(RefusalKind::TlsNotEnabled),
                (Some(sm), None) => with_shared_suite(sm, hello),
                (None, Some(tls)) => with_shared_suite(tls, hello),
                (Some(sm), Some(tls)) => {
                    if shares_suite(sm, hello) && (self.prefer_sm || prefers(hello, sm, tls)) {
                        Ok(sm)
                    } else if shares_suite(tls, hello) {
                        Ok(tls)
                    } else {
                        with_shared_suite(sm, hello)
                    }
                }
            },
            HelloKind::Tls => match (&self.tls, &self.rfc8998) {
                (Some(tls), _) => with_shared_suite(tls, hello),
                (None, Some(_)) => refuse(RefusalKind::NotRfc8998 { missing: missing_for_rfc8998(hello) }),
                (None, None) => refuse(RefusalKind::TlsNotEnabled),
            },
        }
    }
}

fn shares_suite(context: &ServerContext, hello: &ClientHello) -> bool {
    hello.suites.iter().any(|suite| context.suites.contains(suite))
}

fn with_shared_suite<'a>(context: &'a ServerContext, hello: &ClientHello) -> Result<&'a ServerContext, Refusal> {
    if shares_suite(context, hello) {
        return Ok(context);
    }
    let shown = hello.suites.iter().take(MAX_SUITES_SHOWN).map(|suite| match crate::suites::by_id(*suite) {
        Some(known) => known.name.to_owned(),
        None => format!("{suite:04x}"),
    });
    let mut offered = shown.collect::<Vec<_>>().join(" ");
    if hello.suites.len() > MAX_SUITES_SHOWN {
        offered.push_str(" ...");
    }
    Err(Refusal::new(RefusalKind::NoSharedSuite { block: context.kind.name(), offered }, hello))
}

/// Whether the first suite of TLS 1.3 in the client's list that either context has is an SM suite.
fn prefers(hello: &ClientHello, sm: &ServerContext, tls: &ServerContext) -> bool {
    let is_tls13 = |suite: u16| (0x1301..=0x13ff).contains(&suite);
    hello.suites.iter().find_map(|suite| {
        let by_sm = sm.kind == ContextKind::Rfc8998 && sm.suites.contains(suite);
        (by_sm || (is_tls13(*suite) && tls.suites.contains(suite))).then_some(by_sm)
    }) == Some(true)
}

fn missing_for_rfc8998(hello: &ClientHello) -> &'static str {
    if !hello.offers_tls13() {
        "TLS 1.3"
    } else if !hello.suites.iter().any(|suite| matches!(suite, 0x00c6 | 0x00c7)) {
        "TLS_SM4_GCM_SM3 or TLS_SM4_CCM_SM3"
    } else if !hello.groups.iter().any(|group| matches!(group, 41 | 4590)) {
        "the group curveSM2"
    } else {
        "the signature algorithm sm2sig_sm3"
    }
}
