//! Tests of `shangmq certs`: what each subcommand makes, and what each refuses.

use std::fs;
use std::path::Path;

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Program {
    #[command(subcommand)]
    command: CertsCommand,
}

/// Runs a command line (words separated by spaces) in a directory written as `@`, and gives what it prints.
fn run(dir: &Path, line: &str) -> (String, Result<(), CertsError>) {
    let line = line.replace('@', dir.to_str().unwrap());
    let words = std::iter::once("certs").chain(line.split(' '));
    let mut out = Vec::new();
    let outcome = match Program::try_parse_from(words).unwrap().command {
        CertsCommand::Dev(arguments) => arguments.run(&mut out),
        CertsCommand::Ca(arguments) => arguments.run(&mut out),
        CertsCommand::Issue(arguments) => arguments.run(&mut out),
        CertsCommand::Csr(arguments) => arguments.run(&mut out),
        CertsCommand::Crl(arguments) => arguments.run(&mut out),
        CertsCommand::Inspect(arguments) => arguments.run(&mut out),
        CertsCommand::Verify(arguments) => arguments.run(&mut out),
        CertsCommand::Bundle(arguments) => arguments.run(&mut out),
    };
    (String::from_utf8(out).unwrap(), outcome)
}

fn good(dir: &Path, line: &str) -> String {
    let (out, outcome) = run(dir, line);
    outcome.unwrap_or_else(|error| panic!("{line}: {error}\n{out}"));
    out
}

fn bad(dir: &Path, line: &str) -> String {
    let (out, outcome) = run(dir, line);
    format!("{out}{}", outcome.unwrap_err())
}

#[test]
fn a_pair_is_issued_inspected_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    good(dir, "ca --out @/ca --cn Bank-CA --organization Bank --country CN");
    let out = good(dir, "issue --ca @/ca --cn broker.test --ip 10.0.0.1 --dns broker.test --out @/s --name broker");
    assert!(out.contains("broker-sign.key") && out.contains("IP:10.0.0.1"), "{out}");
    let out = good(dir, "inspect @/s/broker-enc.crt @/s/broker-sign.crt @/s/broker-sign.key @/s/broker-enc.key");
    assert!(out.contains("consistent TLCP pair, with both keys"), "{out}");
    // 825 days, less the moment between issue and inspection.
    assert!(out.contains("824 days left") || out.contains("825 days left"), "{out}");
    for part in ["CN=broker.test", "O=Bank", "SM2-with-SM3", "digitalSignature", "keyAgreement"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let out = good(dir, "verify --ca @/ca/ca.crt --purpose server @/s/broker-sign.crt @/s/broker-enc.crt");
    assert_eq!(out.matches("verified up to").count(), 2, "{out}");
    assert!(bad(dir, "verify --ca @/ca/ca.crt --purpose client @/s/broker-sign.crt").contains("purpose"));

    good(dir, "issue --ca @/ca --cn other.test --out @/s --name other");
    let out = bad(dir, "inspect @/s/broker-sign.crt @/s/other-enc.crt");
    assert!(out.contains("NOT a TLCP pair") && out.contains("same subject"), "{out}");
    let out = bad(dir, "inspect @/s/broker-sign.crt @/s/other-sign.key");
    assert!(out.contains("is the key of none"), "{out}");
    let out = bad(dir, "inspect @/s/broker-sign.crt @/s/other-sign.crt");
    assert!(out.contains("NOT a TLCP pair"), "{out}");
    good(dir, "ca --out @/ca2 --cn Bank-CA");
    let out = bad(dir, "verify --ca @/ca2/ca.crt @/s/broker-sign.crt");
    assert!(out.contains("REFUSED"), "{out}");
}

#[test]
fn inspection_answers_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    good(dir, "ca --out @/ca --cn CA");
    good(dir, "issue --ca @/ca --cn gw --profile client --out @/c --name gw");
    let answer: serde_json::Value =
        serde_json::from_str(&good(dir, "inspect --json @/c/gw-sign.crt @/c/gw-enc.crt @/c/gw-sign.key")).unwrap();
    assert_eq!(answer["consistent"], true);
    assert_eq!(answer["files"][0]["certificate"]["common_name"], "gw");
    assert_eq!(answer["files"][1]["certificate"]["key"], "SM2");
    assert_eq!(answer["files"][2]["type"], "key");
}

#[test]
fn requests_of_a_pair_become_a_pair() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    good(dir, "ca --out @/ca --cn CA");
    good(dir, "csr --cn meter-7 --profile client --uri urn:meter:7 --out @/r --name meter");
    let asked = good(dir, "inspect @/r/meter-sign.csr");
    assert!(
        asked.contains(
            "  subject       CN=meter-7\n  names         URI:urn:meter:7\n  key usage     digitalSignature\n"
        ),
        "{asked}"
    );
    assert!(
        good(dir, "inspect @/r/meter-enc.csr")
            .contains("  key usage     keyEncipherment, dataEncipherment, keyAgreement\n")
    );
    let request = "issue --ca @/ca --profile client --csr @/r/meter-sign.csr --out @/i --name meter";
    assert!(bad(dir, request).contains("--enc-csr"));
    // Whoever wrote the request chose the names: they were signed without anybody having seen them.
    let request = format!("{request} --enc-csr @/r/meter-enc.csr");
    let refused = bad(dir, &request);
    assert!(refused.contains("URI:urn:meter:7") && refused.contains("--accept-names"), "{refused}");
    assert!(!dir.join("i").exists());
    let other = good(dir, &format!("{} --dns meter.test", request.replace("@/i", "@/other")));
    assert!(other.contains("DNS:meter.test") && !other.contains("urn:meter:7"), "{other}");
    let out = good(dir, &format!("{request} --accept-names"));
    assert!(out.contains("URI:urn:meter:7"), "{out}");
    let out = good(dir, "inspect @/i/meter-sign.crt @/i/meter-enc.crt @/r/meter-sign.key @/r/meter-enc.key");
    assert!(out.contains("consistent TLCP pair, with both keys"), "{out}");
    assert!(!dir.join("i/meter-sign.key").exists(), "the authority has no key of a requested certificate");
}

#[test]
fn existing_keys_are_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    good(dir, "ca --out @/ca --cn CA");
    let before = fs::read(dir.join("ca/ca.key")).unwrap();
    assert!(bad(dir, "ca --out @/ca --cn CA").contains("--force"));
    assert_eq!(fs::read(dir.join("ca/ca.key")).unwrap(), before);
    good(dir, "ca --out @/ca --cn CA --force");
    assert_ne!(fs::read(dir.join("ca/ca.key")).unwrap(), before);

    let issue = "issue --ca @/ca --kind single --key-type p256 --cn a.test --out @/s";
    good(dir, issue);
    let before = fs::read(dir.join("s/server.key")).unwrap();
    assert!(bad(dir, issue).contains("exists already"));
    assert_eq!(fs::read(dir.join("s/server.key")).unwrap(), before);
}

#[test]
fn encrypted_authorities_need_their_password() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    good(dir, "ca --out @/ca --cn CA --password secret");
    assert!(fs::read_to_string(dir.join("ca/ca.key")).unwrap().contains("ENCRYPTED"));
    let issue = "issue --ca @/ca --cn a.test --out @/s";
    assert!(bad(dir, issue).contains("no password is configured"));
    assert!(bad(dir, &format!("{issue} --ca-password wrong")).contains("password is wrong"));
    assert!(!dir.join("s").exists());
    good(dir, &format!("{issue} --ca-password secret --password env:CARGO_PKG_NAME"));
    good(dir, "inspect @/s/server-sign.crt @/s/server-sign.key --password shangmq");
}

#[test]
fn authorities_stand_below_authorities() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    good(dir, "ca --out @/root --cn Root --path-len 1");
    good(dir, "ca --out @/middle --cn Middle --parent @/root");
    good(dir, "issue --ca @/middle --cn a.test --out @/s");
    let out = good(dir, "inspect @/s/server-sign.crt");
    assert!(out.contains("sent with     CN=Middle"), "{out}");
    good(dir, "verify --ca @/root/ca.crt @/s/server-sign.crt @/s/server-enc.crt");
    assert!(bad(dir, "ca --out @/low --cn Low --parent @/middle").contains("path length"));
}

#[test]
fn files_that_are_nothing_known_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("x"), "hello").unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir.join("x"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(bad(dir, "inspect @/x").contains("neither a certificate"));
    assert!(bad(dir, "inspect @/absent").contains("absent"));
}

#[test]
fn the_development_set_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    assert!(good(dir.path(), "dev --out @/dev").contains("made"));
    assert!(good(dir.path(), "dev --out @/dev").contains("exist already"));
}

#[test]
fn file_names_stay_in_their_directory() {
    for name in ["../x", "a/b", ".hidden", ""] {
        assert!(issue::file_name(name).is_err(), "{name}");
    }
    assert!(issue::file_name("broker-1.test").is_ok());
}

#[test]
fn a_revocation_list_goes_on_from_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for name in ["ca", "other"] {
        good(dir, &format!("ca --out @/{name} --cn CA"));
    }
    good(dir, "issue --ca @/ca --cn a --out @ --name a --profile client");
    good(dir, "issue --ca @/other --cn b --out @ --name b --profile client --kind single");
    let list = || {
        let contents = fs::read(dir.join("list.crl")).unwrap();
        gm_tls::revocation::read_lists(&contents.into(), 1 << 20).unwrap().remove(0)
    };
    good(dir, "crl --ca @/ca --out @/list.crl --revoke @/a-sign.crt");
    let first: Vec<(Vec<u8>, i64)> = list().entries().map(|(serial, since, _)| (serial.to_vec(), since)).collect();
    let out = good(dir, "crl --ca @/ca --out @/list.crl --revoke @/a-enc.crt --revoke @/a-sign.crt");
    assert!(out.contains("list 2 of CN=CA") && out.contains("2 certificates"), "{out}");
    let second = list();
    assert!(first.iter().all(|(serial, since)| second.entries().any(|one| one.0 == serial && one.1 == *since)));
    assert!(bad(dir, "crl --ca @/ca --out @/list.crl --revoke @/b.crt").contains("cannot revoke it"));
    assert!(bad(dir, "crl --ca @/other --out @/list.crl").contains("no revocation list of this authority"));
    assert_eq!(list().as_der(), second.as_der());
}

// It was answered with all that can be said of each certificate, 35 lines.
#[test]
fn a_bundle_is_confirmed_by_a_line_for_each_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    good(dir, "dev --out @/c");
    fs::write(dir.join("t.toml"), "[listeners.tcp.default]\nbind = \"127.0.0.1:0\"\n").unwrap();
    let put = "--chain @/c/server-ecdsa.crt --key @/c/server-ecdsa.key --sign-chain @/c/server-sign.crt --sign-key @/c/server-sign.key \
               --enc-chain @/c/server-enc.crt --enc-key @/c/server-enc.key";
    let said = good(dir, &format!("bundle put b --config @/t.toml {put}"));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(lines[0].starts_with("b  version 1, expires "), "{said}");
    for (line, begin) in lines.iter().skip(1).zip(["chain ", "sign_chain ", "enc_chain "]) {
        assert!(
            line.trim_start().starts_with(begin) && line.contains("CN=localhost") && line.contains(", until "),
            "{said}"
        );
    }
    assert!(good(dir, "bundle show b --config @/t.toml").lines().count() > 30);
}

#[test]
fn certificates_say_where_their_status_is() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    good(dir, "ca --out @/ca --cn CA");
    let urls = "--crl-url http://ca.test/ca.crl --ocsp-url http://ca.test/ocsp --ocsp-url https://b.test:8443";
    let out = good(dir, &format!("issue --ca @/ca --profile client --cn device --out @/c --name device {urls}"));
    assert_eq!(out.matches("OCSP at       http://ca.test/ocsp, https://b.test:8443").count(), 2, "{out}");
    assert_eq!(out.matches("CRL at        http://ca.test/ca.crl").count(), 2, "{out}");
    let out = good(dir, "inspect --json @/c/device-sign.crt");
    assert!(out.contains("\"http://ca.test/ca.crl\"") && out.contains("\"https://b.test:8443\""), "{out}");
    for url in ["ca.test/ocsp", "ldap://ca.test", "http://", "http:///ocsp", "http://ca.test/ä"] {
        let words = ["certs", "issue", "--ca", "ca", "--cn", "a", "--out", "o", "--ocsp-url", url];
        assert!(Program::try_parse_from(words).is_err(), "{url}");
    }
}
