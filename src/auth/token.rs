//! From the text of a JSON Web Token to its claims, or to the cause why not.
//!
//! What can be looked at for nothing is looked at first: length, shape, `alg`, `kid` and `exp` turn
//! a bad token away before any cryptography runs. The claims are parsed once, and what was checked
//! is what is used. The crate's own validation is left aside because by default it lets a missing
//! `aud` or `iss` and a future `nbf` pass, and because it reads a clock of its own.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};

use super::Cause;
use super::key::Keys;

/// The longest token in bytes. Browsers end cookies at 4 KiB, and a head has 16 KiB for all.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far the clocks of issuer and gateway may lie apart.
pub const LEEWAY: SignedDuration = SignedDuration::from_secs(30);

/// What a token must satisfy besides its signature.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// One of the token's audiences, when set.
    pub(crate) audience: Option<String>,
    /// The token's issuer, when set.
    pub(crate) issuer: Option<String>,
}

/// The claims of a token that passed, with those that every token has taken out of them.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) sub: String,
    pub(crate) expires_at: Timestamp,
    pub(crate) all: Value,
}

/// Checks `token` against the keys and the rules, at the time `now`.
pub(crate) fn check(
    token: &str,
    keys: &Keys,
    rules: &Rules,
    now: Timestamp,
) -> Result<Claims, Cause> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Cause::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Cause::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(Cause::Malformed)?;
    let header: Header = part(header)?;
    // An extension that must be understood, and is not (RFC 7515, 4.1.11).
    if header.crit.is_some() {
        return Err(Cause::Malformed);
    }
    let key = keys
        .choose(header.kid.as_deref())
        .ok_or(Cause::UnknownKey)?;
    if header.alg != key.algorithm() {
        return Err(Cause::WrongAlgorithm);
    }
    let claims: Map<String, Value> = part(payload)?;
    let expires_at = date(&claims, "exp")?.ok_or(Cause::Incomplete)?;
    if now.duration_since(expires_at) > LEEWAY {
        return Err(Cause::Expired);
    }
    if !key.verifies(message, signature) {
        return Err(Cause::WrongSignature);
    }
    if date(&claims, "nbf")?.is_some_and(|start| start.duration_since(now) > LEEWAY) {
        return Err(Cause::NotYetValid);
    }
    check_audience(claims.get("aud"), rules.audience.as_deref())?;
    if let Some(issuer) = &rules.issuer
        && claims.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        return Err(Cause::WrongIssuer);
    }
    let sub = match claims.get("sub") {
        Some(Value::String(sub)) if !sub.is_empty() => sub.clone(),
        _ => return Err(Cause::Incomplete),
    };
    let all = Value::Object(claims);
    // Postgres cannot hold a NUL in jsonb: state functions would fail on these claims.
    if holds_nul(&all) {
        return Err(Cause::Malformed);
    }
    Ok(Claims {
        sub,
        expires_at,
        all,
    })
}

/// What of a header is looked at. A key or a URL that a token brings along is never used.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

/// A JSON object in UTF-8. By itself the parser would take the list of a header's members for it, and bytes that
/// are no UTF-8 where it looks at nothing.
fn part<T: DeserializeOwned>(encoded: &str) -> Result<T, Cause> {
    let json = URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| Cause::Malformed)?;
    let json = str::from_utf8(&json).map_err(|_| Cause::Malformed)?;
    if !json.trim_ascii_start().starts_with('{') {
        return Err(Cause::Malformed);
    }
    serde_json::from_str(json).map_err(|_| Cause::Malformed)
}

/// A NumericDate, which may have a fraction. What lies beyond the calendar is its end.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Cause> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            let seconds = value.as_f64().ok_or(Cause::Malformed)?;
            // A cast of a float saturates.
            let date = Timestamp::from_second(seconds.floor() as i64);
            Ok(Some(date.unwrap_or(match seconds > 0.0 {
                true => Timestamp::MAX,
                false => Timestamp::MIN,
            })))
        }
    }
}

fn check_audience(claim: Option<&Value>, expected: Option<&str>) -> Result<(), Cause> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let meant_for_us = match claim {
        Some(Value::String(one)) => one == expected,
        Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(expected)),
        _ => false,
    };
    if meant_for_us {
        Ok(())
    } else {
        Err(Cause::WrongAudience)
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}
