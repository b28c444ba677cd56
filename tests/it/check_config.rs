//! `shangmq check-config` and `shangmq start` on configurations whose mistakes lie in the files they name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use gm_tls::key::{Password, PrivateKey};
use shangmq::config::Config;
use shangmq::dev_certs::DevCerts;
use shangmq::server::{Server, StartError};
use tempfile::TempDir;

use crate::broker::certificates;

/// 2015-01-01; certificates that were made then have expired.
const LONG_AGO: i64 = 1_420_070_400;

/// Runs a subcommand in `dir` on `t.toml` there.
pub fn shangmq(dir: &Path, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_shangmq"))
        .args(arguments)
        .args(["--config", "t.toml"])
        .current_dir(dir)
        .env_remove("SHANGMQ_LOG")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// A directory with development certificates in `good`, expired ones in `old`, and `t.toml` of this text.
pub fn directory(text: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(certificates().dir(), dir.path().join("good")).unwrap();
    DevCerts::ensure(&dir.path().join("old"), LONG_AGO).unwrap();
    fs::write(dir.path().join("t.toml"), text).unwrap();
    dir
}

const MISTAKES: &str = "\
[auth]
password_file = 'users'
[node]
data_dir = 't.toml/data'
[mqtt]
max_inflght = 3
[listeners.ssl.a]
bind = '127.0.0.1:0'
[listeners.ssl.a.ssl_options]
certfile = 'good/server-ecdsa.crt'
keyfile = 'good/server-rsa.key'
certificates = [{ certfile = 'good/server-sm2.crt', keyfile = 'good/server-sm2.key' }]
verify = 'verify_peer'
cacertfile = 'users'
ciphers = ['NO-SUCH', 'ECDHE-ECDSA-AES128-GCM-SHA256', 'NOR-THIS', 'ECC_SM4_GCM_SM3']
groups = ['X25519', 'X2551']
[listeners.ssl.a.rfc8998_options]
certfile = 'good/server-ecdsa.crt'
keyfile = 'good/server-ecdsa.key'
ciphers = ['TLS_AES_128_GCM_SHA256']
[listeners.ssl.a.tlcp_options]
sign_certfile = 'good/server-enc.crt'
sign_keyfile = 'good/server-enc.key'
enc_certfile = 'good/server-sign.crt'
enc_keyfile = 'good/server-sign.key'
ciphers = ['ECDHE_SM4_GCM_SM3', 'RSA_SM4_GCM_SM3']
[listeners.wss.b]
bind = '127.0.0.1:0'
[listeners.wss.b.ssl_options]
certfile = 'old/server-rsa.crt'
keyfile = 'old/server-rsa.key'
[listeners.wss.b.tlcp_options]
sign_certfile = 'old/server-sign.crt'
sign_keyfile = 'good/server-sign.key'
enc_certfile = 'good/client-enc.crt'
enc_keyfile = 'open.key'
verify = 'verify_peer'
cacertfile = 'none.crt'
";

fn with_mistakes() -> TempDir {
    let dir = directory(MISTAKES);
    let (users, open) = (dir.path().join("users"), dir.path().join("open.key"));
    fs::write(&users, "nothing of use\n").unwrap();
    fs::copy(certificates().client_enc().key, &open).unwrap();
    for (path, mode) in [(users, 0o600), (open, 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    dir
}

#[test]
fn every_mistake_in_the_configuration_and_in_its_files_is_found_at_once() {
    let dir = with_mistakes();
    let (good, found, _) = shangmq(dir.path(), &["check-config"]);
    assert!(!good);
    let undated: Vec<&str> = found
        .lines()
        .map(|line| {
            line.strip_suffix(" days ago").and_then(|line| line.rsplit_once(' ')).map_or(line, |(line, _)| line)
        })
        .collect();
    let expected: Vec<&str> = include_str!("check_config.txt").lines().collect();
    assert_eq!(undated, expected, "found:\n{found}");
}

// Whatever was wrong with a pair was said of the field of its signing certificate.
#[test]
fn what_is_wrong_with_a_pair_is_said_of_the_field_at_fault() {
    let right = ["good/server-sign.crt", "good/server-sign.key", "good/server-enc.crt", "good/server-enc.key"];
    for (at, place, field, wrong, words) in [
        (
            1,
            "5:16",
            "sign_keyfile",
            "good/client-sign.key",
            "is not the key of the signing certificate in sign_certfile",
        ),
        (2, "6:16", "enc_certfile", "good/server-sm2.crt", "may be used for"),
        (
            3,
            "7:15",
            "enc_keyfile",
            "good/client-enc.key",
            "is not the key of the encryption certificate in enc_certfile",
        ),
    ] {
        let mut files = right;
        files[at] = wrong;
        let [sign, sign_key, enc, enc_key] = files;
        let dir = directory(&format!(
            "[listeners.ssl.a]\nbind = '127.0.0.1:0'\n[listeners.ssl.a.tlcp_options]\nsign_certfile = '{sign}'\n\
             sign_keyfile = '{sign_key}'\nenc_certfile = '{enc}'\nenc_keyfile = '{enc_key}'\n"
        ));
        let (good, found, _) = shangmq(dir.path(), &["check-config"]);
        let expected = format!("t.toml:{place}: listeners.ssl.a.tlcp_options.{field}: {field} ({wrong}) {words}");
        assert!(!good && found.starts_with(&expected), "{expected}\n{found}");
    }
}

// A missing ACL file was named without the field that names it, and what is wrong with a password was said of the key.
#[test]
fn files_of_rules_and_passwords_are_named_with_their_fields() {
    let dir = directory("");
    let key = PrivateKey::from_file("key", &certificates().server_ecdsa().key, None).unwrap();
    let password = Password::resolve("open sesame").unwrap();
    let locked = dir.path().join("locked.key");
    fs::write(&locked, key.to_pem(Some(&password)).unwrap()).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o600)).unwrap();
    let found = |auth: &str, password: &str| {
        let text = format!(
            "[auth]\n{auth}\n[listeners.ssl.a]\nbind = '127.0.0.1:0'\n[listeners.ssl.a.ssl_options]\n\
             certfile = 'good/server-ecdsa.crt'\nkeyfile = 'locked.key'\n{password}\n"
        );
        fs::write(dir.path().join("t.toml"), text).unwrap();
        shangmq(dir.path(), &["check-config"]).1
    };
    let sound = "password = 'open sesame'";
    assert!(found("", sound).ends_with("the configuration is valid\n"));
    for (auth, password, expected) in [
        ("acl_file = 'none.toml'", sound, "t.toml:2:12: auth.acl_file: none.toml: cannot open the file: No such file"),
        (
            "",
            "password = 'file://none'",
            "t.toml:8:1: listeners.ssl.a.ssl_options.password: cannot read the password file none: No such file",
        ),
        (
            "",
            "",
            "t.toml:7:11: listeners.ssl.a.ssl_options.keyfile: locked.key: the private key is encrypted and no password is \
             configured for it; add password = \"file://PATH\"",
        ),
    ] {
        let found = found(auth, password);
        assert!(found.starts_with(expected) && found.ends_with("1 mistake found\n"), "{expected}\n{found}");
    }
}

// A client's certificates passed every check, and every client refused the broker.
#[test]
fn certificates_of_a_client_are_no_server_s_over_tls_and_over_tlcp() {
    let text = "\
[listeners.ssl.a]
bind = '127.0.0.1:0'
[listeners.ssl.a.ssl_options]
certfile = 'good/client-ecdsa.crt'
keyfile = 'good/client-ecdsa.key'
[listeners.ssl.a.rfc8998_options]
certfile = 'good/client-sm2.crt'
keyfile = 'good/client-sm2.key'
[listeners.ssl.a.tlcp_options]
sign_certfile = 'good/client-sign.crt'
sign_keyfile = 'good/client-sign.key'
enc_certfile = 'good/client-enc.crt'
enc_keyfile = 'good/client-enc.key'
";
    let dir = directory(text);
    let (good, found, _) = shangmq(dir.path(), &["check-config"]);
    assert!(!good);
    for (at, key, file) in [
        ("4:12", "ssl_options.certfile", "client-ecdsa"),
        ("7:12", "rfc8998_options.certfile", "client-sm2"),
        ("10:17", "tlcp_options.sign_certfile", "client-sign"),
        ("12:16", "tlcp_options.enc_certfile", "client-enc"),
    ] {
        let expected = format!(
            "t.toml:{at}: listeners.ssl.a.{key}: good/{file}.crt is not for a server: its extendedKeyUsage is clientAuth, "
        );
        assert!(found.contains(&expected), "{expected}\n{found}");
    }
    assert!(found.ends_with("4 mistakes found\n"), "{found}");
    let (started, _, refused) = shangmq(dir.path(), &["start"]);
    assert!(!started && refused.contains("is not for a server"), "{refused}");
}

// The certificates of a listener with a misspelt value are not looked at, and nothing said so.
#[test]
fn what_mistakes_kept_from_being_looked_at_is_said() {
    let text = "\
[listeners.ssl.a]
bind = '127.0.0.1:0'
[listeners.ssl.a.ssl_options]
certfile = 'none.crt'
keyfile = 'none.key'
verify = 'verify_pear'
";
    let dir = directory(text);
    let note = "certificates of listeners with mistakes were not looked at; check again when these are mended";
    let (_, found, _) = shangmq(dir.path(), &["check-config"]);
    assert!(found.ends_with(&format!("\n{note}\n1 mistake found\n")), "{found}");
    let (_, json, _) = shangmq(dir.path(), &["check-config", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["note"], note);
    let (_, _, refused) = shangmq(dir.path(), &["start"]);
    assert!(refused.ends_with(&format!("\n{note}\n")), "{refused}");
}

#[test]
fn start_refuses_with_the_same_words_as_check_config() {
    let dir = with_mistakes();
    let (_, checked, _) = shangmq(dir.path(), &["check-config"]);
    let (good, _, refused) = shangmq(dir.path(), &["start"]);
    assert!(!good);
    let mistakes = checked.trim_end().rsplit_once('\n').unwrap().0;
    assert_eq!(refused, format!("shangmq: {mistakes}\n"));
}

#[test]
fn json_names_the_place_the_key_and_the_file_at_fault() {
    let dir = with_mistakes();
    let (_, found, _) = shangmq(dir.path(), &["check-config", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["valid"], false);
    let of = |line: u64| found["errors"].as_array().unwrap().iter().find(|error| error["line"] == line).unwrap();
    let key = of(11);
    assert_eq!(key["file"], "t.toml");
    assert_eq!(key["key"], "listeners.ssl.a.ssl_options.keyfile");
    assert_eq!(key["path"], "good/server-rsa.key");
    let groups = of(16);
    assert_eq!(groups["key"], "listeners.ssl.a.ssl_options.groups");
    assert!(groups.get("path").is_none(), "{groups}");
}

#[test]
fn what_check_config_accepts_starts_and_nothing_was_made_by_checking() {
    let text = "\
[auth]
allow_anonymous = true
no_match = 'allow'
[listeners.ssl.a]
bind = '127.0.0.1:0'
[listeners.ssl.a.tlcp_options]
sign_certfile = 'good/server-sign.crt'
sign_keyfile = 'good/server-sign.key'
enc_certfile = 'good/server-enc.crt'
enc_keyfile = 'good/server-enc.key'
";
    let dir = directory(text);
    let (good, found, _) = shangmq(dir.path(), &["check-config"]);
    assert_eq!((good, found.as_str()), (true, "ssl:a on 127.0.0.1:0\nthe configuration is valid\n"));
    assert!(!dir.path().join("data").exists());
    let config = Config::load(Some(&dir.path().join("t.toml")), []).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(Server::start(config)).unwrap().addresses().len(), 1);
}

#[test]
fn that_nobody_may_do_anything_is_a_warning_of_check_config_and_of_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = format!("[listeners.tcp.a]\nbind = '{}'\n", taken.local_addr().unwrap());
    let connecting = "t.toml:1:2: auth.allow_anonymous: nobody may connect: there are no passwords, tokens, certificates or pre-shared \
                      keys to know clients by; name a file with password_file under [auth], write verify = \"verify_peer\" where a listener names \
                      its certificate, or write allow_anonymous = true under [auth] to let everybody in";
    let using = "t.toml:1:2: auth.no_match: nobody may publish or subscribe: there are no rules for topics, and what no rule allows is \
                 refused; name a file of rules with acl_file under [auth], set acl = true under [auth.store], or write \
                 no_match = \"allow\" under [auth] to let every client use all topics";
    for (auth, expected) in [
        ("", &[using, connecting][..]),
        ("allow_anonymous = true\n", &[using]),
        ("no_match = 'allow'\n", &[connecting]),
        ("allow_anonymous = true\nno_match = 'allow'\n", &[]),
    ] {
        let dir = directory(&format!("[auth]\n{auth}{listener}"));
        let (good, found, _) = shangmq(dir.path(), &["check-config"]);
        let warned: Vec<&str> = found.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
        assert_eq!((good, &warned[..]), (true, expected), "{auth}");
        // It ends at once, for the port is taken.
        let (started, log, error) = shangmq(dir.path(), &["start"]);
        assert!(!started && error.contains("the port is in use"), "{error}");
        let log = log + &error;
        for warning in [using, connecting] {
            assert_eq!(log.contains(warning), expected.contains(&warning), "{auth}: {log}");
        }
    }
}

#[test]
fn the_first_start_without_a_configuration_is_not_refused_for_certificates_that_it_makes() {
    let dir = tempfile::tempdir().unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_shangmq")).arg("check-config").current_dir(dir.path()).output().unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{found}");
    assert!(found.contains("the first start makes the development certificates in gm-certs/dev\n"), "{found}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_port_in_use_is_the_business_of_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap();
    let text = format!("[listeners.tcp.a]\nbind = '{bind}'\n");
    let dir = directory(&text);
    assert!(shangmq(dir.path(), &["check-config"]).0);
    let error = Server::start(Config::parse(&dir.path().join("t.toml"), &text, []).unwrap()).await.unwrap_err();
    assert!(matches!(error, StartError::Listeners(_)), "{error}");
    let expected = format!("listeners.tcp.a.bind: cannot listen on {bind}: the port is in use by another program");
    assert!(error.to_string().starts_with(&expected), "{error}");
}
