//! The cipher suites that can be configured, with the names each world gives them. Which suites a context accepts is always
//! pinned by such a list: the library's own defaults would let a peer pick suites nobody asked for.

/// Which contexts a suite belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SuiteProtocol {
    Tls12,
    Tls13,
    /// TLS 1.3 with SM4 and SM3, RFC 8998.
    Rfc8998,
    /// GB/T 38636-2020.
    Tlcp,
}

/// How the key exchange of a suite authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SuiteKind {
    /// Static SM2 encryption of the premaster secret: no forward secrecy, client certificate optional.
    Ecc,
    /// SM2 key exchange with both parties' certificates: a client pair is mandatory.
    Ecdhe,
    /// Static RSA encryption of the premaster secret.
    Rsa,
    /// TLS 1.2 ECDHE signed with ECDSA or RSA.
    EcdheSigned,
    /// TLS 1.3: the suite does not name a key exchange.
    Any,
}

/// One cipher suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suite {
    /// Code point on the wire.
    pub id: u16,
    /// Name by GB/T 38636-2020 for TLCP, by IANA for TLS.
    pub name: &'static str,
    /// Name in cipher lists of the library.
    pub library_name: &'static str,
    pub protocol: SuiteProtocol,
    pub kind: SuiteKind,
}

const fn suite(
    id: u16,
    name: &'static str,
    library_name: &'static str,
    protocol: SuiteProtocol,
    kind: SuiteKind,
) -> Suite {
    Suite { id, name, library_name, protocol, kind }
}

/// Every suite with a name of its own here; others can still be named in a TLS 1.2 cipher list.
pub const SUITES: &[Suite] = &[
    suite(0xe053, "ECC_SM4_GCM_SM3", "ECC-SM2-SM4-GCM-SM3", SuiteProtocol::Tlcp, SuiteKind::Ecc),
    suite(0xe013, "ECC_SM4_CBC_SM3", "ECC-SM2-SM4-CBC-SM3", SuiteProtocol::Tlcp, SuiteKind::Ecc),
    suite(0xe051, "ECDHE_SM4_GCM_SM3", "ECDHE-SM2-SM4-GCM-SM3", SuiteProtocol::Tlcp, SuiteKind::Ecdhe),
    suite(0xe011, "ECDHE_SM4_CBC_SM3", "ECDHE-SM2-SM4-CBC-SM3", SuiteProtocol::Tlcp, SuiteKind::Ecdhe),
    suite(0xe059, "RSA_SM4_GCM_SM3", "RSA-SM4-GCM-SM3", SuiteProtocol::Tlcp, SuiteKind::Rsa),
    suite(0xe019, "RSA_SM4_CBC_SM3", "RSA-SM4-CBC-SM3", SuiteProtocol::Tlcp, SuiteKind::Rsa),
    suite(0xe05a, "RSA_SM4_GCM_SHA256", "RSA-SM4-GCM-SHA256", SuiteProtocol::Tlcp, SuiteKind::Rsa),
    suite(0xe01c, "RSA_SM4_CBC_SHA256", "RSA-SM4-CBC-SHA256", SuiteProtocol::Tlcp, SuiteKind::Rsa),
    suite(0x00c6, "TLS_SM4_GCM_SM3", "TLS_SM4_GCM_SM3", SuiteProtocol::Rfc8998, SuiteKind::Any),
    suite(0x00c7, "TLS_SM4_CCM_SM3", "TLS_SM4_CCM_SM3", SuiteProtocol::Rfc8998, SuiteKind::Any),
    suite(0x1302, "TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384", SuiteProtocol::Tls13, SuiteKind::Any),
    suite(0x1303, "TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256", SuiteProtocol::Tls13, SuiteKind::Any),
    suite(0x1301, "TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", SuiteProtocol::Tls13, SuiteKind::Any),
    suite(
        0xc02b,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        SuiteProtocol::Tls12,
        SuiteKind::EcdheSigned,
    ),
    suite(
        0xc02c,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        SuiteProtocol::Tls12,
        SuiteKind::EcdheSigned,
    ),
    suite(
        0xcca9,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        SuiteProtocol::Tls12,
        SuiteKind::EcdheSigned,
    ),
    suite(
        0xc02f,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        SuiteProtocol::Tls12,
        SuiteKind::EcdheSigned,
    ),
    suite(
        0xc030,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        SuiteProtocol::Tls12,
        SuiteKind::EcdheSigned,
    ),
    suite(
        0xcca8,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
        SuiteProtocol::Tls12,
        SuiteKind::EcdheSigned,
    ),
];

/// The suite with a code point.
pub fn by_id(id: u16) -> Option<&'static Suite> {
    SUITES.iter().find(|suite| suite.id == id)
}

/// The suite with a name: the standard's or the library's, or an alias of GM/T 0024. Case does not matter.
pub fn by_name(name: &str) -> Option<&'static Suite> {
    // GM/T 0024-2014 knew the CBC suites alone and called them so.
    let name = if name.eq_ignore_ascii_case("ECC-SM2-WITH-SM4-SM3") {
        "ECC_SM4_CBC_SM3"
    } else if name.eq_ignore_ascii_case("ECDHE-SM2-WITH-SM4-SM3") {
        "ECDHE_SM4_CBC_SM3"
    } else {
        name
    };
    SUITES.iter().find(|suite| suite.name.eq_ignore_ascii_case(name) || suite.library_name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_suite_by_code_point_and_by_each_of_its_names() {
        for suite in SUITES {
            assert_eq!(by_id(suite.id), Some(suite));
            assert_eq!(by_name(suite.name), Some(suite));
            assert_eq!(by_name(suite.library_name), Some(suite));
        }
        assert_eq!(by_name("ecc-sm2-with-sm4-sm3").map(|suite| suite.id), Some(0xe013));
        assert_eq!(by_name("NULL"), None);
    }

    #[test]
    fn no_code_point_or_name_occurs_twice() {
        for (position, suite) in SUITES.iter().enumerate() {
            for other in &SUITES[position + 1..] {
                assert_ne!(suite.id, other.id);
                assert_ne!(suite.name, other.name);
                assert_ne!(suite.library_name, other.library_name);
            }
        }
    }
}
