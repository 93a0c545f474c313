//! Days that last a second: the log's clock runs so fast that a run of seconds has a month of partitions,
//! and trimming takes them away under everybody's hands.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::Rig;
use crate::journal::{Record, now};
use crate::support::backend::run;

/// How many days of the past there are, of which each lasts a second.
const DAYS: i32 = 40;

/// A clock that began `DAYS` days ago, and what it is to be asked for.
const CLOCK: &str = "
    create table app.clock (began timestamptz, real timestamptz);
    grant select on app.clock to public;
    create function app.clock() returns timestamptz language sql volatile as $$
        select began + (clock_timestamp() - real) * 86400 from app.clock
    $$";

/// What trimming has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trims {
    /// Partitions emptied.
    pub(crate) trimmed: i64,
    /// Passes that found all that was due in use.
    pub(crate) held_up: u64,
}

impl Rig<'_> {
    /// From now on a day of the log lasts a second. Events from before stay in the day of today.
    pub(crate) async fn hurry(&self) {
        let client = self.session().await;
        run(&client, CLOCK).await;
        for ago in 0..DAYS {
            let day = "date_trunc('day', clock_timestamp() at time zone 'UTC')::date";
            insist(
                &client,
                &format!("select tidings.add_partition({day} - {ago})"),
            )
            .await;
        }
        let begin = "insert into app.clock
            select date_trunc('day', now(), 'UTC') - make_interval(days => $1), clock_timestamp()";
        client.execute(begin, &[&(DAYS - 1)]).await.expect("begun");
        let alter = "set lock_timeout = '50ms';
            alter table tidings.event alter column created_at set default app.clock()";
        insist(&client, alter).await;
    }

    /// Trims every few hundred milliseconds all days but those that have just ended.
    pub(crate) async fn trim_for(&mut self, duration: Duration) -> Trims {
        let client = self.session().await;
        let mut trims = Trims::default();
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.trim(&client, &mut trims).await;
            sleep(Duration::from_millis(self.rng.u64(20..250))).await;
        }
        trims
    }

    /// What is gone is noted before anybody can find it gone.
    async fn trim(&self, client: &Client, trims: &mut Trims) {
        // At least one whole day is kept.
        let trim = "select tidings.trim(greatest(clock_timestamp() - app.clock(), '0') + interval '1 day')";
        run(client, "begin").await;
        match client.query_one(trim, &[]).await {
            Ok(row) if row.get::<_, i64>(0) > 0 => {
                let floor = client.query_one("select id from tidings.floor", &[]).await;
                self.journal.write(&Record::Trimmed {
                    at: now(),
                    through: floor.expect("a floor").get(0),
                });
                trims.trimmed += row.get::<_, i64>(0);
            }
            Ok(_) => {}
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                trims.held_up += 1;
            }
            Err(error) => panic!("{error:?}; {}", self.context()),
        }
        run(client, "commit").await;
    }
}

/// Asks again for as long as others hold what it needs.
async fn insist(client: &Client, statement: &str) {
    loop {
        match client.batch_execute(statement).await {
            Ok(()) => return,
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {}
            Err(error) => panic!("{statement}: {error:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}
