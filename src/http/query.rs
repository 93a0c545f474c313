//! The query of a URL: its parameters, percent-decoded, with nothing guessed.
//!
//! A `+` stands for itself and not for a space: topics may hold the one and never the other.

use super::problem::Problem;

/// The parameters of a request, in order.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query; `None` is the empty one.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let pairs = query
            .unwrap_or("")
            .split('&')
            .filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        });
        let decoded: Option<Vec<_>> = decoded.collect();
        decoded.map(Self).ok_or(Problem::BadRequest(
            "The query is not valid percent-encoded UTF-8.",
        ))
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = self.0.iter();
        let named = pairs.filter(move |(other, _)| other == name);
        named.map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that may stand there once; an empty one is none.
    pub(crate) fn one(&self, name: &'static str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        let value = values.next();
        if values.next().is_some() {
            return Err(Problem::BadRequest(
                "A parameter other than topic stands in the query twice.",
            ));
        }
        Ok(value.filter(|value| !value.is_empty()))
    }
}

fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let digits = after.get(..2)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_kept_in_order() {
        let query = Query::parse(Some("topic=a%2Fb&topic=c+d&since=&named=1&&x")).expect("valid");
        assert_eq!(query.all("topic").collect::<Vec<_>>(), ["a/b", "c+d"]);
        assert_eq!(query.one("since"), Ok(None));
        assert_eq!(query.one("named"), Ok(Some("1")));
        assert!(query.one("topic").is_err());
    }

    #[test]
    fn broken_encodings_are_refused() {
        for query in ["a=%", "a=%2", "a=%zz", "a=%ff", "%+1=a"] {
            assert!(Query::parse(Some(query)).is_err(), "{query}");
        }
    }
}
