//! An event: one committed row of `tidings.event`, as the gateway read it.

use jiff::Timestamp;

use crate::topic::Topic;

/// One row of the log, immutable.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its id; grows in the order of inserting, not of committing.
    pub id: i64,
    /// The transaction that wrote it.
    pub xid: u64,
    /// When it was inserted, in microseconds since 1970.
    pub at: i64,
    /// What it is about.
    pub topic: Topic,
    /// What happened.
    pub kind: Box<str>,
    /// Its payload as JSON text, in one line.
    pub data: Box<str>,
}

impl Event {
    /// The event as clients see it, in one line: `{"id":…,"topic":…,"type":…,"at":…,"data":…}`.
    pub fn write_json(&self, out: &mut String) {
        // Topics and types consist of characters that JSON does not escape.
        out.push_str("{\"id\":\"");
        out.push_str(&self.id.to_string());
        out.push_str("\",\"topic\":\"");
        out.push_str(self.topic.as_str());
        out.push_str("\",\"type\":\"");
        out.push_str(&self.kind);
        out.push_str("\",\"at\":\"");
        out.push_str(&rfc3339(self.at));
        out.push_str("\",\"data\":");
        out.push_str(&self.data);
        out.push('}');
    }
}

/// Microseconds since 1970 as `2026-11-20T14:28:00.123456Z`.
pub(crate) fn rfc3339(at: i64) -> String {
    match Timestamp::from_microsecond(at) {
        Ok(at) => format!("{at:.6}"),
        // Postgres knows years that RFC 3339 does not; the log's own clock never writes them.
        Err(_) => String::from("9999-12-31T23:59:59.999999Z"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_one_line_with_microseconds() {
        let event = Event {
            id: 4711,
            xid: 9,
            at: 1_795_184_880_123_456,
            topic: Topic::parse("user:42").expect("a topic"),
            kind: "payment.settled".into(),
            data: r#"{"text":"a\nb"}"#.into(),
        };
        let mut json = String::new();
        event.write_json(&mut json);
        assert_eq!(
            json,
            r#"{"id":"4711","topic":"user:42","type":"payment.settled","at":"2026-11-20T14:28:00.123456Z","data":{"text":"a\nb"}}"#
        );
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
    }
}
