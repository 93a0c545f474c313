//! Migrating: by many at once, on a database that is not ours to touch, and on one that came from elsewhere.

use tidings::dev::cluster::StopMode;
use tidings::postgres::migrate::{MigrateError, adopt, check, migrate};
use tokio_postgres::Client;

use crate::sql::{run, text};
use crate::support::postgres::{Database, database, empty_database, own_cluster};

/// What `migrate` applies to an empty database.
const COUNT: usize = 7;

async fn migrated(database: &Database) -> Result<Vec<&'static str>, MigrateError> {
    migrate(&mut database.connect().await).await
}

/// Every object of the schema with its definition, so that two databases can be compared.
async fn shape(client: &Client) -> String {
    text(client, "select md5(string_agg(d, e'\\n' order by d)) from (
        select pg_get_functiondef(oid) || coalesce(proacl::text, '') from pg_proc where pronamespace in ('tidings'::regnamespace, 'tidings_watch'::regnamespace)
        union all
        select relname::text || relkind::text || coalesce(relacl::text, '') from pg_class where relnamespace = 'tidings'::regnamespace
    ) as t (d)").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_at_once_apply_each_migration_once() {
    let database = empty_database();
    let all = futures::future::join_all((0..8).map(|_| migrated(&database))).await;
    let mut applied: Vec<_> = all
        .into_iter()
        .flat_map(|one| one.expect("migrated"))
        .collect();
    assert_eq!(applied.len(), COUNT);
    assert!(applied.is_sorted());
    applied.dedup();
    assert_eq!(applied.len(), COUNT);
    let client = database.connect().await;
    check(&client).await.expect("complete");
    let locks = "select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())";
    assert_eq!(text(&client, locks).await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_databases_of_a_new_cluster_may_be_migrated_at_once() {
    // Roles belong to the cluster, so that here they meet.
    let server = own_cluster(&[("fsync", "off")]);
    let url = server.cluster.url("postgres");
    let mut clients = Vec::new();
    for number in 0..8 {
        let admin = connect(&url).await;
        run(&admin, &format!("create database d{number}")).await;
        clients.push(connect(&server.cluster.url(&format!("d{number}"))).await);
    }
    let all = futures::future::join_all(clients.iter_mut().map(migrate)).await;
    for applied in all {
        assert_eq!(applied.expect("migrated").len(), COUNT);
    }
    let shapes = futures::future::join_all(clients.iter().map(shape)).await;
    assert!(shapes.iter().all(|one| *one == shapes[0]));
    let granted = "has_function_privilege('tidings_publisher', 'tidings.publish(text,text,jsonb,text)', 'execute')
                   and has_table_privilege('tidings_gateway', 'tidings.event', 'select')";
    for client in &clients {
        assert_eq!(text(client, granted).await, "true");
    }
}

#[tokio::test]
async fn whoever_may_not_make_roles_migrates_all_the_same() {
    let server = own_cluster(&[("fsync", "off")]);
    let admin = connect(&server.cluster.url("postgres")).await;
    run(
        &admin,
        "create role plain login; create role maker login createrole",
    )
    .await;
    for owner in ["plain", "maker"] {
        run(&admin, &format!("create database {owner} owner {owner}")).await;
        let url = server.cluster.url(owner);
        let (_, host) = url.rsplit_once('@').expect("a user");
        let mut client = connect(&format!("postgres://{owner}@{host}")).await;
        assert_eq!(migrate(&mut client).await.expect("migrated").len(), COUNT);
        run(
            &client,
            "select tidings.publish('a', 'b'), tidings.cursor(), tidings.trim('1 day')",
        )
        .await;
        run(
            &client,
            "create table t (id int); select tidings.watch('t', 'a'); insert into t values (1)",
        )
        .await;
        assert_eq!(
            text(&client, "select count(*) from tidings.event").await,
            "2"
        );
        let roles = "select count(*) from pg_roles where rolname in ('tidings_publisher', 'tidings_gateway', 'tidings_watcher')";
        assert_eq!(
            text(&client, roles).await,
            if owner == "plain" { "0" } else { "3" }
        );
        let runs_as = "select proowner::regrole from pg_proc where proname = 'watch_row'";
        let expected = if owner == "plain" {
            "plain"
        } else {
            "tidings_watcher"
        };
        assert_eq!(text(&client, runs_as).await, expected);
        // Giving the function away took a membership, which must not stay.
        let members = "select count(*) from pg_auth_members where roleid = to_regrole('tidings_watcher') and member <> 10 and pg_has_role(member, roleid, 'usage')";
        assert_eq!(text(&client, members).await, "0");
    }
    // Once there are roles, the grants can be made up for.
    let url = server.cluster.url("plain");
    let (_, host) = url.rsplit_once('@').expect("a user");
    let client = connect(&format!("postgres://plain@{host}")).await;
    run(&client, "select tidings.grant_roles()").await;
    let granted = "has_function_privilege('tidings_publisher', 'tidings.publish(text,text,jsonb,text)', 'execute')";
    assert_eq!(text(&client, granted).await, "true");
    // But not yet for watches: those of others would run their code with the rights of this owner.
    let watches =
        "has_function_privilege('tidings_publisher', 'tidings_watch.watch_row()', 'execute')";
    assert_eq!(text(&client, watches).await, "false");
    let admin = connect(&server.cluster.url("plain")).await;
    run(&admin, "alter role tidings_watcher inherit").await;
    run(&admin, "select tidings.grant_roles()").await;
    let runs_as = "select proowner::regrole from pg_proc where proname = 'watch_row'";
    assert_eq!(text(&admin, runs_as).await, "plain");
    run(&admin, "alter role tidings_watcher noinherit").await;
    run(&admin, "select tidings.grant_roles()").await;
    assert_eq!(text(&admin, runs_as).await, "tidings_watcher");
    assert_eq!(text(&client, watches).await, "true");
    // The owner may watch as before, and repeat the grants.
    run(
        &client,
        "select tidings.grant_roles(), tidings.unwatch('t'), tidings.watch('t', 'b'); insert into t values (2)",
    )
    .await;
    assert_eq!(
        text(
            &client,
            "select topic from tidings.event order by id desc limit 1"
        )
        .await,
        "b"
    );
}

#[tokio::test]
async fn a_database_that_is_newer_or_altered_is_refused_and_left_alone() {
    for (change, word) in [
        (
            "insert into tidings.migration values (9000, '9000_future', 'x')",
            "newer",
        ),
        (
            "update tidings.migration set checksum = repeat('0', 64) where version = 2",
            "0002_publish",
        ),
        (
            "update tidings.migration set name = '0003_other' where version = 3",
            "0003_cursor",
        ),
        (
            "delete from tidings.migration where version = 1",
            "0001_log",
        ),
    ] {
        let database = database();
        let mut client = database.connect().await;
        run(&client, change).await;
        let before = (
            shape(&client).await,
            text(
                &client,
                "select md5(string_agg(m::text, ' ')) from tidings.migration m",
            )
            .await,
        );
        for refused in [
            migrate(&mut client).await.map(|_| ()),
            check(&client).await,
            adopt(&mut client).await,
        ] {
            let error = refused.expect_err(change);
            assert!(
                matches!(
                    error,
                    MigrateError::Newer { .. } | MigrateError::Altered { .. }
                ),
                "{change}: {error}"
            );
            assert!(error.to_string().contains(word), "{change}: {error}");
        }
        let after = (
            shape(&client).await,
            text(
                &client,
                "select md5(string_agg(m::text, ' ')) from tidings.migration m",
            )
            .await,
        );
        assert_eq!(before, after);
    }
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_and_can_be_repeated() {
    let database = empty_database();
    let mut client = database.connect().await;
    // Somebody has a table of that name already.
    run(
        &client,
        "create schema tidings; create table tidings.state (mine text)",
    )
    .await;
    let error = migrate(&mut client).await.expect_err("in the way");
    assert!(
        matches!(
            error,
            MigrateError::Failed {
                name: "0001_log",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(text(&client, "to_regclass('tidings.event')").await, "null");
    assert_eq!(
        text(&client, "select count(*) from tidings.migration").await,
        "0"
    );
    let behind = check(&client).await.expect_err("behind");
    assert!(
        matches!(&behind, MigrateError::Behind { missing } if missing.len() == COUNT),
        "{behind}"
    );
    assert!(behind.to_string().contains("tidings migrate"), "{behind}");
    run(&client, "drop table tidings.state").await;
    assert_eq!(migrate(&mut client).await.expect("migrated").len(), COUNT);
    assert!(migrate(&mut client).await.expect("complete").is_empty());
}

#[tokio::test]
async fn an_empty_database_is_behind_and_a_gateways_role_may_ask() {
    let database = empty_database();
    let client = database.connect().await;
    assert!(matches!(
        check(&client).await,
        Err(MigrateError::Behind { .. })
    ));
    migrated(&database).await.expect("migrated");
    run(&client, "set role tidings_gateway").await;
    check(&client).await.expect("complete");
}

#[tokio::test]
async fn the_lock_of_another_migration_is_not_waited_for_inside_a_statement() {
    let database = empty_database();
    let (other, watcher) = tokio::join!(database.connect(), database.connect());
    run(&other, "select pg_advisory_lock(8386654097862812521)").await;
    let mut client = database.connect().await;
    let pid = text(&client, "pg_backend_pid()").await;
    let asks = format!(
        "select state || ' ' || (query like '%pg_try_advisory_lock%') || ' ' || (backend_xmin is null) from pg_stat_activity where pid = {pid}"
    );
    let (applied, ()) = tokio::join!(migrate(&mut client), async {
        // It holds no snapshot between two tries.
        while text(&watcher, &asks).await != "idle true true" {
            tokio::task::yield_now().await;
        }
        run(&other, "select pg_advisory_unlock(8386654097862812521)").await;
    });
    assert_eq!(applied.expect("migrated").len(), COUNT);
}

#[tokio::test]
async fn a_standby_is_refused() {
    let mut server = own_cluster(&[("fsync", "off")]);
    let database = server.database();
    let url = database.url();
    let postgres = server.cluster.url("postgres");
    server.cluster.stop(StopMode::Fast).expect("stopped");
    let signal = server.cluster.data().join("standby.signal");
    std::fs::write(signal, "").expect("a standby");
    server.cluster.start_again().expect("started");
    // Both on a database that is complete and on one that is not.
    for url in [url, postgres] {
        let mut client = connect(&url).await;
        for refused in [
            migrate(&mut client).await.map(|_| ()),
            check(&client).await,
            adopt(&mut client).await,
        ] {
            let error = refused.expect_err("a standby");
            assert!(matches!(error, MigrateError::Standby), "{error}");
        }
    }
}

#[tokio::test]
async fn rows_of_another_cluster_are_refused_until_they_are_adopted() {
    for foreign in [
        "insert into tidings.event (xid, topic, type) values ('99000000000', 'a', 'b')",
        "insert into tidings.event (id, topic, type) values (99000000000, 'a', 'b')",
        "update tidings.floor set xid = '99000000000'",
        "update tidings.floor set snapshot = '99000000000:99000000000:'",
    ] {
        let database = database();
        let mut client = database.connect().await;
        let old = text(&client, "tidings.publish('a', 'b', key => 'k')").await;
        run(&client, foreign).await;
        for refused in [migrate(&mut client).await.map(|_| ()), check(&client).await] {
            let error = refused.expect_err(foreign);
            assert!(matches!(error, MigrateError::Foreign), "{foreign}: {error}");
            assert!(
                error.to_string().contains("tidings migrate --adopt"),
                "{error}"
            );
        }
        let highest = text(&client, "select max(id) from tidings.event").await;
        adopt(&mut client).await.expect("adopted");
        check(&client).await.expect("native");
        assert_eq!(
            text(&client, "select count(*) from tidings.event").await,
            "0"
        );
        // The floor is above all that ever was, sees all that is over, and is what a cursor of the empty log names.
        let floor = format!(
            "select id > {highest} and xid < pg_snapshot_xmax(snapshot) and pg_snapshot_xmax(snapshot) <= pg_snapshot_xmax(pg_current_snapshot()) from tidings.floor"
        );
        assert_eq!(text(&client, &floor).await, "true");
        let anchor = "select tidings.cursor() like '%~' || id || '.' || tag from tidings.floor";
        assert_eq!(text(&client, anchor).await, "true");
        // Ids go on above it; keys are remembered.
        let next = "select tidings.publish('a', 'b') > id from tidings.floor";
        assert_eq!(text(&client, next).await, "true");
        assert_eq!(
            text(&client, "tidings.publish('a', 'b', key => 'k')").await,
            old
        );
        check(&client).await.expect("native");
    }
}

#[tokio::test]
async fn adopting_waits_for_open_publishers_without_holding_up_others() {
    let database = database();
    let (mut client, open, other, watcher) = tokio::join!(
        database.connect(),
        database.connect(),
        database.connect(),
        database.connect()
    );
    run(&open, "begin; select tidings.publish('a', 'lost')").await;
    run(&other, "set lock_timeout = '100ms'").await;
    let tries = "select count(*) from pg_stat_activity where query like '%select tidings.adopt()%' and datname = current_database() and pid <> pg_backend_pid()";
    let (adopted, ()) = tokio::join!(adopt(&mut client), async {
        while text(&watcher, tries).await == "0" {
            tokio::task::yield_now().await;
        }
        for _ in 0..50 {
            run(&other, "select tidings.publish('a', 'lost')").await;
        }
        run(&open, "commit").await;
    });
    adopted.expect("adopted");
    assert_eq!(
        text(&watcher, "select count(*) from tidings.event").await,
        "0"
    );
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .unwrap_or_else(|error| panic!("{url}: {error}"));
    tokio::spawn(connection);
    client
}
