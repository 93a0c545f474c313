//! Channels that an application already notifies: which topic and type such a message is for.
//!
//! The operator writes one line per channel, `channel -> topic-template [type]`, for example
//! `orders -> orders/{customer_id} order.changed`, where `{name}` stands for that member of the
//! payload's JSON object. A value can fill its place in a topic, and cannot add a `/` to it.
//! Anyone who can connect to the database can notify, so that what arrives is checked like any
//! signal and worth no more than one.

use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::topic::{self, Topic, TopicError, TypeError, check_type};

/// Postgres cuts longer names, so that such a channel would never be heard.
const CHANNEL_BYTES_MAX: usize = 63;

/// One line of `TIDINGS_CHANNELS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRule {
    channel: Box<str>,
    topic: Template,
    kind: Template,
}

/// What a notification on a channel becomes.
#[derive(Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The topic, from the template.
    pub topic: Topic,
    /// The type.
    pub kind: Box<str>,
    /// The payload's JSON, in one line.
    pub data: Box<str>,
}

impl ChannelRule {
    /// Reads all lines; empty ones and such that begin with `#` say nothing. Faults come together.
    pub fn parse_all(lines: &str) -> Result<Vec<ChannelRule>, Vec<String>> {
        let mut rules: Vec<ChannelRule> = Vec::new();
        let mut faults = Vec::new();
        for line in lines.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match ChannelRule::parse(line) {
                Ok(rule) if rules.iter().any(|other| other.channel == rule.channel) => {
                    faults.push(format!("{line:?}: the channel has a line already"));
                }
                Ok(rule) => rules.push(rule),
                Err(fault) => faults.push(format!("{line:?}: {fault}")),
            }
        }
        if faults.is_empty() {
            Ok(rules)
        } else {
            Err(faults)
        }
    }

    /// Reads one line.
    pub fn parse(line: &str) -> Result<ChannelRule, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (channel, topic, kind) = match words[..] {
            [channel, "->", topic] => (channel, topic, channel),
            [channel, "->", topic, kind] => (channel, topic, kind),
            _ => return Err("a line looks like: channel -> topic-template [type]".into()),
        };
        if channel == "tidings" {
            return Err("the channel tidings is the gateway's own".into());
        }
        if channel.len() > CHANNEL_BYTES_MAX {
            return Err(format!("a channel has at most {CHANNEL_BYTES_MAX} bytes"));
        }
        let topic = Template::parse(topic)?;
        let kind = Template::parse(kind)?;
        // Without fields both are known now, and a fault would repeat at every notification.
        if let Some(text) = topic.as_literal() {
            Topic::parse(text).map_err(|fault| fault.to_string())?;
        }
        if let Some(text) = kind.as_literal() {
            check_type(text).map_err(|fault| match words.len() {
                3 => format!("the channel's name cannot be the type, write one behind it: {fault}"),
                _ => fault.to_string(),
            })?;
        }
        Ok(ChannelRule {
            channel: Box::from(channel),
            topic,
            kind,
        })
    }

    /// The channel to listen to.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Makes of a payload what it is to become. An empty payload is JSON's null.
    pub fn apply(&self, payload: &str) -> Result<Mapped, ChannelError> {
        let payload = if payload.is_empty() { "null" } else { payload };
        let json: &RawValue = serde_json::from_str(payload).map_err(|_| ChannelError::NotJson)?;
        // In JSON a line break can only stand between values: inside of texts it is escaped.
        let data = json.get().replace(['\n', '\r'], " ");
        let members = if self.topic.has_fields() || self.kind.has_fields() {
            serde_json::from_str(payload).map_err(|_| ChannelError::NotAnObject)?
        } else {
            HashMap::new()
        };
        let topic = Topic::parse(&self.topic.fill(&members)?)?;
        let kind = self.kind.fill(&members)?;
        check_type(&kind)?;
        Ok(Mapped {
            topic,
            kind: kind.into(),
            data: data.into(),
        })
    }
}

/// Why a notification on a channel becomes nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The payload is no JSON.
    #[error("the payload is not JSON")]
    NotJson,
    /// The rule takes members, and there is no object to take them from.
    #[error("the payload is not a JSON object")]
    NotAnObject,
    /// A member that the rule takes is not there, or is nothing that a topic can be made of.
    #[error("the payload's {0:?} is no text, number or truth value")]
    Member(Box<str>),
    /// The topic that results is none.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The type that results is none.
    #[error(transparent)]
    Type(#[from] TypeError),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Field(Box<str>),
}

impl Template {
    fn parse(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, behind) = rest.split_once('{').unwrap_or((rest, ""));
            if literal.contains('}') || (behind.is_empty() && rest.contains('{')) {
                return Err(format!("the braces of {text:?} do not match"));
            }
            if !literal.is_empty() {
                // Checked piece by piece, so that a fault shows at the start.
                Topic::parse(literal).map_err(|fault| fault.to_string())?;
                parts.push(Part::Literal(Box::from(literal)));
            }
            if behind.is_empty() {
                break;
            }
            let (name, behind) = behind
                .split_once('}')
                .filter(|(name, _)| !name.is_empty() && !name.contains('{'))
                .ok_or_else(|| format!("the braces of {text:?} do not match or hold no name"))?;
            parts.push(Part::Field(Box::from(name)));
            rest = behind;
        }
        Ok(Template(parts))
    }

    fn as_literal(&self) -> Option<&str> {
        match &self.0[..] {
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    fn has_fields(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Field(_)))
    }

    fn fill(&self, members: &HashMap<String, &RawValue>) -> Result<String, ChannelError> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Field(name) => {
                    let value = members.get(&**name).and_then(|value| plain(value.get()));
                    let value = value.ok_or_else(|| ChannelError::Member(name.clone()))?;
                    text.push_str(&topic::encode(&value));
                }
            }
        }
        Ok(text)
    }
}

/// The text of a value: of a string what it says, of a number or truth value how it is written, so
/// that no digit of a long number is lost. An empty text would put everyone into one topic.
fn plain(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json)
            .ok()
            .filter(|text: &String| !text.is_empty()),
        b'{' | b'[' | b'n' => None,
        _ => Some(json.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(line: &str) -> ChannelRule {
        ChannelRule::parse(line).unwrap()
    }

    fn mapped(line: &str, payload: &str) -> Result<(String, String, String), ChannelError> {
        let mapped = rule(line).apply(payload)?;
        Ok((
            mapped.topic.to_string(),
            mapped.kind.into(),
            mapped.data.into(),
        ))
    }

    fn three(
        topic: &str,
        kind: &str,
        data: &str,
    ) -> Result<(String, String, String), ChannelError> {
        Ok((topic.into(), kind.into(), data.into()))
    }

    #[test]
    fn a_payload_finds_its_topic_and_type() {
        let orders = "orders -> orders/{customer_id} order.changed";
        let payload = r#"{"customer_id":7,"total":1.50}"#;
        assert_eq!(
            mapped(orders, payload),
            three("orders/7", "order.changed", payload)
        );
        assert_eq!(rule(orders).channel(), "orders");
        assert_eq!(
            mapped("orders -> all", "[1,\r\n 2]"),
            three("all", "orders", "[1,   2]")
        );
        assert_eq!(
            mapped("cleared -> cache", ""),
            three("cache", "cleared", "null")
        );
        assert_eq!(
            mapped(
                "t -> {a}:{b}/{c} {k}.changed",
                r#"{"a":"x","b":true,"c":12345678901234567890123,"k":"row"}"#
            )
            .map(|(topic, kind, _)| (topic, kind)),
            Ok((
                "x:true/12345678901234567890123".into(),
                "row.changed".into()
            ))
        );
    }

    #[test]
    fn a_value_stays_in_its_place() {
        let topic = |value: &str| {
            let payload = serde_json::json!({ "id": value }).to_string();
            mapped("c -> user:{id}", &payload).map(|(topic, _, _)| topic)
        };
        assert_eq!(topic("ann@x.test"), Ok("user:ann@x.test".into()));
        assert_eq!(
            topic("../acme/user:1"),
            Ok("user:..%2Facme%2Fuser:1".into())
        );
        assert_eq!(topic("a\nb*"), Ok("user:a%0Ab%2A".into()));
        assert_eq!(
            topic(&"ü".repeat(60)),
            Err(ChannelError::Topic(TopicError::TooLong))
        );
        assert_eq!(topic(""), Err(ChannelError::Member("id".into())));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let line = "c -> user:{id} {kind}";
        for (payload, expected) in [
            ("nonsense", ChannelError::NotJson),
            (r#"{"id":1} {"id":2}"#, ChannelError::NotJson),
            ("", ChannelError::NotAnObject),
            ("[1]", ChannelError::NotAnObject),
            (r#""id""#, ChannelError::NotAnObject),
            (r#"{"ID":1}"#, ChannelError::Member("id".into())),
            (r#"{"id":null}"#, ChannelError::Member("id".into())),
            (r#"{"id":{"x":1}}"#, ChannelError::Member("id".into())),
            (r#"{"id":[1]}"#, ChannelError::Member("id".into())),
            (r#"{"id":1}"#, ChannelError::Member("kind".into())),
            (
                r#"{"id":1,"kind":"tidings.bye"}"#,
                ChannelError::Type(TypeError::Reserved),
            ),
        ] {
            assert_eq!(mapped(line, payload), Err(expected), "{payload}");
        }
    }

    #[test]
    fn a_wrong_line_is_refused_with_the_others() {
        let lines = "# what the shop notifies\n\n a -> x \nb\nb -> c d e\nc => d\ntidings -> x\n\
                     d -> {x\ne -> x}\nf -> {}\ng -> {{x}}\nh -> x*\nmessage -> x\ni -> x error\n\
                     ü -> x\na -> y";
        let faults = ChannelRule::parse_all(lines).unwrap_err();
        assert_eq!(faults.len(), 13, "{faults:#?}");
        assert!(ChannelRule::parse(&format!("{} -> x y", "c".repeat(64))).is_err());
        let rules =
            ChannelRule::parse_all("# c\n\n a -> x \nmessage -> x changed\nü -> x y").unwrap();
        assert_eq!(rules.len(), 3);
        assert_eq!(ChannelRule::parse_all(""), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_passes_is_valid(line in "\\PC{0,30}", payload in "\\PC{0,30}", id in any::<String>()) {
            let _ = ChannelRule::parse(&line);
            if let Ok(rule) = ChannelRule::parse(&format!("c -> {line}")) {
                let _ = rule.apply(&payload);
            }
            let payload = serde_json::to_string_pretty(&serde_json::json!({ "id": id })).unwrap();
            if let Ok(mapped) = rule("c -> a:{id}").apply(&payload) {
                prop_assert!(!mapped.data.contains(['\n', '\r']));
                let again: serde_json::Value = serde_json::from_str(&mapped.data).unwrap();
                prop_assert_eq!(again["id"].as_str(), Some(id.as_str()));
            }
        }
    }
}
