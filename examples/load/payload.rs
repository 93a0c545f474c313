//! The payload of every event, and how it is found again in whatever surrounds it.
//!
//! `{"n":7,"t":1795184880123456,"pad":"axxx"}`: the number of its topic, the intended time of publishing,
//! and padding, whose first letter tells whether the topic is shared. Postgres writes jsonb with spaces
//! of its own, so that one may stand after each colon and comma. Finding costs a search for four bytes and
//! a walk over two numbers: the reader shares its processors with the server that is measured.

use memchr::memmem;

use crate::text::{Stop, Text};

/// How every payload is recognised.
const MARK: &[u8] = b"\"n\":";

/// Which of the two kinds of topics an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The topic that all streams share.
    All,
    /// The topic of one stream alone.
    Own,
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Self::All => b'a',
            Self::Own => b'o',
        }
    }
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    /// Its number in its topic, from 1.
    pub(crate) n: u64,
    /// When it was to be published.
    pub(crate) t_us: u64,
    pub(crate) kind: Kind,
}

impl Payload {
    /// The payload as JSON, with so much padding.
    pub(crate) fn write(&self, pad_bytes: usize) -> String {
        let letter = char::from(self.kind.letter());
        let pad = "x".repeat(pad_bytes - 1);
        let (n, t) = (self.n, self.t_us);
        format!("{{\"n\":{n},\"t\":{t},\"pad\":\"{letter}{pad}\"}}")
    }
}

/// Finds payloads with so much padding.
pub(crate) struct Finder {
    mark: memmem::Finder<'static>,
    pad_bytes: usize,
}

impl Finder {
    pub(crate) fn new(pad_bytes: usize) -> Self {
        Self {
            mark: memmem::Finder::new(MARK),
            pad_bytes,
        }
    }

    /// Hands out all payloads that are whole, and returns from where on the bytes must be kept, because a
    /// payload may go on with what comes next.
    pub(crate) fn scan(&self, bytes: &[u8], mut found: impl FnMut(Payload)) -> usize {
        let mut at = 0;
        while let Some(offset) = self.mark.find(&bytes[at..]) {
            let start = at + offset;
            at = match self.read(&bytes[start..]) {
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

    /// The payload whose mark stands at the beginning, and where it ends.
    fn read(&self, bytes: &[u8]) -> Result<(Payload, usize), Stop> {
        let mut text = Text(bytes);
        text.skip(MARK)?;
        let n = text.number()?;
        text.skip(b",")?;
        text.skip_space();
        text.skip(b"\"t\":")?;
        let t_us = text.number()?;
        text.skip(b",")?;
        text.skip_space();
        text.skip(b"\"pad\":")?;
        text.skip_space();
        text.skip(b"\"")?;
        let kind = match text.0.get(..self.pad_bytes) {
            None => return Err(Stop::Unfinished),
            Some([b'a', ..]) => Kind::All,
            Some([b'o', ..]) => Kind::Own,
            Some(_) => return Err(Stop::Nonsense),
        };
        text.0 = &text.0[self.pad_bytes..];
        text.skip(b"\"}")?;
        if n == 0 {
            return Err(Stop::Nonsense);
        }
        Ok((Payload { n, t_us, kind }, bytes.len() - text.0.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOADS: [Payload; 2] = [
        Payload {
            n: 41,
            t_us: 1_795_184_880_123_456,
            kind: Kind::All,
        },
        Payload {
            n: 7,
            t_us: 1,
            kind: Kind::Own,
        },
    ];

    fn scan(bytes: &[u8]) -> (Vec<Payload>, usize) {
        let mut found = Vec::new();
        let kept = Finder::new(5).scan(bytes, |payload| found.push(payload));
        (found, kept)
    }

    #[test]
    fn payloads_are_found_in_what_surrounds_them() {
        let [first, second] = PAYLOADS.map(|payload| payload.write(5));
        let as_jsonb = first.replace(':', ": ").replace(',', ", ");
        let text = format!(
            "id: 1\ndata: {{\"id\":\"1\",\"data\":{as_jsonb}}}\n\nid: 2\ndata: {second}\n\n"
        );
        assert_eq!(scan(text.as_bytes()), (PAYLOADS.to_vec(), text.len()));
    }

    #[test]
    fn what_only_begins_like_a_payload_is_passed_over() {
        let payload = PAYLOADS[0].write(5);
        for nonsense in [
            "\"n\":x",
            "\"n\":1,\"t\":2}",
            "\"n\":12345678901234567890,",
            "\"n\":1,\"t\":2,\"pad\":\"bxxxx\"}",
            "\"n\":1,\"t\":2,\"pad\":\"axxxxx\"}",
            "\"n\":0,\"t\":2,\"pad\":\"axxxx\"}",
        ] {
            let text = format!("{nonsense}{payload}");
            let (found, kept) = scan(text.as_bytes());
            assert_eq!(found, [PAYLOADS[0]], "{nonsense}");
            assert_eq!(kept, text.len(), "{nonsense}");
        }
    }

    #[test]
    fn a_payload_cut_anywhere_is_kept_from_its_mark() {
        let text = PAYLOADS[0].write(5);
        for cut in 0..text.len() {
            let (found, kept) = scan(&text.as_bytes()[..cut]);
            assert!(found.is_empty(), "{cut}");
            // The brace before the mark need not be kept.
            assert_eq!(kept, cut.min(1), "{cut}");
        }
    }
}
