//! The oracle: what the database itself says was committed, read by a SELECT once all is over.
//!
//! Publishers insert a fact beside each event, in the same transaction and in a table of the
//! application's own, so that the truth outlives the trimming of the log.

use std::collections::HashMap;

use serde_json::Value;
use tokio_postgres::Client;

use crate::journal::Moment;
use crate::support::backend::run;

/// The application's schema: its facts, and the state of a topic that says how many there are, so
/// that a sync can be held against the snapshot that its cursor names.
const APPLICATION: &str = "
    create schema app;
    create table app.fact (
        key   text primary key,
        id    bigint not null,
        xid   xid8 not null default pg_current_xact_id(),
        topic text not null,
        type  text not null,
        at    timestamptz not null default statement_timestamp(),
        data  jsonb not null
    );
    create index on app.fact (topic) include (id);
    create function app.state(topic text, claims jsonb) returns jsonb language sql stable as $$
        select jsonb_build_object('count', count(*), 'sum', coalesce(sum(id), 0),
                                  'ended', exists (select from app.fact where key = 'last.' || state.topic))
        from app.fact where fact.topic = state.topic
    $$;
    grant usage on schema app to public;
    grant select, insert on app.fact to public;
    select tidings.define_state('*', 'app.state(text, jsonb)');
";

/// Prepares a database for facts.
pub(crate) async fn prepare(client: &Client) {
    run(client, APPLICATION).await;
}

/// One committed event.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) id: i64,
    pub(crate) xid: u64,
    pub(crate) topic: String,
    pub(crate) kind: String,
    pub(crate) data: Value,
    /// A moment before it drew its id. (`created_at` comes after the id, and another transaction may draw
    /// one and commit in between.) Without a fact it is unknown, and
    /// so early that it proves nothing.
    pub(crate) published_at: Moment,
    /// The tag by which a cursor names it, unless it has been trimmed.
    pub(crate) tag: Option<String>,
}

/// Everything that was committed, by key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) facts: HashMap<String, Fact>,
}

impl Oracle {
    /// Asks the database. An event that nobody noted as a fact counts all the same.
    pub(crate) async fn ask(client: &Client) -> Oracle {
        let question = "
            select coalesce(event.data ->> 'key', fact.key) as key,
                   coalesce(event.id, fact.id),
                   coalesce(event.xid, fact.xid)::text,
                   coalesce(event.topic, fact.topic),
                   coalesce(event.type, fact.type),
                   coalesce(event.data, fact.data)::text,
                   coalesce((extract(epoch from fact.at) * 1000000)::bigint, 0),
                   tidings.tag(event.id, event.xid, event.created_at)
            from app.fact full join tidings.event on event.id = fact.id";
        let rows = client.query(question, &[]).await.expect("the oracle");
        let facts = rows.iter().map(|row| {
            let xid: &str = row.get(2);
            let fact = Fact {
                id: row.get(1),
                xid: xid.parse().expect("a transaction id"),
                topic: row.get(3),
                kind: row.get(4),
                data: serde_json::from_str(row.get(5)).expect("data is JSON"),
                published_at: row.get(6),
                tag: row.get(7),
            };
            (row.get(0), fact)
        });
        Oracle {
            facts: facts.collect(),
        }
    }
}
