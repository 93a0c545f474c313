//! Whether the schema is there, whole and this release's, and whether this role may use it.

use tokio_postgres::{Client, Error};

use super::{Finding, Weight, some};
use crate::postgres::migrate::{self, MigrateError};

/// Examines the schema; `all` is whether this is a primary of our own session, without which the migrations
/// are not compared.
pub(super) async fn findings(session: &Client, all: bool) -> Result<Vec<Finding>, Error> {
    let Some(row) = session.query_typed_opt(SCHEMA, &[]).await? else {
        return Ok(vec![absent()]);
    };
    if !row.get::<_, bool>(0) {
        return Ok(vec![unreadable(&["usage on schema tidings".into()])]);
    }
    let lacking = lacking(session).await?;
    let mut found = Vec::new();
    if !lacking.reading.is_empty() {
        found.push(unreadable(&lacking.reading));
    }
    if !lacking.others.is_empty() {
        found.push(restricted(&lacking.others));
    }
    if all && lacking.reading.is_empty() {
        found.extend(migrations(session).await);
    }
    // Whatever of the rest cannot be examined is for want of the grants above, or not there yet.
    if lacking.reading.is_empty() && lacking.others.is_empty() {
        found.extend(partitions(session).await?);
        found.extend(bell(session).await?);
    }
    Ok(found)
}

fn absent() -> Finding {
    Finding {
        name: "migrations",
        weight: Weight::Breaks,
        what: "this database does not have the schema tidings".into(),
        why: "there is no log to write events to",
        mend: "run `tidings migrate` as the role that is to own it, or start the gateway with TIDINGS_MIGRATE=auto".into(),
    }
}

fn unreadable(lacking: &[String]) -> Finding {
    Finding {
        name: "grants",
        weight: Weight::Breaks,
        what: format!("this role lacks: {}", some(lacking)),
        why: "the gateway reads the log, the floor below which it was trimmed, and the migrations at its start",
        mend: "grant tidings_gateway to the role that the gateway connects with; select tidings.grant_roles() as the \
               owner of the schema renews what tidings_gateway may do"
            .into(),
    }
}

fn restricted(lacking: &[String]) -> Finding {
    Finding {
        name: "grants-partial",
        weight: Weight::Hurts,
        what: format!("this role lacks: {}", some(lacking)),
        why: "what needs them fails or is left undone: publish is POST /v1/events, secret is tickets, state is sync, \
              the others make days ahead and take away old ones",
        mend: "grant tidings_gateway to the role that the gateway connects with".into(),
    }
}

/// What the role may not do.
#[derive(Default)]
struct Lacking {
    /// Without it nothing works.
    reading: Vec<String>,
    others: Vec<String>,
}

async fn lacking(session: &Client) -> Result<Lacking, Error> {
    let mut lacking = Lacking::default();
    for row in session.query_typed(LACKING, &[]).await? {
        let (what, needed): (String, bool) = (row.get(0), row.get(1));
        if needed {
            lacking.reading.push(what);
        } else {
            lacking.others.push(what);
        }
    }
    Ok(lacking)
}

/// What the gateway's own check at its start says.
async fn migrations(session: &Client) -> Option<Finding> {
    let error = migrate::check(session).await.err()?;
    let finding = |name, why, mend: &str| Finding {
        name,
        weight: Weight::Breaks,
        what: error.to_string(),
        why,
        mend: mend.into(),
    };
    Some(match &error {
        MigrateError::Behind { .. } => finding(
            "migrations",
            "this tidings calls what is not there yet",
            "run `tidings migrate` as the owner of the schema, or start the gateway with TIDINGS_MIGRATE=auto",
        ),
        MigrateError::Newer { .. } => finding(
            "migrations-newer",
            "a gateway that does not know a migration may misread what it has changed",
            "run the release of tidings that has migrated this database, or a newer one",
        ),
        MigrateError::Altered { .. } => finding(
            "migrations-altered",
            "what the schema really does is not known: the file that made it is another one",
            "run the release that migrated it, or restore the row in tidings.migration",
        ),
        MigrateError::Foreign => finding(
            "foreign-rows",
            "whether a client has seen a row is asked of its transaction id, and these ids are another \
             server's: events would be lost or doubled",
            "tidings migrate --adopt",
        ),
        _ => Finding {
            weight: Weight::Unknown,
            ..finding(
                "migrations-unknown",
                "the migrations could not be compared",
                "see that the role owns the schema or is granted tidings_gateway, and run doctor again",
            )
        },
    })
}

async fn partitions(session: &Client) -> Result<Vec<Finding>, Error> {
    let mut found = Vec::new();
    let row = session.query_typed_one(TOMORROW, &[]).await?;
    if !row.get::<_, bool>(0) {
        found.push(Finding {
            name: "partition-tomorrow",
            weight: Weight::Hurts,
            what: "there is no partition for tomorrow (UTC)".into(),
            why: "gateways make days three ahead, so none has been able to for a while; events of that day go to the \
                  default partition, which grows and is trimmed late",
            mend: "see that a gateway runs and that its log has no errors of tidings/maintenance, and that its role may \
                   execute tidings.add_partition"
                .into(),
        });
    }
    let row = session.query_typed_one(IN_DEFAULT, &[]).await?;
    let rows: i64 = row.get(0);
    if rows > 0 {
        let more = if rows == IN_DEFAULT_MAX {
            " at least"
        } else {
            ""
        };
        found.push(Finding {
            name: "partition-default",
            weight: Weight::Hurts,
            what: format!("the default partition holds events: {rows}{more}"),
            why: "their days had no partition when they were written; they are delivered and replayed like \
                  others, but trimmed only when all of them are old",
            mend: "a running gateway moves the days that have at most 1,000 of 512 KiB together; larger ones go with \
                   the retention"
                .into(),
        });
    }
    Ok(found)
}

async fn bell(session: &Client) -> Result<Option<Finding>, Error> {
    let row = session.query_typed_one(RINGS, &[]).await?;
    Ok((!row.get::<_, bool>(0)).then(|| Finding {
        name: "bell",
        weight: Weight::Hurts,
        what: "the default of the column tidings.event.xid rings no bell".into(),
        why: "no publisher wakes the gateway: events are delivered by the look once a second",
        mend:
            "alter table tidings.event alter column xid set default, as sql/0002_publish.sql has it"
                .into(),
    }))
}

const SCHEMA: &str =
    "select has_schema_privilege(oid, 'usage') from pg_namespace where nspname = 'tidings'";

/// By the catalogue and not by name, so that what is missing altogether is left to the migrations.
const LACKING: &str = "
    select 'select on tidings.' || c.relname, c.relname in ('event', 'floor', 'migration')
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'tidings' and c.relname in ('event', 'floor', 'migration', 'state', 'secret', 'day')
      and not has_table_privilege(c.oid, 'select')
    union all
    select 'execute on tidings.' || p.proname, p.proname = 'foreign_rows'
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'tidings'
      and p.proname in ('foreign_rows', 'publish', 'state_of', 'add_partition', 'trim', 'trim_keys', 'drop_empty')
      and not has_function_privilege(p.oid, 'execute')
    order by 1";

const TOMORROW: &str = "
    select to_regclass('tidings.day') is null or exists (
        select from tidings.day d where d.day = (clock_timestamp() at time zone 'UTC')::date + 1
    )";

/// As many as are counted.
const IN_DEFAULT_MAX: i64 = 10_000;

/// Events of days without a partition: asked by their times, since the role may read the log as a whole only, and
/// with one range for each gap, so that other partitions are left out.
const IN_DEFAULT: &str = "
    with gap as (
        select coalesce(lag(d.ends) over (order by d.day), '-infinity') as starts, d.starts as ends
        from tidings.day d
        union all
        select coalesce(max(d.ends), '-infinity'), 'infinity' from tidings.day d
    )
    select count(*) from (
        select from gap cross join lateral (
            select from tidings.event e
            where e.created_at >= gap.starts and e.created_at < gap.ends
            limit 10000
        ) e
        where gap.starts < gap.ends
        limit 10000
    ) held";

const RINGS: &str = r"
    select exists (
        select from pg_attrdef d
        join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
        join pg_class c on c.oid = d.adrelid
        join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'tidings' and c.relname = 'event' and a.attname = 'xid'
          and pg_get_expr(d.adbin, d.adrelid) ~ '\mring\M'
    )";
