//! The key that signs tickets, shared by all gateways of a database.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connect::ConnectError;

/// Reads the key; `None` when the session's user may not.
pub async fn key(client: &Client) -> Result<Option<[u8; 32]>, ConnectError> {
    let statement = "select value from tidings.secret where name = 'ticket'";
    match client.query_opt(statement, &[]).await {
        Ok(None) => Ok(None),
        Ok(Some(row)) => {
            let value: &[u8] = row.try_get(0)?;
            let key = value.try_into();
            key.map(Some)
                .map_err(|_| ConnectError::Lost("the key of tickets does not have 32 bytes"))
        }
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
