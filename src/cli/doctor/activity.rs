//! Who holds transactions open for long.

use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use super::{Finding, Weight, say, some};

/// Examines what runs on the server, in all its databases: snapshots list the transactions of all.
pub(super) async fn findings(session: &Client, long: Duration) -> Result<Vec<Finding>, Error> {
    let seconds = long.as_secs_f64();
    let rows = session
        .query_typed(LONG_TRANSACTIONS, &[(&seconds, Type::FLOAT8)])
        .await?;
    let (idle, busy): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.get("idle"));
    let prepared = session
        .query_typed(LONG_PREPARED, &[(&seconds, Type::FLOAT8)])
        .await?;
    let sees = session.query_typed_one(SEES_OTHERS, &[]).await?;
    let found = [
        (!idle.is_empty()).then(|| idle_transactions(&told(&idle))),
        (!busy.is_empty()).then(|| long_transactions(&told(&busy))),
        (!prepared.is_empty()).then(|| prepared_transactions(&prepared)),
        (!sees.get::<_, bool>(0)).then(cannot_see),
    ];
    Ok(found.into_iter().flatten().collect())
}

/// What every open transaction does to tidings, and what it does not.
const WHY_OPEN: &str = "other transactions' events are not delayed by it; but one that has written is named in every \
    cursor (two or three characters each), and one that has touched the log keeps old partitions from \
    being trimmed, and vacuum from cleaning up";

fn idle_transactions(sessions: &[String]) -> Finding {
    Finding {
        name: "idle-in-transaction",
        weight: Weight::Hurts,
        what: format!("open and idle: {}", some(sessions)),
        why: WHY_OPEN,
        mend: "end it: select pg_terminate_backend(pid); and set idle_in_transaction_session_timeout for the role \
               that leaves transactions open"
            .into(),
    }
}

fn long_transactions(sessions: &[String]) -> Finding {
    Finding {
        name: "long-transaction",
        weight: Weight::Hurts,
        what: format!("running: {}", some(sessions)),
        why: WHY_OPEN,
        mend: "make jobs commit in portions, and set statement_timeout where nothing should take so long".into(),
    }
}

fn prepared_transactions(rows: &[Row]) -> Finding {
    let named: Vec<String> = rows
        .iter()
        .map(|row| {
            let (gid, database): (String, String) = (row.get("gid"), row.get("database"));
            format!(
                "{gid:?} in database {database}, for {}",
                say(row.get("seconds"))
            )
        })
        .collect();
    Finding {
        name: "prepared-transaction",
        weight: Weight::Hurts,
        what: format!("prepared and neither committed nor rolled back: {}", some(&named)),
        why: "it stays open for ever, also across restarts, if whoever prepared it has forgotten it: it is named in \
              every cursor, and keeps partitions that it has written to from being trimmed",
        mend: "ask its transaction manager, then, in its database: commit prepared '…' or rollback prepared '…'".into(),
    }
}

fn cannot_see() -> Finding {
    Finding {
        name: "activity-hidden",
        weight: Weight::Unknown,
        what: "this role may not see other roles' sessions".into(),
        why: "long transactions of others were not examined",
        mend: "run doctor once as a role with pg_read_all_stats: grant pg_read_all_stats to …"
            .into(),
    }
}

fn told(rows: &[&Row]) -> Vec<String> {
    let tell = |row: &&Row| {
        let (who, writes): (String, bool) = (row.get("who"), row.get("writes"));
        let has_written = if writes { ", has written" } else { "" };
        format!("{who}, for {}{has_written}", say(row.get("seconds")))
    };
    rows.iter().map(tell).collect()
}

const LONG_TRANSACTIONS: &str = "
    select format('process %s (%s) of role %s in database %s', pid,
                  coalesce(nullif(application_name, ''), 'without a name'), usename, datname) as who,
           state like 'idle in transaction%' as idle,
           backend_xid is not null as writes,
           extract(epoch from clock_timestamp() - xact_start)::float8 as seconds
    from pg_stat_activity
    where backend_type = 'client backend' and pid <> pg_backend_pid() and state is not null
      and xact_start < clock_timestamp() - make_interval(secs => $1)
    order by xact_start";

const LONG_PREPARED: &str = "
    select gid, database::text as database,
           extract(epoch from clock_timestamp() - prepared)::float8 as seconds
    from pg_prepared_xacts
    where prepared < clock_timestamp() - make_interval(secs => $1)
    order by prepared";

const SEES_OTHERS: &str = "select pg_has_role('pg_read_all_stats', 'usage')";
