//! A gateway for one test: in this process, on free ports, on the test's own database.

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tidings::config::{Config, ServeArgs};

use super::client::{Answer, Stream, Visit};
use super::interface::Server;
use super::postgres::Database;

/// The secret that signs every test's tokens.
pub(crate) const SECRET: &str = "Zm9yIHRlc3RzIG9ubHksIGFuZCBsb25nIGVub3VnaCB0byBwYXNz";

/// A running gateway; dropping it ends it with its runtime.
pub(crate) struct Gateway {
    inner: tidings::gateway::Gateway,
    door: Door,
}

/// Where a gateway is reached, in this process or in one of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) ops_address: SocketAddr,
}

impl Deref for Gateway {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Gateway {
    /// A gateway with default settings.
    pub(crate) async fn start(database: &Database) -> Gateway {
        Gateway::start_with(database, &[]).await
    }

    /// A gateway with these flags besides, each as `--name=value`.
    pub(crate) async fn start_with(database: &Database, flags: &[&str]) -> Gateway {
        Gateway::start_at(&database.url(), flags).await
    }

    /// A gateway on the database at an address.
    pub(crate) async fn start_at(url: &str, flags: &[&str]) -> Gateway {
        Gateway::start_changed(url, flags, |_| ()).await
    }

    /// The same with what no flag sets changed in its configuration.
    pub(crate) async fn start_changed(
        url: &str,
        flags: &[&str],
        change: impl FnOnce(&mut Config),
    ) -> Gateway {
        let database = format!("--database-url={url}");
        let secret = format!("--jwt-secret={SECRET}");
        let own = [
            &database,
            &secret,
            "--listen=127.0.0.1:0",
            "--ops-listen=127.0.0.1:0",
        ];
        let args = ServeArgs::from_flags(own.iter().chain(flags).copied()).expect("known flags");
        let mut config = args.into_config().expect("a usable configuration");
        change(&mut config);
        let inner = tidings::gateway::Gateway::start(config, None)
            .await
            .expect("the gateway starts");
        inner.ready().await;
        let door = Door {
            address: inner.address(),
            ops_address: inner.ops_address(),
        };
        Gateway { inner, door }
    }

    /// Drains and ends it.
    pub(crate) async fn drain(self) {
        self.inner.drain().await;
    }

    /// Ends it at once.
    pub(crate) async fn stop(self) {
        self.inner.stop().await;
    }
}

impl Door {
    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where operators ask.
    pub(crate) fn ops_address(&self) -> SocketAddr {
        self.ops_address
    }

    /// Opens a stream of these topics, as a user who may read everything, and waits until it is
    /// live.
    pub(crate) async fn subscribe(&self, topics: &[&str]) -> Stream {
        let mut stream = self.resume(topics, None).await;
        stream.ready().await;
        stream
    }

    /// Opens a stream of these topics from a cursor on; nothing of it has been read yet.
    pub(crate) async fn resume(&self, topics: &[&str], since: Option<&str>) -> Stream {
        // A user of its own for each stream, because users have few.
        let user = format!("reader-{:08x}", fastrand::u32(..));
        let mut visit = self
            .events(topics)
            .bearer(&token(&user, json!({"topics": ["*"]})));
        if let Some(since) = since {
            visit = visit.header("last-event-id", since);
        }
        visit.stream().await
    }

    /// A request for a stream of these topics.
    pub(crate) fn events(&self, topics: &[&str]) -> Visit {
        let topics: Vec<String> = topics
            .iter()
            .map(|topic| format!("topic={topic}"))
            .collect();
        self.visit("GET", &format!("/v1/events?{}", topics.join("&")))
    }

    /// A request to this gateway.
    pub(crate) fn visit(&self, method: &str, target: &str) -> Visit {
        Visit::new(self.address(), method, target)
    }

    /// What the operations listener answers.
    pub(crate) async fn ops(&self, path: &str) -> Answer {
        let visit = Visit::new(self.ops_address(), "GET", path);
        visit.of(Server::Operators).send().await
    }

    /// The value of a metric, as its whole line names it before the space; 0 when absent.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.ops("/metrics").await.body;
        let line = text.lines().find_map(|line| {
            let (found, value) = line.split_once(' ')?;
            (found == name).then(|| value.parse().expect("a number"))
        });
        line.unwrap_or(0.0)
    }

    /// How many streams are open, whichever sink they have.
    pub(crate) async fn streams(&self) -> f64 {
        let text = self.ops("/metrics").await.body;
        let streams = text
            .lines()
            .filter(|line| line.starts_with("tidings_streams{"));
        let values = streams.filter_map(|line| line.rsplit_once(' '));
        values
            .map(|(_, value)| value.parse::<f64>().expect("a number"))
            .sum()
    }
}

/// A token of an hour for `sub`; `more` are claims beside `sub` and `exp`, or in their place.
pub(crate) fn token(sub: &str, more: Value) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let exp = (now + Duration::from_secs(3600)).as_secs();
    let mut claims = json!({"sub": sub, "exp": exp});
    for (name, value) in more.as_object().expect("claims are an object") {
        claims[name] = value.clone();
    }
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("encodes")
}
