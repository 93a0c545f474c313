//! Watching tables: which changes become which events, on which topics, with whose rights.

use tokio_postgres::Client;

use crate::sql::{hinted, refusal, run, text};
use crate::support::postgres::{Database, database};

const PAYMENTS: &str =
    "create table payments (id int primary key, user_id int, amount numeric, note text)";

/// Every event so far, one a line, and forgets them.
async fn take(client: &Client) -> String {
    let lines = "select coalesce(string_agg(format('%s %s %s', topic, type, data), e'\\n' order by id), '') from tidings.event";
    let lines = text(client, lines).await;
    run(client, "truncate tidings.event").await;
    lines
}

async fn with_payments() -> (Database, Client) {
    let database = database();
    let client = database.connect().await;
    run(&client, PAYMENTS).await;
    (database, client)
}

#[tokio::test]
async fn each_row_change_is_published_with_its_row() {
    let (_database, client) = with_payments().await;
    run(
        &client,
        "select tidings.watch('payments', 'user:{user_id}')",
    )
    .await;
    run(&client, "insert into payments values (1, 7, 1.50, 'a')").await;
    assert_eq!(
        take(&client).await,
        r#"user:7 payments.insert {"id": 1, "note": "a", "amount": 1.50, "user_id": 7}"#
    );
    run(&client, "update payments set note = null").await;
    assert_eq!(
        take(&client).await,
        r#"user:7 payments.update {"id": 1, "note": null, "amount": 1.50, "user_id": 7}"#
    );
    run(&client, "delete from payments").await;
    assert_eq!(
        take(&client).await,
        r#"user:7 payments.delete {"id": 1, "note": null, "amount": 1.50, "user_id": 7}"#
    );
    // What is rolled back was never there; what changes nothing is no news.
    run(
        &client,
        "begin; insert into payments values (2, 7, 1, 'a'); rollback",
    )
    .await;
    run(&client, "insert into payments values (3, 7, 1, 'a')").await;
    take(&client).await;
    run(&client, "update payments set note = note").await;
    assert_eq!(take(&client).await, "");
}

#[tokio::test]
async fn a_row_that_moves_is_told_to_both_topics_and_a_row_of_nobody_to_none() {
    let (_database, client) = with_payments().await;
    run(
        &client,
        "select tidings.watch('payments', 'user:{user_id}', columns => array['id', 'user_id'])",
    )
    .await;
    run(&client, "insert into payments values (1, null, 1, 'a')").await;
    assert_eq!(take(&client).await, "");
    run(&client, "update payments set user_id = 7").await;
    assert_eq!(
        take(&client).await,
        r#"user:7 payments.update {"id": 1, "user_id": 7}"#
    );
    run(&client, "update payments set user_id = 8").await;
    assert_eq!(
        take(&client).await,
        "user:7 payments.update {\"id\": 1, \"user_id\": 8}\nuser:8 payments.update {\"id\": 1, \"user_id\": 8}"
    );
    run(&client, "update payments set user_id = null").await;
    assert_eq!(
        take(&client).await,
        r#"user:8 payments.update {"id": 1, "user_id": null}"#
    );
    run(&client, "delete from payments").await;
    assert_eq!(take(&client).await, "");
}

#[tokio::test]
async fn only_the_named_columns_are_published_and_only_their_changes() {
    let (_database, client) = with_payments().await;
    run(
        &client,
        "select tidings.watch('payments', 'user:{user_id}', 'payment', array['id', 'amount'])",
    )
    .await;
    run(&client, "insert into payments values (1, 7, 1, 'secret')").await;
    run(&client, "update payments set note = 'other'").await;
    run(&client, "update payments set amount = 2").await;
    run(&client, "delete from payments").await;
    assert_eq!(
        take(&client).await,
        r#"user:7 payment.insert {"id": 1, "amount": 1}
user:7 payment.update {"id": 1, "amount": 2}
user:7 payment.delete {"id": 1, "amount": 2}"#
    );
}

#[tokio::test]
async fn values_are_escaped_like_users_and_may_come_from_several_columns() {
    let database = database();
    let client = database.connect().await;
    run(
        &client,
        r#"create table "My docs" ("Org id" text, path text, at date)"#,
    )
    .await;
    run(
        &client,
        r#"select tidings.watch('"My docs"', '{Org id}/doc:{path}:{at}:{path}', 'doc')"#,
    )
    .await;
    for path in ["a b", "x/y", "{at}", "100%"] {
        run(
            &client,
            &format!("insert into \"My docs\" values ('acme', '{path}', '2026-11-20')"),
        )
        .await;
    }
    let topics = "select string_agg(topic, ' ' order by id) from tidings.event";
    assert_eq!(
        text(&client, topics).await,
        "acme/doc:a%20b:2026-11-20:a%20b acme/doc:x%2Fy:2026-11-20:x%2Fy \
         acme/doc:%7Bat%7D:2026-11-20:%7Bat%7D acme/doc:100%25:2026-11-20:100%25"
    );
    let own = "select bool_and(topic like '%doc:' || substr(tidings.user_topic(data ->> 'path'), 6) || ':%') from tidings.event";
    assert_eq!(text(&client, own).await, "true");
}

#[tokio::test]
async fn a_table_may_have_several_watches_and_unwatch_ends_them_all() {
    let (_database, client) = with_payments().await;
    run(&client, "select tidings.watch('payments', 'user:{user_id}'), tidings.watch('payments', 'payments', columns => array['id'])").await;
    // The same topic again replaces.
    run(
        &client,
        "select tidings.watch('payments', 'payments', 'p', array['id'])",
    )
    .await;
    run(&client, "insert into payments values (1, 7, 1, 'a')").await;
    let topics = "select string_agg(topic || ' ' || type, ', ' order by topic) from tidings.event";
    assert_eq!(
        text(&client, topics).await,
        "payments p.insert, user:7 payments.insert"
    );
    take(&client).await;

    run(
        &client,
        "create function mine() returns trigger language plpgsql as 'begin return null; end'",
    )
    .await;
    run(
        &client,
        "create trigger mine after insert on payments for each row execute function mine()",
    )
    .await;
    run(
        &client,
        "select tidings.unwatch('payments'), tidings.unwatch('payments')",
    )
    .await;
    run(&client, "update payments set note = 'b'").await;
    assert_eq!(take(&client).await, "");
    let left =
        "select string_agg(tgname, ' ') from pg_trigger where tgrelid = 'payments'::regclass";
    assert_eq!(text(&client, left).await, "mine");
}

#[tokio::test]
async fn a_partitioned_table_is_watched_as_one() {
    let database = database();
    let client = database.connect().await;
    run(
        &client,
        "create table logs (id int, day int) partition by list (day);
                  create table logs_1 partition of logs for values in (1)",
    )
    .await;
    run(
        &client,
        "select tidings.watch('logs', 'logs'), tidings.watch('logs', 'logs')",
    )
    .await;
    run(
        &client,
        "create table logs_2 partition of logs for values in (2);
                  insert into logs values (1, 1), (2, 2)",
    )
    .await;
    let types = "select string_agg(type || (data ->> 'id'), ' ' order by id) from tidings.event";
    assert_eq!(text(&client, types).await, "logs.insert1 logs.insert2");
    run(
        &client,
        "select tidings.unwatch('logs'); insert into logs values (3, 1)",
    )
    .await;
    assert_eq!(text(&client, types).await, "logs.insert1 logs.insert2");
}

#[tokio::test]
async fn a_watch_that_cannot_work_is_refused_when_it_is_made() {
    let (_database, client) = with_payments().await;
    run(&client, "create view seen as table payments; create table \"Größe\" (id int); create table tidings_ (id int)").await;
    for (arguments, code, part) in [
        ("null, 'a'", "22023", "no such table"),
        ("'seen', 'a'", "22023", "cannot be watched"),
        ("'tidings.event', 'a'", "22023", "cannot be watched"),
        ("'payments', null", "22023", "topic is null"),
        ("'payments', ''", "22023", "topic is empty"),
        ("'payments', 'a b'", "22023", "character"),
        ("'payments', 'user:{}'", "22023", "character"),
        ("'payments', 'user:{id'", "22023", "character"),
        ("'payments', 'user:{nobody}'", "42703", "no column nobody"),
        ("'payments', 'user:{User_id}'", "42703", "no column"),
        ("'payments', 'user:{ctid}'", "42703", "no column"),
        (
            "'payments', 'a', columns => array['id', 'nothing']",
            "42703",
            "no column nothing",
        ),
        (
            "'payments', 'a', columns => array['id', null]",
            "42703",
            "no column null",
        ),
        (
            "'payments', 'a', columns => '{}'",
            "22023",
            "list of columns is empty",
        ),
        ("'payments', 'a', 'b/c'", "22023", "character"),
        ("'payments', 'a', 'tidings'", "22023", "begins with"),
        ("'payments', 'a', repeat('b', 58)", "22023", "58 bytes"),
        ("'\"Größe\"', 'a'", "22023", "character"),
    ] {
        hinted(
            &client,
            &format!("select tidings.watch({arguments})"),
            code,
            part,
        )
        .await;
    }
    let none = "select count(*) from pg_trigger where tgfoid = 'tidings_watch.watch_row'::regproc";
    assert_eq!(text(&client, none).await, "0");
    run(
        &client,
        "select tidings.watch('payments', 'a', repeat('b', 57)); insert into payments values (1)",
    )
    .await;
}

#[tokio::test]
async fn a_column_that_is_gone_fails_the_writer_with_a_hint_and_not_in_silence() {
    let (_database, client) = with_payments().await;
    run(
        &client,
        "select tidings.watch('payments', 'user:{user_id}', columns => array['id', 'note'])",
    )
    .await;
    run(&client, "alter table payments rename note to remark").await;
    hinted(
        &client,
        "insert into payments values (1, 7, 1, 'a')",
        "42703",
        "no longer has",
    )
    .await;
    run(
        &client,
        "alter table payments rename remark to note; alter table payments rename user_id to owner",
    )
    .await;
    hinted(
        &client,
        "insert into payments values (1, 7, 1, 'a')",
        "42703",
        "no longer has",
    )
    .await;
    assert_eq!(take(&client).await, "");
    assert_eq!(text(&client, "select count(*) from payments").await, "0");
}

#[tokio::test]
async fn who_writes_a_watched_table_needs_no_right_to_publish() {
    let (_database, client) = with_payments().await;
    run(
        &client,
        "select tidings.watch('payments', 'user:{user_id}')",
    )
    .await;
    // A predefined role that everyone's cluster has stands for the writer.
    run(
        &client,
        "grant insert, select, update, delete on payments to pg_monitor; set role pg_monitor",
    )
    .await;
    run(&client, "insert into payments values (1, 7, 1, 'a'); update payments set user_id = 8; delete from payments").await;
    assert_eq!(
        refusal(&client, "select tidings.publish('a', 'b')")
            .await
            .code,
        "42501"
    );
    run(&client, "reset role").await;
    assert_eq!(
        text(&client, "select count(*) from tidings.event").await,
        "4"
    );
}

#[tokio::test]
async fn a_publisher_watches_its_own_tables_and_nobody_elses() {
    let (_database, client) = with_payments().await;
    run(
        &client,
        "grant create on schema public to public; set role tidings_publisher",
    )
    .await;
    assert_eq!(
        refusal(&client, "select tidings.watch('payments', 'a')")
            .await
            .code,
        "42501"
    );
    run(&client, "create table mine (id int); select tidings.watch('mine', 'a'); insert into mine values (1)").await;
    run(
        &client,
        "reset role; set role pg_monitor; create table theirs (id int)",
    )
    .await;
    assert_eq!(
        refusal(&client, "select tidings.watch('theirs', 'a')")
            .await
            .code,
        "42501"
    );
    let by_hand = "create trigger t after insert on theirs for each row execute function tidings_watch.watch_row('a', 'b')";
    assert_eq!(refusal(&client, by_hand).await.code, "42501");
    run(&client, "reset role").await;
    assert_eq!(take(&client).await, r#"a mine.insert {"id": 1}"#);
}

#[tokio::test]
async fn code_of_a_watched_tables_owner_runs_with_the_rights_of_a_role_that_has_hardly_any() {
    let database = database();
    let client = database.connect().await;
    // Converting a row to JSON calls casts that whoever owns a type may have written.
    run(&client, "
        create type mood as enum ('calm');
        create table rights (taken_by text, may_read boolean);
        grant insert on rights to public;
        create function mood_json(m mood) returns json language plpgsql as $$
        begin
            insert into public.rights values (current_user, has_table_privilege('tidings.secret', 'select'));
            return '{}';
        end $$;
        create cast (mood as json) with function mood_json(mood);
        create table moods (id int, m mood);
        select tidings.watch('moods', 'a');
        insert into moods values (1, 'calm')").await;
    assert_eq!(
        text(
            &client,
            "select distinct format('%s %s', taken_by, may_read) from rights"
        )
        .await,
        "tidings_watcher f"
    );
}

#[tokio::test]
async fn a_row_that_cannot_be_published_aborts_the_statement_that_wrote_it() {
    let (_database, client) = with_payments().await;
    run(
        &client,
        "select tidings.watch('payments', 'user:{user_id}/{note}', columns => array['id'])",
    )
    .await;
    // Every one of these characters takes six of the topic's 255 bytes.
    let too_long = "insert into payments values (1, 7, 1, repeat('é', 42))";
    hinted(&client, too_long, "22023", "the topic is 259 bytes long").await;
    run(
        &client,
        "select tidings.unwatch('payments'), tidings.watch('payments', 'a')",
    )
    .await;
    let too_large = "insert into payments values (1, 7, 1, repeat('x', 262144))";
    hinted(&client, too_large, "22023", "the data is").await;
    assert_eq!(text(&client, "select count(*) from payments").await, "0");
    // The columns that readers need are small.
    run(
        &client,
        "select tidings.watch('payments', 'a', columns => array['id'])",
    )
    .await;
    run(&client, too_large).await;
    assert_eq!(take(&client).await, r#"a payments.insert {"id": 1}"#);
}
