//! Query strings: every parameter comes out as a second reader of percent-encoding has it, or the whole
//! query is refused for a reason that this reader sees too.

use tidings::http::problem;

// The gateway keeps its reader to itself; here its source is compiled a second time.
#[path = "../../src/http/query.rs"]
mod source;

use source::Query;

/// The parameters that the routes ask for.
const NAMES: [&str; 6] = ["topic", "since", "named", "ticket", "limit", "state"];

/// Reads a query.
pub fn run(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let expected = read(&text);
    let query = match Query::parse(Some(&text)) {
        Ok(query) => query,
        Err(problem) => {
            assert_eq!(problem.name(), "bad-request");
            assert_eq!(expected, None, "{text:?} was refused");
            return false;
        }
    };
    let expected = expected.unwrap_or_else(|| panic!("{text:?} was read"));
    hold(&query, &expected);
    // Written in the plainest way, it says the same.
    let plain: Vec<String> = expected
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    let again = Query::parse(Some(&plain.join("&"))).expect("is encoded");
    hold(&again, &expected);
    !expected.is_empty()
}

/// A query holds these parameters, in this order, and no other under their names.
fn hold(query: &Query, expected: &[(String, String)]) {
    let names = expected.iter().map(|(name, _)| name.as_str());
    for name in names.take(32).chain(NAMES) {
        let values: Vec<&str> = expected
            .iter()
            .filter(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(query.all(name).collect::<Vec<_>>(), values, "{name:?}");
    }
    for name in NAMES {
        let values: Vec<&str> = query.all(name).collect();
        match query.one(name) {
            Ok(None) => assert!(matches!(values[..], [] | [""]), "{name}: {values:?}"),
            Ok(Some(value)) => assert_eq!(values, [value]),
            Err(_) => assert!(values.len() > 1, "{name}: {values:?}"),
        }
    }
}

/// Reads a query by the URL Standard, except that `+` is itself and a broken escape is none.
fn read(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for pair in text.split('&') {
        if pair.is_empty() {
            continue;
        }
        let (name, value) = match pair.find('=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, ""),
        };
        pairs.push((decode(name)?, decode(value)?));
    }
    Some(pairs)
}

fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or("").as_bytes().to_vec();
    for part in parts {
        let mut chars = part.chars();
        let (high, low) = (chars.next()?.to_digit(16)?, chars.next()?.to_digit(16)?);
        bytes.push((high * 16 + low) as u8);
        bytes.extend_from_slice(chars.as_str().as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
