//! Everything at once: a random mix of all faults that a rig can heal, one upon the other, for as long
//! as one likes (`TIDINGS_TEST_SWIZZLE` seconds), while everybody goes on.

use std::time::Duration;

use tidings::dev::cluster::StopMode;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::rig::{PLAN, Plan, Rig};
use crate::support::backend::run;
use crate::support::setting;

/// What happens at once and is over when it returns.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Restart(StopMode),
    /// `kill -9` of one backend, upon which Postgres recovers as from a crash.
    KillBackend,
    /// Every session of this name is terminated.
    Terminate(&'static str),
    /// Every connection of the gateways to Postgres is cut.
    Cut,
    /// Every connection there is swallows all that is sent.
    HalfOpen,
    /// Nothing passes for a while.
    Hold,
    /// Gateways, by number.
    KillGateway(usize),
    EndGateway(usize),
    StopGateway(usize),
    Bulk,
}

const BLOWS: [Blow; 18] = [
    Blow::Restart(StopMode::Fast),
    Blow::Restart(StopMode::Immediate),
    Blow::Restart(StopMode::Kill),
    Blow::KillBackend,
    Blow::Terminate("tidings/listener"),
    Blow::Terminate("tidings/tail"),
    Blow::Terminate("tidings/pool"),
    Blow::Cut,
    Blow::HalfOpen,
    Blow::Hold,
    Blow::KillGateway(0),
    Blow::KillGateway(1),
    Blow::EndGateway(0),
    Blow::EndGateway(1),
    Blow::StopGateway(0),
    Blow::StopGateway(1),
    Blow::Bulk,
    Blow::Bulk,
];

/// What lasts over several blows.
#[derive(Default)]
struct Weather {
    /// A transaction that holds an old transaction id.
    old: Option<Client>,
    silent: bool,
    slow: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_mix_of_all_faults() {
    let seconds = setting("TIDINGS_TEST_SWIZZLE", 60);
    let plan = Plan {
        gateways: &[
            &["--heartbeat=1s", "--replay=100000", "--drain=4s"],
            &[
                "--heartbeat=1s",
                "--replay=100000",
                "--drain=4s",
                "--window-bytes=20KiB",
            ],
        ],
        proxied: true,
        token_s: 5,
        // A gateway that ends says so first.
        may_be_unready: true,
        ..PLAN
    };
    let mut rig = Rig::start("swizzle", plan).await;
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut weather = Weather::default();
    let mut blows = Vec::new();
    while Instant::now() < end {
        if blows.is_empty() {
            blows = BLOWS.to_vec();
            rig.rng.shuffle(&mut blows);
        }
        let blow = blows.pop().expect("there are some");
        change(&mut rig, &mut weather).await;
        strike(&mut rig, blow).await;
        rig.recovers().await;
        let pause = rig.rng.u64(0..800);
        rig.load_for(Duration::from_millis(pause)).await;
    }
    clear(&mut rig, weather).await;
    let verdict = rig.settle().await;
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
}

async fn change(rig: &mut Rig<'_>, weather: &mut Weather) {
    match rig.rng.u32(0..6) {
        0 => {
            rig.fault("a transaction that holds an old id");
            let client = rig.session().await;
            run(&client, "begin; select pg_current_xact_id()").await;
            weather.old = Some(client);
        }
        1 => {
            rig.fault("nobody holds an old id any more");
            weather.old = None;
        }
        2 => {
            weather.silent = !weather.silent;
            let way = if weather.silent { "off" } else { "on" };
            rig.fault(&format!("the bell is {way}"));
            let client = rig.session().await;
            // A crash of the server may come between; then it stays as it is.
            let _ = client.batch_execute(&hang_bell(weather.silent)).await;
        }
        3 => {
            weather.slow = !weather.slow;
            let delay = Duration::from_millis(if weather.slow { 20 } else { 0 });
            rig.fault(&format!("each piece takes {delay:?}"));
            rig.proxy().slow_down(delay);
        }
        _ => {}
    }
}

async fn clear(rig: &mut Rig<'_>, weather: Weather) {
    drop(weather);
    rig.proxy().slow_down(Duration::ZERO);
    let client = rig.session().await;
    run(&client, &hang_bell(false)).await;
}

/// Takes the bell off the table, or hangs it up again as the default partition has it.
fn hang_bell(silent: bool) -> String {
    let default = if silent {
        "select 'pg_current_xact_id()'"
    } else {
        "select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d
         join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
         where d.adrelid = 'tidings.event_default'::regclass and a.attname = 'xid'"
    };
    format!(
        "do $do$ begin
             execute 'alter table only tidings.event alter column xid set default ' || ({default});
         end $do$"
    )
}

async fn strike(rig: &mut Rig<'_>, blow: Blow) {
    let a_while = Duration::from_millis(rig.rng.u64(100..2_000));
    match blow {
        Blow::Restart(mode) => rig.restart_postgres(mode, a_while).await,
        Blow::KillBackend => rig.kill_backend().await,
        Blow::Terminate(name) => {
            rig.fault(&format!("all sessions of {name} are terminated"));
            let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = $1";
            let client = rig.session().await;
            client
                .execute(terminate, &[&name])
                .await
                .expect("terminates");
        }
        Blow::Cut => {
            rig.fault("connections to Postgres are cut");
            rig.proxy().cut();
        }
        Blow::HalfOpen => {
            rig.fault("connections to Postgres are half-open");
            rig.proxy().swallow();
        }
        Blow::Hold => {
            rig.fault(&format!("nothing reaches Postgres for {a_while:?}"));
            rig.proxy().hold();
            rig.load_for(a_while).await;
            rig.proxy().release();
        }
        Blow::KillGateway(number) => {
            rig.kill_gateway(number);
            rig.load_for(a_while).await;
            rig.start_gateway(number).await;
        }
        Blow::EndGateway(number) => {
            rig.fault(&format!("gateway {number} is told to end"));
            let gateway = rig.take_gateway(number);
            gateway.signal("TERM");
            let ended = gateway.ended().await;
            assert_eq!(ended.code(), Some(0), "{}", rig.context());
            rig.start_gateway(number).await;
        }
        Blow::StopGateway(number) => {
            rig.fault(&format!("gateway {number} is stopped for {a_while:?}"));
            rig.gateway(number).signal("STOP");
            rig.load_for(a_while).await;
            rig.gateway(number).signal("CONT");
        }
        Blow::Bulk => {
            rig.fault("three thousand events in one commit");
            let bulk: Vec<_> = (0..3_000)
                .map(|n| {
                    let key = format!("bulk.{:08x}.{n}", rig.rng.u32(..));
                    (key, format!("t{}", n % rig.plan.topics), "written")
                })
                .collect();
            let client = rig.session().await;
            rig.publish_noted(&client, &bulk).await;
        }
    }
}
