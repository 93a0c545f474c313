//! HTTP/2 by hand: frames with whatever is in them, and as much of the answers as a judge needs.

/// How a connection begins.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// The error code of a stream that is one too many.
pub(crate) const REFUSED_STREAM: u32 = 7;

/// One frame; its length is told truly.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The settings of a client.
pub(crate) fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload = pairs
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &payload.collect::<Vec<u8>>())
}

/// A connection that has begun as it should, with these settings.
pub(crate) fn opening(pairs: &[(u16, u32)]) -> Vec<u8> {
    [PREFACE, &settings(pairs), &frame(SETTINGS, ACK, 0, &[])].concat()
}

/// A header block, each field written out.
pub(crate) fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            push_length(&mut bytes, text.len());
            bytes.extend(*text);
        }
    }
    bytes
}

fn push_length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        bytes.push(length as u8);
        return;
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// The fields of a request.
pub(crate) fn request<'a>(
    method: &'a str,
    target: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<u8> {
    let own = [
        (":method", method),
        (":scheme", "http"),
        (":path", target),
        (":authority", "gateway"),
    ];
    let fields = own.iter().chain(more);
    let fields: Vec<(&[u8], &[u8])> = fields
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    block(&fields)
}

/// A request in one frame.
pub(crate) fn asks(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, block)
}

/// A frame as it came back.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Heard {
    /// The status of an answer, where it is written out, as it is when it is new on its connection.
    pub(crate) fn status(&self) -> Option<u16> {
        if self.kind != HEADERS {
            return None;
        }
        // Changes of the table's size may stand before the fields.
        let mut bytes = &self.payload[..];
        while bytes.first().is_some_and(|byte| byte >> 5 == 1) {
            let size = bytes.iter().skip(1).position(|byte| byte & 128 == 0);
            bytes = match bytes[0] & 31 {
                31 => bytes.get(size? + 2..)?,
                _ => &bytes[1..],
            };
        }
        const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        match *bytes.first()? {
            indexed @ 0x88..=0x8e => Some(STATIC[usize::from(indexed - 0x88)]),
            // The name of the eighth entry, and a value.
            0x48 | 0x08 | 0x18 => {
                let length = *bytes.get(1)?;
                let text = bytes.get(2..2 + usize::from(length & 127))?;
                if length & 128 == 0 {
                    return std::str::from_utf8(text).ok()?.parse().ok();
                }
                Some(digits(text))
            }
            _ => None,
        }
    }

    /// The error code of a frame that has one.
    pub(crate) fn error(&self) -> Option<u32> {
        let at = match self.kind {
            RESET => 0,
            GOAWAY => 4,
            _ => return None,
        };
        let code = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(code.try_into().expect("four bytes")))
    }
}

/// Digits in the Huffman code of HPACK: three of five bits, seven of six.
fn digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let five = bits.by_ref().take(5).fold(0, |code, bit| code * 2 + bit);
        let digit = match five {
            0..=2 => five,
            _ => (five * 2 + bits.next().unwrap_or(0)) - 0b011001 + 3,
        };
        number = number * 10 + digit;
    }
    number
}

/// The whole frames at the beginning of what came back, and how many bytes they take.
pub(crate) fn read(bytes: &[u8]) -> (Vec<Heard>, usize) {
    let (mut heard, mut at) = (Vec::new(), 0);
    while let Some(head) = bytes.get(at..at + 9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(payload) = bytes.get(at + 9..at + 9 + length) else {
            break;
        };
        heard.push(Heard {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 127, head[6], head[7], head[8]]),
            payload: payload.to_vec(),
        });
        at += 9 + length;
    }
    (heard, at)
}

mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_as_hpack_writes_them() {
        let status = |payload: &[u8]| {
            let bytes = frame(HEADERS, END_HEADERS, 1, payload);
            read(&bytes).0[0].status()
        };
        assert_eq!(status(&[0x88]), Some(200));
        assert_eq!(status(&[0x8e, 1]), Some(500));
        assert_eq!(status(&[0x20, 0x8c]), Some(400));
        assert_eq!(status(&[0x3f, 0xe1, 0x1f, 0x8d]), Some(404));
        assert_eq!(status(&[0x48, 3, b'4', b'1', b'3']), Some(413));
        // RFC 7541, C.6.1: 302.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
        assert_eq!(status(&[0x48, 0x83, 0x6c, 0x0c, 0xff]), Some(503));
        assert_eq!(status(&[0xbe]), None);
    }
}
