//! Who signs: the keys of the targets, which are also those of the committed inputs, and a second look
//! at signatures that shares no code with the gateway's.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// The shared secret of tokens.
pub(crate) const SECRET: &str = "k3uF0h7vQm1xYt9Zr2Lc8Wb5Ns6Pj4Dg";
/// The key of tickets.
pub(crate) const TICKETS: [u8; 32] = [7; 32];
/// The audience of those who sign with a public key.
pub(crate) const AUDIENCE: &str = "tidings";
/// The keys of the set, by name.
const SET: [(&str, [u8; 32]); 2] = [("one", [1; 32]), ("two", [2; 32])];

/// A text in base64url.
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What a text in base64url says, if it is written in the only way that there is.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    (encode(&bytes) == text).then_some(bytes)
}

/// A message with its signature by this secret behind it.
pub(crate) fn sign(secret: &[u8], message: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", encode(signature))
}

/// A message with its signature by this key of the set behind it.
pub(crate) fn sign_publicly(key: usize, message: &str) -> String {
    let signature = pair(key).sign(message.as_bytes());
    format!("{message}.{}", encode(signature))
}

/// Whether a text ends in the signature of this secret over all before it.
pub(crate) fn is_signed(secret: &[u8], text: &str) -> bool {
    let message = text.rsplit_once('.').map(|(message, _)| message);
    message.is_some_and(|message| sign(secret, message) == text)
}

/// Whether a text ends in the signature of a key of the set over all before it.
pub(crate) fn is_signed_publicly(text: &str) -> bool {
    let Some((message, signature)) = text.rsplit_once('.') else {
        return false;
    };
    let Some(signature) = decode(signature) else {
        return false;
    };
    (0..SET.len()).any(|key| {
        let public = UnparsedPublicKey::new(&ED25519, public(key));
        public.verify(message.as_bytes(), &signature).is_ok()
    })
}

/// A public key of the set as it is, which everybody knows.
pub(crate) fn public(key: usize) -> Vec<u8> {
    pair(key).public_key().as_ref().to_vec()
}

/// The set as an issuer publishes it.
pub(crate) fn jwk_set() -> String {
    let keys = SET.iter().enumerate().map(|(key, (kid, _))| {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": encode(public(key))})
    });
    json!({"keys": keys.collect::<Vec<_>>()}).to_string()
}

fn pair(key: usize) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&SET[key].1).expect("32 bytes are a seed")
}
