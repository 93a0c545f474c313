//! Credentials: whatever is presented, an identity comes only of a signature that is ours, and says what
//! was signed.
//!
//! Guessing a signature is hopeless, so the first character of an input says what becomes of the rest:
//!
//! ```text
//! b…   an `Authorization` header            s HEADER \n CLAIMS    signed with the secret
//! c…   `Cookie` lines                       m…                    a message, signed as it is
//! t…   a ticket, an origin, a fetch site    e HEADER \n CLAIMS    signed with a key of the set, f: the other
//! g…   a grant, signed as a ticket          x HEADER \n CLAIMS    signed with what is no secret
//! ```

use std::collections::HashMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::RawValue;
use tidings::auth::{
    AuthSettings, Authority, Credential, Identity, Keys, LEEWAY, Origins, Presented, Refusal,
};
use tidings::topic::{Pattern, Topic};

use crate::issuer;

/// When all of this happens, in seconds since 1970.
const NOW: i64 = 1_800_000_000;
const PAGE: &str = "https://app.example.org";

/// One that knows a secret, sells tickets and takes cookies.
static SECRET: LazyLock<Authority> = LazyLock::new(|| {
    let authority = Authority::new(AuthSettings {
        keys: Some(Keys::secret(issuer::SECRET).expect("is a secret")),
        cookie: Some("session".into()),
        origins: Origins::parse([PAGE]).expect("is an origin"),
        public_topics: news(),
        ..AuthSettings::default()
    });
    let authority = authority.expect("the settings agree");
    authority.accept_tickets(&issuer::TICKETS);
    authority
});

/// One that knows the public keys of an issuer.
static PUBLIC: LazyLock<Authority> = LazyLock::new(|| {
    let authority = Authority::new(AuthSettings {
        keys: Some(Keys::jwk_set(&issuer::jwk_set()).expect("is a set")),
        audience: Some(issuer::AUDIENCE.into()),
        public_topics: news(),
        ..AuthSettings::default()
    });
    authority.expect("the settings agree")
});

/// Presents an input.
pub fn run(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let mut chars = text.chars();
    let kind = chars.next();
    let rest = chars.as_str();
    match kind {
        Some('b') => bearer(rest),
        Some('c') => cookies(rest),
        Some('t') => ticket(rest),
        Some('g') => grant(rest),
        Some('s') => signed(&issuer::sign(issuer::SECRET.as_bytes(), &message(rest))),
        Some('m') => signed(&issuer::sign(issuer::SECRET.as_bytes(), rest)),
        Some('e') => signed_publicly(&issuer::sign_publicly(0, &message(rest))),
        Some('f') => signed_publicly(&issuer::sign_publicly(1, &message(rest))),
        Some('x') => {
            confused(&message(rest));
            false
        }
        _ => false,
    }
}

/// What everybody may read.
fn news() -> Vec<Pattern> {
    vec![Pattern::parse("news:*").expect("is a pattern")]
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("is a time")
}

/// Header and claims, as they stand before a signature.
fn message(text: &str) -> String {
    let (header, claims) = text.split_once('\n').unwrap_or((text, ""));
    format!("{}.{}", issuer::encode(header), issuer::encode(claims))
}

fn with_bearer(authority: &Authority, token: &str) -> Result<Identity, Refusal> {
    let header = format!("Bearer {token}");
    let presented = Presented {
        authorization: Some(&header),
        ..Presented::default()
    };
    authority.identify(&presented, now())
}

/// A token that we have signed: what it grants is what it says.
fn signed(token: &str) -> bool {
    let Ok(identity) = with_bearer(&SECRET, token) else {
        return false;
    };
    hold_token(&identity, token, "HS256");
    assert!(with_bearer(&PUBLIC, token).is_err(), "{token}");
    let presented = Presented {
        authorization: None,
        ticket: Some(token),
        get: true,
        ..Presented::default()
    };
    assert!(SECRET.identify(&presented, now()).is_err(), "{token}");
    true
}

fn signed_publicly(token: &str) -> bool {
    let Ok(identity) = with_bearer(&PUBLIC, token) else {
        return false;
    };
    hold_token(&identity, token, "EdDSA");
    let aud = &claims_of(token)["aud"];
    let named = |aud: &Value| aud.as_str() == Some(issuer::AUDIENCE);
    assert!(
        named(aud) || aud.as_array().is_some_and(|all| all.iter().any(named)),
        "{aud}"
    );
    assert!(with_bearer(&SECRET, token).is_err(), "{token}");
    true
}

/// What everybody can sign with is worth nothing: the algorithm is the key's and not the token's.
fn confused(message: &str) {
    let set = issuer::jwk_set();
    for secret in [
        &issuer::public(0)[..],
        &issuer::public(1),
        set.as_bytes(),
        b"",
    ] {
        let token = issuer::sign(secret, message);
        for authority in [&*PUBLIC, &*SECRET] {
            assert!(with_bearer(authority, &token).is_err(), "{token}");
        }
    }
}

/// A header as it was sent. Nobody is anonymous who sends one.
fn bearer(header: &str) -> bool {
    let presented = Presented {
        authorization: Some(header),
        ..Presented::default()
    };
    let mut came_through = false;
    for (authority, algorithm) in [(&*SECRET, "HS256"), (&*PUBLIC, "EdDSA")] {
        let Ok(identity) = authority.identify(&presented, now()) else {
            continue;
        };
        assert_eq!(identity.credential(), Credential::Bearer);
        let (_, token) = header.trim().split_once(' ').expect("scheme and token");
        let token = token.trim();
        let ours = match algorithm {
            "HS256" => issuer::is_signed(issuer::SECRET.as_bytes(), token),
            _ => issuer::is_signed_publicly(token),
        };
        assert!(ours, "{token}");
        hold_token(&identity, token, algorithm);
        came_through = true;
    }
    came_through
}

/// Cookie lines, by every page that may send them and by one that may not.
fn cookies(lines: &str) -> bool {
    let values: Vec<&str> = lines
        .split(['\n', ';'])
        .filter_map(|pair| pair.trim().strip_prefix("session="))
        .collect();
    let mut presented = Presented {
        cookies: lines.split('\n').collect(),
        get: true,
        ..Presented::default()
    };
    let identity = SECRET.identify(&presented, now());
    presented.origin = Some("https://app.example.org.evil.test");
    let stranger = SECRET.identify(&presented, now());
    presented.origin = Some(PAGE);
    presented.get = false;
    let post = SECRET.identify(&presented, now());
    for other in [&stranger, &post] {
        let anonymous = other
            .as_ref()
            .is_ok_and(|other| other.credential() == Credential::Anonymous);
        assert_eq!(other.is_ok(), anonymous);
        assert_eq!(anonymous, values.is_empty(), "{lines:?}");
    }
    let Ok(identity) = identity else { return false };
    if identity.credential() == Credential::Anonymous {
        assert_eq!(values, [""; 0]);
        hold_anonymous(&identity);
        return false;
    }
    assert_eq!(identity.credential(), Credential::Cookie);
    let token = values[0];
    assert!(values.iter().all(|value| *value == token), "{lines:?}");
    assert!(issuer::is_signed(issuer::SECRET.as_bytes(), token));
    hold_token(&identity, token, "HS256");
    true
}

/// A ticket, and on further lines the origin of the page and its fetch site.
fn ticket(text: &str) -> bool {
    let mut lines = text.split('\n');
    let ticket = lines.next().unwrap_or("");
    let (origin, fetch_site) = (lines.next(), lines.next());
    let presented = Presented {
        ticket: Some(ticket),
        origin,
        fetch_site,
        get: true,
        ..Presented::default()
    };
    let Ok(identity) = SECRET.identify(&presented, now()) else {
        return false;
    };
    assert!(issuer::is_signed(&issuer::TICKETS, ticket), "{ticket}");
    hold_ticket(&identity, ticket, origin, fetch_site);
    let post = Presented {
        get: false,
        ..presented
    };
    assert!(SECRET.identify(&post, now()).is_err(), "{ticket}");
    true
}

/// A grant that we have signed.
fn grant(text: &str) -> bool {
    let (grant, page) = text.split_once('\n').unwrap_or((text, ""));
    // A list of the members' values would be read as well, but nobody signs one.
    if !grant.trim_start().starts_with('{') {
        return false;
    }
    let ticket = issuer::sign(&issuer::TICKETS, &format!("1.{}", issuer::encode(grant)));
    self::ticket(&format!("{ticket}\n{page}"))
}

/// The claims of a token that was accepted, which are therefore readable.
fn claims_of(token: &str) -> Value {
    let claims = token.split('.').nth(1).expect("has three parts");
    let claims = issuer::decode(claims).expect("is base64url in one spelling");
    serde_json::from_slice(&claims).expect("is JSON")
}

/// An identity by a token is what the token says.
fn hold_token(identity: &Identity, token: &str, algorithm: &str) {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "{token}");
    let header = issuer::decode(parts[0]).expect("is base64url in one spelling");
    let header = String::from_utf8(header).expect("is UTF-8");
    // What is not looked at is JSON and no more: half of a surrogate pair, for one, is nobody's concern.
    let header: HashMap<String, &RawValue> = serde_json::from_str(&header).expect("is an object");
    let alg: String = serde_json::from_str(header["alg"].get()).expect("is a text");
    assert_eq!(alg, algorithm);
    assert!(header.get("crit").is_none_or(|crit| crit.get() == "null"));
    let claims = claims_of(token);
    let told: Value = serde_json::from_str(identity.claims()).expect("is JSON");
    assert_eq!(told, claims);
    assert!(!identity.claims().contains("\\u0000"), "{claims}");
    let leeway = LEEWAY.as_secs() as f64;
    let exp = claims["exp"].as_f64().expect("has an end");
    assert!(exp.floor() + leeway >= NOW as f64, "{claims}");
    if let Some(nbf) = claims.get("nbf") {
        let nbf = nbf.as_f64().expect("is a number");
        assert!(nbf.floor() - leeway <= NOW as f64, "{claims}");
    }
    let end = identity.expires_at().expect("has an end");
    match Timestamp::from_second(exp.floor() as i64) {
        Ok(exp) => assert_eq!(end, exp),
        Err(_) => assert_eq!(end, Timestamp::MAX),
    }
    let sub = claims["sub"].as_str().expect("names somebody");
    let tenant = claims
        .get("tenant")
        .map(|tenant| tenant.as_str().expect("is a text"));
    hold_reach(
        identity,
        (sub, tenant),
        &texts(&claims["topics"]),
        &texts(&claims["publish"]),
    );
}

/// An identity by a ticket is what was sold.
fn hold_ticket(identity: &Identity, ticket: &str, origin: Option<&str>, fetch_site: Option<&str>) {
    assert_eq!(identity.credential(), Credential::Ticket);
    let grant = claims_of(ticket);
    for end in ["til", "exp"] {
        assert!(grant[end].as_i64().expect("is a time") > NOW, "{grant}");
    }
    let exp = grant["exp"].as_i64().expect("is a time");
    assert_eq!(identity.expires_at(), Timestamp::from_second(exp).ok());
    if let Some(page) = grant["ori"].as_str() {
        let here = origin.is_none() && fetch_site == Some("same-origin");
        assert!(here || origin == Some(page), "{grant} {origin:?}");
    }
    let sub = grant["sub"].as_str().expect("names somebody");
    let told: Value = serde_json::from_str(identity.claims()).expect("is JSON");
    assert_eq!(told, serde_json::json!({ "sub": sub }));
    hold_reach(
        identity,
        (sub, grant["ten"].as_str()),
        &texts(&grant["top"]),
        &[],
    );
}

/// Whoever has no credential reads what is public.
fn hold_anonymous(identity: &Identity) {
    assert_eq!(identity.claims(), "{}");
    assert_eq!(identity.user(), None);
    for (text, public) in [("news:1", true), ("user:42", false), ("request:7", false)] {
        let topic = Topic::parse(text).expect("is a topic");
        assert_eq!(identity.may_read(&topic), public, "{text}");
        assert!(!identity.may_publish(&topic), "{text}");
    }
}

/// A claim of patterns: several, one, or none.
fn texts(claim: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("is a text").to_owned();
    match claim {
        Value::Null => Vec::new(),
        Value::Array(all) => all.iter().map(text).collect(),
        one => vec![text(one)],
    }
}

/// What somebody may read and publish, for topics on both sides of every pattern.
fn hold_reach(
    identity: &Identity,
    (sub, tenant): (&str, Option<&str>),
    read: &[String],
    publish: &[String],
) {
    let own = Topic::own(sub, tenant).expect("was accepted");
    assert_eq!(identity.own_topic(), Some(&own));
    assert_eq!(identity.tenant(), tenant);
    let covers = |patterns: &[String], topic: &str| {
        let inside = tenant.is_none_or(|tenant| {
            topic.len() > tenant.len() && topic.starts_with(&format!("{tenant}/"))
        });
        inside
            && patterns
                .iter()
                .any(|pattern| match pattern.split_once('*') {
                    Some((prefix, _)) => topic.starts_with(prefix),
                    None => topic == pattern,
                })
    };
    let fixed = ["user:42", "news:1", "acme/user:42", "acme/request:7", "x"];
    let mut asked: Vec<String> = fixed.map(String::from).to_vec();
    asked.push(own.to_string());
    for pattern in read.iter().chain(publish).take(8) {
        let plain = pattern.trim_end_matches('*');
        asked.extend([
            plain.to_owned(),
            format!("{plain}7"),
            format!("{}/{plain}", tenant.unwrap_or("acme")),
        ]);
    }
    for text in asked {
        let Ok(topic) = Topic::parse(&text) else {
            continue;
        };
        let readable = topic == own || covers(read, &text) || text.starts_with("news:");
        assert_eq!(identity.may_read(&topic), readable, "{text} {read:?}");
        assert_eq!(
            identity.may_publish(&topic),
            covers(publish, &text),
            "{text}"
        );
    }
}
