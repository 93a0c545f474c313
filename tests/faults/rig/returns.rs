//! Whoever was away and comes back, client or gateway, and finds a history that has gone another way.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Rig;
use crate::journal::{End, Moment, Record};
use crate::readers::{Habit, Reader};
use crate::support::proxy::Proxy;

impl Rig<'_> {
    /// A client that was away comes with the cursor that it held, and stays.
    pub(crate) fn comes_back(&mut self, number: u64, cursor: &str) {
        let reader = Reader {
            habit: Habit::Stay,
            ..self.reader(number, cursor)
        };
        self.readers.spawn(reader.read());
    }

    /// A gateway starts anew behind a proxy of its own.
    pub(crate) async fn put_behind_a_proxy(&mut self, number: usize) -> Proxy {
        let proxy = Proxy::start(&self.database).await;
        self.kill_gateway(number);
        self.gateways[number].url = Some(proxy.url().to_owned());
        self.start_gateway(number).await;
        proxy
    }

    /// The newest id of the log.
    pub(crate) async fn newest_id(&self) -> i64 {
        let client = self.session().await;
        let newest = client.query_one("select max(id) from tidings.event", &[]);
        newest.await.expect("the newest").get(0)
    }

    /// Lets the load go on, and adds to it, until the ids of the log have overtaken this one.
    pub(crate) async fn load_beyond(&self, id: i64) {
        let client = self.session().await;
        while self.newest_id().await <= id {
            let round = self.probes.fetch_add(1, Ordering::Relaxed);
            let event = |n| {
                let topic = format!("t{}", n % self.plan.topics);
                (format!("beyond.{round}.{n}"), topic, "written")
            };
            self.publish_noted(&client, &(0..50).map(event).collect::<Vec<_>>())
                .await;
            self.load_for(Duration::from_millis(50)).await;
        }
    }
}

/// The first thing that this client was told: the reason of a reset, or none if it went on.
pub(crate) fn first_told(records: &[Record], number: u64) -> Option<&str> {
    let first = records.iter().find_map(|record| match record {
        Record::Reset { client, reason, .. } if *client == number => Some(Some(reason.as_str())),
        Record::Event { client, .. } | Record::Ready { client, .. } if *client == number => {
            Some(None)
        }
        _ => None,
    });
    first.expect("it was told something")
}

/// How many streams at this gateway ended with `bye{diverged}` after this moment.
pub(crate) fn diverged_at(records: &[Record], number: usize, since: Moment) -> usize {
    let mut at = HashMap::new();
    let mut count = 0;
    for record in records {
        match record {
            Record::Connect {
                client, gateway, ..
            } => _ = at.insert(*client, *gateway),
            Record::End {
                at: ended,
                client,
                why: End::Bye(reason),
                ..
            } if *ended > since && reason == "diverged" && at.get(client) == Some(&number) => {
                count += 1;
            }
            _ => {}
        }
    }
    count
}
