//! Frames: an event that SQL would take comes out of the stream as it went in, whatever its data say, and
//! nothing else does.
//!
//! The lines of an input are a topic, a type, an id, microseconds, a cursor; what follows is the data: JSON
//! if it is that, and otherwise a text.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidings::channel::ChannelRule;
use tidings::cursor::Cursor;
use tidings::event::Event;
use tidings::frame::{self, Bye, Frame, Reset};
use tidings::topic::{Topic, check_type};

use crate::event_source::{Message, hear};

static RULES: LazyLock<[ChannelRule; 2]> = LazyLock::new(|| {
    let rule = |line| ChannelRule::parse(line).expect("is a rule");
    [
        rule("orders -> shop/order:{id} order.{status}"),
        rule("plain -> shop/orders orders"),
    ]
});

/// The position of a client before the event.
const BEFORE: &str = "1~1031~1.8e310c96";

/// Sends one event in every way.
pub fn run(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.splitn(6, '\n');
    let mut line = || lines.next().unwrap_or("");
    let (topic, kind, id, at, position, data) = (line(), line(), line(), line(), line(), line());
    notify(data);
    let (Ok(topic), Ok(())) = (Topic::parse(topic), check_type(kind)) else {
        return false;
    };
    let event = Event {
        id: id.parse().unwrap_or(4711),
        xid: 7,
        at: at.parse().unwrap_or(1_795_184_880_123_456),
        topic,
        kind: kind.into(),
        data: as_jsonb(data).into(),
    };
    let position = position.parse().ok().and_then(|c: Cursor| c.to_text());
    for named in [false, true] {
        stream(&event, position.as_deref(), named);
    }
    true
}

/// Data as Postgres writes jsonb: in one line, since it escapes every control character of a text.
fn as_jsonb(text: &str) -> String {
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    value.to_string()
}

/// A whole stream with the event in it, live and replayed, and as a signal.
fn stream(event: &Event, position: Option<&str>, named: bool) {
    let frame = Frame::event(event, position.map(Arc::from));
    assert_eq!(frame.position().map(|text| &**text), position);
    assert_eq!(frame.size(), block(&frame, true).len());
    let mut json = String::new();
    event.write_json(&mut json);
    let ready = json!({"topics": [event.topic.as_str()], "denied": [&*event.data]}).to_string();
    let bytes = [
        frame::retry_line(),
        frame::ready(Some(BEFORE), &ready),
        block(&frame, named).into(),
        frame.replayed(named, Some(BEFORE)),
        frame.replayed(named, None),
        block(&Frame::signal(&event.kind, &json), named).into(),
        frame::reset(Reset::Diverged, position),
        frame::beat(Some(BEFORE)),
        frame::bye(Bye::Slow, position),
    ];
    let heard = hear(&bytes.concat());
    assert_eq!(heard.retries.len(), 2, "{heard:?}");
    assert!(!heard.rest, "{heard:?}");
    let after = position.unwrap_or(BEFORE);
    let name = if named { &event.kind } else { "message" };
    let expected = [
        ("tidings.ready", BEFORE),
        (name, after),
        (name, BEFORE),
        (name, BEFORE),
        (name, BEFORE),
        ("tidings.reset", after),
        ("tidings.beat", BEFORE),
        ("tidings.bye", after),
    ];
    let told = heard.messages.iter();
    let told: Vec<_> = told
        .map(|message| (&*message.name, &*message.last_event_id))
        .collect();
    assert_eq!(told, expected);
    assert_eq!(heard.messages[0].data, ready);
    for message in &heard.messages[1..5] {
        hold_event(event, message);
    }
}

/// A block as a body holds it, which its chunks hold as well.
fn block(frame: &Frame, named: bool) -> Vec<u8> {
    let block = frame.parts(named).concat();
    let mut chunks = frame.chunks(named);
    let mut held = Vec::new();
    while !chunks.is_empty() {
        let end = chunks.windows(2).position(|pair| pair == b"\r\n");
        let (size, rest) = chunks.split_at(end.expect("a chunk has a size"));
        let size = std::str::from_utf8(size).expect("a size is text");
        let size = usize::from_str_radix(size, 16).expect("a size is a number");
        assert!(size > 0, "it would end the body");
        held.extend_from_slice(&rest[2..2 + size]);
        chunks = rest[2 + size..].strip_prefix(b"\r\n").expect("an end");
    }
    assert_eq!(held, block);
    block
}

/// What a page has received is what went in.
fn hold_event(event: &Event, message: &Message) {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Told<'a> {
        id: &'a str,
        topic: &'a str,
        #[serde(rename = "type")]
        kind: &'a str,
        at: &'a str,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let told: Told<'_> = serde_json::from_str(&message.data).expect("is JSON");
    assert_eq!(told.id.parse(), Ok(event.id));
    assert_eq!(told.topic, event.topic.as_str());
    assert_eq!(told.kind, &*event.kind);
    assert_eq!(told.data.get(), &*event.data);
    // Postgres knows years that RFC 3339 does not.
    match Timestamp::from_microsecond(event.at) {
        Ok(at) => assert_eq!(told.at.parse::<Timestamp>().ok(), Some(at)),
        Err(_) => assert_eq!(told.at, "9999-12-31T23:59:59.999999Z"),
    }
}

/// A message of an application's own channel, which anybody may have written: what becomes of it is one
/// line that says the same, and a value of it adds no level to the topic.
fn notify(payload: &str) {
    for rule in &*RULES {
        let Ok(mapped) = rule.apply(payload) else {
            continue;
        };
        assert_eq!(check_type(&mapped.kind), Ok(()));
        let below = mapped.topic.as_str().strip_prefix("shop/");
        assert!(below.is_some_and(|rest| !rest.contains('/')), "{mapped:?}");
        let expected = if payload.is_empty() { "null" } else { payload };
        // A number may be larger than any that is compared here.
        if let Ok(expected) = serde_json::from_str::<Value>(expected) {
            let data: Value = serde_json::from_str(&mapped.data).expect("is JSON");
            assert_eq!(data, expected);
        }
        let block = block(&Frame::signal(&mapped.kind, &mapped.data), true);
        let heard = hear(&block);
        let [message] = &heard.messages[..] else {
            panic!("{heard:?}");
        };
        assert_eq!(
            (&message.name, &*message.data),
            (&String::from(&*mapped.kind), &*mapped.data)
        );
        assert!(!heard.rest && heard.retries.is_empty(), "{heard:?}");
    }
}
