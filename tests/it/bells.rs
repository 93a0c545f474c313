//! The doorbell and the lock of an awake gateway: while somebody holds it nobody rings, and events come
//! all the same; released, or lost with its holder, the bell rings again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use crate::support::backend::{publish, run, until};
use crate::support::gateway::Gateway;
use crate::support::postgres::database;

const AWAKE: i64 = 8_386_654_097_862_812_519;

#[tokio::test]
async fn while_somebody_is_awake_nobody_rings_and_events_come_by_looking() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let backend = database.connect().await;
    let mut stream = gateway.subscribe(&["t"]).await;
    let bells = async || gateway.metric("tidings_bells_total").await;
    let mut rung = bells().await;
    let mut ring_and_expect = async |expected: f64| {
        let id = publish(&backend, "t").await;
        assert_eq!(stream.ids(1).await, [id]);
        let now = bells().await;
        assert_eq!(now - rung, expected);
        rung = now;
    };

    ring_and_expect(1.0).await;
    let awake = database.connect().await;
    run(&awake, &format!("select pg_advisory_lock({AWAKE})")).await;
    ring_and_expect(0.0).await;
    run(&awake, &format!("select pg_advisory_unlock({AWAKE})")).await;
    ring_and_expect(1.0).await;

    // Whoever is awake and dies is so no longer.
    run(&awake, &format!("select pg_advisory_lock({AWAKE})")).await;
    let pid: i32 = awake
        .query_one("select pg_backend_pid()", &[])
        .await
        .expect("a pid")
        .get(0);
    run(&backend, &format!("select pg_terminate_backend({pid})")).await;
    until(
        &backend,
        &format!("select not exists (select from pg_stat_activity where pid = {pid})"),
    )
    .await;
    ring_and_expect(1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_who_are_cancelled_anywhere_leave_no_lock_behind() {
    let database = database();
    let backend = database.connect().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let (client, stop) = (database.connect().await, stop.clone());
        writers.spawn(async move {
            let mut cancelled = 0;
            while !stop.load(Ordering::Relaxed) {
                // Most of what it does is asking whether somebody is awake.
                let many = "select tidings.publish('t', 'k') from generate_series(1, 200)";
                cancelled += usize::from(client.batch_execute(many).await.is_err());
            }
            (client, cancelled)
        });
    }
    let pids = "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    for _ in 0..150 {
        run(
            &backend,
            &format!("select pg_cancel_backend(pid) from ({pids}) p where random() < 0.5"),
        )
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let writers = writers.join_all().await;
    let cancelled: usize = writers.iter().map(|(_, cancelled)| cancelled).sum();
    assert!(cancelled > 20, "{cancelled}");
    // Their sessions are still open, so that a lock of theirs would be seen.
    let free = "select count(*) from pg_locks l join pg_database d on d.oid = l.database
        where locktype = 'advisory' and datname = current_database()";
    let locks: i64 = backend.query_one(free, &[]).await.expect("counts").get(0);
    assert_eq!(locks, 0);
    let query = format!("select pg_try_advisory_lock({AWAKE})");
    let awake: bool = backend.query_one(&query, &[]).await.expect("asks").get(0);
    assert!(awake, "a gateway could not wake up");
}
