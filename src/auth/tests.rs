//! What the door lets in and what it turns away, credential by credential.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "k3uF0h7vQm1xYt9Zr2Lc8Wb5Ns6Pj4Dg";
const NOW: i64 = 1_800_000_000;

static RSA: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static EC: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
static ED: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());

fn sign_hs(message: &[u8]) -> Vec<u8> {
    sign_hs_with(SECRET.as_bytes(), message)
}

fn sign_hs_with(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, message).as_ref().to_vec()
}

fn sign_rs(message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; RSA.public_modulus_len()];
    RSA.sign(
        &signature::RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        message,
        &mut signature,
    )
    .unwrap();
    signature
}

fn sign_es(message: &[u8]) -> Vec<u8> {
    EC.sign(&SystemRandom::new(), message)
        .unwrap()
        .as_ref()
        .to_vec()
}

fn sign_ed(message: &[u8]) -> Vec<u8> {
    ED.sign(message).as_ref().to_vec()
}

fn encode(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn token_with(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn token(claims: &Value) -> String {
    token_with(&json!({"alg": "HS256", "typ": "JWT"}), claims, sign_hs)
}

/// The claims of a good token with some of them set or, by null, taken away.
fn claims(changes: Value) -> Value {
    let mut claims = json!({"sub": "42", "exp": NOW + 600});
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        }
    }
    claims
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn secret() -> AuthSettings {
    AuthSettings {
        keys: Some(Keys::secret(SECRET).unwrap()),
        cookie: Some("session".into()),
        ..AuthSettings::default()
    }
}

fn authority(settings: AuthSettings) -> Authority {
    Authority::new(settings).unwrap()
}

fn with_keys(keys: Keys) -> Authority {
    authority(AuthSettings {
        keys: Some(keys),
        audience: Some("tidings".into()),
        ..AuthSettings::default()
    })
}

fn identify(authority: &Authority, token: &str) -> Result<Identity, Refusal> {
    let header = format!("Bearer {token}");
    let presented = Presented {
        authorization: Some(&header),
        ..Presented::default()
    };
    authority.identify(&presented, now())
}

fn cause(authority: &Authority, token: &str) -> Cause {
    match identify(authority, token) {
        Err(Refusal::Unauthorized(cause)) => cause,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn topic(text: &str) -> Topic {
    Topic::parse(text).unwrap()
}

fn public(patterns: &[&str]) -> Vec<Pattern> {
    patterns
        .iter()
        .map(|text| Pattern::parse(text).unwrap())
        .collect()
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|l| str::from_utf8(l).unwrap())
        .collect();
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    )
}

fn rsa_pem() -> String {
    pem(RSA.public_key().as_der().unwrap().as_ref())
}

fn ec_pem() -> String {
    pem(EC.public_key().as_der().unwrap().as_ref())
}

fn ed_pem() -> String {
    pem(ED.public_key().as_der().unwrap().as_ref())
}

fn rsa_jwk(kid: &str) -> Value {
    let parts = RsaPublicKeyComponents::<Vec<u8>>::from(RSA.public_key());
    json!({
        "kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256",
        "n": URL_SAFE_NO_PAD.encode(&parts.n), "e": URL_SAFE_NO_PAD.encode(&parts.e),
    })
}

fn ec_jwk(kid: &str) -> Value {
    let point = EC.public_key().as_ref();
    json!({
        "kty": "EC", "kid": kid, "crv": "P-256",
        "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
    })
}

fn ed_jwk(kid: &str) -> Value {
    json!({
        "kty": "OKP", "kid": kid, "crv": "Ed25519", "alg": "EdDSA",
        "x": URL_SAFE_NO_PAD.encode(ED.public_key()),
    })
}

fn set(keys: &[Value]) -> Result<Keys, String> {
    Keys::jwk_set(&json!({ "keys": keys }).to_string())
}

#[test]
fn a_good_token_says_who_is_calling() {
    let text = claims(json!({
        "topics": ["request:*", "news"], "publish": ["request:7"], "name": "Ann",
    }));
    let ann = identify(&authority(secret()), &token(&text)).unwrap();
    assert_eq!(ann.own_topic(), Some(&topic("user:42")));
    assert_eq!(ann.user(), Some("user:42"));
    assert_eq!(ann.expires_at(), Timestamp::from_second(NOW + 600).ok());
    assert_eq!(ann.credential(), Credential::Bearer);
    assert_eq!(serde_json::from_str::<Value>(ann.claims()).unwrap(), text);
    for readable in ["user:42", "request:1", "news"] {
        assert!(ann.may_read(&topic(readable)), "{readable}");
    }
    for unreadable in ["user:4", "user:421", "newsroom", "acme/user:42", "request"] {
        assert!(!ann.may_read(&topic(unreadable)), "{unreadable}");
    }
    assert!(ann.may_publish(&topic("request:7")));
    assert!(!ann.may_publish(&topic("request:8")));
    assert!(!ann.may_publish(&topic("user:42")));
    assert!(!format!("{ann:?}").contains("Ann"));
}

#[test]
fn claims_come_out_as_they_were_signed() {
    let door = authority(secret());
    for number in [
        "1.111111111111111e+180",
        "51.248178375505404",
        "-0.1",
        "18446744073709551615",
    ] {
        let text = format!(r#"{{"exp":{},"n":{number},"sub":"42"}}"#, NOW + 600);
        let message = format!(
            "{}.{}",
            encode(&json!({"alg": "HS256"})),
            URL_SAFE_NO_PAD.encode(&text)
        );
        let signature = URL_SAFE_NO_PAD.encode(sign_hs(message.as_bytes()));
        let ann = identify(&door, &format!("{message}.{signature}")).unwrap();
        assert_eq!(ann.claims(), text);
    }
}

#[test]
fn every_bad_token_is_refused_for_its_cause() {
    let door = authority(AuthSettings {
        audience: Some("tidings".into()),
        issuer: Some("https://issuer.test".into()),
        ..secret()
    });
    let good = json!({"aud": "tidings", "iss": "https://issuer.test"});
    let with = |changes: Value| {
        let mut all = claims(good.clone());
        for (name, value) in changes.as_object().unwrap() {
            all[name] = value.clone();
        }
        all
    };
    let without = |name: &str| {
        let mut all = claims(good.clone());
        all.as_object_mut().unwrap().remove(name);
        all
    };
    assert!(identify(&door, &token(&with(json!({})))).is_ok());
    let bad = [
        (without("exp"), Cause::Incomplete),
        (without("sub"), Cause::Incomplete),
        (without("aud"), Cause::WrongAudience),
        (without("iss"), Cause::WrongIssuer),
        (with(json!({"sub": ""})), Cause::Incomplete),
        (with(json!({"sub": 42})), Cause::Incomplete),
        (with(json!({"sub": "x".repeat(300)})), Cause::BadClaim),
        (with(json!({"exp": NOW - 31})), Cause::Expired),
        (with(json!({"exp": 0})), Cause::Expired),
        (with(json!({"exp": -1e300})), Cause::Expired),
        (with(json!({"exp": "2030-01-01"})), Cause::Malformed),
        (with(json!({"exp": null})), Cause::Malformed),
        (with(json!({"nbf": NOW + 31})), Cause::NotYetValid),
        (with(json!({"nbf": "soon"})), Cause::Malformed),
        (with(json!({"aud": "other"})), Cause::WrongAudience),
        (with(json!({"aud": ["other"]})), Cause::WrongAudience),
        (with(json!({"aud": []})), Cause::WrongAudience),
        (
            with(json!({"aud": {"tidings": true}})),
            Cause::WrongAudience,
        ),
        (
            with(json!({"iss": "https://issuer.test.evil"})),
            Cause::WrongIssuer,
        ),
        (
            with(json!({"iss": ["https://issuer.test"]})),
            Cause::WrongIssuer,
        ),
        (with(json!({"name": "a\0b"})), Cause::Malformed),
        (with(json!({"list": [{"a\0": 1}]})), Cause::Malformed),
        (with(json!({"topics": ["a*b"]})), Cause::BadClaim),
        (with(json!({"topics": [7]})), Cause::BadClaim),
        (with(json!({"topics": {"a": true}})), Cause::BadClaim),
        (with(json!({"publish": ["a\nb"]})), Cause::BadClaim),
        (with(json!({"tenant": ""})), Cause::BadClaim),
        (with(json!({"tenant": null})), Cause::BadClaim),
        (with(json!({"tenant": "a/b"})), Cause::BadClaim),
        (with(json!({"tenant": 7})), Cause::BadClaim),
    ];
    for (claims, expected) in bad {
        assert_eq!(cause(&door, &token(&claims)), expected, "{claims}");
    }
    for fine in [
        json!({"exp": NOW - 30}),
        json!({"exp": (NOW + 5) as f64 + 0.5}),
        json!({"exp": 1e300}),
        json!({"nbf": NOW + 30}),
        json!({"aud": ["other", "tidings"]}),
        json!({"topics": null}),
        json!({"topics": "news"}),
    ] {
        assert!(
            identify(&door, &token(&with(fine.clone()))).is_ok(),
            "{fine}"
        );
    }
}

#[test]
fn a_token_cannot_choose_how_it_is_checked() {
    let door = authority(secret());
    let good = claims(json!({}));
    let as_alg = |alg: &str| token_with(&json!({ "alg": alg }), &good, sign_hs);
    for alg in [
        "none", "None", "HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256", "",
    ] {
        assert_eq!(cause(&door, &as_alg(alg)), Cause::WrongAlgorithm, "{alg}");
    }
    let unsigned = |alg: &str| format!("{}.{}.", encode(&json!({ "alg": alg })), encode(&good));
    assert_eq!(cause(&door, &unsigned("none")), Cause::WrongAlgorithm);
    assert_eq!(cause(&door, &unsigned("HS256")), Cause::WrongSignature);

    // The classic: the public key, which is no secret, used as the secret of HS256.
    for (keys, text) in [
        (Keys::pem(&rsa_pem()), rsa_pem()),
        (Keys::pem(&ec_pem()), ec_pem()),
        (Keys::pem(&ed_pem()), ed_pem()),
    ] {
        let forged = token_with(
            &json!({"alg": "HS256"}),
            &claims(json!({"aud": "tidings"})),
            |m| sign_hs_with(text.as_bytes(), m),
        );
        assert_eq!(
            cause(&with_keys(keys.unwrap()), &forged),
            Cause::WrongAlgorithm
        );
    }

    let elsewhere = json!({
        "alg": "HS256", "jku": "https://evil.test", "jwk": {"kty": "oct", "k": "AAAA"}, "kid": "x",
    });
    let forged = token_with(&elsewhere, &good, |m| sign_hs_with(b"\0\0\0", m));
    assert_eq!(cause(&door, &forged), Cause::WrongSignature);
    let critical = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
    assert_eq!(
        cause(&door, &token_with(&critical, &good, sign_hs)),
        Cause::Malformed
    );
    let other_secret = token_with(&json!({"alg": "HS256"}), &good, |m| {
        sign_hs_with(b"another secret of thirty-two byte", m)
    });
    assert_eq!(cause(&door, &other_secret), Cause::WrongSignature);
}

#[test]
fn what_costs_nothing_is_looked_at_before_the_signature() {
    let door = authority(secret());
    let forged = |header: Value, claims: Value| token_with(&header, &claims, |_| vec![0; 32]);
    let header = json!({"alg": "HS256"});
    let old = claims(json!({"exp": NOW - 3600}));
    assert_eq!(cause(&door, &forged(header.clone(), old)), Cause::Expired);
    let huge = claims(json!({"x": "y".repeat(TOKEN_BYTES_MAX)}));
    assert_eq!(cause(&door, &forged(header.clone(), huge)), Cause::TooLong);
    let later = claims(json!({"nbf": NOW + 3600}));
    assert_eq!(cause(&door, &forged(header, later)), Cause::WrongSignature);
}

#[test]
fn texts_that_are_no_tokens_are_malformed() {
    let door = authority(secret());
    let good = token(&claims(json!({})));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let not_json = URL_SAFE_NO_PAD.encode("{");
    let list = URL_SAFE_NO_PAD.encode("[]");
    for bad in [
        "a".to_owned(),
        ".".into(),
        "..".into(),
        "...".into(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{signature}.{signature}"),
        format!("{not_json}.{payload}.{signature}"),
        format!("{header}.{not_json}.{signature}"),
        format!("{header}.{list}.{signature}"),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}\0.{payload}.{signature}"),
        // `alg` twice: readers of JSON differ in which one counts.
        format!(
            "{}.{payload}.{signature}",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none","alg":"HS256"}"#)
        ),
    ] {
        assert_eq!(cause(&door, &bad), Cause::Malformed, "{bad:?}");
    }
    // Even signed, a header is an object, and in UTF-8 where nobody looks.
    for header in [
        &br#"["HS256",null,null]"#[..],
        b"{\"alg\":\"HS256\",\"typ\":\"\xff\"}",
    ] {
        let message = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(header));
        let signature = URL_SAFE_NO_PAD.encode(sign_hs(message.as_bytes()));
        let bad = format!("{message}.{signature}");
        assert_eq!(cause(&door, &bad), Cause::Malformed, "{bad:?}");
    }
    assert_eq!(
        cause(&door, &format!("{message}.{signature}=")),
        Cause::WrongSignature
    );
    assert_eq!(cause(&door, &format!("{message}.")), Cause::WrongSignature);
}

#[test]
fn each_kind_of_public_key_serves_its_algorithm() {
    let text = claims(json!({"aud": "tidings"}));
    let by =
        |alg: &str, sign: fn(&[u8]) -> Vec<u8>| token_with(&json!({ "alg": alg }), &text, sign);
    let tokens = [
        by("RS256", sign_rs),
        by("ES256", sign_es),
        by("EdDSA", sign_ed),
    ];
    let keys = [rsa_pem(), ec_pem(), ed_pem()];
    for (own, key) in keys.iter().enumerate() {
        for one_line in [key.clone(), key.replace('\n', "\\n")] {
            let door = with_keys(Keys::pem(&one_line).unwrap());
            for (other, token) in tokens.iter().enumerate() {
                match own == other {
                    true => assert!(identify(&door, token).is_ok(), "{token}"),
                    false => assert_eq!(cause(&door, token), Cause::WrongAlgorithm),
                }
            }
        }
    }
    let confused = token_with(&json!({"alg": "ES256"}), &text, sign_ed);
    let door = with_keys(Keys::pem(&ec_pem()).unwrap());
    assert_eq!(cause(&door, &confused), Cause::WrongSignature);
}

#[test]
fn a_set_chooses_by_kid() {
    let text = claims(json!({"aud": "tidings"}));
    let by = |kid: Value, alg: &str, sign: fn(&[u8]) -> Vec<u8>| {
        token_with(&json!({"alg": alg, "kid": kid}), &text, sign)
    };
    let door = with_keys(set(&[rsa_jwk("r"), ec_jwk("c"), ed_jwk("d")]).unwrap());
    assert!(identify(&door, &by(json!("r"), "RS256", sign_rs)).is_ok());
    assert!(identify(&door, &by(json!("c"), "ES256", sign_es)).is_ok());
    assert!(identify(&door, &by(json!("d"), "EdDSA", sign_ed)).is_ok());
    assert_eq!(
        cause(&door, &by(json!("c"), "RS256", sign_rs)),
        Cause::WrongAlgorithm
    );
    for unknown in [json!("x"), json!(""), json!(null), json!("../r")] {
        assert_eq!(
            cause(&door, &by(unknown, "RS256", sign_rs)),
            Cause::UnknownKey
        );
    }
    let single = with_keys(set(&[ed_jwk("d")]).unwrap());
    assert!(identify(&single, &by(json!(null), "EdDSA", sign_ed)).is_ok());
    assert_eq!(
        cause(&single, &by(json!("old"), "EdDSA", sign_ed)),
        Cause::UnknownKey
    );
}

#[test]
fn a_set_passes_over_what_it_cannot_use_and_refuses_what_is_wrong() {
    let encryption = json!({"kty": "RSA", "kid": "e", "use": "enc", "n": "AQAB", "e": "AQAB"});
    let foreign = json!({"kty": "AKP", "kid": "f", "alg": "ML-DSA-44", "pub": "x"});
    let other_curve = json!({"kty": "EC", "kid": "g", "crv": "P-384", "x": "x", "y": "y"});
    let other_alg = json!({"kty": "RSA", "kid": "h", "alg": "PS256", "n": "AQAB", "e": "AQAB"});
    let keys = set(&[
        encryption.clone(),
        foreign,
        other_curve,
        other_alg,
        ec_jwk("c"),
    ])
    .unwrap();
    assert_eq!(keys.algorithms(), ["ES256"]);
    assert_eq!(format!("{keys:?}"), "Keys(ES256)");

    let mut off_curve = ec_jwk("c");
    off_curve["x"] = off_curve["y"].clone();
    let mut private = ed_jwk("d");
    private["d"] = json!("AAAA");
    let mut nameless = ed_jwk("d");
    nameless.as_object_mut().unwrap().remove("kid");
    let short =
        json!({"kty": "RSA", "kid": "s", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode([255; 128])});
    let mut one = rsa_jwk("r");
    one["e"] = json!("AQ");
    for bad in [
        vec![],
        vec![encryption],
        vec![off_curve],
        vec![private],
        vec![short],
        vec![one],
        vec![json!({"kty": "oct", "kid": "o", "k": "AAAA"})],
        vec![rsa_jwk("same"), ec_jwk("same")],
        vec![nameless, ec_jwk("c")],
        vec![json!({"kty": "RSA", "kid": "m", "e": "AQAB"})],
        (0..65).map(|n| ed_jwk(&n.to_string())).collect(),
    ] {
        assert!(set(&bad).is_err(), "{bad:?}");
    }
    assert!(Keys::jwk_set("{}").is_err());
    assert!(Keys::jwk_set("not json").is_err());

    // The sign byte that some issuers leave before the modulus.
    let mut padded = rsa_jwk("r");
    let parts = RsaPublicKeyComponents::<Vec<u8>>::from(RSA.public_key());
    padded["n"] = json!(URL_SAFE_NO_PAD.encode([&[0][..], &parts.n].concat()));
    let text = claims(json!({"aud": "tidings"}));
    let token = token_with(&json!({"alg": "RS256", "kid": "r"}), &text, sign_rs);
    assert!(identify(&with_keys(set(&[padded]).unwrap()), &token).is_ok());
}

#[test]
fn a_pem_that_is_not_a_public_key_is_refused() {
    for (bad, hint) in [
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
            "private",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
            "certificate",
        ),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
            "RSA, P-256 or Ed25519",
        ),
        ("", "no public key"),
        ("secret", "no public key"),
    ] {
        let fault = Keys::pem(bad).unwrap_err();
        assert!(fault.contains(hint), "{fault}");
    }
    // 1,024 bits, by openssl genrsa.
    let short = pem(&STANDARD
        .decode(concat!(
            "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC7Z2yikeZZPCD5BgXmI52ngYWLovvlbq7P",
            "RWd+lNuC6iGF+SLOscUEBZF6l2O4aVyWGwesEcJrMtF12KXmPZow1PkGF4Zggo81eWqHp4wA",
            "RptWFQpkHuwR425DiKLUZFTrbPdjYukU6pUS6OD+sInSR0iR3CSzqhz69l1TtbyZewIDAQAB",
        ))
        .unwrap());
    assert!(Keys::pem(&short).unwrap_err().contains("2048 bits"));
    let p384 = EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    assert!(Keys::pem(&pem(p384.public_key().as_der().unwrap().as_ref())).is_err());
    let koblitz = EcdsaKeyPair::generate(&signature::ECDSA_P256K1_SHA256_FIXED_SIGNING).unwrap();
    assert!(Keys::pem(&pem(koblitz.public_key().as_der().unwrap().as_ref())).is_err());
}

#[test]
fn a_secret_that_anyone_can_guess_is_refused() {
    for bad in [
        "",
        "secret",
        "changeme",
        "k3uF0h7vQm1xYt9Zr2Lc8Wb5Ns6Pj4D",
        "your-256-bit-secret-your-256-bit-secret",
        "YOUR_256_BIT_SECRET_GOES_HERE_PLEASE!",
        "super-secret-jwt-token-with-at-least-32-characters-long",
        "please-change-me-please-change-me-please",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "abcabcabcabcabcabcabcabcabcabcabcabcabc",
        "0123456789abcdefghijklmnopqrstuvwxyz",
        "12345678901234567890123456789012",
    ] {
        let fault = Keys::secret(bad).unwrap_err();
        assert!(fault.contains("openssl rand"), "{bad}: {fault}");
        assert!(
            bad.is_empty() || bad == "secret" || !fault.contains(bad),
            "{fault}"
        );
    }
    for good in [
        SECRET,
        "8f14e45fceea167a5a36dedd4bea2543",
        "correct horse battery staple, forever",
    ] {
        assert!(Keys::secret(good).is_ok(), "{good}");
    }
}

#[test]
fn public_keys_need_an_audience() {
    let settings = AuthSettings {
        keys: Some(Keys::pem(&ed_pem()).unwrap()),
        ..AuthSettings::default()
    };
    assert!(Authority::new(settings).unwrap_err()[0].contains("TIDINGS_JWT_AUDIENCE"));
    let door = with_keys(Keys::pem(&ed_pem()).unwrap());
    let without = token_with(&json!({"alg": "EdDSA"}), &claims(json!({})), sign_ed);
    assert_eq!(cause(&door, &without), Cause::WrongAudience);
}

#[test]
fn all_faults_of_the_settings_come_together() {
    let faults = Authority::new(AuthSettings {
        cookie: Some("a b".into()),
        claims: ClaimNames {
            topics: "topics".into(),
            ..ClaimNames::default()
        },
        ..AuthSettings::default()
    })
    .unwrap_err();
    assert_eq!(faults.len(), 3, "{faults:?}");
}

#[test]
fn a_tenant_confines_its_token() {
    let door = authority(AuthSettings {
        tenants_required: true,
        public_topics: public(&["news"]),
        ..secret()
    });
    let text = claims(json!({"tenant": "acme", "topics": ["*"], "publish": ["*"]}));
    let ann = identify(&door, &token(&text)).unwrap();
    assert_eq!(ann.own_topic(), Some(&topic("acme/user:42")));
    assert_eq!(ann.user(), Some("acme/user:42"));
    assert!(ann.may_read(&topic("acme/request:1")));
    assert!(ann.may_publish(&topic("acme/request:1")));
    for other in [
        "acme2/request:1",
        "request:1",
        "user:42",
        "acme",
        "other/acme/x",
    ] {
        assert!(!ann.may_read(&topic(other)), "{other}");
        assert!(!ann.may_publish(&topic(other)), "{other}");
    }
    assert!(ann.may_read(&topic("news")));
    assert!(!ann.may_publish(&topic("news")));
    assert_eq!(cause(&door, &token(&claims(json!({})))), Cause::NoTenant);
    // A sub that looks like a topic of another tenant stays in its own.
    let text = claims(json!({"tenant": "acme", "sub": "x/../evil/user:1"}));
    let eve = identify(&door, &token(&text)).unwrap();
    assert_eq!(
        eve.own_topic(),
        Some(&topic("acme/user:x%2F..%2Fevil%2Fuser:1"))
    );
}

#[test]
fn claims_may_stand_elsewhere() {
    let door = authority(AuthSettings {
        claims: ClaimNames {
            topics: "/https:~1~1x.test~1topics".into(),
            publish: "/app/publish".into(),
            tenant: "/app/org".into(),
        },
        ..secret()
    });
    let text = claims(json!({
        "https://x.test/topics": ["acme/a"], "topics": ["acme/b"],
        "app": {"publish": ["acme/c"], "org": "acme"},
    }));
    let ann = identify(&door, &token(&text)).unwrap();
    assert!(ann.may_read(&topic("acme/a")));
    assert!(!ann.may_read(&topic("acme/b")));
    assert!(ann.may_publish(&topic("acme/c")));
    assert_eq!(ann.tenant(), Some("acme"));
}

#[test]
fn nobody_reads_what_is_public_and_nothing_else() {
    let nothing = Presented::default();
    let closed = authority(secret());
    assert_eq!(
        closed.identify(&nothing, now()).unwrap_err(),
        Refusal::Unauthorized(Cause::Missing)
    );
    let open = authority(AuthSettings {
        public_topics: public(&["news", "public:*"]),
        ..secret()
    });
    let somebody = open.identify(&nothing, now()).unwrap();
    assert_eq!(somebody.credential(), Credential::Anonymous);
    assert_eq!(somebody.user(), None);
    assert_eq!(somebody.own_topic(), None);
    assert_eq!(somebody.expires_at(), None);
    assert_eq!(somebody.claims(), "{}");
    assert!(somebody.may_read(&topic("public:x")));
    assert!(!somebody.may_read(&topic("user:42")));
    assert!(!somebody.may_publish(&topic("public:x")));
    // A bad credential is not answered in nobody's name.
    let expired = token(&claims(json!({"exp": NOW - 3600})));
    assert_eq!(cause(&open, &expired), Cause::Expired);
    let door = authority(AuthSettings {
        public_topics: public(&["*"]),
        ..AuthSettings::default()
    });
    assert_eq!(cause(&door, &token(&claims(json!({})))), Cause::UnknownKey);
}

#[test]
fn a_bad_credential_never_falls_back_to_a_good_one() {
    let door = authority(secret());
    let good = format!("session={}", token(&claims(json!({}))));
    let expired = format!("Bearer {}", token(&claims(json!({"exp": NOW - 3600}))));
    let mut presented = Presented {
        cookies: vec![&good],
        get: true,
        ..Presented::default()
    };
    let ann = door.identify(&presented, now()).unwrap();
    assert_eq!(ann.credential(), Credential::Cookie);
    presented.authorization = Some(&expired);
    assert_eq!(
        door.identify(&presented, now()).unwrap_err(),
        Refusal::Unauthorized(Cause::Expired)
    );
    presented.authorization = None;
    presented.ticket = Some("1.AAAA.AAAA");
    door.accept_tickets(&[7; 32]);
    assert_eq!(
        door.identify(&presented, now()).unwrap_err(),
        Refusal::Unauthorized(Cause::WrongSignature)
    );
}

#[test]
fn a_ticket_stands_for_its_buyer() {
    let door = authority(secret());
    let text = claims(json!({"tenant": "acme", "topics": ["acme/a:*"], "publish": ["acme/*"]}));
    let ann = identify(&door, &token(&text)).unwrap();
    assert_eq!(
        door.issue_ticket(&ann, None, now()).unwrap_err(),
        Refusal::TicketsUnavailable
    );
    door.accept_tickets(&[7; 32]);
    let ticket = door
        .issue_ticket(&ann, Some("https://app.test"), now())
        .unwrap();
    assert_eq!(
        ticket.opens_until,
        Timestamp::from_second(NOW + 60).unwrap()
    );

    let elsewhere = authority(secret());
    let mut presented = Presented {
        ticket: Some(&ticket.text),
        origin: Some("https://app.test"),
        get: true,
        ..Presented::default()
    };
    assert_eq!(
        elsewhere.identify(&presented, now()).unwrap_err(),
        Refusal::TicketsUnavailable
    );
    elsewhere.accept_tickets(&[7; 32]);
    let bearer = elsewhere.identify(&presented, now()).unwrap();
    assert_eq!(bearer.credential(), Credential::Ticket);
    assert_eq!(bearer.own_topic(), ann.own_topic());
    assert_eq!(bearer.user(), ann.user());
    assert_eq!(bearer.tenant(), Some("acme"));
    assert_eq!(bearer.expires_at(), ann.expires_at());
    assert!(bearer.may_read(&topic("acme/a:1")));
    assert!(!bearer.may_read(&topic("acme/b")));
    assert!(!bearer.may_publish(&topic("acme/a:1")));
    // A ticket buys no ticket.
    assert!(elsewhere.issue_ticket(&bearer, None, now()).is_err());

    let late = Timestamp::from_second(NOW + 60).unwrap();
    assert_eq!(
        elsewhere.identify(&presented, late).unwrap_err(),
        Refusal::Unauthorized(Cause::Expired)
    );
    presented.origin = Some("https://evil.test");
    assert_eq!(
        elsewhere.identify(&presented, now()).unwrap_err(),
        Refusal::Unauthorized(Cause::WrongOrigin)
    );
    let strict = authority(AuthSettings {
        tenants_required: true,
        ..secret()
    });
    strict.accept_tickets(&[7; 32]);
    let free = identify(&door, &token(&claims(json!({})))).unwrap();
    let ticket = door.issue_ticket(&free, None, now()).unwrap();
    presented.ticket = Some(&ticket.text);
    assert_eq!(
        strict.identify(&presented, now()).unwrap_err(),
        Refusal::Unauthorized(Cause::NoTenant)
    );
}

#[test]
fn the_longest_token_still_buys_a_ticket() {
    let door = authority(secret());
    door.accept_tickets(&[7; 32]);
    let long = |topics: usize| token(&claims(json!({"topics": vec!["request:123456*"; topics]})));
    let most = (1..)
        .take_while(|n| long(*n).len() <= TOKEN_BYTES_MAX)
        .last()
        .unwrap();
    let ann = identify(&door, &long(most)).unwrap();
    assert!(
        door.issue_ticket(&ann, Some("https://app.example.org"), now())
            .is_ok()
    );
    let absurd = "x".repeat(TICKET_BYTES_MAX);
    assert!(door.issue_ticket(&ann, Some(&absurd), now()).is_err());
}

proptest! {
    #[test]
    fn no_token_panics_or_passes(text in "\\PC{0,80}", header in "[\\PC]{0,40}") {
        let door = authority(secret());
        prop_assert!(identify(&door, &text).is_err());
        let header = URL_SAFE_NO_PAD.encode(header);
        let dotted = format!("{header}.{}.{}", URL_SAFE_NO_PAD.encode(&text), text);
        prop_assert!(identify(&door, &dotted).is_err());
    }

    #[test]
    fn a_token_changed_anywhere_is_refused(position in 0usize..200, byte in 0x21u8..0x7f) {
        let door = authority(secret());
        let good = token(&claims(json!({})));
        let mut bytes = good.clone().into_bytes();
        let position = position % bytes.len();
        prop_assume!(bytes[position] != byte);
        bytes[position] = byte;
        prop_assert!(identify(&door, &String::from_utf8(bytes).unwrap()).is_err());
    }
}
