//! Tickets: short-lived texts that stand in a URL where a header cannot be sent.
//!
//! A ticket names who bought it, what they may read and from which page, and is signed with the key
//! that all gateways of a database share, so that any of them takes it. It opens streams for
//! [`OPENS_FOR`], as often as a reconnecting browser needs within; such a stream then lasts as long
//! as the token that bought it would have let it. A ticket publishes nothing and buys nothing.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Cause;

/// How long after its sale a ticket opens streams.
pub const OPENS_FOR: SignedDuration = SignedDuration::from_secs(60);
/// The longest ticket in bytes: the longest token's claims, with room for what is added.
pub const TICKET_BYTES_MAX: usize = 10 * 1024;
/// The form, which is signed along: a text signed for another purpose or version is no ticket.
const VERSION: &str = "1";

/// The key that all gateways of a database share, from its table `tidings.secret`.
pub(super) struct TicketKey(hmac::Key);

impl TicketKey {
    pub(super) fn new(key: &[u8; 32]) -> TicketKey {
        TicketKey(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The ticket as text: `1.<grant>.<signature>`.
    pub(super) fn sign(&self, grant: &Grant) -> String {
        let json = serde_json::to_vec(grant).expect("a grant holds only texts and numbers");
        let mut text = format!("{VERSION}.{}", URL_SAFE_NO_PAD.encode(json));
        let signature = hmac::sign(&self.0, text.as_bytes());
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(signature));
        text
    }

    /// What a ticket grants at the time `now` to a page of this origin.
    pub(super) fn check(
        &self,
        text: &str,
        origin: Option<&str>,
        fetch_site: Option<&str>,
        now: Timestamp,
    ) -> Result<Grant, Cause> {
        if text.len() > TICKET_BYTES_MAX {
            return Err(Cause::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Cause::Malformed)?;
        let (version, grant) = signed.split_once('.').ok_or(Cause::Malformed)?;
        if version != VERSION {
            return Err(Cause::Malformed);
        }
        let decode = |text| URL_SAFE_NO_PAD.decode(text).map_err(|_| Cause::Malformed);
        hmac::verify(&self.0, signed.as_bytes(), &decode(signature)?)
            .map_err(|_| Cause::WrongSignature)?;
        let grant: Grant = serde_json::from_slice(&decode(grant)?).map_err(|_| Cause::Malformed)?;
        if now.as_second() >= grant.opens_until || now.as_second() >= grant.expires_at {
            return Err(Cause::Expired);
        }
        // A browser names the origin when it buys, and leaves it out when a page of that very origin opens
        // the stream; then it says so in a header that no page can set.
        let same_origin = origin.is_none() && fetch_site == Some("same-origin");
        if grant.origin.is_some() && grant.origin.as_deref() != origin && !same_origin {
            return Err(Cause::WrongOrigin);
        }
        Ok(grant)
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey")
    }
}

/// What a ticket says. Times are seconds since 1970; names are short because URLs are.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) sub: String,
    #[serde(rename = "ten", skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
    #[serde(rename = "top")]
    pub(super) topics: Vec<String>,
    #[serde(rename = "ori", skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<String>,
    #[serde(rename = "til")]
    pub(super) opens_until: i64,
    #[serde(rename = "exp")]
    pub(super) expires_at: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> TicketKey {
        TicketKey::new(&[7; 32])
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn grant() -> Grant {
        Grant {
            sub: "42".into(),
            tenant: Some("acme".into()),
            topics: vec!["acme/request:*".into()],
            origin: None,
            opens_until: 1_060,
            expires_at: 5_000,
        }
    }

    #[test]
    fn any_gateway_of_the_database_takes_a_ticket_again_and_again() {
        let text = key().sign(&grant());
        assert_eq!(key().check(&text, None, None, at(1_000)), Ok(grant()));
        assert_eq!(
            key().check(&text, Some("https://x.test"), None, at(1_059)),
            Ok(grant())
        );
        let stranger = TicketKey::new(&[8; 32]);
        assert_eq!(
            stranger.check(&text, None, None, at(1_000)),
            Err(Cause::WrongSignature)
        );
    }

    #[test]
    fn a_ticket_ends_with_its_time_or_its_token() {
        let text = key().sign(&grant());
        assert_eq!(
            key().check(&text, None, None, at(1_060)),
            Err(Cause::Expired)
        );
        let short = Grant {
            expires_at: 1_010,
            ..grant()
        };
        let text = key().sign(&short);
        assert_eq!(
            key().check(&text, None, None, at(1_010)),
            Err(Cause::Expired)
        );
    }

    #[test]
    fn a_ticket_of_a_page_serves_that_page() {
        let text = key().sign(&Grant {
            origin: Some("https://app.test".into()),
            ..grant()
        });
        assert!(
            key()
                .check(&text, Some("https://app.test"), None, at(1_000))
                .is_ok()
        );
        for other in [None, Some("https://evil.test"), Some("null"), Some("")] {
            assert_eq!(
                key().check(&text, other, None, at(1_000)),
                Err(Cause::WrongOrigin)
            );
        }
        let without_origin = |site| key().check(&text, None, Some(site), at(1_000));
        assert!(without_origin("same-origin").is_ok());
        for site in ["same-site", "cross-site", "none", ""] {
            assert_eq!(without_origin(site), Err(Cause::WrongOrigin), "{site}");
        }
        let elsewhere = key().check(
            &text,
            Some("https://evil.test"),
            Some("same-origin"),
            at(1_000),
        );
        assert_eq!(elsewhere, Err(Cause::WrongOrigin));
    }

    #[test]
    fn every_changed_character_spoils_a_ticket() {
        let text = key().sign(&grant());
        for position in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(
                key().check(&changed, None, None, at(1_000)).is_err(),
                "{position}"
            );
        }
        assert_eq!(
            key().check(&"1.".repeat(TICKET_BYTES_MAX), None, None, at(1_000)),
            Err(Cause::TooLong)
        );
    }

    proptest! {
        #[test]
        fn no_text_panics_or_passes(text in any::<String>()) {
            prop_assert!(key().check(&text, None, None, at(1_000)).is_err());
        }
    }
}
