//! The block of an event, in as many bytes as the gateway needs for it.

use std::io::Write;

/// What the gateway puts before an event's data, with a cursor and numbers of the usual length. They do not
/// change: the floor spends nothing on making them.
const BEFORE: &str = "id: 1~10000~100000.00000000\ndata: {\"id\":\"100000\",\"topic\":\"all\",\
     \"type\":\"load\",\"at\":\"2026-01-01T00:00:00.000000Z\",\"data\":";
/// And after it.
const AFTER: &str = "}\n\n";

/// Writes the chunk of an event over what is in the buffer.
pub(crate) fn write_chunk(data: &str, buffer: &mut Vec<u8>) {
    buffer.clear();
    let length = BEFORE.len() + data.len() + AFTER.len();
    write!(buffer, "{length:x}\r\n{BEFORE}{data}{AFTER}\r\n").expect("a buffer takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_says_its_length() {
        let mut buffer = Vec::new();
        write_chunk("{\"n\":1}", &mut buffer);
        let text = String::from_utf8(buffer).expect("text");
        let (length, rest) = text.split_once("\r\n").expect("a line");
        let block = rest.strip_suffix("\r\n").expect("an end");
        assert_eq!(usize::from_str_radix(length, 16), Ok(block.len()));
        assert!(block.ends_with("\"data\":{\"n\":1}}\n\n"), "{block}");
    }
}
