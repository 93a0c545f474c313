//! One request and its answer, compared with the document.
//!
//! The request is compared where it was answered well, since tests of refusals send what is wrong on
//! purpose; the answer always.

use serde_json::Value;

use super::Server;
use super::blocks::Blocks;
use super::document::{Document, Part};

/// Headers of the HTTP library, which say how an answer is framed and not what it is.
const FRAMING: [&str; 4] = ["date", "content-length", "transfer-encoding", "connection"];

/// Request headers that an OpenAPI document has other places for than parameters, or none.
const UNLISTED: [&str; 6] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "authorization",
    "cookie",
];

/// A request and its answer.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) server: Server,
    /// The request line and the headers, as they were sent.
    pub(crate) head: &'a str,
    /// The body that was sent.
    pub(crate) sent: &'a [u8],
    pub(crate) status: u16,
    /// With lower-case names.
    pub(crate) headers: &'a [(String, String)],
    /// The body of the answer, where it came whole: not a stream's, nor one that was cut.
    pub(crate) body: Option<&'a str>,
}

impl Exchange<'_> {
    /// What the document lacks or forbids.
    pub(crate) fn faults(&self, document: &Document) -> Vec<String> {
        if self.server == Server::Proxy {
            return Vec::new();
        }
        let (method, target) = self.request_line();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let operation = find_path(document, self.server, path);
        let (place, answers, operation) = match &operation {
            None => (
                format!("the unknown path {path}"),
                server(document, self.server).get("x-unknown-path"),
                None,
            ),
            Some(item) => match item.get(&method.to_lowercase()) {
                Some(found) if method.chars().all(char::is_uppercase) => {
                    let answers = found.get("responses");
                    (format!("{method} {path}"), answers, Some(found))
                }
                _ => (
                    format!("another method, {method}, of {path}"),
                    item.get("x-other-methods"),
                    None,
                ),
            },
        };
        let answer = answers.and_then(|answers| answers.get(&self.status.to_string()));
        let Some(answer) = answer else {
            return vec![format!("no status {} of {place}", self.status)];
        };
        let mut faults = Vec::new();
        if let (Some(operation), 200..=299) = (&operation, self.status) {
            self.check_query(operation, query, document, &mut faults);
            self.check_request_headers(operation, &mut faults);
            self.check_sent(operation, &mut faults);
        }
        let bare = self.header("content-type").is_none() && self.body.is_none_or(str::is_empty);
        if !(bare && answer.is("x-without-body")) {
            self.check_headers(&answer, &mut faults);
            self.check_body(&answer, method == "HEAD", &mut faults);
        }
        let named = |fault| format!("{place}, status {}: {fault}", self.status);
        faults.into_iter().map(named).collect()
    }

    fn request_line(&self) -> (&str, &str) {
        let mut words = self.head.lines().next().unwrap_or("").split(' ');
        (words.next().unwrap_or(""), words.next().unwrap_or(""))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    fn check_query(
        &self,
        operation: &Part<'_>,
        query: &str,
        document: &Document,
        faults: &mut Vec<String>,
    ) {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            if value.is_empty() || is_credential(operation, name, document) {
                continue;
            }
            let Some(schema) = query_parameter(operation, name) else {
                faults.push(format!("no query parameter {name}"));
                continue;
            };
            // One that may be repeated is listed as the array of its values.
            let schema = schema.child("items").unwrap_or(schema);
            if let Err(fault) = schema.check_text(&value) {
                faults.push(format!("the query parameter {name}={value} {fault}"));
            }
        }
    }

    fn check_request_headers(&self, operation: &Part<'_>, faults: &mut Vec<String>) {
        let lines = self.head.lines().skip(1);
        for (name, _) in lines.filter_map(|line| line.split_once(':')) {
            let unlisted = UNLISTED
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name));
            if !unlisted && parameter(operation, "header", name).is_none() {
                faults.push(format!("no request header {name}"));
            }
        }
    }

    fn check_sent(&self, operation: &Part<'_>, faults: &mut Vec<String>) {
        let Some(body) = operation.get("requestBody") else {
            if !self.sent.is_empty() {
                faults.push("no body of a request".to_owned());
            }
            return;
        };
        let schema = body.child("content").and_then(|content| {
            let media = content.child("application/json")?;
            media.child("schema")
        });
        let schema = schema.expect("bodies of requests are JSON");
        let sent = serde_json::from_slice(self.sent).map_err(|error| error.to_string());
        if let Err(fault) = sent.and_then(|sent| schema.check(&sent)) {
            faults.push(format!("the body of the request {fault}"));
        }
    }

    fn check_headers(&self, answer: &Part<'_>, faults: &mut Vec<String>) {
        let described = answer.each_of("headers");
        for (n, (name, value)) in self.headers.iter().enumerate() {
            if FRAMING.contains(&&**name) || name == "content-type" {
                continue;
            }
            if self.headers[..n].iter().any(|(other, _)| other == name) {
                faults.push(format!("the header {name} twice"));
            }
            let found = described.iter().find(|(other, _)| other == name);
            let schema = found.and_then(|(_, header)| header.child("schema"));
            match schema.map(|schema| schema.check_text(value)) {
                None => faults.push(format!("no header {name}")),
                Some(Err(fault)) => faults.push(format!("the header {name}: {value} {fault}")),
                Some(Ok(())) => {}
            }
        }
        for (name, header) in &described {
            if header.is("required") && self.header(name).is_none() {
                faults.push(format!("the header {name} is required and missing"));
            }
        }
    }

    fn check_body(&self, answer: &Part<'_>, is_head: bool, faults: &mut Vec<String>) {
        let kind = self.header("content-type");
        let content = answer.get("content");
        let media = match (content, kind) {
            (None, None) => {
                if self.body.is_some_and(|body| !body.is_empty()) {
                    faults.push("no body".to_owned());
                }
                return;
            }
            (content, kind) => {
                let kind = kind.unwrap_or("(none)");
                let Some(media) = content.and_then(|content| content.get(kind)) else {
                    faults.push(format!("no content-type {kind}"));
                    return;
                };
                media
            }
        };
        let Some(body) = self.body else { return };
        if is_head {
            if !body.is_empty() {
                faults.push("a body in answer to HEAD".to_owned());
            }
            return;
        }
        let kind = kind.unwrap_or("");
        let outcome = if let Some(blocks) = media.child("x-item-schema") {
            let blocks = Blocks::of(&blocks);
            let mut whole = body.split_inclusive("\n\n");
            whole.try_for_each(|block| blocks.check(block))
        } else {
            let value = if kind.ends_with("json") {
                serde_json::from_str(body).map_err(|error| error.to_string())
            } else {
                Ok(Value::String(body.to_owned()))
            };
            let schema = media.child("schema").expect("a schema");
            value.and_then(|value| schema.check(&value))
        };
        if let Err(fault) = outcome {
            faults.push(format!("the body {fault}"));
        }
    }
}

/// What answers on this server, as the document lists it.
fn server(document: &Document, server: Server) -> Part<'_> {
    match server {
        Server::Operators => document.at("/paths/~1livez/servers/0"),
        Server::Clients | Server::Proxy => document.at("/servers/0"),
    }
}

/// A path of this server: those of the operations listener name it.
fn find_path<'a>(document: &'a Document, server: Server, path: &str) -> Option<Part<'a>> {
    let item = document.at("/paths").get(path)?;
    let operations = item.child("servers").is_some();
    (operations == (server == Server::Operators)).then_some(item)
}

/// The schema of a query parameter. A parameter that is an object stands for the whole query, whose members
/// are parameters of any name.
fn query_parameter<'a>(operation: &Part<'a>, name: &str) -> Option<Part<'a>> {
    if let Some(named) = parameter(operation, "query", name) {
        return named.child("schema");
    }
    let parameters = operation.each_of("parameters").into_iter();
    let schemas = parameters.filter_map(|(_, parameter)| parameter.child("schema"));
    let mut whole = schemas.filter(|schema| schema.text("type") == "object");
    whole.next()?.child("additionalProperties")
}

fn parameter<'a>(operation: &Part<'a>, place: &str, name: &str) -> Option<Part<'a>> {
    let parameters = operation.each_of("parameters").into_iter();
    let mut parameters = parameters.map(|(_, parameter)| parameter);
    parameters.find(|parameter| {
        parameter.text("in") == place && parameter.text("name").eq_ignore_ascii_case(name)
    })
}

/// Whether a parameter is a credential that the operation takes.
fn is_credential(operation: &Part<'_>, name: &str, document: &Document) -> bool {
    let ways = operation.each_of("security").into_iter();
    let mut schemes = ways.flat_map(|(_, way)| way.each());
    schemes.any(|(scheme, _)| {
        let scheme = document.at(&format!("/components/securitySchemes/{scheme}"));
        scheme.text("in") == "query" && scheme.text("name") == name
    })
}

/// A percent-decoded text; `+` stands for itself.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
