//! Whether a pooler stands in front that hands out sessions by the transaction.
//!
//! It is told by what it does and not by its name: two sessions that are open at the same time meet in one
//! backend, or one session wanders between two. A pooler by the session does neither, and is fine.

use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::super::session::Plain;
use super::{Finding, Weight};
use crate::postgres::Database;

/// Sessions that are opened beside the first, each in a transaction, so that a pooler runs out of backends that
/// are free and gives one of them the first one's. The pools of others that are busy may take some.
const OTHERS: usize = 4;

/// Examines the way to the database, on `session` and on more like it.
pub(super) async fn findings(database: &Database, session: &Client) -> Result<Vec<Finding>, Error> {
    if let Some(evidence) = evidence(database, session).await? {
        return Ok(vec![transaction_pooler(&evidence)]);
    }
    Ok(lost_name(session).await?.into_iter().collect())
}

fn transaction_pooler(evidence: &str) -> Finding {
    Finding {
        name: "transaction-pooler",
        weight: Weight::Breaks,
        what: format!("a pooler hands out the database by the transaction: {evidence}"),
        why: "LISTEN, prepared statements and the settings of a session end up on a backend that others \
              use: the gateway hears no bell, and its looks fail or run with the settings of others",
        mend: "point the gateway's DATABASE_URL at Postgres itself, or at a pool of the pooler in session mode \
               (PgBouncer: pool_mode=session for this database). Applications may go on publishing through the \
               pooler in any mode"
            .into(),
    }
}

/// What shows that sessions share backends, if they do.
async fn evidence(database: &Database, session: &Client) -> Result<Option<String>, Error> {
    let own = backend(session).await?;
    let mut others = Vec::new();
    for _ in 0..OTHERS {
        // When no more sessions are to be had, those that are there have told what they could.
        let Ok(other) = Plain::open(database, "doctor").await else {
            break;
        };
        let begun = async {
            other.batch_execute("begin").await?;
            backend(&other).await
        };
        match begun.await {
            // Pooling by the statement knows no transactions.
            Err(error) if error.as_db_error().is_some() => {
                return Ok(Some(crate::postgres::connect::tell(&error)));
            }
            Err(error) => return Err(error),
            Ok(pid) if pid == own => {
                return Ok(Some(format!("two open sessions shared the backend {own}")));
            }
            Ok(_) => {}
        }
        others.push(other);
        let now = backend(session).await?;
        if now != own {
            let wandered = format!("one session wandered from backend {own} to {now}");
            return Ok(Some(wandered));
        }
    }
    for other in &others {
        other.batch_execute("rollback").await?;
    }
    Ok(None)
}

/// The backend that serves this statement, asked without preparing anything.
async fn backend(session: &Client) -> Result<String, Error> {
    let rows = session.simple_query("select pg_backend_pid()").await?;
    let pid = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(pid.unwrap_or_default())
}

/// Whether the session's name has arrived.
async fn lost_name(session: &Client) -> Result<Option<Finding>, Error> {
    let statement = "select current_setting('application_name')";
    let row = session.query_typed_one(statement, &[]).await?;
    let name: String = row.get(0);
    Ok((name != "tidings/doctor").then(|| Finding {
        name: "session-name",
        weight: Weight::Hurts,
        what: format!(
            "the session calls itself {:?} instead of \"tidings/doctor\": something on the way renames it",
            name.chars().take(80).collect::<String>()
        ),
        why: "operators find the gateway's sessions in pg_stat_activity by tidings/listener, tidings/tail, \
              tidings/pool and tidings/maintenance",
        mend: "have the pooler pass application_name on as it is (PgBouncer: application_name_add_host=0)".into(),
    }))
}
