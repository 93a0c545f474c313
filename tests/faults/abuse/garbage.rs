//! What is drawn to be sent: requests that are wrong in one way or in several, from a seed.

use super::wire::Input;
use std::time::Duration;

/// Draws what is wrong.
pub(crate) struct Draw {
    pub(crate) rng: fastrand::Rng,
    /// What a client really holds, to be used and to be spoilt.
    pub(crate) bearer: String,
    pub(crate) ticket: String,
    pub(crate) cursor: String,
}

const METHODS: [&[u8]; 14] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"PATCH",
    b"get",
    b"",
    b"G\0T",
    b"G\xc3\xa4T",
    b"GET\t",
];
const PATHS: [&[u8]; 16] = [
    b"/v1/events",
    b"/v1/sync",
    b"/v1/tickets",
    b"/",
    b"",
    b"*",
    b"/v1/events/",
    b"//v1/events",
    b"/v1/../v1/sync",
    b"/v1/%65vents",
    b"/v1/events\0",
    b"/v1/sync#x",
    b"http://evil.test/v1/sync",
    b"evil.test:443",
    b"/v1/\xff\xfe",
    b"/metrics",
];
const NAMES: [&str; 18] = [
    "topic",
    "since",
    "ticket",
    "token",
    "access_token",
    "named",
    "limit",
    "state",
    "Topic",
    "",
    "%00",
    "topic%5B%5D",
    "%FF",
    "%",
    "a%zz",
    "topic\u{e9}",
    "x",
    "since%0d%0a",
];
const HEADERS: [&str; 22] = [
    "host",
    "authorization",
    "last-event-id",
    "origin",
    "cookie",
    "content-length",
    "content-type",
    "transfer-encoding",
    "sec-fetch-site",
    "connection",
    "expect",
    "upgrade",
    "x-forwarded-for",
    "te",
    "trailer",
    "http2-settings",
    "range",
    "",
    "a b",
    "x\u{1}",
    "x-long",
    "accept-encoding",
];
const VALUES: [&[u8]; 28] = [
    b"",
    b" ",
    b"\0",
    b"\xff\xfe",
    b"a\rb",
    b"a\nb",
    b"a\r\nx: y",
    b"a\r\n folded",
    b"chunked",
    b"chunked, chunked",
    b"identity",
    b"gzip, chunked",
    b"xchunked",
    b"\x0bchunked",
    b"0",
    b"5",
    b"-1",
    b"+5",
    b"5, 5",
    b"0x5",
    b"99999999999999999999999999",
    b"null",
    b"https://evil.test",
    b"application/json",
    b"100-continue",
    b"h2c",
    b"close, keep-alive",
    b"session=x; session=y",
];

impl Draw {
    pub(crate) fn choose<'a>(&mut self, all: &[&'a [u8]]) -> &'a [u8] {
        all[self.rng.usize(..all.len())]
    }

    /// Any bytes.
    pub(crate) fn bytes(&mut self, most: usize) -> Vec<u8> {
        let count = self.rng.usize(..=most);
        std::iter::repeat_with(|| self.rng.u8(..))
            .take(count)
            .collect()
    }

    /// A text with one byte changed, left out, doubled or put in, or the rest cut off.
    pub(crate) fn spoil(&mut self, text: &[u8]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        for _ in 0..self.rng.usize(1..4) {
            if bytes.is_empty() {
                return bytes;
            }
            let at = self.rng.usize(..bytes.len());
            match self.rng.u8(..6) {
                0 => bytes[at] = self.rng.u8(..),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, bytes[at]),
                3 => bytes.insert(at, self.rng.u8(..)),
                4 => bytes.insert(
                    at,
                    *b"\0\r\n\t %&:,;"[..]
                        .get(self.rng.usize(..10))
                        .expect("one"),
                ),
                _ => bytes.truncate(at),
            }
        }
        bytes
    }

    fn value(&mut self) -> Vec<u8> {
        match self.rng.u8(..10) {
            0 => format!("Bearer {}", self.bearer).into_bytes(),
            1 => {
                let bearer = format!("Bearer {}", self.bearer);
                self.spoil(bearer.as_bytes())
            }
            2 => self.cursor.clone().into_bytes(),
            3 => {
                let cursor = self.cursor.clone();
                self.spoil(cursor.as_bytes())
            }
            4 => vec![b'9'; self.rng.usize(..40_000)],
            5 => self.bytes(40),
            _ => self.choose(&VALUES).to_vec(),
        }
    }

    fn target(&mut self) -> Vec<u8> {
        let mut target = self.choose(&PATHS).to_vec();
        for n in 0..self.rng.usize(..4) {
            target.push(if n == 0 { b'?' } else { b'&' });
            target.extend(NAMES[self.rng.usize(..NAMES.len())].bytes());
            target.push(b'=');
            let value = match self.rng.u8(..6) {
                0 => self.ticket.clone().into_bytes(),
                1 => {
                    let ticket = self.ticket.clone();
                    self.spoil(ticket.as_bytes())
                }
                2 => self.cursor.clone().into_bytes(),
                3 => b"%00%0d%0adata:%e2%80%a8".to_vec(),
                4 => vec![b't'; self.rng.usize(..20_000)],
                _ => b"user:alice".to_vec(),
            };
            target.extend(value);
        }
        target
    }

    fn body(&mut self) -> Vec<u8> {
        let good = br#"{"topic":"user:alice","type":"said","data":{"a":[1,"b"]}}"#;
        match self.rng.u8(..8) {
            0 => Vec::new(),
            1 => self.bytes(2_000),
            2 => vec![b'['; self.rng.usize(..100_000)],
            3 => vec![b'x'; self.rng.usize(..20_000)],
            4 => [
                &br#"{"topic":"a","type":"b","data":""#[..],
                b"\0\r\n\xff",
                br#""}"#,
            ]
            .concat(),
            _ => self.spoil(good),
        }
    }

    fn framed(&mut self, body: &[u8]) -> Vec<u8> {
        let length = body.len();
        match self.rng.u8(..9) {
            0 => [b"content-length: 1\r\ncontent-length: 2\r\n\r\n", body].concat(),
            1 => [
                format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n")
                    .as_bytes(),
                b"0\r\n\r\nGET /v1/sync HTTP/1.1\r\nhost: x\r\n\r\n",
            ]
            .concat(),
            2 => [
                b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
                body,
            ]
            .concat(),
            3 => [b"transfer-encoding: chunked\r\n\r\n-1\r\n", body].concat(),
            4 => {
                let head = format!("transfer-encoding: chunked\r\n\r\n{length:x};");
                [head.as_bytes(), &vec![b'e'; 30_000], b"\r\n", body].concat()
            }
            5 => {
                let head = format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n");
                [head.as_bytes(), body, b"xx0\r\n\r\n"].concat()
            }
            6 => [b"content-length: 999\r\n\r\n", body].concat(),
            7 => {
                let head = format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n");
                [head.as_bytes(), body, b"\r\n0\r\nx: \0\r\n\r\n"].concat()
            }
            _ => [format!("content-length: {length}\r\n\r\n").as_bytes(), body].concat(),
        }
    }

    /// One request of HTTP/1.
    pub(crate) fn request(&mut self) -> Vec<u8> {
        // Many are right but for one thing, since what is wrong all over is refused at the first of them.
        let right = |rng: &mut fastrand::Rng| rng.u8(..3) > 0;
        let method = match right(&mut self.rng) {
            true => self.choose(&[b"GET", b"GET", b"POST", b"HEAD"]).to_vec(),
            false => self.choose(&METHODS).to_vec(),
        };
        let target = match right(&mut self.rng) {
            true => self.choose(&PATHS[..3]).to_vec(),
            false => self.target(),
        };
        let version = match self.rng.u8(..12) {
            0 => self.choose(&[
                b"HTTP/1.0",
                b"HTTP/0.9",
                b"HTTP/2.0",
                b"HTTP/1.1x",
                b"",
                b"HTTP",
            ]),
            _ => b"HTTP/1.1",
        };
        let end = self.choose(&[b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]);
        let mut bytes = [&method, &b" "[..], &target, b" ", version, end].concat();
        if right(&mut self.rng) {
            bytes.extend(b"host: x\r\n");
        }
        if right(&mut self.rng) {
            bytes.extend(format!("authorization: Bearer {}\r\n", self.bearer).bytes());
            bytes.extend(b"content-type: application/json\r\n");
        }
        for _ in 0..self.rng.usize(..4) {
            let name = HEADERS[self.rng.usize(..HEADERS.len())];
            let value = self.value();
            // Doubled now and then.
            for _ in 0..self.rng.usize(1..3) {
                bytes.extend([name.as_bytes(), b": ", &value, end].concat());
            }
        }
        match self.rng.u8(..40) {
            0 => bytes.extend((0..300).flat_map(|n| format!("x-{n}: y\r\n").into_bytes())),
            1 => bytes.extend([&b"x: "[..], &vec![b'y'; 70_000], b"\r\n"].concat()),
            _ => {}
        }
        if method == b"POST" || self.rng.u8(..6) == 0 {
            let body = self.body();
            let framed = self.framed(&body);
            bytes.extend(framed);
        } else {
            bytes.extend(b"\r\n");
        }
        match self.rng.u8(..5) {
            0 => self.spoil(&bytes),
            _ => bytes,
        }
    }

    /// One conversation of HTTP/1: a request, or several at once, whole or cut, in pieces or not.
    pub(crate) fn conversation(&mut self) -> Input {
        let mut bytes = self.request();
        if self.rng.u8(..8) == 0 {
            for _ in 0..self.rng.usize(1..20) {
                bytes.extend(self.request());
            }
        }
        if self.rng.u8(..8) == 0 {
            bytes.truncate(self.rng.usize(..=bytes.len()));
        }
        if self.rng.u8(..30) == 0 {
            bytes = self.bytes(3_000);
        }
        let mut pieces = vec![bytes];
        if self.rng.u8(..6) == 0 {
            let at = self.rng.usize(..=pieces[0].len());
            let rest = pieces[0].split_off(at);
            pieces.push(rest);
        }
        Input {
            pieces,
            pause: Duration::from_millis(self.rng.u64(..20)),
            shut: self.rng.bool(),
        }
    }
}
