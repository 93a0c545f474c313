//! Taking over watches: all of them share one trigger function, so whoever could alter it would run code as
//! whoever writes any watched table. Neither a publisher can, nor code that the function itself runs.

use tokio_postgres::{Client, NoTls};

use crate::sql::{refusal, run, text};
use crate::support::postgres::{Database, OwnCluster, own_cluster};

/// What would take the trigger function over, or bring one nearer to it.
const ATTEMPTS: [&str; 10] = [
    "alter function tidings_watch.watch_row() security invoker",
    "alter function tidings_watch.watch_row() set search_path = evil, pg_catalog",
    "alter function tidings_watch.watch_row() owner to mallory",
    "alter function tidings_watch.watch_row() rename to watched",
    "create or replace function tidings_watch.watch_row() returns trigger language plpgsql as 'begin return null; end'",
    "reassign owned by tidings_watcher to mallory",
    "grant tidings_watcher to mallory",
    "alter role tidings_watcher inherit",
    "set role tidings_watcher",
    "alter role mallory superuser",
];

/// A superuser watches the table `payments`; mallory may publish, has a schema, and is otherwise nobody.
async fn watched_by_a_superuser() -> (OwnCluster, Database, Client, Client) {
    // Roles belong to the cluster, and mallory is not to be met by other tests.
    let server = own_cluster(&[("fsync", "off")]);
    let database = server.database();
    let admin = database.connect().await;
    run(
        &admin,
        "create role mallory login; grant tidings_publisher to mallory; create schema evil authorization mallory;
         create table payments (id int); select tidings.watch('payments', 'payments')",
    )
    .await;
    let (mallory, connection) = tokio_postgres::connect(&database.url_as("mallory"), NoTls)
        .await
        .expect("a session");
    tokio::spawn(connection);
    (server, database, admin, mallory)
}

/// The watch on `payments` publishes, with the trigger function as it was.
async fn is_untouched(admin: &Client) {
    run(
        admin,
        "truncate tidings.event; insert into payments values (1)",
    )
    .await;
    let published = "select string_agg(topic || ' ' || data, ', ') from tidings.event";
    assert_eq!(text(admin, published).await, r#"payments {"id": 1}"#);
    let function =
        "select proowner::regrole || ' ' || prosecdef || ' ' || array_to_string(proconfig, ';')
                    from pg_proc where oid = 'tidings_watch.watch_row'::regproc";
    assert_eq!(
        text(admin, function).await,
        "tidings_watcher true search_path=pg_catalog, pg_temp"
    );
    let risen = "select string_agg(rolname, ' ') from pg_roles where rolsuper and oid <> 10";
    assert_eq!(text(admin, risen).await, "null");
}

#[tokio::test]
async fn a_publisher_cannot_alter_what_others_watches_run() {
    let (_server, _database, admin, mallory) = watched_by_a_superuser().await;
    let removals = [
        "drop function tidings_watch.watch_row() cascade",
        "drop schema tidings_watch cascade",
        "drop owned by tidings_watcher cascade",
        "drop trigger tidings_watch_1 on payments",
        "select tidings.unwatch('payments')",
    ];
    for attempt in ATTEMPTS.iter().chain(&removals[..3]) {
        assert_eq!(refusal(&mallory, attempt).await.code, "42501", "{attempt}");
    }
    for attempt in &removals[3..] {
        refusal(&mallory, attempt).await;
    }
    is_untouched(&admin).await;
}

#[tokio::test]
async fn a_cast_that_runs_as_the_functions_owner_cannot_alter_it() {
    let (_server, _database, admin, mallory) = watched_by_a_superuser().await;
    let attempts = ATTEMPTS
        .map(|attempt| format!("$a${attempt}$a$"))
        .join(", ");
    run(
        &mallory,
        &format!(
            "grant usage on schema evil to public;
             create table evil.attempt (done_by text, code text);
             grant insert on evil.attempt to public;
             create type evil.mood as enum ('calm');
             create function evil.mood_json(m evil.mood) returns json language plpgsql as $f$
             declare
                 attempt text;
             begin
                 foreach attempt in array array[{attempts}] loop
                     begin
                         execute attempt;
                         insert into evil.attempt values (current_user, attempt);
                     exception when others then
                         insert into evil.attempt values (current_user, sqlstate);
                     end;
                 end loop;
                 return '{{}}';
             end
             $f$;
             create cast (evil.mood as json) with function evil.mood_json(evil.mood);
             create table evil.moods (m evil.mood);
             select tidings.watch('evil.moods', 'moods')"
        ),
    )
    .await;
    // Who may pass on a publisher's rights tries to lend them to the function's owner, the right to name it among them.
    run(
        &admin,
        "create role deputy; grant tidings_publisher to deputy; grant deputy to mallory with admin option",
    )
    .await;
    run(&mallory, "grant deputy to tidings_watcher").await;
    run(&admin, "insert into evil.moods values ('calm')").await;
    let outcome = "select string_agg(distinct done_by || ' ' || code, ', ') || ' ' || count(*) from evil.attempt";
    assert_eq!(
        text(&admin, outcome).await,
        format!("tidings_watcher 42501 {}", ATTEMPTS.len())
    );
    is_untouched(&admin).await;
}

#[tokio::test]
async fn nothing_of_a_publishers_own_runs_as_the_owner_of_publish() {
    let (_server, _database, admin, mallory) = watched_by_a_superuser().await;
    // Whatever publish and its table name, found first: by the path, and as temporary tables, whose types come before all.
    run(
        &mallory,
        "create table evil.seen (who text); grant insert on evil.seen to public; grant usage on schema evil to public;
         create function evil.see() returns int language plpgsql as
             $f$ begin insert into evil.seen values (current_user); return 0; end $f$;
         create function evil.octet_length(text) returns int language sql as 'select evil.see()';
         create function evil.pg_notify(text, text) returns void language sql as 'select evil.see()';
         create function evil.nextval(regclass) returns bigint language sql as 'select evil.see()';
         create function evil.clock_timestamp() returns timestamptz language sql as 'select evil.see(); select now()';
         create function evil.pg_current_xact_id() returns xid8 language sql as $f$ select evil.see(); select xid8 '1' $f$;
         create function evil.as_text(jsonb) returns text language sql as $f$ select evil.see(); select '' $f$;
         create domain evil.text as pg_catalog.text check (evil.see() = 0);
         create domain evil.jsonb as pg_catalog.jsonb check (evil.see() = 0);
         create domain evil.int8 as pg_catalog.int8 check (evil.see() = 0);
         create function evil.matches(text, text) returns boolean language sql as 'select evil.see() = 0';
         create operator evil.~ (leftarg = text, rightarg = text, function = evil.matches);
         create temp table jsonb (a int); create temp table text (a int); create temp table event (a int)",
    )
    .await;
    for path in ["evil, pg_catalog", "pg_temp, evil, pg_catalog", "evil", ""] {
        run(
            &mallory,
            &format!(
                "set search_path = {}",
                if path.is_empty() { "''" } else { path }
            ),
        )
        .await;
        run(
            &mallory,
            "select tidings.publish('t', 'n', '{\"a\": 1}'); select tidings.publish('t', 'n', null, 'key ' || random())",
        )
        .await;
    }
    let seen = "select string_agg(distinct who, ' ') from evil.seen where who <> 'mallory'";
    assert_eq!(text(&admin, seen).await, "null");
    let published =
        "select count(*) from tidings.event where topic = 't' and bytes = octet_length(data::text)";
    assert_eq!(text(&admin, published).await, "8");
}
