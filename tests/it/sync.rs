//! Sync: state, what was missed and a cursor, all of one snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

use crate::sql::{run, text, until_blocked};
use crate::support::client::{Answer, PATIENCE, Visit};
use crate::support::gateway::{Gateway, token};
use crate::support::postgres::{Database, database, own_cluster};

/// A sync of these topics by a user of its own, who may read everything.
fn ask(gateway: &Gateway, topics: &[&str], more: &str) -> Visit {
    let user = format!("reader-{:08x}", fastrand::u32(..));
    let topics: String = topics
        .iter()
        .map(|topic| format!("topic={topic}&"))
        .collect();
    gateway
        .visit("GET", &format!("/v1/sync?{topics}{more}"))
        .bearer(&token(&user, json!({"topics": ["*"]})))
}

/// The body of an answer, which must be one.
fn told(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn cursor(told: &Value) -> &str {
    told["cursor"].as_str().expect("a cursor")
}

/// A sync whose cursor has seen every transaction up to its end: one that has not, and that ends later,
/// might have written what is trimmed.
async fn quiet_sync(gateway: &Gateway) -> Value {
    loop {
        let answer = told(&ask(gateway, &["a"], "").send().await);
        let snapshot = cursor(&answer).split('~').nth(1);
        if !snapshot.expect("a snapshot").contains('.') {
            return answer;
        }
    }
}

/// The status, the last part of the type, and the detail of a refusal.
fn problem(answer: &Answer) -> (u16, String, String) {
    let json = answer.json();
    let kind = json["type"].as_str().expect("a type");
    let name = kind.strip_prefix("urn:tidings:problem:").expect("ours");
    let detail = json["detail"].as_str().expect("a detail");
    (answer.status, name.to_owned(), detail.to_owned())
}

/// Has state of every topic told by a function with this body.
async fn define(client: &Client, pattern: &str, body: &str) {
    let name = format!("state_{:08x}", fastrand::u32(..));
    let define = format!(
        "create function {name}(topic text, claims jsonb) returns jsonb language plpgsql as $$ {body} $$;
         select tidings.define_state('{pattern}', '{name}(text, jsonb)')"
    );
    run(client, &define).await;
}

/// The process of the pool session that waits for a lock; waits until there is one.
pub(crate) async fn blocked_session(watcher: &Client) -> String {
    until("a blocked session", async || {
        blocked(watcher).await.is_some()
    })
    .await;
    blocked(watcher).await.expect("still blocked")
}

/// Asks until it holds; what does not come to hold fails the test.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let asking = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, asking).await;
    waited.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {what}"));
}

/// The process of a pool session that waits for a lock, if there is one.
async fn blocked(watcher: &Client) -> Option<String> {
    let query = "select pid::text from pg_stat_activity where application_name = 'tidings/pool' \
                 and datname = current_database() and wait_event_type = 'Lock'";
    let row = watcher.query_opt(query, &[]).await.expect("asks");
    row.map(|row| row.get(0))
}

async fn publish(client: &Client, topic: &str) -> i64 {
    let id = text(client, &format!("tidings.publish('{topic}', 'said')")).await;
    id.parse().expect("an id")
}

fn ids(events: &Value) -> Vec<i64> {
    let events = events.as_array().expect("a list of events");
    let id = |event: &Value| event["id"].as_str().and_then(|id| id.parse().ok());
    events
        .iter()
        .map(|event| id(event).expect("an id"))
        .collect()
}

#[tokio::test]
async fn a_sync_tells_state_what_was_missed_and_where_to_go_on() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let backend = database.connect().await;
    run(
        &backend,
        "create function told(topic text, claims jsonb) returns jsonb language sql
         as $$ select jsonb_build_object('topic', topic, 'events', (select count(*) from tidings.event)) $$;
         select tidings.define_state('user:*', 'told(text, jsonb)')",
    )
    .await;

    let first = ask(&gateway, &["user:a", "other"], "").send().await;
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let first = told(&first);
    assert_eq!(
        first["state"],
        json!({"user:a": {"topic": "user:a", "events": 0}})
    );
    assert_eq!(first["events"], json!([]));
    assert_eq!(
        (&first["reset"], &first["more"]),
        (&Value::Null, &json!(false))
    );

    run(
        &backend,
        "select tidings.publish('user:a', 'paid', '{\"n\": 1}'), tidings.publish('user:b', 'paid')",
    )
    .await;
    let since = format!("since={}", first["cursor"].as_str().expect("a cursor"));
    let second = told(&ask(&gateway, &["user:a"], &since).send().await);
    assert_eq!(ids(&second["events"]).len(), 1);
    assert_eq!(second["events"][0]["data"], json!({"n": 1}));
    assert_eq!(second["state"]["user:a"]["events"], 2);

    let cursor = second["cursor"].as_str().expect("a cursor");
    let mut stream = gateway.resume(&["user:a"], Some(cursor)).await;
    assert_eq!(stream.ready().await["replayed"], 0);
    let third = told(
        &ask(&gateway, &["user:a"], &format!("since={cursor}&state=no"))
            .send()
            .await,
    );
    assert_eq!(third["events"], json!([]));
    assert!(third.get("state").is_none());
}

#[tokio::test]
async fn pages_end_at_their_limit_and_each_cursor_goes_on_in_sync_and_stream() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let backend = database.connect().await;
    let start = told(&ask(&gateway, &["a"], "").send().await);
    run(
        &backend,
        "select tidings.publish('a', 'b') from generate_series(1, 7)",
    )
    .await;
    let all: Vec<i64> = (1..=7).collect();

    let mut since = start["cursor"].as_str().expect("a cursor").to_owned();
    let mut seen = Vec::new();
    loop {
        let page = ask(&gateway, &["a"], &format!("since={since}&limit=1"));
        let page = told(&page.send().await);
        assert!(ids(&page["events"]).len() <= 1);
        seen.extend(ids(&page["events"]));
        since = page["cursor"].as_str().expect("a cursor").to_owned();
        assert_eq!(page.get("state").is_some(), page["more"] == false);

        let mut stream = gateway.resume(&["a"], Some(&since)).await;
        assert_eq!(stream.replay().await.0, all[seen.len()..]);
        let rest = ask(&gateway, &["a"], &format!("since={since}"))
            .send()
            .await;
        assert_eq!(ids(&told(&rest)["events"]), all[seen.len()..]);
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(seen, all);
}

/// One writer: moves money into accounts and says so, in one transaction, some of which come to
/// nothing and some of which stay open for a while.
async fn write(database: &Database, seed: u64, accounts: u32, stop: &AtomicBool) {
    let client = database.connect().await;
    let mut rng = fastrand::Rng::with_seed(seed);
    while !stop.load(Ordering::Relaxed) {
        run(&client, "begin").await;
        // In the order of their names, so that writers wait for each other and never in a circle.
        let first = rng.u32(0..accounts);
        for account in first..accounts.min(first + rng.u32(1..3)) {
            let amount = rng.i32(1..100);
            let savepoint = rng.u8(0..4) == 0;
            if savepoint {
                run(&client, "savepoint s").await;
            }
            run(
                &client,
                &format!(
                    "update account set total = total + {amount} where topic = 'account:{account}';
                     select tidings.publish('account:{account}', 'moved', '{{\"by\": {amount}}}')"
                ),
            )
            .await;
            if savepoint && rng.bool() {
                run(&client, "rollback to savepoint s").await;
            }
            for _ in 0..rng.u32(0..200) {
                tokio::task::yield_now().await;
            }
        }
        let end = if rng.u8(0..5) == 0 {
            "rollback"
        } else {
            "commit"
        };
        run(&client, end).await;
    }
}

/// One reader: what it has seen, and what that adds up to.
struct Reader {
    topic: String,
    seen: Vec<i64>,
    total: i64,
    since: String,
    rng: fastrand::Rng,
    streamed: usize,
}

impl Reader {
    fn see(&mut self, event: &Value) {
        assert_eq!(event["topic"], self.topic);
        let id = event["id"].as_str().and_then(|id| id.parse().ok());
        self.seen.push(id.expect("an id"));
        self.total += event["data"]["by"].as_i64().expect("an amount");
    }

    /// Pages until there is no more; the state is then the sum of all that was ever seen.
    async fn sync(&mut self, gateway: &Gateway) {
        loop {
            let more = format!("{}&limit={}", self.since, self.rng.u32(1..8));
            let page = told(&ask(gateway, &[&self.topic], &more).send().await);
            assert_eq!(page["reset"], Value::Null, "{}: {page}", self.since);
            for event in page["events"].as_array().expect("events") {
                self.see(event);
            }
            self.since = format!("since={}", cursor(&page));
            if page["more"] == false {
                assert_eq!(page["state"][&self.topic], self.total, "{:?}", self.seen);
                return;
            }
        }
    }

    /// Follows the stream for some events, or until it is quiet.
    async fn follow(&mut self, gateway: &Gateway) {
        let since = self.since.strip_prefix("since=").expect("a cursor");
        let mut stream = gateway.resume(&[&self.topic], Some(since)).await;
        for _ in 0..self.rng.u32(1..12) {
            let block = stream.next().await.expect("a stream that goes on");
            if block.is("tidings.beat") {
                break;
            }
            if block.event_id().is_some() {
                self.see(&block.json());
                self.streamed += 1;
            } else {
                assert!(
                    block.is("tidings.ready") || block.retry.is_some(),
                    "{block:?}"
                );
            }
            if let Some(id) = block.id {
                self.since = format!("since={id}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_and_stream_in_turn_miss_nothing_repeat_nothing_and_agree_with_the_state() {
    const ACCOUNTS: u32 = 4;
    for seed in 1..=3 {
        let database = Arc::new(database());
        let backend = database.connect().await;
        run(
            &backend,
            &format!(
                "create table account (topic text primary key, total bigint not null default 0);
                 insert into account select 'account:' || n from generate_series(0, {ACCOUNTS} - 1) n"
            ),
        )
        .await;
        define(
            &backend,
            "account:*",
            "begin return (select to_jsonb(total) from account a where a.topic = $1); end",
        )
        .await;
        let flags = ["--heartbeat=100ms"];
        let gateways = [
            Gateway::start_with(&database, &flags).await,
            Gateway::start_with(&database, &flags).await,
        ];
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4)
            .map(|n| {
                let (database, stop) = (database.clone(), stop.clone());
                tokio::spawn(async move { write(&database, seed * 100 + n, ACCOUNTS, &stop).await })
            })
            .collect();
        let read = async |n: u32| {
            // The state of an arrival stands for all that came before it.
            let topic = format!("account:{n}");
            let first = told(&ask(&gateways[0], &[&topic], "").send().await);
            let mut reader = Reader {
                seen: Vec::new(),
                total: first["state"][&topic].as_i64().expect("a total"),
                since: format!("since={}", cursor(&first)),
                rng: fastrand::Rng::with_seed(seed * 1000 + u64::from(n)),
                streamed: 0,
                topic,
            };
            for _ in 0..12 {
                let (one, other) = (reader.rng.usize(0..2), reader.rng.usize(0..2));
                reader.sync(&gateways[one]).await;
                reader.follow(&gateways[other]).await;
            }
            reader
        };
        let readers = tokio::join!(read(0), read(1), read(2), read(3));
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.expect("a writer ends well");
        }
        for mut reader in <[Reader; 4]>::from(readers) {
            reader.sync(&gateways[0]).await;
            let (topic, seen) = (&reader.topic, &reader.seen);
            let rows = backend
                .query("select id from tidings.event where topic = $1", &[topic])
                .await
                .expect("asks");
            let written: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            let mut sorted = seen.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), seen.len(), "{topic}: repeated in {seen:?}");
            assert!(
                sorted.iter().all(|id| written.contains(id)),
                "{topic}: {seen:?}"
            );
            let sum = format!("(select total from account where topic = '{topic}')");
            assert_eq!(
                text(&backend, &sum).await,
                reader.total.to_string(),
                "{topic}"
            );
            // The run was not empty, and both ways were used.
            let streamed = reader.streamed;
            assert!(
                streamed > 10 && seen.len() > streamed,
                "{topic}: {streamed}, {seen:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_cursor_that_is_ahead_of_the_gateway_waits_for_it() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let other = Gateway::start(&database).await;
    let backend = database.connect().await;
    let mut alice = gateway.subscribe(&["a"]).await;
    // The pool has its session, and no further one can be opened: so the tail, once lost, stays away.
    told(&ask(&gateway, &["a"], "").send().await);
    told(&ask(&other, &["a"], "").send().await);
    let elsewhere = database.url().replace(database.name(), "postgres");
    let (operator, connection) = tokio_postgres::connect(&elsewhere, NoTls)
        .await
        .expect("a session");
    tokio::spawn(connection);
    let connections = |allowed: bool| {
        let name = database.name();
        format!("alter database {name} allow_connections {allowed}")
    };
    run(&operator, &connections(false)).await;
    let tails = "select count(pg_terminate_backend(pid, 10000)) from pg_stat_activity \
                 where application_name = 'tidings/tail' and datname = current_database()";
    assert_eq!(text(&backend, &format!("({tails})")).await, "2");

    let first = publish(&backend, "a").await;
    let ahead = told(&ask(&gateway, &["a"], "").send().await);
    let from_other = told(&ask(&other, &["a"], "").send().await);
    let mut bob = gateway.resume(&["a"], Some(cursor(&ahead))).await;
    let mut carol = gateway.resume(&["a"], Some(cursor(&from_other))).await;
    let second = publish(&backend, "a").await;
    run(&operator, &connections(true)).await;

    // Whatever came before ready was replayed: the second event, and not the first.
    for stream in [&mut bob, &mut carol] {
        let (mut seen, _) = stream.replay().await;
        if seen.is_empty() {
            seen.push(
                stream.event().await["id"]
                    .as_str()
                    .unwrap()
                    .parse()
                    .unwrap(),
            );
        }
        assert_eq!(seen, [second]);
    }
    for id in [first, second] {
        assert_eq!(alice.event().await["id"], id.to_string());
    }
    let third = publish(&backend, "a").await;
    for stream in [&mut alice, &mut bob, &mut carol] {
        assert_eq!(stream.event().await["id"], third.to_string());
    }
}

#[tokio::test]
async fn a_page_has_at_most_as_many_events_as_configured_and_some_megabytes() {
    let database = database();
    let gateway = Gateway::start_with(&database, &["--sync-page=30"]).await;
    let backend = database.connect().await;
    let start = told(&ask(&gateway, &["a"], "").send().await);
    run(
        &backend,
        "select tidings.publish('a', 'b') from generate_series(1, 40);
         select tidings.publish('a', 'b', to_jsonb(repeat('x', 250000))) from generate_series(1, 25)",
    )
    .await;
    let mut since = cursor(&start).to_owned();
    let mut sizes = Vec::new();
    let mut seen = Vec::new();
    loop {
        let page = ask(&gateway, &["a"], &format!("since={since}&limit=1000000"));
        let page = told(&page.send().await);
        seen.extend(ids(&page["events"]));
        sizes.push(ids(&page["events"]).len());
        since = cursor(&page).to_owned();
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(seen, (1..=65).collect::<Vec<i64>>());
    // 10 small ones and 17 of a quarter megabyte reach 4 MiB; the rest is less.
    assert_eq!(sizes, [30, 27, 8]);
    for limit in ["0", "-1", "x", "1.5", "99999999999999999999999"] {
        let refused = ask(&gateway, &["a"], &format!("limit={limit}"))
            .send()
            .await;
        assert_eq!(problem(&refused).0, 400, "{limit}");
    }
    let refused = ask(&gateway, &["a"], "state=maybe").send().await;
    assert_eq!(problem(&refused).0, 400);
}

#[tokio::test]
async fn a_cursor_that_cannot_be_served_is_told_why_and_gets_the_state_of_now() {
    // Nobody else has transactions open here.
    let server = own_cluster(&[("fsync", "off")]);
    let database = server.database();
    let gateway = Gateway::start_with(&database, &["--retention=30 days"]).await;
    let backend = database.connect().await;
    define(
        &backend,
        "*",
        "begin return to_jsonb((select count(*) from tidings.event)); end",
    )
    .await;
    let empty = told(&ask(&gateway, &["a"], "").send().await);
    run(
        &backend,
        "select tidings.add_partition((now() at time zone 'UTC')::date - 10);
         insert into tidings.event (topic, type, created_at) values ('a', 'b', clock_timestamp() - interval '10 days')",
    )
    .await;
    let old = quiet_sync(&gateway).await;
    publish(&backend, "a").await;
    let now = quiet_sync(&gateway).await;
    assert_eq!(text(&backend, "tidings.trim('7 days')").await, "1");
    publish(&backend, "a").await;

    // The last digit of the tag is another one.
    let mut other = cursor(&now).to_owned();
    let last = other.pop().expect("a digit");
    other.push(if last == '0' { '1' } else { '0' });
    for (since, reason) in [
        (cursor(&empty), "trimmed"),
        (other.as_str(), "diverged"),
        ("garbage", "malformed"),
        ("1~0~0.00000000", "malformed"),
        ("1~1~9223372036854775807.00000000", "diverged"),
        ("1~18446744073709551615~2.00000000", "diverged"),
        ("1~9~2~9~1.1.00000000", "diverged"),
    ] {
        for limit in ["", "&limit=1"] {
            let answer = ask(&gateway, &["a"], &format!("since={since}{limit}"))
                .send()
                .await;
            let answer = told(&answer);
            assert_eq!(answer["reset"], reason, "{since}");
            assert_eq!(answer["events"], json!([]), "{since}");
            assert_eq!(answer["more"], false, "{since}");
            assert_eq!(answer["state"]["a"], 2, "{since}");
            let again = ask(&gateway, &["a"], &format!("since={}", cursor(&answer)))
                .send()
                .await;
            let again = told(&again);
            assert_eq!(
                (&again["reset"], &again["events"]),
                (&Value::Null, &json!([]))
            );
        }
        let stateless = ask(&gateway, &["a"], &format!("since={since}&state=no"))
            .send()
            .await;
        let stateless = told(&stateless);
        assert_eq!(stateless["reset"], reason, "{since}");
        assert!(stateless.get("state").is_none(), "{since}");
    }
    // Those that had seen what was trimmed miss nothing.
    for (since, missed) in [(&old, 2), (&now, 1)] {
        let answer = ask(&gateway, &["a"], &format!("since={}", cursor(since)))
            .send()
            .await;
        let answer = told(&answer);
        assert_eq!(answer["reset"], Value::Null);
        assert_eq!(ids(&answer["events"]).len(), missed);
    }
}

#[tokio::test]
async fn what_is_trimmed_while_a_sync_reads_is_noticed() {
    // Nobody else has transactions open here.
    let server = own_cluster(&[("fsync", "off")]);
    let database = server.database();
    let flags = ["--statement-timeout=20s", "--retention=30 days"];
    let gateway = Gateway::start_with(&database, &flags).await;
    let (backend, trimmer, watcher) =
        tokio::join!(database.connect(), database.connect(), database.connect());
    let before = told(&ask(&gateway, &["a"], "").send().await);
    let insert = "insert into tidings.event (topic, type, created_at) \
                  values ('a', 'b', clock_timestamp() - interval '10 days')";
    let day = "select tidings.add_partition((now() at time zone 'UTC')::date - 10)";
    run(&backend, day).await;
    run(&backend, insert).await;
    publish(&backend, "a").await;

    // Has taken its snapshot when the partition is emptied.
    let sync = async |since: &Value| {
        run(&trimmer, "begin; select tidings.trim('7 days')").await;
        let sync = ask(&gateway, &["a"], &format!("since={}", cursor(since))).send();
        let (answer, ()) = tokio::join!(sync, async {
            blocked_session(&watcher).await;
            run(&trimmer, "commit").await;
        });
        told(&answer)
    };
    let answer = sync(&before).await;
    assert_eq!(answer["reset"], "trimmed");
    assert_eq!(answer["events"], json!([]));

    // Who had seen it all, up to the very event that goes, misses nothing.
    run(&backend, insert).await;
    let after = quiet_sync(&gateway).await;
    let newest = publish(&backend, "a").await;
    let answer = sync(&after).await;
    assert_eq!(answer["reset"], Value::Null);
    assert_eq!(ids(&answer["events"]), [newest]);
    let goes_on = ask(&gateway, &["a"], &format!("since={}", cursor(&answer)));
    assert_eq!(told(&goes_on.send().await)["reset"], Value::Null);
}

#[tokio::test]
async fn functions_of_state_see_the_claims_and_can_change_nothing() {
    let database = database();
    let gateway =
        Gateway::start_with(&database, &["--statement-timeout=400ms", "--sync-page=7"]).await;
    let backend = database.connect().await;
    run(&backend, "create table note (text text)").await;
    define(
        &backend,
        "claims",
        "begin
            perform set_config('app.left', 'behind', false);
            return jsonb_build_object('claims', claims, 'setting', current_setting('request.jwt.claims')::jsonb);
         end",
    )
    .await;
    define(
        &backend,
        "left",
        "begin return to_jsonb(coalesce(current_setting('app.left', true), '')); end",
    )
    .await;
    define(
        &backend,
        "writes",
        "begin insert into note values ('x'); return '1'; end",
    )
    .await;
    define(
        &backend,
        "publishes",
        "begin return to_jsonb(tidings.publish('a', 'b')); end",
    )
    .await;
    define(
        &backend,
        "escapes",
        "begin set transaction read write; return '1'; end",
    )
    .await;
    define(
        &backend,
        "fails",
        "begin raise exception E'secret\nreason'; end",
    )
    .await;
    define(
        &backend,
        "sleeps",
        "begin perform pg_sleep(60); return '1'; end",
    )
    .await;
    define(
        &backend,
        "large",
        "begin return to_jsonb(repeat('x', (1 << 20) - 2)); end",
    )
    .await;
    define(
        &backend,
        "too:large",
        "begin return to_jsonb(repeat('x', (1 << 20) - 1)); end",
    )
    .await;
    define(&backend, "nothing", "begin return null; end").await;
    define(&backend, "null", "begin return 'null'; end").await;
    define(&backend, "dropped", "begin return '1'; end").await;
    run(
        &backend,
        "update tidings.state set source = 'gone(text, jsonb)' where pattern = 'dropped'",
    )
    .await;

    let bearer = token("alice", json!({"topics": ["*"], "plan": {"n": "\u{fc}"}}));
    let visit = |topics: &str| {
        gateway
            .visit("GET", &format!("/v1/sync?{topics}"))
            .bearer(&bearer)
    };
    let answer = told(
        &visit("topic=claims&topic=user:alice&topic=nothing&topic=null")
            .send()
            .await,
    );
    let state = &answer["state"];
    for claims in [&state["claims"]["claims"], &state["claims"]["setting"]] {
        assert_eq!(claims["sub"], "alice");
        assert_eq!(claims["plan"], json!({"n": "\u{fc}"}));
    }
    // Who is told nothing is left out; who is told null gets null.
    let topics: Vec<&String> = state.as_object().expect("an object").keys().collect();
    assert_eq!(topics, ["claims", "null"]);
    // The session is the same one, and as it was.
    assert_eq!(told(&visit("topic=left").send().await)["state"]["left"], "");
    let large = told(&visit("topic=large").send().await);
    assert_eq!(
        large["state"]["large"].as_str().map(str::len),
        Some((1 << 20) - 2)
    );

    for topic in [
        "writes",
        "publishes",
        "escapes",
        "fails",
        "too:large",
        "dropped",
    ] {
        let refused = visit(&format!("topic=null&topic={topic}")).send().await;
        let (status, name, detail) = problem(&refused);
        assert_eq!((status, name.as_str()), (500, "state-failed"), "{topic}");
        assert!(detail.starts_with(&format!("{topic}: ")), "{detail}");
        assert!(!detail.contains("secret"), "{detail}");
        assert_eq!(detail.contains("1 MiB"), topic == "too:large", "{detail}");
    }
    let late = visit("topic=sleeps").send().await;
    assert_eq!(problem(&late).0, 503);
    assert!(late.header("retry-after").is_some());
    let written = "(select count(*) from note) + (select count(*) from tidings.event)";
    assert_eq!(text(&backend, written).await, "0");
    // None of it has cost a session.
    let sessions = "(select count(*) from pg_stat_activity where application_name = 'tidings/pool' \
                    and datname = current_database())";
    assert_eq!(text(&backend, sessions).await, "1");
}

#[tokio::test]
async fn who_waits_for_slow_functions_holds_up_neither_streams_nor_publishing() {
    let database = database();
    let flags = [
        "--pool-size=4",
        "--pool-wait=200ms",
        "--statement-timeout=30s",
    ];
    let gateway = Gateway::start_with(&database, &flags).await;
    let (backend, watcher) = tokio::join!(database.connect(), database.connect());
    run(&backend, "create table gate ()").await;
    define(
        &backend,
        "slow",
        "begin perform count(*) from gate; return '1'; end",
    )
    .await;
    run(&backend, "begin; lock table gate in access exclusive mode").await;
    let mut alice = gateway.subscribe(&["a"]).await;

    let user = |name: &str| token(name, json!({"topics": ["*"], "publish": ["*"]}));
    let slow = |name: &str| {
        gateway
            .visit("GET", "/v1/sync?topic=slow")
            .bearer(&user(name))
            .send()
    };
    let one = slow("one");
    let rest = async {
        let pid = blocked_session(&watcher).await;
        // A user has one turn.
        assert_eq!(problem(&slow("one").await).0, 503);
        // All have half of the pool: two at once, and a third in vain.
        let two = slow("two");
        let third = async {
            let both = "select count(*) from pg_stat_activity where application_name = 'tidings/pool' \
                        and datname = current_database() and wait_event_type = 'Lock'";
            let both = format!("({both})");
            until("two blocked sessions", async || {
                text(&watcher, &both).await == "2"
            })
            .await;
            let refused = slow("three").await;
            assert_eq!(problem(&refused).0, 503);
            assert!(refused.header("retry-after").is_some());

            let body = json!({"topic": "a", "type": "b"});
            let sent = gateway
                .visit("POST", "/v1/events")
                .bearer(&user("four"))
                .json(&body);
            let sent = sent.send().await;
            assert_eq!(sent.status, 201, "{}", sent.body);
            assert_eq!(alice.event().await["id"], sent.json()["id"]);
            until_blocked(&watcher, &pid).await;
            run(&backend, "commit").await;
        };
        tokio::join!(two, third).0
    };
    let (one, two) = tokio::join!(one, rest);
    for answer in [one, two] {
        assert_eq!(told(&answer)["state"]["slow"], 1);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_query_along() {
    let database = database();
    let flags = ["--pool-size=2", "--statement-timeout=60s"];
    let gateway = Gateway::start_with(&database, &flags).await;
    let (backend, watcher) = tokio::join!(database.connect(), database.connect());
    run(&backend, "create table gate ()").await;
    define(
        &backend,
        "slow",
        "begin perform count(*) from gate; return '1'; end",
    )
    .await;
    run(&backend, "begin; lock table gate in access exclusive mode").await;
    let alice = token("alice", json!({"topics": ["*"]}));
    let sync = || {
        gateway
            .visit("GET", "/v1/sync?topic=slow")
            .bearer(&alice)
            .send()
    };
    let mut last = String::from("0");
    for _ in 0..4 {
        let waiting = tokio::spawn(sync());
        let others = format!(
            "select pid::text, (select count(*) from pg_stat_activity where pid = {last})
             from pg_stat_activity where application_name = 'tidings/pool' and pid <> {last}
             and datname = current_database() and wait_event_type = 'Lock'"
        );
        let next = std::cell::RefCell::new(None);
        until("her next session", async || {
            *next.borrow_mut() = watcher.query_opt(&others, &[]).await.expect("asks");
            next.borrow().is_some()
        })
        .await;
        // Her turn comes when her last session is no more, and not before.
        let next = next.into_inner().expect("seen");
        assert_eq!(
            next.get::<_, i64>(1),
            0,
            "the session before is still there"
        );
        last = next.get(0);
        waiting.abort();
    }
    let answer = ask(&gateway, &["other"], "").send().await;
    assert_eq!(told(&answer)["state"], json!({}));
}

#[tokio::test]
async fn a_place_that_no_cursor_can_name_is_passed_over_or_refused() {
    let server = own_cluster(&[
        ("max_prepared_transactions", "2300"),
        ("fsync", "off"),
        ("max_locks_per_transaction", "10"),
    ]);
    let database = server.database();
    let client = database.connect().await;
    let gateway = Gateway::start(&database).await;
    let prepare = async |from: usize, to: usize| {
        let mut statements = String::new();
        for n in from..to {
            statements +=
                &format!("begin; select pg_current_xact_id(); prepare transaction '{n}';");
        }
        // A snapshot ends behind the last transaction that is over.
        run(&client, &(statements + "select pg_current_xact_id()")).await;
    };
    prepare(0, 2000).await;
    let mut prepared = 2000;
    let start = loop {
        let page = told(&ask(&gateway, &["a"], "").send().await);
        if cursor(&page).len() > 4090 {
            break page;
        }
        prepare(prepared, prepared + 1).await;
        prepared += 1;
    };
    run(
        &client,
        "select tidings.publish('a', 'b') from generate_series(1, 5)",
    )
    .await;
    // The end of the page can be named, the places on the way cannot.
    let page = ask(
        &gateway,
        &["a"],
        &format!("since={}&limit=2", cursor(&start)),
    );
    let page = told(&page.send().await);
    assert_eq!(ids(&page["events"]), [1, 2, 3, 4, 5]);
    assert_eq!(page["more"], false);

    prepare(prepared, 2200).await;
    let refused = ask(&gateway, &["a"], &format!("since={}", cursor(&start)))
        .send()
        .await;
    let (status, name, detail) = problem(&refused);
    assert_eq!((status, name.as_str()), (503, "no-cursor"));
    assert!(detail.contains("transactions"), "{detail}");
    assert!(refused.header("retry-after").is_some());
}
