//! Publishing by SQL: what is refused, what a key does, who may do what, when the bell rings, what a
//! cursor made by SQL says.

use std::future::poll_fn;

use proptest::strategy::{Strategy, ValueTree};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::support::postgres::{Database, database, own_cluster};

/// The characters of topics.
const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/@=+~|%-";

/// What Postgres says when it refuses a statement.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// Runs a statement that must be refused.
pub(crate) async fn refusal(client: &Client, statement: &str) -> Refusal {
    let error = match client.batch_execute(statement).await {
        Ok(()) => panic!("not refused: {statement}"),
        Err(error) => error,
    };
    let error = error
        .as_db_error()
        .unwrap_or_else(|| panic!("{statement}: {error}"));
    Refusal {
        code: error.code().code().to_owned(),
        message: error.message().to_owned(),
        hint: error.hint().map(str::to_owned),
    }
}

/// Runs a statement that must be refused with words of our own and a hint.
pub(crate) async fn hinted(client: &Client, statement: &str, code: &str, part: &str) {
    let refusal = refusal(client, statement).await;
    assert_eq!(refusal.code, code, "{statement}: {refusal:?}");
    assert!(
        refusal.message.starts_with("tidings: ") && refusal.message.contains(part),
        "{statement}: {refusal:?}"
    );
    assert!(refusal.hint.is_some(), "{statement}: {refusal:?}");
}

/// The first column of the only row, as text.
pub(crate) async fn text(client: &Client, query: &str) -> String {
    let query = format!("select ({query})::text");
    match client.query_one(&query, &[]).await {
        Ok(row) => row
            .get::<_, Option<String>>(0)
            .unwrap_or_else(|| "null".into()),
        Err(error) => panic!("{query}: {error:?}"),
    }
}

/// Runs statements that must succeed.
pub(crate) async fn run(client: &Client, statements: &str) {
    if let Err(error) = client.batch_execute(statements).await {
        panic!("{statements}: {error:?}");
    }
}

/// Waits until that session waits for a lock.
pub(crate) async fn until_blocked(watcher: &Client, pid: &str) {
    let query = format!(
        "select count(*) from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock'"
    );
    while text(watcher, &query).await != "1" {
        tokio::task::yield_now().await;
    }
}

/// A session that listens, with what it hears.
struct Ear {
    client: Client,
    heard: mpsc::UnboundedReceiver<String>,
}

impl Ear {
    async fn on(database: &Database) -> Ear {
        let (client, mut connection) = tokio_postgres::connect(&database.url(), NoTls)
            .await
            .expect("a session");
        let (sender, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(notification) = message
                    && sender.send(notification.payload().to_owned()).is_err()
                {
                    break;
                }
            }
        });
        run(&client, "listen tidings").await;
        Ear { client, heard }
    }

    /// What has been committed until now. Notifications arrive in the order of commits, so
    /// that one of our own marks the end.
    async fn heard(&mut self) -> Vec<String> {
        run(&self.client, "notify tidings, 'end'").await;
        let mut all = Vec::new();
        while let Some(payload) = self.heard.recv().await {
            if payload == "end" {
                return all;
            }
            all.push(payload);
        }
        panic!("the listening session ended");
    }
}

async fn events(client: &Client) -> String {
    text(client, "select count(*) from tidings.event").await
}

#[tokio::test]
async fn a_refusal_names_the_fault_gives_a_hint_and_writes_nothing() {
    let database = database();
    let client = database.connect().await;
    let long = "x".repeat(256);
    let long_type = "x".repeat(65);
    // 65 characters of a wide alphabet are not more than 64 bytes by mistake, nor the other way round.
    let refusals = [
        ("null, 'a'", "topic is null"),
        ("'', 'a'", "topic is empty"),
        (&*format!("'{long}', 'a'"), "topic is 256 bytes"),
        ("'a b', 'a'", "character that topics may not have"),
        ("E'a\\n', 'a'", "character that topics may not have"),
        ("E'\\na', 'a'", "character that topics may not have"),
        ("'ä', 'a'", "character that topics may not have"),
        ("'a*', 'a'", "character that topics may not have"),
        ("'a', null", "type is null"),
        ("'a', ''", "type is empty"),
        (&*format!("'a', '{long_type}'"), "type is 65 bytes"),
        ("'a', 'b/c'", "character that types may not have"),
        ("'a', E'b\\n'", "character that types may not have"),
        ("'a', 'tidings.'", "begins with"),
        ("'a', 'tidings.ready'", "begins with"),
        ("'a', 'error'", "EventSource"),
        ("'a', 'open'", "EventSource"),
        ("'a', 'message'", "EventSource"),
    ];
    for (arguments, part) in refusals {
        let publish = format!("select tidings.publish({arguments})");
        hinted(&client, &publish, "22023", part).await;
        let signal = format!("select tidings.signal({arguments})");
        hinted(&client, &signal, "22023", part).await;
    }
    let keys = [
        ("key => ''", "key has 0 characters"),
        ("key => repeat('ä', 256)", "key has 256 characters"),
        // The text of a JSON string has two quotes more.
        ("data => to_jsonb(repeat('x', 262143))", "262145 bytes"),
        // A number is short in the table and long as text.
        (
            "data => '1e131071'::jsonb || '[1e131071]'",
            "bytes long as text",
        ),
    ];
    for (argument, part) in keys {
        let publish = format!("select tidings.publish('a', 'b', {argument})");
        hinted(&client, &publish, "22023", part).await;
    }
    assert_eq!(events(&client).await, "0");
    assert_eq!(text(&client, "select count(*) from tidings.key").await, "0");
}

#[tokio::test]
async fn the_table_itself_holds_the_same_bounds_by_named_constraints() {
    let database = database();
    let client = database.connect().await;
    for (columns, values, constraint) in [
        ("topic, type", "'a b', 'b'", "topic_form"),
        ("topic, type", "repeat('a', 256), 'b'", "topic_form"),
        ("topic, type", "'', 'b'", "topic_form"),
        ("topic, type", "'a', 'b/c'", "type_form"),
        ("topic, type", "'a', 'tidings.x'", "type_form"),
        ("topic, type", "'a', 'open'", "type_form"),
        ("topic, type", "'a', repeat('b', 65)", "type_form"),
        (
            "topic, type, data",
            "'a', 'b', to_jsonb(repeat('x', 262143))",
            "data_size",
        ),
        (
            "topic, type, created_at",
            "'a', 'b', 'infinity'",
            "event_created_at_finite",
        ),
        ("topic, type, id", "'a', 'b', 0", "number_positive"),
    ] {
        let insert = format!("insert into tidings.event ({columns}) values ({values})");
        let error = client.batch_execute(&insert).await.expect_err("a bound");
        let error = error.as_db_error().expect("Postgres says so");
        // What a publisher may meet as well is said in the same words, with a hint.
        let code = match constraint {
            "topic_form" | "type_form" | "data_size" => "22023",
            _ => "23514",
        };
        assert_eq!(error.code().code(), code, "{insert}: {error:?}");
        assert_eq!(
            error.hint().is_some(),
            code == "22023",
            "{insert}: {error:?}"
        );
        assert_eq!(error.constraint(), Some(constraint), "{insert}: {error:?}");
    }
    assert_eq!(events(&client).await, "0");
}

#[tokio::test]
async fn topics_and_types_have_exactly_their_alphabets_and_lengths() {
    let database = database();
    let client = database.connect().await;
    for code in 1..0x250_u32 {
        let character = char::from_u32(code).expect("no surrogate");
        for (query, allowed) in [
            (
                "select tidings.publish($1, 't')",
                ALPHABET.contains(character),
            ),
            (
                "select tidings.publish('t', $1)",
                ALPHABET.contains(character) && character != '/',
            ),
        ] {
            for text in [
                format!("{character}"),
                format!("a{character}"),
                format!("{character}a"),
            ] {
                let published = client.query_one(query, &[&text]).await;
                assert_eq!(published.is_ok(), allowed, "{query} {text:?} {published:?}");
            }
        }
    }
    run(&client, "select tidings.publish(repeat('t', 255), repeat('t', 64), to_jsonb(repeat('x', 262142)), repeat('ä', 255))").await;
    run(
        &client,
        "select tidings.publish('a', 'tidings'), tidings.publish('a', 'errors')",
    )
    .await;
}

#[tokio::test]
async fn an_event_is_what_was_published_and_a_missing_value_is_json_null() {
    let database = database();
    let client = database.connect().await;
    let id = text(
        &client,
        r#"tidings.publish('a', 'b', '{"x": [1, "ä\n\u2028"]}')"#,
    )
    .await;
    let row = format!(
        "select (topic, type, data, bytes = octet_length(data::text), xid < pg_snapshot_xmax(pg_current_snapshot()), abs(extract(epoch from clock_timestamp() - created_at)) < 60) from tidings.event where id = {id}"
    );
    assert_eq!(
        text(&client, &row).await,
        "(a,b,\"{\"\"x\"\": [1, \"\"ä\\\\n\u{2028}\"\"]}\",t,t,t)"
    );
    for missing in [
        "tidings.publish('a', 'b')",
        "tidings.publish('a', 'b', null)",
    ] {
        let id = text(&client, missing).await;
        let data = format!("select data from tidings.event where id = {id}");
        assert_eq!(text(&client, &data).await, "null");
    }
}

#[tokio::test]
async fn only_what_is_committed_is_published_in_any_isolation_level() {
    let database = database();
    let client = database.connect().await;
    for level in ["read committed", "repeatable read", "serializable"] {
        run(
            &client,
            &format!("begin isolation level {level}; select tidings.publish('a', 'kept')"),
        )
        .await;
        run(&client, "savepoint s; select tidings.publish('a', 'lost'), tidings.publish('a', 'lost', key => 'k'); rollback to s").await;
        run(
            &client,
            "savepoint s; select tidings.publish('a', 'kept'); release s",
        )
        .await;
        // A refused publish ends its savepoint alone.
        run(&client, "savepoint s").await;
        refusal(&client, "select tidings.publish('a b', 'lost')").await;
        run(&client, "rollback to s; commit").await;
        run(
            &client,
            &format!(
                "begin isolation level {level}; select tidings.publish('a', 'lost'); rollback"
            ),
        )
        .await;
    }
    let types = "select string_agg(type || '=' || n, ' ') from (select type, count(*) n from tidings.event group by type) as t";
    assert_eq!(text(&client, types).await, "kept=6");
    // An event inside a savepoint bears the transaction that commits, not the savepoint's own number.
    let statuses = "select string_agg(distinct pg_xact_status(xid), ',') || count(distinct xid) from tidings.event";
    assert_eq!(text(&client, statuses).await, "committed3");
}

#[tokio::test]
async fn a_key_is_published_once_and_returns_the_first_id() {
    let database = database();
    let client = database.connect().await;
    let first = text(&client, "tidings.publish('a', 'b', '1', 'k')").await;
    assert_eq!(
        text(&client, "tidings.publish('a', 'b', '2', 'k')").await,
        first
    );
    // Also within one statement, and one transaction.
    run(&client, "begin").await;
    let both =
        "select count(distinct tidings.publish('a', 'b', '1', 'twice')) from generate_series(1, 3)";
    assert_eq!(text(&client, both).await, "1");
    run(&client, "commit").await;
    // The same key of another topic is another key.
    assert_ne!(
        text(&client, "tidings.publish('c', 'b', '2', 'k')").await,
        first
    );
    assert_eq!(events(&client).await, "3");
    // Event and key agree, so that they are trimmed together.
    let agree =
        "select count(*) from tidings.event e join tidings.key k using (id, created_at, topic)";
    assert_eq!(text(&client, agree).await, "3");
}

#[tokio::test]
async fn a_key_waits_for_its_open_publisher_and_takes_what_comes_of_it() {
    let database = database();
    let (one, two, watcher) =
        tokio::join!(database.connect(), database.connect(), database.connect());
    let pid = text(&two, "pg_backend_pid()").await;
    for (key, end) in [("kept", "commit"), ("lost", "rollback")] {
        let publish = format!("tidings.publish('a', 'b', key => '{key}')");
        run(&one, "begin").await;
        let first = text(&one, &publish).await;
        let (second, ()) = tokio::join!(text(&two, &publish), async {
            until_blocked(&watcher, &pid).await;
            run(&one, end).await;
        });
        assert_eq!(second == first, end == "commit");
    }
    assert_eq!(events(&one).await, "2");
    // A key that nobody else has waits for nobody.
    run(
        &one,
        "begin; select tidings.publish('a', 'b', key => 'open')",
    )
    .await;
    run(&two, "set lock_timeout = '1ms'; select tidings.publish('a', 'b', key => 'other'), tidings.publish('a', 'b')").await;
    run(&one, "rollback").await;
}

#[tokio::test]
async fn under_repeatable_read_a_key_unseen_by_the_snapshot_is_a_serialization_failure() {
    let database = database();
    let (one, two) = tokio::join!(database.connect(), database.connect());
    for level in ["repeatable read", "serializable"] {
        run(
            &one,
            &format!("begin isolation level {level}; select count(*) from tidings.key"),
        )
        .await;
        let id = text(
            &two,
            &format!("tidings.publish('a', 'b', key => '{level}')"),
        )
        .await;
        let publish = format!("select tidings.publish('a', 'b', key => '{level}')");
        let refusal = refusal(&one, &publish).await;
        assert_eq!(refusal.code, "40001", "{refusal:?}");
        // The retry that Postgres asks for has the first one's id.
        run(&one, "rollback; begin isolation level repeatable read").await;
        assert_eq!(text(&one, &publish.replace("select ", "")).await, id);
        run(&one, "commit").await;
    }
}

#[tokio::test]
async fn the_bell_rings_once_a_commit_unless_it_is_off_or_a_gateway_is_awake() {
    let database = database();
    let client = database.connect().await;
    let mut ear = Ear::on(&database).await;
    let one = [String::new()];

    run(&client, "select tidings.publish('a', 'b')").await;
    assert_eq!(ear.heard().await, one);
    run(&client, "begin; select tidings.publish('a', 'b') from generate_series(1, 9); select tidings.publish('a', 'b'); commit").await;
    assert_eq!(ear.heard().await, one);
    run(
        &client,
        "insert into tidings.event (topic, type) values ('a', 'b'), ('a', 'c')",
    )
    .await;
    assert_eq!(ear.heard().await, one);
    run(&client, "begin; select tidings.publish('a', 'b'); rollback").await;
    assert!(ear.heard().await.is_empty());

    run(
        &client,
        "begin; set local tidings.bell = off; select tidings.publish('a', 'b'); commit",
    )
    .await;
    assert!(ear.heard().await.is_empty());
    // The setting ended with its transaction.
    run(&client, "select tidings.publish('a', 'b')").await;
    assert_eq!(ear.heard().await, one);

    let gateway = database.connect().await;
    run(&gateway, "select pg_advisory_lock(8386654097862812519)").await;
    run(&client, "select tidings.publish('a', 'b')").await;
    assert!(ear.heard().await.is_empty());
    run(&gateway, "select pg_advisory_unlock(8386654097862812519)").await;
    run(&client, "select tidings.publish('a', 'b')").await;
    assert_eq!(ear.heard().await, one);
    // The writer keeps nothing of its test, and so a gateway can wake up.
    let locks = "select count(*) from pg_locks l join pg_database d on d.oid = l.database
                 where locktype = 'advisory' and datname = current_database()";
    assert_eq!(text(&client, locks).await, "0");
}

#[tokio::test]
async fn a_transaction_with_the_bell_off_can_be_prepared() {
    let database = database();
    let client = database.connect().await;
    // Its name is the cluster's, which several runs may share.
    let name = database.name();
    run(&client, &format!("begin; set local tidings.bell = off; select tidings.publish('a', 'b', key => 'k'); prepare transaction '{name}'")).await;
    assert_eq!(events(&client).await, "0");
    // It is in progress as any other.
    let cursor = text(&client, "tidings.cursor()").await;
    assert!(
        cursor.ends_with("~0.00000000") && cursor.contains('.'),
        "{cursor}"
    );
    run(&client, &format!("commit prepared '{name}'")).await;
    assert_eq!(events(&client).await, "1");
}

#[tokio::test]
async fn a_signal_is_json_in_the_payload_and_leaves_nothing_behind() {
    let database = database();
    let client = database.connect().await;
    let mut ear = Ear::on(&database).await;
    run(
        &client,
        r#"select tidings.signal('a', 'b', '{"x": "\n\"ä\u2028"}'), tidings.signal('a', 'c')"#,
    )
    .await;
    run(&client, "begin; select tidings.signal('a', 'b'); rollback").await;
    let heard = ear.heard().await;
    assert_eq!(heard.len(), 2, "{heard:?}");

    let signal: serde_json::Value = serde_json::from_str(&heard[0]).expect("JSON");
    let keys: Vec<_> = signal.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["at", "data", "signal", "topic", "type"]);
    assert_eq!(signal["signal"], true);
    assert_eq!(
        (&signal["topic"], &signal["type"]),
        (&"a".into(), &"b".into())
    );
    assert_eq!(signal["data"]["x"], "\n\"ä\u{2028}");
    let at = signal["at"].as_str().expect("a text");
    assert_eq!(at.len(), "2026-11-20T14:28:00.123456Z".len());
    let at: jiff::Timestamp = at.parse().expect("a time");
    assert!((at.as_second() - jiff::Timestamp::now().as_second()).abs() < 60);
    assert!(heard[1].ends_with(r#","data":null}"#), "{}", heard[1]);
    assert_eq!(events(&client).await, "0");

    // The largest that passes has 7999 bytes.
    let rest = 7999 - (heard[1].len() - "null".len()) - 2;
    run(
        &client,
        &format!("select tidings.signal('a', 'b', to_jsonb(repeat('x', {rest})))"),
    )
    .await;
    assert_eq!(ear.heard().await[0].len(), 7999);
    let signal = format!("select tidings.signal('a', 'b', to_jsonb(repeat('x', {rest} + 1)))");
    hinted(&client, &signal, "22023", "signal is 8000 bytes").await;
    assert!(ear.heard().await.is_empty());
}

/// A cursor as SQL writes it, taken apart.
#[derive(Debug, PartialEq)]
struct Position {
    xmax: u64,
    running: Vec<u64>,
    newest: u64,
    tag: String,
}

fn position(cursor: &str) -> Position {
    let parts: Vec<_> = cursor.split('~').collect();
    let [version, snapshot, anchor] = parts[..] else {
        panic!("{cursor}");
    };
    assert_eq!(version, "1");
    let numbers: Vec<u64> = snapshot
        .split('.')
        .map(|number| number.parse().unwrap_or_else(|_| panic!("{cursor}")))
        .collect();
    let (xmax, running) = match numbers[..] {
        [xmax] => (xmax, Vec::new()),
        [lowest, distance, ref further @ ..] => {
            let mut running = vec![lowest];
            for step in further {
                running.push(running[running.len() - 1] + step);
            }
            (lowest + distance, running)
        }
        [] => panic!("{cursor}"),
    };
    let (newest, tag) = anchor.split_once('.').expect("an anchor");
    Position {
        xmax,
        running,
        newest: newest.parse().expect("an id"),
        tag: tag.to_owned(),
    }
}

#[tokio::test]
async fn a_cursor_is_the_snapshot_of_its_statement_and_the_newest_event_in_it() {
    let database = database();
    let (client, one, two, three) = tokio::join!(
        database.connect(),
        database.connect(),
        database.connect(),
        database.connect()
    );

    // Other tests write in the same cluster, so that what is in progress is asked for beside the cursor.
    let mut lengths = Vec::new();
    for step in [
        (&one, "select tidings.publish('a', 'b')"),
        (&one, "begin; select tidings.publish('a', 'b')"),
        (&two, "begin; select tidings.publish('a', 'b')"),
        (&three, "begin; select pg_current_xact_id()"),
        (&one, "commit"),
        (&three, "commit"),
        (&two, "rollback"),
    ] {
        run(step.0, step.1).await;
        // The snapshot ends behind the last transaction that is over.
        run(&client, "select pg_current_xact_id()").await;
        let row = client
            .query_one(
                "select tidings.cursor(), pg_snapshot_xmax(s)::text::bigint,
                        array(select x::text::bigint from pg_snapshot_xip(s) x order by x),
                        (select id from tidings.event order by id desc limit 1),
                        (select xid::text || '.' || (extract(epoch from created_at) * 1000000)::bigint
                         from tidings.event order by id desc limit 1)
                 from pg_current_snapshot() s",
                &[],
            )
            .await
            .expect("a cursor");
        let position = position(row.get(0));
        assert_eq!(position.xmax, row.get::<_, i64>(1) as u64);
        assert_eq!(
            position.running,
            row.get::<_, Vec<i64>>(2)
                .iter()
                .map(|x| *x as u64)
                .collect::<Vec<_>>()
        );
        assert_eq!(position.newest, row.get::<_, i64>(3) as u64);
        let anchor = format!("{}.{}", position.newest, row.get::<_, String>(4));
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, anchor.as_bytes());
        let tag: String = digest.as_ref()[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(position.tag, tag);
        lengths.push(position.running.len());
    }
    assert!(lengths[3] >= 3, "{lengths:?}");
}

#[tokio::test]
async fn a_cursor_has_not_seen_what_its_own_transaction_wrote() {
    let database = database();
    let (client, other) = tokio::join!(database.connect(), database.connect());
    let first = text(&client, "tidings.publish('a', 'b')").await;
    for level in ["read committed", "repeatable read", "serializable"] {
        run(&client, &format!("begin isolation level {level}; select tidings.publish('a', 'b'); savepoint s; select tidings.publish('a', 'b')")).await;
        // Another transaction begins later, so that this one lies below xmax of a fresh snapshot.
        run(&other, "select pg_current_xact_id()").await;
        let own: u64 = text(&client, "pg_current_xact_id()")
            .await
            .parse()
            .expect("a number");
        let position = position(&text(&client, "tidings.cursor()").await);
        assert!(
            own >= position.xmax || position.running.contains(&own),
            "{own} {position:?}"
        );
        if level == "read committed" {
            assert!(own < position.xmax, "{own} {position:?}");
            assert!(position.running.is_sorted_by(|a, b| a < b), "{position:?}");
        }
        assert_eq!(position.newest.to_string(), first);
        run(&client, "rollback").await;
    }
}

#[tokio::test]
async fn a_cursor_of_an_empty_log_names_event_zero_and_the_snapshot_of_the_whole_statement() {
    let database = database();
    let (client, other) = tokio::join!(database.connect(), database.connect());
    assert!(
        text(&client, "tidings.cursor()")
            .await
            .ends_with("~0.00000000")
    );
    // In an older snapshot the log is as it was.
    run(&client, "begin isolation level repeatable read").await;
    let before = text(&client, "tidings.cursor()").await;
    run(&other, "select tidings.publish('a', 'b')").await;
    assert_eq!(text(&client, "tidings.cursor()").await, before);
    run(&client, "commit").await;
    assert_ne!(text(&client, "tidings.cursor()").await, before);
}

#[tokio::test]
async fn a_cursor_that_would_not_fit_is_refused() {
    let server = own_cluster(&[
        ("max_prepared_transactions", "2200"),
        ("fsync", "off"),
        ("max_locks_per_transaction", "10"),
    ]);
    let database = server.database();
    let client = database.connect().await;
    let mut prepare = String::new();
    for n in 0..2000 {
        prepare += &format!("begin; select pg_current_xact_id(); prepare transaction '{n}';");
    }
    // A snapshot ends behind the last transaction that is over; what runs beyond that need not be named.
    run(&client, &(prepare + "select pg_current_xact_id()")).await;
    let cursor = text(&client, "tidings.cursor()").await;
    assert_eq!(position(&cursor).running.len(), 2000);
    assert!((3900..=4096).contains(&cursor.len()), "{}", cursor.len());
    let more: String = (2000..2100)
        .map(|n| format!("begin; select pg_current_xact_id(); prepare transaction '{n}';"))
        .collect();
    run(&client, &(more + "select pg_current_xact_id()")).await;
    hinted(
        &client,
        "select tidings.cursor()",
        "54000",
        "2100 transactions",
    )
    .await;
}

#[tokio::test]
async fn the_own_topic_of_a_user_is_escaped_one_to_one() {
    let database = database();
    let client = database.connect().await;
    for (call, topic) in [
        ("'42'", "user:42"),
        ("'42', 'acme'", "acme/user:42"),
        (
            "'auth0|5f7c8ec7c33c6c004bbafe82'",
            "user:auth0|5f7c8ec7c33c6c004bbafe82",
        ),
        ("'a@b.example'", "user:a@b.example"),
        ("'a b'", "user:a%20b"),
        ("'a%20b'", "user:a%2520b"),
        ("'x/user:1'", "user:x%2Fuser:1"),
        ("'ä*'", "user:%C3%A4%2A"),
        ("E'\\n\\x7f'", "user:%0A%7F"),
    ] {
        assert_eq!(
            text(&client, &format!("tidings.user_topic({call})")).await,
            topic
        );
    }
    for (call, part) in [
        ("null", "user is null"),
        ("''", "user is empty"),
        ("'42', ''", "tenant"),
        ("'42', 'a/b'", "tenant"),
        ("'42', 'a b'", "tenant"),
        ("repeat('x', 251)", "256 bytes"),
        ("repeat(' ', 100)", "305 bytes"),
    ] {
        hinted(
            &client,
            &format!("select tidings.user_topic({call})"),
            "22023",
            part,
        )
        .await;
    }
    assert_eq!(
        text(&client, "length(tidings.user_topic(repeat('x', 250)))").await,
        "255"
    );

    // What every byte and character becomes, said once more in another language.
    let subs: Vec<String> = {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let texts = proptest::collection::vec("[\u{1}-\u{7f}]{1,20}|\\PC{1,20}", 500);
        texts.new_tree(&mut runner).expect("texts").current()
    };
    let rows = client
        .query("select tidings.user_topic(sub) from unnest($1::text[]) with ordinality as t (sub, n) order by n", &[&subs])
        .await
        .expect("topics");
    for (sub, row) in subs.iter().zip(rows) {
        let escaped: String = sub
            .bytes()
            .map(|byte| match char::from(byte) {
                character if ALPHABET.contains(character) && !"/%".contains(character) => {
                    character.to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect();
        assert_eq!(
            row.get::<_, String>(0),
            format!("user:{escaped}"),
            "{sub:?}"
        );
    }
}

#[tokio::test]
async fn state_is_told_by_the_function_of_the_longest_pattern() {
    let database = database();
    let client = database.connect().await;
    run(&client, r#"
        create schema "App";
        create table "App".thing (topic text, value int);
        insert into "App".thing values ('user:42', 7);
        create function "App"."State of"(topic text, claims jsonb) returns jsonb stable language sql
            as $$ select jsonb_build_object('value', (select value from "App".thing t where t.topic = $1), 'sub', claims ->> 'sub') $$;
        create function wide(topic text, claims jsonb) returns jsonb language sql as $$ select '"wide"'::jsonb $$;
        create function exact(text, jsonb) returns jsonb language sql as $$ select '"exact"'::jsonb $$;
        create function exact(text) returns jsonb language sql as $$ select '"other"'::jsonb $$;
        select tidings.define_state('*', 'wide(text,jsonb)'),
               tidings.define_state('user:*', 'wide(text,jsonb)'),
               tidings.define_state('user:42*', 'wide(text,jsonb)'),
               tidings.define_state('user:43', 'exact(text,jsonb)'),
               tidings.define_state('user:43*', 'wide(text,jsonb)');
        select tidings.define_state('user:42*', '"App"."State of"(text,jsonb)');
    "#).await;
    let state = |topic: &str| format!("tidings.state_of('{topic}', '{{\"sub\":\"s\"}}')");
    assert_eq!(
        text(&client, &state("user:42")).await,
        r#"{"sub": "s", "value": 7}"#
    );
    assert_eq!(text(&client, &state("user:43")).await, "\"exact\"");
    assert_eq!(text(&client, &state("user:430")).await, "\"wide\"");
    assert_eq!(text(&client, &state("order:1")).await, "\"wide\"");
    run(&client, "delete from tidings.state where pattern = '*'").await;
    assert_eq!(text(&client, &state("order:1")).await, "null");
    // The function may rely on the caller's search_path.
    run(&client, r#"create function local(topic text, claims jsonb) returns jsonb language plpgsql as $$ begin return (select to_jsonb(t) from thing t); end $$"#).await;
    run(&client, r#"set search_path = "App", public; select tidings.define_state('local', 'local(text,jsonb)')"#).await;
    assert_eq!(
        text(&client, &state("local")).await,
        r#"{"topic": "user:42", "value": 7}"#
    );

    for (arguments, part) in [
        ("null, 'wide(text,jsonb)'", "NULL is not a pattern"),
        ("'', 'wide(text,jsonb)'", "is not a pattern"),
        ("'a*b', 'wide(text,jsonb)'", "is not a pattern"),
        ("'a**', 'wide(text,jsonb)'", "is not a pattern"),
        ("E'a\\n', 'wide(text,jsonb)'", "is not a pattern"),
        ("repeat('a', 256), 'wide(text,jsonb)'", "is not a pattern"),
        ("'a', null", "cannot tell state"),
        ("'a', 'exact(text)'", "cannot tell state"),
        ("'a', 'jsonb_build_object()'", "cannot tell state"),
        ("'a', 'jsonb_object_keys(jsonb)'", "cannot tell state"),
    ] {
        hinted(
            &client,
            &format!("select tidings.define_state({arguments})"),
            "22023",
            part,
        )
        .await;
    }
}

#[tokio::test]
async fn each_role_may_do_its_part_and_nothing_else() {
    let database = database();
    let client = database.connect().await;
    let may = async |role: &str, statement: &str, allowed: bool| {
        run(&client, &format!("begin; set local role {role}")).await;
        let result = client.batch_execute(statement).await;
        run(&client, "rollback").await;
        match result {
            Ok(()) => assert!(allowed, "{role} may: {statement}"),
            Err(error) => {
                let code = error
                    .as_db_error()
                    .map(|error| error.code().code().to_owned());
                assert!(
                    !allowed && code.as_deref() == Some("42501"),
                    "{role}: {statement}: {error:?}"
                );
            }
        }
    };
    run(&client, "select tidings.add_partition('2026-01-01')").await;
    for (statement, publisher, gateway, stranger) in [
        (
            "select tidings.publish('a', 'b', key => 'k')",
            true,
            true,
            false,
        ),
        ("select tidings.signal('a', 'b')", true, false, false),
        (
            "select tidings.cursor(), tidings.user_topic('a')",
            true,
            true,
            true,
        ),
        (
            "select * from tidings.event, tidings.floor",
            false,
            true,
            false,
        ),
        ("select * from tidings.state", false, true, false),
        ("select * from tidings.secret", false, true, false),
        ("select * from tidings.migration", false, true, false),
        ("select * from tidings.key", false, false, false),
        ("select tidings.state_of('a', '{}')", false, true, false),
        (
            "select tidings.trim('7 days'), tidings.trim_keys('7 days', 1)",
            false,
            true,
            false,
        ),
        ("select tidings.drop_empty()", false, true, false),
        (
            "select tidings.add_partition('2026-02-01')",
            false,
            true,
            false,
        ),
        ("select tidings.foreign_rows()", false, true, false),
        ("select tidings.adopt()", false, false, false),
        ("select tidings.grant_roles()", false, false, false),
        (
            "select tidings.define_state('a', 'f(text,jsonb)')",
            false,
            false,
            false,
        ),
        (
            "insert into tidings.event (topic, type) values ('a', 'b')",
            false,
            false,
            false,
        ),
        (
            "insert into tidings.event_20260101 (topic, type) values ('a', 'b')",
            false,
            false,
            false,
        ),
        ("update tidings.event set type = 'c'", false, false, false),
        ("delete from tidings.event", false, false, false),
        ("truncate tidings.event", false, false, false),
        ("update tidings.floor set id = 1", false, false, false),
        ("delete from tidings.state", false, false, false),
        ("update tidings.secret set value = ''", false, false, false),
        ("delete from tidings.migration", false, false, false),
        ("select nextval('tidings.event_id')", false, false, false),
        ("create table tidings.mine ()", false, false, false),
        ("create table tidings_watch.mine ()", false, false, false),
        ("select tidings.fill('a', '{}')", false, false, false),
        ("select tidings.hand_over_watches()", false, false, false),
        ("drop table tidings.event", false, false, false),
    ] {
        // A function that does not exist would be refused for another reason.
        run(
            &client,
            "create or replace function f(text, jsonb) returns jsonb language sql as 'select $2'",
        )
        .await;
        may("tidings_publisher", statement, publisher).await;
        may("tidings_gateway", statement, gateway).await;
        // Any role without grants will do: this one is in every cluster.
        may("pg_monitor", statement, stranger).await;
    }
    let rest = "select string_agg(p.proname, ' ' order by p.proname) from pg_proc p, aclexplode(p.proacl) a
                where p.pronamespace in ('tidings'::regnamespace, 'tidings_watch'::regnamespace) and a.grantee = 0";
    assert_eq!(text(&client, rest).await, "cursor escape tag user_topic");
    let unpinned = "select string_agg(proname, ' ') from pg_proc where pronamespace in ('tidings'::regnamespace, 'tidings_watch'::regnamespace)
                    and prosecdef and not coalesce(array_to_string(proconfig, ';') ~ 'search_path=pg_catalog, pg_temp', false)";
    // It names everything with its schema instead; see takeover.rs.
    assert_eq!(text(&client, unpinned).await, "publish");
}

#[tokio::test]
async fn every_database_has_a_ticket_secret_of_its_own() {
    let (one, two) = (
        crate::support::postgres::empty_database(),
        crate::support::postgres::empty_database(),
    );
    let mut secrets = Vec::new();
    for database in [&one, &two] {
        let mut client = database.connect().await;
        tidings::postgres::migrate::migrate(&mut client)
            .await
            .expect("migrated");
        secrets.push(
            text(
                &client,
                "select value from tidings.secret where name = 'ticket'",
            )
            .await,
        );
    }
    assert_eq!(secrets[0].len(), 2 + 64);
    assert_ne!(secrets[0], secrets[1]);
}
