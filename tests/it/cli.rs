//! The command line, as an operator uses it: what it prints, how it ends, what it refuses.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tidings::auth::{AuthSettings, Authority, ClaimNames, Identity, Keys, Presented};
use tidings::cursor::Cursor;
use tidings::topic::Topic;
use tokio::net::TcpListener;
use tokio::process::Child;
use tokio_postgres::Client;

use crate::support::client::PATIENCE;
use crate::support::command::{Outcome, Printed, finish, run, run_with_input, tidings};
use crate::support::gateway::{Gateway, SECRET};
use crate::support::postgres::{Database, database, empty_database};

// ---- token

fn identify(token: &str, settings: AuthSettings) -> Identity {
    let settings = AuthSettings {
        keys: Some(Keys::secret(SECRET).expect("a secret")),
        ..settings
    };
    let authority = Authority::new(settings).expect("settings");
    let authorization = format!("Bearer {token}");
    let presented = Presented {
        authorization: Some(&authorization),
        get: true,
        ..Presented::default()
    };
    authority
        .identify(&presented, Timestamp::now())
        .expect("the gateway accepts it")
}

fn topic(text: &str) -> Topic {
    Topic::parse(text).expect("a topic")
}

#[tokio::test]
async fn a_token_is_one_that_the_gateway_accepts_for_an_hour() {
    let signed = run(&["token", "--sub", "42"], &[("TIDINGS_JWT_SECRET", SECRET)]).await;
    assert_eq!(signed.code, Some(0), "{signed:?}");
    let identity = identify(signed.out.trim(), AuthSettings::default());
    assert_eq!(identity.own_topic(), Some(&topic("user:42")));
    let left = identity
        .expires_at()
        .expect("it expires")
        .duration_since(Timestamp::now());
    assert!((3570..=3600).contains(&left.as_secs()), "{left:?}");
}

#[tokio::test]
async fn a_token_holds_what_it_was_asked_to() {
    let directory = std::env::temp_dir();
    let file = directory.join(format!("tidings-secret-{:08x}", fastrand::u32(..)));
    std::fs::write(&file, format!("{SECRET}\n")).expect("written");
    let arguments = [
        "token",
        "--sub",
        "ann",
        "--tenant",
        "acme",
        "--topics",
        "acme/orders:*",
        "--topics",
        "acme/news",
        "--publish",
        "acme/*",
        "--expires-in",
        "30 days",
    ];
    let variables = [
        ("TIDINGS_JWT_SECRET_FILE", file.to_str().expect("text")),
        ("TIDINGS_JWT_AUDIENCE", "web"),
        ("TIDINGS_JWT_ISSUER", "us"),
        ("TIDINGS_CLAIM_TOPICS", "/app/a~1b"),
        ("TIDINGS_CLAIM_TENANT", "/app/tenant"),
        ("TIDINGS_TENANTS", "required"),
    ];
    let signed = run(&arguments, &variables).await;
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(signed.code, Some(0), "{signed:?}");
    let identity = identify(
        signed.out.trim(),
        AuthSettings {
            audience: Some("web".into()),
            issuer: Some("us".into()),
            tenants_required: true,
            claims: ClaimNames {
                topics: "/app/a~1b".into(),
                tenant: "/app/tenant".into(),
                ..ClaimNames::default()
            },
            ..AuthSettings::default()
        },
    );
    assert_eq!(identity.own_topic(), Some(&topic("acme/user:ann")));
    for (text, reads, publishes) in [
        ("acme/orders:7", true, true),
        ("acme/news", true, true),
        ("acme/other", false, true),
        ("orders:7", false, false),
    ] {
        assert_eq!(identity.may_read(&topic(text)), reads, "{text}");
        assert_eq!(identity.may_publish(&topic(text)), publishes, "{text}");
    }
    let left = identity
        .expires_at()
        .expect("it expires")
        .duration_since(Timestamp::now());
    assert_eq!(left.as_hours() / 24, 29);
}

#[tokio::test]
async fn what_the_gateway_would_turn_away_is_not_signed() {
    let secret = ("TIDINGS_JWT_SECRET", SECRET);
    for (arguments, variables, words) in [
        (&["--sub", "42"][..], &[][..], "no secret to sign with"),
        (
            &["--sub", "42"],
            &[("TIDINGS_JWT_PUBLIC_KEY", "-----BEGIN PUBLIC KEY-----")],
            "TIDINGS_JWT_PUBLIC_KEY is a public key",
        ),
        (
            &["--sub", "42"],
            &[("TIDINGS_JWT_JWKS_FILE", "/keys.json")],
            "TIDINGS_JWT_JWKS_FILE is a public key",
        ),
        (
            &["--sub", "42"],
            &[("TIDINGS_JWT_SECRET", "short")],
            "openssl rand",
        ),
        (&[], &[secret], "--sub"),
        (&["--sub", ""], &[secret], "--sub"),
        (&["--sub", "4", "--tenant", "a/b"], &[secret], "--tenant"),
        (&["--sub", "4", "--topics", "a*b"], &[secret], "--topics"),
        (
            &["--sub", "4", "--tenant", "acme", "--topics", "orders"],
            &[secret],
            "begins with acme/",
        ),
        (
            &["--sub", "4"],
            &[secret, ("TIDINGS_TENANTS", "required")],
            "--tenant",
        ),
        (
            &["--sub", "4", "--expires-in=-1h"],
            &[secret],
            "--expires-in",
        ),
        (
            &["--sub", "4", "--expires-in", "soon"],
            &[secret],
            "--expires-in",
        ),
        (
            &["--sub", "4", "--publish", "a"],
            &[secret, ("TIDINGS_CLAIM_PUBLISH", "publish")],
            "TIDINGS_CLAIM_PUBLISH",
        ),
    ] {
        let arguments = [&["token"], arguments].concat();
        let refused = run(&arguments, variables).await;
        assert_eq!(refused.code, Some(64), "{arguments:?}: {refused:?}");
        assert!(refused.err.contains(words), "{arguments:?}: {refused:?}");
        assert_eq!(refused.out, "");
    }
}

// ---- publish

async fn publish(database: &Database, arguments: &[&str]) -> Outcome {
    let arguments = [&["publish"], arguments].concat();
    run(&arguments, &[("DATABASE_URL", &database.url())]).await
}

#[tokio::test]
async fn publishing_prints_the_id_of_the_row() {
    let database = database();
    let client = database.connect().await;
    let published = publish(
        &database,
        &["user:42", "payment.settled", r#"{"amount": 7}"#],
    )
    .await;
    assert_eq!(published.code, Some(0), "{published:?}");
    let id: i64 = published.out.trim().parse().expect("an id");
    let row = client
        .query_one(
            "select topic, type, data::text from tidings.event where id = $1",
            &[&id],
        )
        .await
        .expect("the row is there");
    assert_eq!(row.get::<_, &str>(0), "user:42");
    assert_eq!(row.get::<_, &str>(1), "payment.settled");
    assert_eq!(row.get::<_, &str>(2), r#"{"amount": 7}"#);

    let first = publish(&database, &["a", "b", "--key", "k"]).await;
    let again = publish(&database, &["a", "b", "--key", "k"]).await;
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(first.out, again.out);
    let count = "select count(*) from tidings.event where topic = 'a' and data = 'null'";
    let row = client.query_one(count, &[]).await.expect("counted");
    assert_eq!(row.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn large_data_comes_by_standard_input() {
    let database = database();
    // More than one argument of a program can have.
    let data = format!("\"{}\"", "x".repeat(200_000));
    let url = database.url();
    let variables = [("DATABASE_URL", url.as_str())];
    let published = run_with_input(&["publish", "a", "b", "-"], &variables, &data).await;
    assert_eq!(published.code, Some(0), "{published:?}");
    let row = database
        .connect()
        .await
        .query_one("select bytes from tidings.event", &[])
        .await
        .expect("one row");
    assert_eq!(row.get::<_, i32>(0), 200_002);
}

#[tokio::test]
async fn a_refusal_of_the_database_comes_with_its_hint() {
    let database = database();
    let refused = publish(&database, &["user 42", "b"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .err
            .starts_with("tidings: the topic 'user 42' contains a character"),
        "{refused:?}"
    );
    assert!(refused.err.contains("A topic is made of"), "{refused:?}");

    let no_json = publish(&database, &["a", "b", "hello"]).await;
    assert_eq!(no_json.code, Some(64));
    assert!(no_json.err.contains("DATA is not JSON"), "{no_json:?}");

    let nowhere = publish(&empty_database(), &["a", "b"]).await;
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.err.contains("tidings migrate"), "{nowhere:?}");

    let unset = run(&["publish", "a", "b"], &[]).await;
    assert_eq!(unset.code, Some(64));
    assert!(unset.err.contains("DATABASE_URL"), "{unset:?}");
}

// ---- tail

async fn value(client: &Client, query: &str) -> String {
    let row = client.query_one(query, &[]).await;
    row.unwrap_or_else(|error| panic!("{query}: {error:?}"))
        .get(0)
}

async fn cursor_of(client: &Client) -> String {
    value(client, "select tidings.cursor()").await
}

async fn publish_number(client: &Client, topic: &str, number: i32) -> i64 {
    let row = client
        .query_one(
            "select tidings.publish($1, 'n', to_jsonb($2::integer))",
            &[&topic, &number],
        )
        .await
        .expect("published");
    row.get(0)
}

fn follow(database: &Database, arguments: &[&str]) -> (Child, Printed) {
    let arguments = [&["tail"], arguments].concat();
    let mut command = tidings(&arguments, &[("DATABASE_URL", &database.url())]);
    let mut child = command.spawn().expect("it starts");
    let printed = Printed::of(&mut child);
    (child, printed)
}

/// The `data` of the next lines.
async fn numbers(printed: &mut Printed, count: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let line = printed.next().await;
        let event: Value = serde_json::from_str(&line).expect("a line is JSON");
        numbers.push(event["data"].as_i64().expect("a number"));
    }
    numbers
}

fn interrupt(child: &Child) {
    let id = child.id().expect("it runs").cast_signed();
    kill_process(Pid::from_raw(id).expect("not zero"), Signal::INT).expect("ours");
}

#[tokio::test]
async fn tail_shows_what_is_committed_under_its_topics() {
    let database = database();
    let mut client = database.connect().await;
    let since = cursor_of(&client).await;
    publish_number(&client, "user:42", 1).await;
    let (child, mut printed) = follow(&database, &["user:42", "orders/*", "--since", &since]);
    let first: Value = serde_json::from_str(&printed.next().await).expect("JSON");
    for (member, expected) in [("topic", "user:42"), ("type", "n"), ("id", "1")] {
        assert_eq!(first[member], expected, "{first}");
    }
    assert_eq!(first["data"], 1);
    let rolled_back = client.transaction().await.expect("begun");
    rolled_back
        .execute("select tidings.publish('user:42', 'n', '2')", &[])
        .await
        .expect("published");
    rolled_back.rollback().await.expect("rolled back");
    publish_number(&client, "user:421", 3).await;
    publish_number(&client, "orders/7", 4).await;
    publish_number(&client, "user:42", 5).await;
    assert_eq!(numbers(&mut printed, 2).await, [4, 5]);

    // What was stopped goes on where it was.
    interrupt(&child);
    let stopped = finish(child).await;
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    let resume = stopped.err.rsplit_once("--since ").expect("it says so").1;
    publish_number(&client, "user:42", 6).await;
    let (_child, mut printed) = follow(&database, &["user:42", "--since", resume.trim()]);
    assert_eq!(numbers(&mut printed, 1).await, [6]);
}

#[tokio::test]
async fn tail_begins_now() {
    let database = database();
    let client = database.connect().await;
    publish_number(&client, "t", 1).await;
    let (_child, mut printed) = follow(&database, &["t"]);
    // It has its first position by the time its listener listens.
    let listens = "select count(*)::text from pg_stat_activity \
                   where application_name = 'tidings/listener' and query like 'listen%' \
                   and state = 'idle' and datname = current_database()";
    let waited = tokio::time::timeout(PATIENCE, async {
        while value(&client, listens).await != "1" {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("it listens");
    publish_number(&client, "t", 2).await;
    assert_eq!(numbers(&mut printed, 1).await, [2]);
}

#[tokio::test]
async fn tail_outlives_its_sessions() {
    let database = database();
    let client = database.connect().await;
    let since = cursor_of(&client).await;
    let (_child, mut printed) = follow(&database, &["t", "--since", &since]);
    let kill = "select count(pg_terminate_backend(pid))::text from pg_stat_activity \
                where application_name in ('tidings/tail', 'tidings/listener') \
                and datname = current_database()";
    let mut killed = 0;
    for number in 0..10 {
        publish_number(&client, "t", number).await;
        // Before its first event it may not be there yet, and a start that fails is an end.
        assert_eq!(numbers(&mut printed, 1).await, [i64::from(number)]);
        let ended: i32 = value(&client, kill).await.parse().expect("a count");
        killed += ended;
        publish_number(&client, "t", number + 100).await;
        assert_eq!(numbers(&mut printed, 1).await, [i64::from(number) + 100]);
    }
    assert!(killed >= 10, "{killed}");
}

#[tokio::test]
async fn a_bulk_is_shown_whole_and_in_order() {
    let database = database();
    let client = database.connect().await;
    let since = cursor_of(&client).await;
    // More than two pages of a look.
    client
        .execute(
            "select count(tidings.publish('t', 'n', to_jsonb(n))) from generate_series(1, 12000) n",
            &[],
        )
        .await
        .expect("published");
    let (_child, mut printed) = follow(&database, &["*", "--since", &since]);
    let expected: Vec<i64> = (1..=12_000).collect();
    assert!(numbers(&mut printed, 12_000).await == expected);
    publish_number(&client, "t", 0).await;
    assert_eq!(numbers(&mut printed, 1).await, [0]);
}

#[tokio::test]
async fn tail_goes_on_from_the_middle_of_a_look() {
    let database = database();
    let client = database.connect().await;
    let late = database.connect().await;
    late.batch_execute("begin; select tidings.publish('t', 'n', '1')")
        .await
        .expect("published");
    let from: Cursor = cursor_of(&client).await.parse().expect("a cursor");
    let first = publish_number(&client, "t", 2).await;
    publish_number(&client, "t", 3).await;
    late.batch_execute("commit").await.expect("committed");
    let to: Cursor = cursor_of(&client).await.parse().expect("a cursor");
    let middle = Cursor::Between {
        from: from.first().clone(),
        to: to.first().clone(),
        sent: first,
    };
    publish_number(&client, "t", 4).await;
    let (_child, mut printed) = follow(&database, &["t", "--since", &middle.to_string()]);
    // Sent were the late event, which has the lowest id, and the first of the others.
    assert_eq!(numbers(&mut printed, 2).await, [3, 4]);
}

#[tokio::test]
async fn a_cursor_that_the_log_cannot_continue_is_refused_with_the_reason() {
    let database = database();
    let client = database.connect().await;
    let old = cursor_of(&client).await;
    client
        .batch_execute(
            "select tidings.add_partition(current_date - 20);
             insert into tidings.event (topic, type, created_at) values ('t', 'n', current_date - 20 + interval '12 h')",
        )
        .await
        .expect("an old event");
    publish_number(&client, "t", 1).await;
    let trimmed = value(&client, "select tidings.trim('7 days')::text").await;
    assert_eq!(trimmed, "1");
    let present = cursor_of(&client).await;
    let (position, tag) = present.rsplit_once('.').expect("a tag");
    let other_tag = if tag == "00000000" {
        "00000001"
    } else {
        "00000000"
    };
    let diverged = format!("{position}.{other_tag}");
    for (since, word) in [(&old, "trimmed"), (&diverged, "diverged")] {
        let refused = finish(follow(&database, &["t", "--since", since]).0).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains(word), "{refused:?}");

        let url = database.url();
        let variables = [("DATABASE_URL", url.as_str())];
        let told = run(&["cursor", since, "--database"], &variables).await;
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(told.out.contains(&format!("standing   {word}")), "{told:?}");
    }
    let malformed = run(&["tail", "t", "--since", "1~"], &[]).await;
    assert_eq!(malformed.code, Some(64), "{malformed:?}");
}

#[tokio::test]
async fn tail_ends_when_nobody_reads_any_more() {
    let database = database();
    let client = database.connect().await;
    let since = cursor_of(&client).await;
    publish_number(&client, "t", 1).await;
    let (mut child, mut printed) = follow(&database, &["t", "--since", &since]);
    assert_eq!(numbers(&mut printed, 1).await, [1]);
    // Nothing is published any more, so that nothing is written either.
    drop(printed);
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    let status = ended.expect("it ends").expect("waited for");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_stalled_reader_does_not_keep_ctrl_c_from_being_heard() {
    let database = database();
    let client = database.connect().await;
    let since = cursor_of(&client).await;
    client
        .execute(
            "select count(tidings.publish('t', 'n', to_jsonb(repeat('x', 100000)))) from generate_series(1, 20)",
            &[],
        )
        .await
        .expect("published");
    let (child, mut printed) = follow(&database, &["t", "--since", &since]);
    // The first line is out; the others do not fit into the pipe.
    printed.next().await;
    interrupt(&child);
    let mut child = child;
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    assert_eq!(ended.expect("it ends").expect("waited for").code(), Some(0));
    let mut printed = printed;
    assert!(printed.rest().await.len() < 19);
}

// ---- cursor

#[tokio::test]
async fn a_cursor_is_explained() {
    let explained = run(&["cursor", "1~7701234.3.1~4711.9af3c2d1"], &[]).await;
    assert_eq!(explained.code, Some(0), "{explained:?}");
    for words in [
        "one mark",
        "below 7701237",
        "up to id 4711",
        "2 transactions then in progress: 7701234, 7701235",
        "tag 9af3c2d1",
    ] {
        assert!(explained.out.contains(words), "{explained:?}");
    }
    for text in [
        "",
        "1~",
        "4711",
        "2~5~1.00000000",
        "1~5~1.0000000G",
        "1~5~1.00000000 ",
    ] {
        let refused = run(&["cursor", text], &[]).await;
        assert_eq!(refused.code, Some(64), "{text:?}: {refused:?}");
        assert!(
            refused.err.contains("not a cursor"),
            "{text:?}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_cursor_is_held_against_the_log() {
    let database = database();
    let client = database.connect().await;
    let late = database.connect().await;
    let url = database.url();
    let variables = [("DATABASE_URL", url.as_str())];
    publish_number(&client, "t", 1).await;
    late.batch_execute("begin; select tidings.publish('t', 'n', '2')")
        .await
        .expect("published");
    let from = cursor_of(&client).await;
    let behind = async |cursor: &str| {
        let told = run(&["cursor", cursor, "--database"], &variables).await;
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(told.out.contains("standing   served"), "{told:?}");
        let line = told.out.lines().find(|line| line.starts_with("not seen"));
        line.expect("it says how far").to_owned()
    };
    assert!(behind(&from).await.contains("nothing"));
    let sent = publish_number(&client, "t", 3).await;
    publish_number(&client, "t", 4).await;
    assert!(behind(&from).await.contains(" 2 events"));
    late.batch_execute("commit").await.expect("committed");
    assert!(behind(&from).await.contains(" 3 events"));
    let to: Cursor = cursor_of(&client).await.parse().expect("a cursor");
    let from: Cursor = from.parse().expect("a cursor");
    let middle = Cursor::Between {
        from: from.first().clone(),
        to: to.first().clone(),
        sent,
    };
    assert!(behind(&middle.to_string()).await.contains(" 1 event of"));
}

// ---- healthcheck

async fn healthcheck(address: &str) -> Outcome {
    run(&["healthcheck"], &[("TIDINGS_OPS_LISTEN", address)]).await
}

#[tokio::test]
async fn a_gateway_that_is_ready_is_healthy_until_it_goes() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let address = gateway.ops_address();
    let everywhere = format!("0.0.0.0:{}", address.port());
    for address in [address.to_string(), everywhere] {
        let healthy = healthcheck(&address).await;
        assert_eq!(healthy.code, Some(0), "{healthy:?}");
        assert_eq!(healthy.out, "ready\n");
    }
    gateway.stop().await;
    let gone = healthcheck(&address.to_string()).await;
    assert_eq!(gone.code, Some(1));
    assert!(gone.err.starts_with("tidings: not ready: "), "{gone:?}");
    assert_eq!(gone.err.lines().count(), 1, "{gone:?}");
}

#[tokio::test]
async fn a_gateway_that_waits_for_its_database_is_not_ready() {
    // Nobody listens there: the port was ours a moment ago.
    let database = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let nowhere = database.local_addr().expect("bound");
    drop(database);
    let ops = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = ops.local_addr().expect("bound").to_string();
    drop(ops);
    let url = format!("postgres://postgres@{nowhere}/x");
    let variables = [
        ("DATABASE_URL", url.as_str()),
        ("TIDINGS_JWT_SECRET", SECRET),
        ("TIDINGS_LISTEN", "127.0.0.1:0"),
        ("TIDINGS_OPS_LISTEN", &address),
    ];
    let _gateway = tidings(&["serve"], &variables).spawn().expect("it starts");
    let told = tokio::time::timeout(PATIENCE, async {
        loop {
            let unhealthy = healthcheck(&address).await;
            assert_eq!(unhealthy.code, Some(1), "{unhealthy:?}");
            if !unhealthy.err.contains("cannot be asked") {
                return unhealthy.err;
            }
        }
    });
    let told = told.await.expect("it answers");
    assert!(told.contains("has not read the log yet"), "{told}");
}

#[tokio::test]
async fn whoever_does_not_answer_within_three_seconds_is_not_ready() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = silent.local_addr().expect("bound").to_string();
    let accepted = Arc::new(tokio::sync::Mutex::new(Vec::new()));
    let held = accepted.clone();
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = silent.accept().await {
            held.lock().await.push(stream);
        }
    });
    let begun = std::time::Instant::now();
    let unhealthy = healthcheck(&address).await;
    assert_eq!(unhealthy.code, Some(1));
    assert!(
        unhealthy.err.contains("did not answer within 3s"),
        "{unhealthy:?}"
    );
    assert!(begun.elapsed() >= Duration::from_secs(3));
    assert_eq!(accepted.lock().await.len(), 1);
    accepting.abort();
    let nonsense = healthcheck("nowhere").await;
    assert_eq!(
        nonsense.code,
        Some(1),
        "Docker knows 0 and 1 only: {nonsense:?}"
    );
}

// ---- all of them

#[tokio::test]
async fn help_says_all_and_keeps_secrets() {
    let variables = [
        ("DATABASE_URL", "postgres://me:hunter2@nowhere/x"),
        ("TIDINGS_JWT_SECRET", "hunter2hunter2hunter2"),
        ("TIDINGS_DOCTOR_TOKEN", "hunter2.hunter2.hunter2"),
    ];
    for (command, words) in [
        (
            "token",
            &["TIDINGS_JWT_SECRET", "TIDINGS_CLAIM_TOPICS", "1 hour", "64"][..],
        ),
        ("publish", &["DATABASE_URL", "256 KiB", "--key"]),
        ("tail", &["DATABASE_URL", "--since", "Ctrl-C"]),
        ("cursor", &["DATABASE_URL", "--database"]),
        (
            "healthcheck",
            &["TIDINGS_OPS_LISTEN", "127.0.0.1:9180", "3 s"],
        ),
        (
            "doctor",
            &[
                "DATABASE_URL",
                "--proxy",
                "5 minutes",
                "TIDINGS_DOCTOR_TOKEN",
            ],
        ),
        ("migrate", &["DATABASE_URL", "--adopt"]),
        ("serve", &["TIDINGS_LISTEN"]),
    ] {
        let help = run(&[command, "--help"], &variables).await;
        assert_eq!(help.code, Some(0), "{help:?}");
        assert!(!help.out.contains("hunter2"), "{help:?}");
        for word in words {
            assert!(help.out.contains(word), "{command}: {word}: {}", help.out);
        }
    }
}

#[tokio::test]
async fn the_soft_limit_of_descriptors_is_raised() {
    let program = env!("CARGO_BIN_EXE_tidings");
    let script = "ulimit -n 300 && ulimit -Sn 200 && exec \"$0\" healthcheck";
    let output = tokio::process::Command::new("sh")
        .args(["-c", script, program])
        .env("TIDINGS_LOG", "debug")
        .env("TIDINGS_OPS_LISTEN", "127.0.0.1:1")
        .output()
        .await
        .expect("it runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("descriptor limit raised"), "{log}");
    assert!(
        log.contains("Some(200)") && log.contains("Some(300)"),
        "{log}"
    );
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(["serve", "--help"])
        .output()
        .expect("runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let names = help.split("[env: ").skip(1);
    let names: Vec<&str> = names
        .filter_map(|rest| rest.split(['=', ']']).next())
        .collect();
    assert!(names.len() > 40, "{names:?}");
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_tidings"))
        .arg("serve")
        .envs(names.iter().map(|name| (name, "")))
        .output()
        .expect("runs");
    assert_eq!(refused.status.code(), Some(64));
    let said = String::from_utf8(refused.stderr).expect("text");
    // What must be set is missing; nothing is wrong with what need not.
    let faults: Vec<&str> = said.lines().skip(1).collect();
    let must = ["DATABASE_URL", "TIDINGS_JWT_SECRET"];
    assert!(
        faults
            .iter()
            .all(|line| must.iter().any(|name| line.contains(name))),
        "{said}"
    );
}
