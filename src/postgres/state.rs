//! State: what an application's own functions tell about a topic, within the reader's snapshot.
//!
//! The functions are strangers here: they may fail, take long, or tell too much, and each of these
//! is told apart from a fault of the database. They can write nothing, because the transaction
//! cannot, and leave nothing behind in the session, because it is rolled back.

use std::time::Duration;

use deadpool_postgres::GenericClient;

use super::connect::tell;
use super::lease::Unserved;
use crate::topic::Topic;

/// The most bytes of one topic's state. It is read and sent whole, by a screen that has to
/// show it whole.
pub const STATE_BYTES: i64 = 1 << 20;

/// Why there is no state.
#[derive(Debug)]
pub enum StateError {
    /// The database did not serve the request.
    Unserved(Unserved),
    /// It is larger than [`STATE_BYTES`].
    TooLarge,
    /// The function failed; the text is for the operator.
    Failed(String),
}

/// Makes the transaction ready for functions of the application: they find the caller's claims
/// where PostgREST puts them, plan as anywhere else, and have `left` for each statement.
pub async fn prepare(
    client: &impl GenericClient,
    claims: &str,
    left: Duration,
) -> Result<(), Unserved> {
    let statement = client
        .prepare_cached(include_str!("../../sql/queries/state_settings.sql"))
        .await?;
    let left = milliseconds(left);
    client.query_one(&statement, &[&claims, &left]).await?;
    Ok(())
}

/// Lets the statements of this transaction take what is left, and no longer.
pub async fn limit(client: &impl GenericClient, left: Duration) -> Result<(), Unserved> {
    let statement = client
        .prepare_cached("select set_config('statement_timeout', $1, true)")
        .await?;
    client.query_one(&statement, &[&milliseconds(left)]).await?;
    Ok(())
}

/// The state of a topic as JSON text; `None` when nobody tells it.
pub async fn of(
    client: &impl GenericClient,
    topic: &Topic,
    claims: &str,
) -> Result<Option<String>, StateError> {
    let statement = client
        .prepare_cached(include_str!("../../sql/queries/state.sql"))
        .await
        .map_err(|error| StateError::Unserved(error.into()))?;
    let row = client
        .query_one(&statement, &[&topic.as_str(), &claims, &STATE_BYTES])
        .await
        .map_err(fault)?;
    let (told, state): (bool, Option<String>) = (row.get("told"), row.get("state"));
    match (told, state) {
        (false, _) => Ok(None),
        (true, None) => Err(StateError::TooLarge),
        (true, Some(state)) => Ok(Some(state)),
    }
}

/// Tells an error of the function from one of the database or of its time.
fn fault(error: tokio_postgres::Error) -> StateError {
    // Connections, resources, interventions and the system are the database's own.
    let own = ["08", "53", "57", "58"];
    match error.code() {
        Some(code) if !own.iter().any(|class| code.code().starts_with(class)) => {
            StateError::Failed(tell(&error))
        }
        _ => StateError::Unserved(error.into()),
    }
}

/// As Postgres takes a time; 0 would mean for ever.
fn milliseconds(left: Duration) -> String {
    left.as_millis().max(1).to_string()
}
