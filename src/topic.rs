//! Topics, patterns and event types: the three small grammars of tidings.
//!
//! A [`Topic`] in hand is valid, so nothing behind the door checks one again. Two promises are
//! security and not only syntax: two users never share an own topic, whatever their `sub` contains,
//! and a pattern covers exactly what its text says.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest topic in bytes, which are also its characters. The database holds the same bound.
pub const TOPIC_MAX: usize = 255;
/// The longest event type in bytes.
pub const TYPE_MAX: usize = 64;

/// What an event is about and who may see it: `user:42`, `request:7`, `acme/user:42`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Takes `text` as a topic if it is one: 1–255 characters of the alphabet.
    pub fn parse(text: &str) -> Result<Topic, TopicError> {
        check_name(text, TOPIC_MAX)?;
        Ok(Topic(Arc::from(text)))
    }

    /// The own topic of a token: `user:<sub>`, or `<tenant>/user:<sub>`.
    ///
    /// `sub` is [encoded](encode), so that it cannot reach another user's or tenant's topic.
    /// `tidings.user_topic` in SQL gives the same text.
    pub fn own(sub: &str, tenant: Option<&str>) -> Result<Topic, TopicError> {
        if sub.is_empty() {
            return Err(TopicError::Empty);
        }
        let sub = encode(sub);
        match tenant {
            None => Topic::parse(&format!("user:{sub}")),
            Some(tenant) => {
                check_tenant(tenant)?;
                Topic::parse(&format!("{tenant}/user:{sub}"))
            }
        }
    }

    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the topic lies inside a tenant, which is to say begins with `<tenant>/`.
    pub fn belongs_to(&self, tenant: &str) -> bool {
        self.0
            .strip_prefix(tenant)
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

/// A topic, or every topic that begins with a prefix: `request:7`, `request:*`, `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Arc<str>,
    open: bool,
}

impl Pattern {
    /// Takes `text` as a pattern. A `*` may only stand at its end.
    pub fn parse(text: &str) -> Result<Pattern, TopicError> {
        let (text, open) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        if !(open && text.is_empty()) {
            check_name(text, TOPIC_MAX)?;
        }
        Ok(Pattern {
            text: Arc::from(text),
            open,
        })
    }

    /// Whether the pattern names this topic.
    pub fn covers(&self, topic: &Topic) -> bool {
        if self.open {
            topic.as_str().starts_with(&*self.text)
        } else {
            *topic.as_str() == *self.text
        }
    }
}

/// Says whether `text` may be the type of a published event: 1–64 characters of the topic
/// alphabet without `/`, and not a name that the gateway or a browser's EventSource uses itself.
pub fn check_type(text: &str) -> Result<(), TypeError> {
    if text.is_empty() {
        return Err(TypeError::Empty);
    }
    if text.len() > TYPE_MAX {
        return Err(TypeError::TooLong);
    }
    if let Some(character) = text.chars().find(|c| !allowed(*c) || *c == '/') {
        return Err(TypeError::Character(character));
    }
    // EventSource dispatches `error` and `open` by itself, and `message` is what a block without
    // a name becomes: with `?named=1` such a type would be mistaken for one of these.
    if text.starts_with("tidings.") || matches!(text, "error" | "open" | "message") {
        return Err(TypeError::Reserved);
    }
    Ok(())
}

/// Says whether `text` may be a tenant: characters of the topic alphabet without `/`.
pub fn check_tenant(text: &str) -> Result<(), TopicError> {
    check_name(text, TOPIC_MAX)?;
    match text.contains('/') {
        true => Err(TopicError::Character('/')),
        false => Ok(()),
    }
}

/// Writes foreign text as a part of a topic: every byte outside the alphabet becomes `%XX`, in
/// upper-case hexadecimal, and so do `%` and `/`.
///
/// `%` is encoded because the text `a%20b` and the text `a b` must not meet in one topic; `/`
/// because it ends a tenant, and a `sub` of `x/user:1` would otherwise be user 1 of tenant
/// `user:x`. So the mapping is one to one.
pub fn encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if in_alphabet(byte) && byte != b'%' && byte != b'/' {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}

/// Why a text is not a topic, a tenant or a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Nothing stands where a topic should.
    #[error("a topic is not empty")]
    Empty,
    /// The text is too long.
    #[error("a topic has at most {TOPIC_MAX} characters")]
    TooLong,
    /// The first character that may not stand where it does.
    #[error(
        "{0:?} may not stand there: a topic is made of A-Z a-z 0-9 _ . : / @ = + ~ | % -, \
         a tenant of the same without /, and a pattern may end in *"
    )]
    Character(char),
}

/// Why a text is not an event's type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// Nothing stands where a type should.
    #[error("a type is not empty")]
    Empty,
    /// The text is too long.
    #[error("a type has at most {TYPE_MAX} characters")]
    TooLong,
    /// The first character that may not stand in a type.
    #[error("{0:?} may not stand in a type: it is made of A-Z a-z 0-9 _ . : @ = + ~ | % -")]
    Character(char),
    /// The name belongs to the gateway or to EventSource.
    #[error("the types error, open, message and tidings.* are reserved: choose another name")]
    Reserved,
}

fn check_name(text: &str, max: usize) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    // The length comes first, so that a huge text costs nothing.
    if text.len() > max {
        return Err(TopicError::TooLong);
    }
    match text.chars().find(|c| !allowed(*c)) {
        Some(character) => Err(TopicError::Character(character)),
        None => Ok(()),
    }
}

fn allowed(character: char) -> bool {
    u8::try_from(character).is_ok_and(in_alphabet)
}

fn in_alphabet(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'_' | b'.' | b':' | b'/' | b'@' | b'=' | b'+' | b'~' | b'|' | b'%' | b'-'
        )
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Topic, TopicError> {
        Topic::parse(text)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str(if self.open { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topic(text: &str) -> Topic {
        Topic::parse(text).unwrap()
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn a_topic_is_made_of_its_alphabet_and_bounded() {
        for good in [
            "user:42",
            "acme/user:42",
            "a",
            "_.:/@=+~|%-",
            &"x".repeat(255),
        ] {
            assert_eq!(topic(good).as_str(), good);
        }
        assert_eq!(Topic::parse(""), Err(TopicError::Empty));
        assert_eq!(Topic::parse(&"x".repeat(256)), Err(TopicError::TooLong));
        assert_eq!(
            Topic::parse(&"\0".repeat(1_000_000)),
            Err(TopicError::TooLong)
        );
        for bad in [
            "a b", "a*", "a\nb", "a\0", "ä", "a,b", "a?b", "a#b", "\u{2028}",
        ] {
            assert!(
                matches!(Topic::parse(bad), Err(TopicError::Character(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn the_own_topic_is_readable_where_it_can_be() {
        let own = |sub, tenant| Topic::own(sub, tenant).unwrap().to_string();
        assert_eq!(own("42", None), "user:42");
        assert_eq!(own("42", Some("acme")), "acme/user:42");
        assert_eq!(
            own("auth0|ann@example.org", None),
            "user:auth0|ann@example.org"
        );
        assert_eq!(own("a b", None), "user:a%20b");
        assert_eq!(own("a%20b", None), "user:a%2520b");
        assert_eq!(own("ü", None), "user:%C3%BC");
        assert_eq!(own("*", None), "user:%2A");
    }

    #[test]
    fn a_sub_cannot_reach_into_a_tenant() {
        let outsider = Topic::own("a/user:b", None).unwrap();
        let insider = Topic::own("b", Some("user:a")).unwrap();
        assert_ne!(outsider, insider);
        assert!(Topic::own("", None).is_err());
        assert!(Topic::own("42", Some("")).is_err());
        assert!(Topic::own("42", Some("a/b")).is_err());
        assert!(Topic::own(&"ü".repeat(50), None).is_err());
    }

    #[test]
    fn a_tenant_ends_at_its_slash() {
        assert!(topic("acme/user:1").belongs_to("acme"));
        assert!(!topic("acme2/user:1").belongs_to("acme"));
        assert!(!topic("acme").belongs_to("acme"));
        assert!(!topic("other/acme/user:1").belongs_to("acme"));
    }

    #[test]
    fn a_pattern_is_a_topic_or_a_prefix() {
        assert!(pattern("request:7").covers(&topic("request:7")));
        assert!(!pattern("request:7").covers(&topic("request:77")));
        assert!(pattern("request:*").covers(&topic("request:77")));
        assert!(!pattern("request:*").covers(&topic("reques:77")));
        assert!(pattern("*").covers(&topic("x")));
        for bad in ["", "**", "a*b", "*a", "a b*", "a\n*"] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn types_that_others_use_are_refused() {
        for good in [
            "payment.settled",
            "orders",
            "tidings",
            "tiding.x",
            "messages",
            "Error",
        ] {
            assert_eq!(check_type(good), Ok(()), "{good}");
        }
        for reserved in ["error", "open", "message", "tidings.ready", "tidings."] {
            assert_eq!(check_type(reserved), Err(TypeError::Reserved), "{reserved}");
        }
        assert_eq!(check_type(""), Err(TypeError::Empty));
        assert_eq!(check_type(&"x".repeat(64)), Ok(()));
        assert_eq!(check_type(&"x".repeat(65)), Err(TypeError::TooLong));
        for bad in ["a/b", "a b", "a\r\ndata: x", "ä", "a*"] {
            assert!(
                matches!(check_type(bad), Err(TypeError::Character(_))),
                "{bad:?}"
            );
        }
    }

    /// Short texts in which the characters that could confuse an encoding are frequent.
    fn tricky() -> impl Strategy<Value = String> {
        prop_oneof!["[a%/2F0:*user]{1,12}", "\\PC{1,12}"]
    }

    fn tenant() -> impl Strategy<Value = Option<String>> {
        proptest::option::of("[a%2F:user]{1,8}")
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = Topic::parse(&text);
            let _ = Pattern::parse(&text);
            let _ = check_type(&text);
            let _ = Topic::own(&text, Some(&text));
        }

        #[test]
        fn topics_and_patterns_round_trip(text in "[A-Za-z0-9_.:/@=+~|%-]{1,255}") {
            let topic = topic(&text);
            prop_assert_eq!(topic.as_str(), text.as_str());
            prop_assert!(pattern(&text).covers(&topic));
            let open = format!("{text}*");
            prop_assert_eq!(pattern(&open).to_string(), open.as_str());
        }

        #[test]
        fn two_users_never_share_a_topic(
            one in (tricky(), tenant()),
            other in (tricky(), tenant()),
        ) {
            let own = |(sub, tenant): &(String, Option<String>)| Topic::own(sub, tenant.as_deref());
            if let (Ok(first), Ok(second)) = (own(&one), own(&other)) {
                prop_assert_eq!(first == second, one == other);
            }
        }

        #[test]
        fn a_prefix_covers_exactly_what_begins_with_it(
            prefix in "[ab/:]{0,4}", text in "[ab/:]{1,8}"
        ) {
            let pattern = pattern(&format!("{prefix}*"));
            prop_assert_eq!(pattern.covers(&topic(&text)), text.starts_with(&prefix));
        }
    }
}
