//! Gateways are killed, told to end, and stopped for a minute, each with a thousand streams and under
//! load: clients notice, come back at the other by their cursors, and nothing is lost or doubled.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::readers::Habit;
use crate::rig::{PLAN, Plan, Rig};
use crate::support::backend::run;
use crate::support::client::PATIENCE;
use crate::support::gateway::Door;
use crate::throng::{TOPIC, Tale, Throng, published};

const THRONG: usize = 1_000;

/// How long a gateway may take to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Takes the lock that a gateway holds while it is awake.
const AWAKE: &str = "select pg_advisory_lock(8386654097862812519)";

/// How long an event may take that nobody rang for: a second, and what a busy machine adds.
const DELAY: Duration = Duration::from_secs(3);

/// Fewer heavy clients beside the throng, and beats that a busy machine can send to all.
const BESIDE: Plan<'static> = Plan {
    gateways: &[
        &["--heartbeat=2s", "--replay=100000", "--drain=10s"],
        &["--heartbeat=2s", "--replay=100000", "--drain=10s"],
    ],
    publishers: 3,
    readers: 12,
    ..PLAN
};

/// How often streams ended for each reason.
fn ends(tales: &[Tale]) -> BTreeMap<&str, usize> {
    let mut ends = BTreeMap::new();
    for (why, ..) in tales.iter().flat_map(|tale| &tale.ends) {
        *ends.entry(why.as_str()).or_default() += 1;
    }
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_killed_with_a_thousand_streams() {
    let mut rig = Rig::start("gateway-killed", BESIDE).await;
    let throng = Throng::gather(&rig, THRONG).await;
    let client = rig.session().await;
    for (dies, other) in [(0, 1), (1, 0)] {
        throng.tell(&rig, &client, "before").await;
        rig.load_for(Duration::from_secs(1)).await;
        rig.kill_gateway(dies);
        throng.tell(&rig, &client, "meanwhile").await;
        let back = throng.is_at(other, &rig).await;
        println!("all of {THRONG} are back after {back:.1?}");
        rig.start_gateway(dies).await;
        rig.recovers().await;
    }
    let tales = throng.end(&rig, &client).await;
    let ends = ends(&tales);
    assert!(ends["broken"] >= 2 * THRONG, "{ends:?}");
    let verdict = rig.settle().await;
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
    assert!(verdict.times("ends, broken") > 0, "{verdict}");
    assert_eq!(verdict.times("ends, refused"), 0, "{verdict}");
}

/// Waits until a gateway says that it is not ready.
async fn until_unready(door: Door) -> Instant {
    let deadline = Instant::now() + PATIENCE;
    while door.ops("/readyz").await.status != 503 {
        assert!(Instant::now() < deadline, "still ready");
        sleep(Duration::from_millis(5)).await;
    }
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_told_to_end_with_a_thousand_streams() {
    let mut rig = Rig::start("gateway-told-to-end", BESIDE).await;
    let throng = Throng::gather(&rig, THRONG).await;
    let client = rig.session().await;
    throng.tell(&rig, &client, "before").await;
    rig.load_for(Duration::from_secs(1)).await;
    rig.fault("gateway 0 is told to end");
    let leaving = rig.take_gateway(0);
    let door = leaving.door();
    let told = Instant::now();
    leaving.signal("TERM");
    let unready = until_unready(door).await;
    let ended = tokio::spawn(async move {
        let status = leaving.ended().await;
        (status, told.elapsed())
    });
    while !ended.is_finished() {
        throng.tell(&rig, &client, "meanwhile").await;
        sleep(Duration::from_millis(200)).await;
    }
    let (status, lasted) = ended.await.expect("it is waited for");
    assert_eq!(status.code(), Some(0), "{}", rig.context());
    assert!(lasted < DRAIN + Duration::from_secs(3), "{lasted:?}");
    throng.is_at(1, &rig).await;
    rig.start_gateway(0).await;
    rig.recovers().await;

    let tales = throng.end(&rig, &client).await;
    let ends = ends(&tales);
    // Who did not get there in time is cut at the end, and there was time.
    assert_eq!(ends, BTreeMap::from([("drain", THRONG)]));
    let moments = tales.iter().flat_map(|tale| &tale.ends).map(|end| end.2);
    let (first, last) = (moments.clone().min(), moments.max());
    let (first, last) = (first.expect("some"), last.expect("some"));
    assert!(unready < first, "not ready comes before the first good-bye");
    assert!(last - first > DRAIN / 4, "spread: {:?}", last - first);
    println!(
        "{THRONG} good-byes from {:.1?} to {:.1?} after the signal; it ended after {lasted:.1?}",
        first - told,
        last - told
    );
    let verdict = rig.settle().await;
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
    for why in ["broken", "refused"] {
        let ended = verdict.times(&format!("ends, {why}"));
        assert_eq!(ended, 0, "nobody is cut: {verdict}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_stopped_for_a_minute_with_a_thousand_streams_and_goes_on() {
    let rig = Rig::start("gateway-stopped", BESIDE).await;
    let throng = Throng::gather(&rig, THRONG).await;
    let client = rig.session().await;
    // These have no watchdog, and stay with it.
    let mut steadfast = Vec::new();
    for _ in 0..20 {
        let stream = rig.gateway(0).resume(&[TOPIC], Some(&throng.start)).await;
        steadfast.push((stream, Vec::new()));
    }
    throng.tell(&rig, &client, "before").await;
    rig.load_for(Duration::from_secs(1)).await;
    // A gateway that is awake has told publishers not to ring, and is stopped before it can say otherwise.
    let awake = rig.session().await;
    run(&awake, AWAKE).await;
    let mut witness = rig.gateway(1).subscribe(&[TOPIC]).await;
    rig.fault("gateway 0 is stopped, as if awake");
    rig.gateway(0).signal("STOP");
    let stopped = Instant::now();
    sleep(Duration::from_secs(2)).await;
    rig.fault("a load balancer notices");
    rig.close_door(0);
    while stopped.elapsed() < Duration::from_secs(60) {
        throng.tell(&rig, &client, "meanwhile").await;
        let told = timeout(DELAY, witness.ids(1)).await;
        assert!(told.is_ok(), "{}", rig.context());
        sleep(Duration::from_secs(1)).await;
    }
    run(&awake, "select pg_advisory_unlock_all()").await;
    throng.is_at(1, &rig).await;
    // The other one was well all the time.
    rig.recovers().await;
    let missed = published(&client).await.len();
    rig.fault("gateway 0 goes on");
    rig.gateway(0).signal("CONT");
    let continued = Instant::now();
    rig.open_door(0);
    assert_eq!(rig.gateway(0).ops("/readyz").await.status, 200);
    let expected = published(&client).await;
    let mut returned = 0;
    for (stream, ids) in &mut steadfast {
        let read = async {
            while ids.len() < missed {
                match stream.next().await {
                    Some(block) => ids.extend(block.event_id()),
                    None => {
                        let cursor = stream.cursor().to_owned();
                        *stream = rig.gateway(0).resume(&[TOPIC], Some(&cursor)).await;
                        returned += 1;
                    }
                }
            }
        };
        let read = timeout(Duration::from_secs(15), read).await;
        assert!(read.is_ok(), "{} of {missed}; {}", ids.len(), rig.context());
        assert_eq!(*ids, expected);
    }
    let caught_up = continued.elapsed();
    println!("20 steadfast streams had caught up after {caught_up:.1?}; {returned} had to return");
    // It has noticed who has gone.
    while rig.gateway(0).streams().await > 100.0 {
        let waited = continued.elapsed();
        assert!(waited < Duration::from_secs(15), "{}", rig.context());
        sleep(Duration::from_millis(50)).await;
    }
    rig.recovers().await;
    rig.load_for(Duration::from_secs(1)).await;
    let tales = throng.end(&rig, &client).await;
    let ends = ends(&tales);
    assert!(ends["silent"] >= THRONG, "{ends:?}");
    let verdict = rig.settle().await;
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
    assert!(verdict.times("ends, silent") > 0, "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_and_clients_who_come_back_at_the_other_each_time() {
    let plan = Plan {
        habits: &[Habit::Alternate],
        publishers: 10,
        pause: Duration::from_millis(15),
        ..PLAN
    };
    let rig = Rig::start("alternate", plan).await;
    rig.fault("clients are cut at random and return to the other gateway");
    rig.load_for(Duration::from_secs(8)).await;
    let settled = rig.settle_whole().await;
    let verdict = &settled.verdict;
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
    let mut last = BTreeMap::new();
    let mut changes = 0;
    for record in &settled.records {
        if let crate::journal::Record::Connect {
            client, gateway, ..
        } = record
            && *client < plan.readers
            && let Some(before) = last.insert(client, gateway)
        {
            assert_ne!(before, gateway, "client {client} came back at the same");
            changes += 1;
        }
    }
    assert!(changes > 100, "{changes}");
    assert!(
        verdict.times("cursors within a look or page") > 20,
        "{verdict}"
    );
    println!("{changes} changes of the gateway");
}
