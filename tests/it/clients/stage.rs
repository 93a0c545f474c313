//! A route of a journey: where it is cut, where it begins, and what is heard on it.

use std::net::SocketAddr;

use serde_json::json;

use super::cut::{Cut, Cutter, Manner, Place};
use super::driver::{Log, Route};
use super::published::{Event, Published};
use crate::support::gateway::token;

/// The types of the events in which routes are cut: while they are live, and within a replay.
pub(crate) const LIVE: &str = "cut.live";
pub(crate) const REPLAYED: &str = "cut.replay";

/// One route.
pub(crate) struct Stage {
    pub(crate) name: String,
    /// Where it is cut, if it is.
    pub(crate) cutter: Option<Cutter>,
    /// The cursor with which it begins, or now.
    since: Option<String>,
    /// How many of the events come before what it hears.
    from: usize,
    /// The type of the one that it does not hear.
    lost: Option<&'static str>,
}

impl Stage {
    /// A route that is not cut, from now on.
    pub(crate) fn whole(name: &str, since: Option<String>, published: &Published) -> Stage {
        Stage {
            name: name.to_owned(),
            cutter: None,
            since,
            from: published.events.len(),
            lost: None,
        }
    }

    /// A route to this gateway that is live when it is cut here.
    pub(crate) async fn cut_live(
        gateway: SocketAddr,
        place: Place,
        published: &Published,
    ) -> Stage {
        let cut = Cut {
            mark: LIVE,
            place,
            manner: Manner::Closed,
        };
        Stage {
            name: format!("live {place:?}"),
            cutter: Some(Cutter::start(gateway, cut).await),
            since: None,
            from: published.events.len(),
            lost: None,
        }
    }

    /// A route to this gateway that is cut here in its replay of everything from `since` on.
    pub(crate) async fn cut_in_replay(gateway: SocketAddr, place: Place, since: &str) -> Stage {
        let cut = Cut {
            mark: REPLAYED,
            place,
            manner: Manner::Broken,
        };
        Stage {
            name: format!("replay {place:?}"),
            cutter: Some(Cutter::start(gateway, cut).await),
            since: Some(since.to_owned()),
            from: 0,
            lost: None,
        }
    }

    /// The same where the client does not get what was cut.
    pub(crate) fn without(mut self, kind: &'static str) -> Stage {
        self.lost = Some(kind);
        self
    }

    /// Where a client goes, which calls this machine `host`.
    pub(crate) fn route(&self, host: &str, gateway: SocketAddr) -> Route {
        let address = self.cutter.as_ref().map_or(gateway, Cutter::address);
        let since = self.since.iter().map(|since| format!("&since={since}"));
        let since: String = since.collect();
        Route {
            name: self.name.clone(),
            url: format!(
                "http://{host}:{}/v1/events?topic=news{since}",
                address.port()
            ),
            token: token("traveller", json!({"topics": ["news"]})),
        }
    }

    /// Whether it becomes live before anything is cut.
    pub(crate) fn is_live_first(&self) -> bool {
        self.from > 0
    }

    /// Whether as much has been heard as was published for it.
    pub(crate) fn has_all(&self, log: &Log, published: &Published) -> bool {
        log.of(&self.name, "message").len() >= self.expects(published).count()
    }

    /// What was heard must be what was published, each event once, in order, letter by letter; and it was
    /// said why the gateway went.
    pub(crate) fn judge(&self, client: &str, log: &Log, published: &Published) {
        let name = format!("{client}, {}", self.name);
        let heard = log.of(&self.name, "message");
        let ids = heard.iter().filter_map(|event| event["id"].as_str());
        let expected_ids = self.expects(published).map(|event| &*event.id);
        assert_eq!(
            ids.collect::<Vec<_>>(),
            expected_ids.collect::<Vec<_>>(),
            "{name}"
        );
        for (heard, event) in heard.iter().zip(self.expects(published)) {
            assert!(
                heard["data"] == event.data,
                "{name}: {} is mangled",
                event.id
            );
        }
        let reason = match self.cutter {
            None => "drain",
            Some(_) => "unavailable",
        };
        let byes = log.of(&self.name, "tidings.bye");
        let told = byes.iter().any(|bye| bye["reason"] == reason);
        assert!(told, "{name}: {byes:?}");
    }

    fn expects<'a>(&'a self, published: &'a Published) -> impl Iterator<Item = &'a Event> {
        let events = published.events[self.from..].iter();
        events.filter(|event| Some(event.kind) != self.lost)
    }
}
