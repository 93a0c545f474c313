//! The request by which a stream is opened, with a token of its own user where there is a secret.

use crate::Result;
use crate::payload::Kind;
use crate::token::token;

/// What all requests have in common.
#[derive(Clone)]
pub(crate) struct Requests {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) secret: Option<String>,
}

impl Requests {
    /// The head of the request for the stream of this number.
    pub(crate) fn head(&self, number: usize) -> Result<String> {
        let path = self
            .path
            .replace("{own}", &topic(Kind::Own, number))
            .replace("{all}", &topic(Kind::All, number));
        let host = &self.host;
        let authorization = match &self.secret {
            Some(secret) => format!("authorization: Bearer {}\r\n", token(secret, number)?),
            None => String::new(),
        };
        Ok(format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n{authorization}\r\n"
        ))
    }
}

/// The topic of this kind that the stream of this number has.
pub(crate) fn topic(kind: Kind, number: usize) -> String {
    match kind {
        Kind::All => "all".to_owned(),
        Kind::Own => format!("user:u{number}"),
    }
}
