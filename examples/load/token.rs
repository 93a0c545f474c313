//! Tokens of an hour, one for each user.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use crate::Result;

/// How long a token is good for, in seconds.
const TOKEN_SECONDS: u64 = 3_600;

/// A token of the user of this number, who may read and publish everything.
pub(crate) fn token(secret: &str, number: usize) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = json!({
        "sub": format!("u{number}"), "exp": now + TOKEN_SECONDS, "topics": ["*"], "publish": ["*"],
    });
    let key = EncodingKey::from_secret(secret.as_bytes());
    Ok(jsonwebtoken::encode(&Header::default(), &claims, &key)?)
}
