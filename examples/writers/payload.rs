//! What the reader takes of an event, and how it is found in what surrounds it:
//! `{"id":"17","topic":"user:4","type":"order.paid","at":"2026-11-20T14:28:00.123456Z","data":…`, as the gateway writes
//! it and as no event's data looks here.

use jiff::Timestamp;
use memchr::memmem;

use crate::text::{Stop, Text};

/// How every event is recognised.
const MARK: &[u8] = b"{\"id\":\"";

/// More characters than this are no type.
const TYPE_BYTES_MAX: usize = 64;

/// The length of a time in microseconds.
const TIME_BYTES: usize = 27;

/// An event, without what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) id: u64,
    /// The number of its topic.
    pub(crate) topic: u64,
    /// When it was inserted, in microseconds since 1970.
    pub(crate) at_us: u64,
}

/// Finds events.
pub(crate) struct Finder {
    mark: memmem::Finder<'static>,
}

impl Finder {
    pub(crate) fn new() -> Self {
        Self {
            mark: memmem::Finder::new(MARK),
        }
    }

    /// Hands out all events that have come as far as they are read, and returns from where on the bytes must be
    /// kept, because an event may go on with what comes next.
    pub(crate) fn scan(&self, bytes: &[u8], mut found: impl FnMut(Payload)) -> usize {
        let mut at = 0;
        while let Some(offset) = self.mark.find(&bytes[at..]) {
            let start = at + offset;
            at = match read(&bytes[start..]) {
                Ok((payload, length)) => {
                    found(payload);
                    start + length
                }
                Err(Stop::Unfinished) => return start,
                Err(Stop::Nonsense) => start + MARK.len(),
            };
        }
        let rest = &bytes[at..];
        let begun = (1..MARK.len()).rev();
        let mut begun = begun.filter(|length| rest.ends_with(&MARK[..*length]));
        bytes.len() - begun.next().unwrap_or(0)
    }
}

/// The event whose mark stands at the beginning, and where its data begins.
fn read(bytes: &[u8]) -> Result<(Payload, usize), Stop> {
    let mut text = Text(bytes);
    text.skip(MARK)?;
    let id = text.number()?;
    text.skip(b"\",\"topic\":\"user:")?;
    let topic = text.number()?;
    text.skip(b"\",\"type\":\"")?;
    let kind = text.0.iter().take(TYPE_BYTES_MAX + 1);
    match kind.clone().position(|byte| *byte == b'"') {
        Some(end) => text.0 = &text.0[end..],
        None if kind.len() > TYPE_BYTES_MAX => return Err(Stop::Nonsense),
        None => return Err(Stop::Unfinished),
    }
    text.skip(b"\",\"at\":\"")?;
    let at = text.0.get(..TIME_BYTES).ok_or(Stop::Unfinished)?;
    let at_us = microseconds(at).ok_or(Stop::Nonsense)?;
    text.0 = &text.0[TIME_BYTES..];
    text.skip(b"\",\"data\":")?;
    let payload = Payload { id, topic, at_us };
    Ok((payload, bytes.len() - text.0.len()))
}

fn microseconds(at: &[u8]) -> Option<u64> {
    let at: Timestamp = std::str::from_utf8(at).ok()?.parse().ok()?;
    u64::try_from(at.as_microsecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{\"id\":\"17\",\"topic\":\"user:4\",\"type\":\"order.paid\",\
        \"at\":\"2026-11-20T14:28:00.123456Z\",\"data\":";
    const PAYLOAD: Payload = Payload {
        id: 17,
        topic: 4,
        at_us: 1_795_184_880_123_456,
    };

    fn scan(bytes: &[u8]) -> (Vec<Payload>, usize) {
        let mut found = Vec::new();
        let kept = Finder::new().scan(bytes, |payload| found.push(payload));
        (found, kept)
    }

    #[test]
    fn events_are_found_in_what_surrounds_them() {
        let text =
            format!("id: 1~2\ndata: {TEXT}{{\"id\": \"1\"}}}}\n\n: beat\n\ndata: {TEXT}null}}\n\n");
        assert_eq!(scan(text.as_bytes()), (vec![PAYLOAD; 2], text.len()));
    }

    #[test]
    fn what_only_begins_like_an_event_is_passed_over() {
        for (part, other) in [
            ("17", "x"),
            ("user:", "order:"),
            ("user:4", "user:x"),
            (
                "paid",
                "paid-with-a-type-that-is-longer-than-any-that-the-log-would-take-from-anybody",
            ),
            ("2026-11", "2026-13"),
            ("at", "on"),
        ] {
            let text = TEXT.replace(part, other) + TEXT;
            assert_eq!(
                scan(text.as_bytes()),
                (vec![PAYLOAD], text.len()),
                "{other}"
            );
        }
    }

    #[test]
    fn an_event_cut_anywhere_is_kept_from_its_mark() {
        for cut in 0..TEXT.len() {
            assert_eq!(scan(&TEXT.as_bytes()[..cut]), (Vec::new(), 0), "{cut}");
        }
    }
}
