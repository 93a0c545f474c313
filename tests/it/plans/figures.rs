//! The times of docs/performance.md.

use tokio_postgres::Client;

use super::log::{Log, PAGE, SETTINGS, begin_many, bulk, log_of_days, reader};
use crate::support::backend::run;
use crate::support::postgres::own_cluster;

/// Events of the log by which times are measured.
const MANY: i64 = 1_000_000;

/// The median of seven executions, in milliseconds.
async fn time(client: &Client, name: &str, arguments: &str) {
    let mut times = Vec::new();
    for _ in 0..7 {
        let begun = std::time::Instant::now();
        run(client, &format!("execute {name} ({arguments})")).await;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    eprintln!(
        "{:9.2} ms  {name} ({})",
        times[3],
        arguments.chars().take(70).collect::<String>()
    );
}

#[tokio::test]
#[ignore = "tells the times of docs/performance.md and judges nothing"]
async fn figures() {
    let cluster = own_cluster(&SETTINGS);
    let database = log_of_days(&cluster, 30).await;
    let backend = database.connect().await;
    let xid = bulk(&backend, MANY).await;
    run(&backend, "analyze tidings.event").await;
    for crowd in ["nothing in progress", "300 transactions in progress"] {
        let log = Log::read(&backend).await;
        let client = reader(&database).await;
        let Log {
            snapshot,
            xmax,
            xip,
            newest,
            ..
        } = &log;
        let leg = format!("'{snapshot}', 0, {newest}, {PAGE}, 262144, {newest}, {newest}");
        let invented: Vec<String> = (1..700).map(|n: i64| n.to_string()).collect();
        eprintln!("{crowd}, one commit of {MANY} events:");
        time(
            &client,
            "look",
            &format!("'{xmax}', '{xip}', {newest}, false, 5000, 8388608"),
        )
        .await;
        time(
            &client,
            "look",
            &format!("'{xid}', '{{}}', 0, false, 5000, 8388608"),
        )
        .await;
        // That is more than a page: what the glance before that look costs in vain.
        time(
            &client,
            "glance",
            &format!("'{xid}', '{{}}', 0, null, 5000, 8388608"),
        )
        .await;
        time(
            &client,
            "look",
            &format!("'{xmax}', '{{{xid}}}', {newest}, false, 5000, 8388608"),
        )
        .await;
        time(
            &client,
            "rest",
            &format!("'{xid}', '{{}}', 0, {newest} / 2, 5000, 8388608, '{snapshot}', {newest}"),
        )
        .await;
        time(
            &client,
            "replay",
            &format!("'{{t1}}', '{xmax}', '{xip}', {newest}, {leg}"),
        )
        .await;
        time(
            &client,
            "replay",
            &format!("'{{t1}}', '{xid}', '{{}}', 0, {leg}"),
        )
        .await;
        time(
            &client,
            "replay",
            &format!(
                "'{{t1}}', '700', '{{{}}}', {newest}, {leg}",
                invented.join(",")
            ),
        )
        .await;
        if crowd.starts_with("nothing") {
            begin_many(&backend).await;
            run(&backend, "select pg_current_xact_id()").await;
        }
    }
}
