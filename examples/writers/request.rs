//! The request by which a stream is opened: for its share of the topics, with a token of its own user.

use crate::token::token;
use crate::{Result, TOPICS};

/// What all requests have in common.
#[derive(Clone)]
pub(crate) struct Requests {
    pub(crate) host: String,
    pub(crate) streams: usize,
    pub(crate) secret: &'static str,
}

impl Requests {
    /// The head of the request for the stream of this number.
    pub(crate) fn head(&self, number: usize) -> Result<String> {
        let topics = (number..TOPICS).step_by(self.streams);
        let topics: Vec<_> = topics.map(|topic| format!("topic=user:{topic}")).collect();
        let (topics, host, token) = (topics.join("&"), &self.host, token(self.secret, number)?);
        Ok(format!(
            "GET /v1/events?{topics} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n\
             authorization: Bearer {token}\r\n\r\n"
        ))
    }
}
