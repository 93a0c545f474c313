//! The text of an event, read from the left: a payload may be cut anywhere, so that what is missing is told from
//! what is wrong.

/// More digits than this are no number of ours.
const DIGITS_MAX: usize = 19;

/// Why nothing could be read.
pub(crate) enum Stop {
    /// It goes on in bytes that have not come.
    Unfinished,
    /// It only began like one.
    Nonsense,
}

/// What is still to be read.
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl Text<'_> {
    /// Passes over what must stand here.
    pub(crate) fn skip(&mut self, expected: &[u8]) -> Result<(), Stop> {
        if let Some(rest) = self.0.strip_prefix(expected) {
            self.0 = rest;
            return Ok(());
        }
        Err(if expected.starts_with(self.0) {
            Stop::Unfinished
        } else {
            Stop::Nonsense
        })
    }

    /// Passes over a space, if one stands here.
    pub(crate) fn skip_space(&mut self) {
        self.0 = self.0.strip_prefix(b" ").unwrap_or(self.0);
    }

    /// Takes a number, which is whole only when something else follows it.
    pub(crate) fn number(&mut self) -> Result<u64, Stop> {
        self.skip_space();
        let mut value = 0;
        for (length, byte) in self.0.iter().enumerate() {
            if !byte.is_ascii_digit() {
                self.0 = &self.0[length..];
                return if length == 0 {
                    Err(Stop::Nonsense)
                } else {
                    Ok(value)
                };
            }
            if length == DIGITS_MAX {
                return Err(Stop::Nonsense);
            }
            value = value * 10 + u64::from(byte - b'0');
        }
        Err(Stop::Unfinished)
    }
}
