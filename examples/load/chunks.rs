//! What surrounds the text of a body: nothing, or the chunks of HTTP/1.1, whose bounds may lie anywhere in an
//! event and whose sizes may be cut anywhere.

/// Where in the body the next byte lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// The body is its text.
    None,
    /// In the size of a chunk, of which so much has been read.
    Size(u32),
    /// Behind that size, in its line.
    SizeEnd(u32),
    /// In a chunk, with so much left of it.
    Data(u32),
    /// Behind a chunk, before the end of its line.
    DataEnd,
    /// Behind the last chunk.
    Over,
}

impl Chunks {
    /// The beginning of a body.
    pub(crate) fn begin(chunked: bool) -> Self {
        if chunked { Self::Size(0) } else { Self::None }
    }

    /// Takes the next piece of text off the bytes, if there is one.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        loop {
            if let Self::None | Self::Data(_) = self {
                return (!bytes.is_empty()).then(|| self.take(bytes));
            }
            let byte = *bytes.split_off_first()?;
            *self = match (*self, byte) {
                (Self::Size(0) | Self::SizeEnd(0), b'\n') | (Self::Over, _) => Self::Over,
                (Self::Size(size) | Self::SizeEnd(size), b'\n') => Self::Data(size),
                (Self::Size(size), byte) => match char::from(byte).to_digit(16) {
                    Some(digit) => Self::Size(size.saturating_mul(16).saturating_add(digit)),
                    None => Self::SizeEnd(size),
                },
                (Self::DataEnd, b'\n') => Self::Size(0),
                (same, _) => same,
            };
        }
    }

    fn take<'a>(&mut self, bytes: &mut &'a [u8]) -> &'a [u8] {
        let Self::Data(left) = *self else {
            return std::mem::take(bytes);
        };
        let (text, rest) = bytes.split_at(bytes.len().min(left as usize));
        *bytes = rest;
        *self = match left - text.len() as u32 {
            0 => Self::DataEnd,
            left => Self::Data(left),
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &[&[u8]], chunked: bool) -> (String, Chunks) {
        let mut chunks = Chunks::begin(chunked);
        let mut text = Vec::new();
        for mut bytes in pieces.iter().copied() {
            while let Some(piece) = chunks.next(&mut bytes) {
                text.extend_from_slice(piece);
            }
            assert!(bytes.is_empty(), "every byte is taken");
        }
        (String::from_utf8(text).expect("text"), chunks)
    }

    #[test]
    fn chunks_cut_anywhere_give_their_text() {
        let body = b"5\r\nhello\r\n1A;name=value\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n";
        let expected = ("helloabcdefghijklmnopqrstuvwxyz".to_owned(), Chunks::Over);
        for cut in 0..body.len() {
            let (before, after) = body.split_at(cut);
            assert_eq!(text(&[before, after], true), expected, "{cut}");
        }
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(text(&bytes, true), expected);
    }

    #[test]
    fn a_body_without_chunks_is_its_text() {
        let expected = ("5\r\nhello".to_owned(), Chunks::None);
        assert_eq!(text(&[b"5\r\n", b"hello"], false), expected);
    }
}
