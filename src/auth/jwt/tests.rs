//! Tokens of RFC 7515 and of other implementations, and those that have been let in elsewhere and must not be.

use std::net::SocketAddr;
use std::path::Path;

use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sm2::dsa::signature::Signer;

use super::*;
use crate::auth::Peer;
use crate::auth::acl::{Permit, Publishing, publish, subscribe};
use crate::auth::identity::tests::identity;
use crate::config::Config;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// A second before the tokens of RFC 7515 expire.
const NOW: Duration = Duration::from_secs(1_300_819_379);
const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn write(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// An authenticator with a file `key` of this content, and these lines in `[auth.jwt]`.
fn jwt(key: &str, lines: &str) -> Result<Jwt, String> {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("key"), key);
    let text = format!("[auth.jwt]\n{lines}\n[listeners.tcp.default]\nbind = 0\n");
    let config = Config::parse(&dir.path().join("t.toml"), &text, []).map_err(|errors| errors.to_string())?;
    Jwt::load(config.auth.jwt.as_ref().unwrap()).map_err(|error| error.to_string())
}

fn by_secret(lines: &str) -> Jwt {
    jwt(SECRET, &format!("secret_file = \"key\"\n{lines}")).unwrap()
}

fn by_set(keys: &Value) -> Jwt {
    jwt(&json!({ "keys": keys }).to_string(), "jwks_file = \"key\"\nusername_claim = \"iss\"\nleeway = \"0s\"").unwrap()
}

fn encode(value: &Value) -> String {
    Base64UrlUnpadded::encode_string(value.to_string().as_bytes())
}

fn hs256(secret: &[u8], signed: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", Base64UrlUnpadded::encode_string(&mac.finalize().into_bytes()))
}

fn token(claims: &Value) -> String {
    hs256(SECRET.as_bytes(), &format!("{}.{}", encode(&json!({ "alg": "HS256", "typ": "JWT" })), encode(claims)))
}

fn verdict_of(jwt: &Jwt, username: Option<&str>, token: &str) -> Verdict {
    let remote = SocketAddr::from(([192, 0, 2, 1], 40000));
    let password = Some(token.as_bytes());
    jwt.judge(&AuthRequest { client_id: "c", username, password, peer: &Peer::default(), remote }, NOW)
}

fn accepted(jwt: &Jwt, token: &str) -> Option<Accepted> {
    accepted_as(jwt, "ada", token)
}

fn accepted_as(jwt: &Jwt, username: &str, token: &str) -> Option<Accepted> {
    match verdict_of(jwt, Some(username), token) {
        Verdict::Accept(accepted) => Some(accepted),
        Verdict::RejectToken(_) => None,
        other => panic!("{other:?}"),
    }
}

fn good() -> Value {
    json!({ "sub": "ada", "exp": NOW.as_secs() + 60 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

#[test]
fn the_tokens_of_rfc_7515_are_accepted_by_their_keys_alone() {
    let oct = json!({ "kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" });
    let rsa = json!({ "kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ" });
    let ec = json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" });
    let keys = [oct, rsa, ec];
    let tokens = [
        format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{PAYLOAD}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        format!(
            "eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
        ),
        format!(
            "eyJhbGciOiJFUzI1NiJ9.{PAYLOAD}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
        ),
    ];
    for (index, key) in keys.iter().enumerate() {
        let jwt = by_set(&json!([key]));
        for (number, token) in tokens.iter().enumerate() {
            let accepted = accepted_as(&jwt, "joe", token);
            assert_eq!(accepted.is_some(), index == number, "key {index} token {number}");
            if let Some(accepted) = accepted {
                assert_eq!(accepted.username.as_deref(), Some("joe"));
                assert_eq!(accepted.valid_for, Some(Duration::from_secs(1)));
            }
        }
    }
    let all = by_set(&json!(keys));
    assert!(tokens.iter().all(|token| accepted_as(&all, "joe", token).is_some()));
}

#[test]
fn a_token_signed_by_sm2_with_sm3_is_accepted() {
    let signer = sm2::dsa::SigningKey::from_slice("1234567812345678", &[7; 32]).unwrap();
    let point = signer.verifying_key().to_sec1_bytes();
    let base64 = |bytes: &[u8]| Base64UrlUnpadded::encode_string(bytes);
    let key = json!({ "kty": "EC", "crv": "SM2", "x": base64(&point[1..33]), "y": base64(&point[33..]) });
    let jwt = by_set(&json!([key]));
    let signed = |algorithm: &str| format!("{}.{PAYLOAD}", encode(&json!({ "alg": algorithm })));
    let sign = |text: &str| -> sm2::dsa::Signature { signer.sign(text.as_bytes()) };
    let text = signed("SM3withSM2");
    for signature in [sign(&text).to_bytes().to_vec(), sign(&text).to_der().to_vec()] {
        assert!(accepted_as(&jwt, "joe", &format!("{text}.{}", base64(&signature))).is_some());
    }
    for algorithm in ["ES256", "SM2", "HS256", "none"] {
        let text = signed(algorithm);
        let signature = sign(&text).to_bytes();
        assert!(accepted_as(&jwt, "joe", &format!("{text}.{}", base64(&signature))).is_none(), "{algorithm}");
    }
}

/// RFC 8725 section 2.1: a public key taken for the secret of an HMAC, and no signature at all.
#[test]
fn a_token_does_not_choose_how_it_is_checked() {
    let claims = encode(&good());
    let jwt = by_secret("");
    assert!(accepted(&jwt, &token(&good())).is_some());
    for algorithm in ["none", "None", "NONE", "hs256", "HS384", "RS256", ""] {
        let signed = format!("{}.{claims}", encode(&json!({ "alg": algorithm })));
        assert!(accepted(&jwt, &hs256(SECRET.as_bytes(), &signed)).is_none(), "{algorithm}");
        assert!(accepted(&jwt, &format!("{signed}.")).is_none(), "{algorithm}");
    }
    let pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n-----END PUBLIC KEY-----\n";
    let public = super::tests::jwt(pem, "public_key_file = \"key\"").unwrap();
    let signed = format!("{}.{claims}", encode(&json!({ "alg": "HS256" })));
    for secret in [pem, pem.trim_end()] {
        assert!(accepted(&public, &hs256(secret.as_bytes(), &signed)).is_none());
    }
    // A header that names a key of its own is of no consequence.
    let header = json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": "AAAA" }, "jku": "https://attacker.example/" });
    assert!(accepted(&jwt, &hs256(b"\0\0\0", &format!("{}.{claims}", encode(&header)))).is_none());
    let critical = json!({ "alg": "HS256", "crit": ["exp"] });
    assert!(accepted(&jwt, &hs256(SECRET.as_bytes(), &format!("{}.{claims}", encode(&critical)))).is_none());
}

#[test]
fn any_change_of_a_token_is_refused() {
    let jwt = by_secret("");
    let good = token(&good());
    let refused = |token: &str| !matches!(verdict_of(&jwt, Some("ada"), token), Verdict::Accept(_));
    for at in 0..good.len() {
        let mut changed = good.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert!(refused(std::str::from_utf8(&changed).unwrap()), "{at}");
        assert!(refused(&good[..at]), "{at}");
    }
    for changed in
        [format!("{good}="), format!("{good} "), format!(" {good}"), format!("{good}.x"), good.replace('.', "..")]
    {
        assert!(refused(&changed), "{changed}");
    }
}

#[test]
fn what_is_no_token_is_left_to_others() {
    let jwt = by_secret("");
    for password in ["", "secret", "a.b.c", "..", "e30.e30.", &"x".repeat(20_000)] {
        assert_eq!(verdict_of(&jwt, Some("ada"), password), Verdict::Ignore, "{password}");
    }
    let remote = SocketAddr::from(([192, 0, 2, 1], 40000));
    let nothing = AuthRequest { client_id: "c", username: Some("ada"), password: None, peer: &Peer::default(), remote };
    assert_eq!(jwt.judge(&nothing, NOW), Verdict::Ignore);
}

#[test]
fn a_token_holds_from_its_beginning_to_its_end_give_or_take_the_leeway() {
    let jwt = by_secret("leeway = \"30s\"");
    let now = NOW.as_secs();
    for (name, value, holds) in [
        ("exp", json!(now + 1), true),
        ("exp", json!(now - 29), true),
        ("exp", json!(now - 30), false),
        ("exp", json!(now as f64 + 0.5), true),
        ("exp", json!(null), false),
        ("exp", json!("9999999999"), false),
        ("exp", json!(-1), false),
        ("nbf", json!(now + 30), true),
        ("nbf", json!(now + 31), false),
        ("nbf", json!("0"), false),
        ("iat", json!(now + 31), false),
        ("iat", json!(now - 1000), true),
    ] {
        assert_eq!(accepted(&jwt, &token(&with(name, value.clone()))).is_some(), holds, "{name} {value}");
    }
    assert!(accepted(&jwt, &token(&json!({ "sub": "ada" }))).is_none(), "without exp");
    let valid_for = accepted(&jwt, &token(&good())).unwrap().valid_for;
    assert_eq!(valid_for, Some(Duration::from_secs(90)));
    let never = accepted(&jwt, &token(&with("exp", json!(1e300)))).unwrap();
    assert_eq!(never.valid_for, Some(Duration::MAX));
}

// An expired token was logged as a wrong password.
#[test]
fn a_refused_token_says_why_in_words_without_a_word_of_itself() {
    let jwt = by_secret("leeway = \"0s\"\nverify_claims = { aud = \"mqtt\" }");
    let now = NOW.as_secs();
    let said = |username, token: &str| match verdict_of(&jwt, username, token) {
        Verdict::RejectToken(reason) => reason.to_string(),
        other => panic!("{other:?}"),
    };
    let claims = json!({ "sub": "ada", "exp": now + 60, "aud": "mqtt" });
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        token(&claims)
    };
    let forged = hs256(b"another", token(&claims).rsplit_once('.').unwrap().0);
    for (token, reason) in [
        (with("exp", json!(now - 90)), "token expired 90 s ago"),
        (with("exp", json!("soon")), "token whose claims are no JSON object, or whose exp, nbf or iat is no number"),
        (token(&json!({ "sub": "ada" })), "token that does not say when it expires (exp)"),
        (with("nbf", json!(now + 5)), "token that is not valid before 5 s from now (nbf, iat); is a clock wrong?"),
        (with("sub", json!(1)), "token without the claim that auth.jwt.username_claim names"),
        (with("sub", json!("secret-eve")), "token for another user than CONNECT names"),
        (with("aud", json!("secret-x")), "token with a claim that is not what auth.jwt.verify_claims asks for"),
        (with("acl", json!(["secret-y"])), "token whose list of topics is not understood (auth.jwt.acl_claim)"),
        (forged, "token with a signature that no key of auth.jwt made"),
    ] {
        assert_eq!(said(Some("ada"), &token), reason);
    }
}

#[test]
fn a_token_names_its_user_and_meets_the_claims_that_are_asked_for() {
    let jwt = by_secret("verify_claims = { device = \"dev-${clientid}\", aud = \"mqtt\", name = \"${username}\" }");
    let claims =
        json!({ "sub": "ada", "exp": NOW.as_secs() + 60, "device": "dev-c", "aud": ["x", "mqtt"], "name": "ada" });
    assert!(accepted(&jwt, &token(&claims)).is_some());
    // `${username}` is what the client sent, and it sent nothing.
    assert_eq!(verdict_of(&jwt, None, &token(&claims)), Verdict::RejectToken(TokenRefused::Claim));
    for (name, value) in [
        ("device", json!("dev-d")),
        ("device", json!(null)),
        ("aud", json!("other")),
        ("aud", json!(["x"])),
        ("name", json!("eve")),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!(null)),
    ] {
        let mut changed = claims.clone();
        changed[name] = value;
        assert!(accepted(&jwt, &token(&changed)).is_none(), "{changed}");
    }
    let by_other_name = by_secret("username_claim = \"user\"");
    let accepted = accepted_as(&by_other_name, "bob", &token(&with("user", json!("bob")))).unwrap();
    assert_eq!(accepted.username.as_deref(), Some("bob"));
}

#[test]
fn a_token_s_topics_are_what_its_client_may_use_and_nothing_else() {
    let jwt = by_secret("");
    let acl = json!({ "pub": ["p/${username}"], "sub": ["s/#"], "all": ["a/+", "eq b/#"] });
    let rules = accepted(&jwt, &token(&with("acl", acl))).unwrap().rules.unwrap();
    let client = identity("c", Some("ada"));
    let may_publish = |topic| {
        let wish = Publishing { topic, qos: mqtt_codec::QoS::AtMostOnce, retain: false };
        publish(rules.iter(), &client, wish).allows(Permit::Deny)
    };
    let may_subscribe =
        |filter| subscribe(rules.iter(), &client, filter, mqtt_codec::QoS::AtMostOnce).allows(Permit::Deny);
    assert!(may_publish("p/ada") && may_publish("a/x") && !may_publish("p/eve") && !may_publish("s/x"));
    assert!(may_subscribe("s/x") && may_subscribe("a/+") && may_subscribe("b/#"));
    assert!(!may_subscribe("#") && !may_subscribe("p/ada") && !may_subscribe("b/x") && !may_subscribe("$SYS/#"));
    for acl in [
        json!("all"),
        json!([]),
        json!({ "pub": "p" }),
        json!({ "pub": ["a/#/b"] }),
        json!({ "pub": [1] }),
        json!({ "publish": ["p"] }),
        json!({ "pub": vec!["p"; MAX_TOPICS + 1] }),
    ] {
        assert!(accepted(&jwt, &token(&with("acl", acl.clone()))).is_none(), "{acl}");
    }
    // An empty list allows nothing; a token without one leaves it to the ACL file.
    assert!(accepted(&jwt, &token(&with("acl", json!({})))).unwrap().rules.is_some());
    assert!(accepted(&jwt, &token(&good())).unwrap().rules.is_none());
}

#[test]
fn a_key_with_an_identifier_checks_the_tokens_that_name_it() {
    let other = "ffffffffffffffffffffffffffffffff";
    let key = |id: &str, secret: &str| json!({ "kty": "oct", "kid": id, "alg": "HS256", "k": Base64UrlUnpadded::encode_string(secret.as_bytes()) });
    let set = json!({ "keys": [key("1", SECRET), key("2", other)] }).to_string();
    let jwt = jwt(&set, "jwks_file = \"key\"").unwrap();
    let signed =
        |header: Value, secret: &str| hs256(secret.as_bytes(), &format!("{}.{}", encode(&header), encode(&good())));
    assert!(accepted(&jwt, &signed(json!({ "alg": "HS256", "kid": "1" }), SECRET)).is_some());
    assert!(accepted(&jwt, &signed(json!({ "alg": "HS256", "kid": "2" }), SECRET)).is_none());
    assert!(accepted(&jwt, &signed(json!({ "alg": "HS256", "kid": "3" }), SECRET)).is_none());
    assert!(accepted(&jwt, &signed(json!({ "alg": "HS256" }), other)).is_some());
}

/// What fuzzing begins with, and what it has found.
#[test]
fn the_corpus_is_read_without_a_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/token");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        fuzz_token(&std::fs::read(entry.unwrap().path()).unwrap());
        read += 1;
    }
    assert!(read >= 7, "{read}");
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let short = Base64UrlUnpadded::encode_string(&[1; 31]);
    for (key, lines, error) in [
        ("short\n", "secret_file = \"key\"", "a secret of 5 bytes, HS256 needs 32"),
        ("x", "public_key_file = \"key\"", "holds no public key"),
        ("{", "jwks_file = \"key\"", "not JSON"),
        ("{\"keys\": []}", "jwks_file = \"key\"", "0 keys; a set has 1 to 32"),
        ("{\"keys\": [{\"kty\": \"OKP\"}]}", "jwks_file = \"key\"", "keys[0]: neither `oct`, `RSA`, nor `EC`"),
        (
            &format!("{{\"keys\": [{{\"kty\": \"oct\", \"k\": \"{short}\"}}]}}"),
            "jwks_file = \"key\"",
            "at least 32 bytes",
        ),
        (SECRET, "", "0 files with keys are named"),
        (SECRET, "secret_file = \"key\"\njwks_file = \"key\"", "2 files with keys are named"),
        (SECRET, "secret_file = \"key\"\nverify_claims = { a = \"${user}\" }", "verify_claims.a: placeholders are"),
        (SECRET, "secret_file = \"key\"\nverify_claims = { a = 1 }", "auth.jwt.verify_claims.a: expected a string"),
        (SECRET, "secret_file = \"key\"\nleeway = \"1h\"", "auth.jwt.leeway"),
        (SECRET, "secret_file = \"key\"\nsecret = \"x\"", "unknown key"),
    ] {
        let found = jwt(key, lines).unwrap_err();
        assert!(found.contains(error) && found.contains("t.toml:"), "{error} in {found}");
        assert!(!found.contains(SECRET));
    }
    let shown = format!("{:?}", by_secret(""));
    assert!(!shown.contains("48, 49") && !shown.contains(SECRET), "{shown}");
}
