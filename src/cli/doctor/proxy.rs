//! Whether what stands before a gateway passes a stream on at once and as it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Request, StatusCode, Uri, Version};
use jiff::{Span, Timestamp};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::token::{Bearer, SigningArgs};
use super::super::{Failure, fetch};
use super::{Finding, Weight};

/// How long reaching the proxy may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How soon the first bytes must be there: the gateway sends them within milliseconds, and nothing else follows
/// for a while by which a buffer would fill.
const FIRST_BYTES: Duration = Duration::from_secs(2);

/// How much longer the head is waited for, to tell a slow answer from none.
const HEAD: Duration = Duration::from_secs(8);

/// Where a gateway is reached from outside.
pub(super) struct Way {
    uri: Uri,
    host: String,
    port: u16,
    tls: bool,
}

impl Way {
    /// Reads an address, with or without the path of the stream.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let fault = || format!("--proxy {url:?}: it looks like https://app.example.org");
        let uri: Uri = url.parse().map_err(|_| fault())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(fault()),
        };
        let host = uri.host().ok_or_else(fault)?;
        let path = uri.path().trim_end_matches('/');
        let path = match path.ends_with("/v1/events") {
            true => path.to_owned(),
            false => format!("{path}/v1/events"),
        };
        let query = uri.query().map(|query| format!("?{query}"));
        let target = format!("{path}{}", query.unwrap_or_default());
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            uri: Uri::builder()
                .scheme(uri.scheme_str().unwrap_or_default())
                .authority(uri.authority().map_or("", |authority| authority.as_str()))
                .path_and_query(target)
                .build()
                .map_err(|_| fault())?,
        })
    }
}

/// The token to open a stream with: the one that is given, or one of our own.
pub(super) fn token(
    given: Option<String>,
    signing: &SigningArgs,
) -> Result<Option<String>, Failure> {
    if let Some(token) = given.filter(|token| !token.is_empty()) {
        return Ok(Some(token));
    }
    let Some(secret) = signing.secret()? else {
        return Ok(None);
    };
    let bearer = Bearer {
        sub: "tidings-doctor",
        tenant: signing.tenants_required().then_some("tidings-doctor"),
        topics: &[],
        publish: &[],
        expires_in: Span::new().minutes(1),
    };
    Ok(Some(signing.sign(&secret, &bearer, Timestamp::now())?))
}

/// Opens a stream and looks at how it arrives.
pub(super) async fn examine(way: &Way, token: Option<&str>) -> Vec<Finding> {
    let connected = match tokio::time::timeout(CONNECT_TIMEOUT, connect(way)).await {
        Ok(connected) => connected,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    };
    let stream = match connected {
        Ok(stream) => stream,
        Err(error) => return vec![unreachable(way, &error.to_string())],
    };
    let begun = Instant::now();
    let asked = tokio::time::timeout(FIRST_BYTES + HEAD, fetch::get(stream, request(way, token)));
    let mut answer = match asked.await {
        Err(_) => {
            return vec![buffering(
                "not even the head of the answer arrived within 10 s",
            )];
        }
        Ok(Err(error)) => return vec![unreachable(way, &tell(&error))],
        Ok(Ok(answer)) => answer,
    };
    let mut found = Vec::new();
    if answer.response.version() < Version::HTTP_11 {
        found.push(old_version());
    }
    let status = answer.response.status();
    let kind = answer.response.headers().get(header::CONTENT_TYPE);
    let kind = kind.map_or("none", |kind| kind.to_str().unwrap_or("unreadable"));
    if status != StatusCode::OK || !kind.starts_with("text/event-stream") {
        found.push(no_stream(status, kind, token.is_some()));
        return found;
    }
    found.extend(headers(answer.response.headers()));
    let left = FIRST_BYTES.saturating_sub(begun.elapsed());
    match tokio::time::timeout(left, answer.response.body_mut().frame()).await {
        Ok(Some(Ok(_))) => {}
        Ok(Some(Err(error))) => found.push(cut(&tell(&error))),
        Ok(None) => found.push(cut("it ended before its first byte")),
        Err(_) => found.push(buffering(
            "the first bytes, which the gateway sends at once, did not arrive within 2 s",
        )),
    }
    found
}

fn request(way: &Way, token: Option<&str>) -> Request<Empty<Bytes>> {
    let authority = way
        .uri
        .authority()
        .map_or("", |authority| authority.as_str());
    let target = way
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let mut request = Request::get(target)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "text/event-stream")
        // What browsers say, so that whoever compresses does it here too.
        .header(header::ACCEPT_ENCODING, "gzip, deflate, br, zstd")
        .header(header::USER_AGENT, "tidings-doctor");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request
        .body(Empty::new())
        .unwrap_or_else(|_| Request::new(Empty::new()))
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn connect(way: &Way) -> std::io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect((way.host.as_str(), way.port)).await?;
    if !way.tls {
        return Ok(Box::new(stream));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // The connector of database sessions does TLS over any stream, and is here already.
    let mut connector = MakeRustlsConnect::new(config);
    let connector = <MakeRustlsConnect as MakeTlsConnect<TcpStream>>::make_tls_connect(
        &mut connector,
        &way.host,
    );
    let connector = connector.map_err(std::io::Error::other)?;
    let stream = connector.connect(stream).await;
    Ok(Box::new(stream.map_err(std::io::Error::other)?))
}

/// What the headers of a stream must say, and mostly lose at proxies that "improve" them.
fn headers(headers: &HeaderMap) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(coding) = headers.get(header::CONTENT_ENCODING) {
        found.push(Finding {
            name: "proxy-compression",
            weight: Weight::Breaks,
            what: format!("the stream arrives compressed ({coding:?})"),
            why: "a compressor holds events back until it has enough of them for a block",
            mend: "turn compression off for /v1/events (nginx: gzip off; Caddy: no encode there; HAProxy: no \
                   compression for text/event-stream)"
                .into(),
        });
    }
    let has = |name: HeaderName, word: &str| {
        headers.get_all(name).iter().any(|value| {
            let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
            value.split(',').any(|part| part.trim() == word)
        })
    };
    // X-Accel-Buffering is not among them: it is meant for nginx, which takes it out.
    let missing: Vec<String> = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CACHE_CONTROL, "no-transform"),
        (header::VARY, "origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ]
    .into_iter()
    .filter(|(name, word)| !has(name.clone(), word))
    .map(|(name, word)| format!("{name}: {word}"))
    .collect();
    if !missing.is_empty() {
        found.push(Finding {
            name: "proxy-headers",
            weight: Weight::Hurts,
            what: format!("headers of the gateway are lost on the way: {}", missing.join(", ")),
            why: "caches and other proxies behind this one may keep, transform or mix up answers that are for one \
                  caller alone",
            mend: "pass the gateway's headers on as they are".into(),
        });
    }
    found
}

fn buffering(what: &str) -> Finding {
    Finding {
        name: "proxy-buffering",
        weight: Weight::Breaks,
        what: what.into(),
        why: "a proxy that collects an answer before it passes it on delivers events late or never",
        mend: "turn buffering off for /v1/events (nginx: proxy_buffering off; Apache: flushpackets=on; cloud load \
               balancers: streaming responses), and give it a read time-out above 60 s"
            .into(),
    }
}

fn old_version() -> Finding {
    Finding {
        name: "proxy-http10",
        weight: Weight::Hurts,
        what: "the answer comes by HTTP/1.0".into(),
        why: "without chunks a client cannot tell an ended stream from a broken one, every request costs a connection, \
              and what stands in front may collect the whole answer",
        mend: "speak HTTP/1.1 on both sides (nginx: proxy_http_version 1.1 and proxy_set_header Connection \"\")".into(),
    }
}

fn unreachable(way: &Way, error: &str) -> Finding {
    Finding {
        name: "proxy-unreachable",
        weight: Weight::Breaks,
        what: format!("{} cannot be asked: {error}", way.uri),
        why: "no client gets to the gateway this way",
        mend: "see that the name, the port, the certificate and what listens there are as they should be".into(),
    }
}

fn cut(what: &str) -> Finding {
    Finding {
        name: "proxy-cut",
        weight: Weight::Breaks,
        what: format!("the stream was cut: {what}"),
        why: "clients reconnect again and again",
        mend: "look into the logs of the proxy and of the gateway".into(),
    }
}

fn no_stream(status: StatusCode, kind: &str, had_token: bool) -> Finding {
    let what = format!("the answer is {} with content type {kind}", status.as_u16());
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Finding {
            name: "proxy-refused",
            weight: Weight::Unknown,
            what,
            why: "without a stream, buffering and headers were not examined",
            mend: match had_token {
                true => "give a token that this gateway accepts, by --token, and see that the proxy passes \
                         Authorization on"
                    .into(),
                false => "give a token by --token or TIDINGS_DOCTOR_TOKEN, or the gateway's TIDINGS_JWT_SECRET; or \
                          name a public topic: --proxy 'https://…/v1/events?topic=…'"
                    .into(),
            },
        },
        _ => Finding {
            name: "proxy-no-stream",
            weight: Weight::Breaks,
            what,
            why: "a browser's EventSource gives up for good on anything but a 200 with text/event-stream",
            mend: "have /v1/events passed on to the gateway with its path as it is, and errors of the proxy itself \
                   (502, 503, 504) answered on that path by a 200 with a retry: line"
                .into(),
        },
    }
}

fn tell(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_the_stream() {
        for (url, uri, port) in [
            ("https://a.example", "https://a.example/v1/events", 443),
            ("http://a.example:81/", "http://a.example:81/v1/events", 81),
            (
                "https://a.example/push/",
                "https://a.example/push/v1/events",
                443,
            ),
            (
                "http://[::1]:8/v1/events?topic=a",
                "http://[::1]:8/v1/events?topic=a",
                8,
            ),
        ] {
            let way = Way::parse(url).expect("an address");
            assert_eq!((way.uri.to_string().as_str(), way.port), (uri, port));
        }
        for bad in ["", "a.example", "ftp://a.example", "/v1/events", "https://"] {
            assert!(Way::parse(bad).is_err(), "{bad}");
        }
    }
}
