//! The tag of an event: 32 bits over its id, transaction and time, by which a cursor recognises
//! that the database still tells the history in which it was made.
//!
//! `tidings.tag` in SQL computes the same: the first eight hex digits of SHA-256 over the text
//! `<id>.<xid>.<microseconds since 1970>`.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};

/// A 32-bit tag, written as eight lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tag(pub u32);

impl Tag {
    /// The tag of an event; `at` is its `created_at` in microseconds since 1970.
    pub fn of(id: i64, xid: u64, at: i64) -> Self {
        let hash = digest(&SHA256, format!("{id}.{xid}.{at}").as_bytes());
        let first = hash.as_ref()[..4].try_into().expect("SHA-256 has 32 bytes");
        Self(u32::from_be_bytes(first))
    }
}

/// Exactly eight lower-case hex digits.
impl FromStr for Tag {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let plain = text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 8 || !plain {
            return Err(());
        }
        u32::from_str_radix(text, 16).map(Self).map_err(|_| ())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({self})")
    }
}
