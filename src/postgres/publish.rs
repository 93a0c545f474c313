//! Publishing for those who cannot run SQL: the same function, in a transaction of its own.

use deadpool_postgres::Object;
use tokio_postgres::IsolationLevel;
use tokio_postgres::error::SqlState;

use super::connect::tell;
use super::lease::Unserved;
use crate::topic::Topic;

/// What is to be published; topic, type and the length of the key have been checked.
#[derive(Debug)]
pub struct Draft<'a> {
    /// What it is about.
    pub topic: &'a Topic,
    /// What happened.
    pub kind: &'a str,
    /// The payload as JSON text.
    pub data: &'a str,
    /// By which a repeated publish is recognised.
    pub key: Option<&'a str>,
}

/// What became of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is the event with this id.
    Now(i64),
    /// The event with this id was published earlier by the same key, and nothing was now.
    Before(i64),
}

/// Why a draft was not published.
#[derive(Debug)]
pub enum PublishError {
    /// The database did not serve the request. If its answer was lost on the way, the event may be
    /// there: a key makes the next try safe.
    Unserved(Unserved),
    /// The data is too large.
    TooLarge,
    /// Postgres cannot store the data; the text says why and is ours.
    Data(&'static str),
    /// This database user may not publish, or the schema is not as it must be; the text is for the
    /// operator.
    Forbidden(String),
}

/// Publishes a draft.
pub async fn publish(session: &mut Object, draft: &Draft<'_>) -> Result<Published, PublishError> {
    match draft.key {
        None => {
            let id = send(&*session, draft).await?;
            Ok(Published::Now(id))
        }
        Some(_) => Ok(publish_once(session, draft).await?),
    }
}

/// By its transaction, an event that is new is told from one of the past.
async fn publish_once(
    session: &mut Object,
    draft: &Draft<'_>,
) -> Result<Published, tokio_postgres::Error> {
    let transaction = session
        .build_transaction()
        // A stricter one could not see a key that was committed since.
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await?;
    let id = match send(&transaction, draft).await {
        Ok(id) => id,
        Err(error) => {
            transaction.rollback().await?;
            return Err(error);
        }
    };
    let statement = transaction
        .prepare_cached(include_str!("../../sql/queries/has_published.sql"))
        .await?;
    let now: bool = transaction.query_one(&statement, &[]).await?.try_get(0)?;
    transaction.commit().await?;
    Ok(match now {
        true => Published::Now(id),
        false => Published::Before(id),
    })
}

async fn send(
    client: &impl deadpool_postgres::GenericClient,
    draft: &Draft<'_>,
) -> Result<i64, tokio_postgres::Error> {
    let statement = client
        .prepare_cached(include_str!("../../sql/queries/publish.sql"))
        .await?;
    let row = client
        .query_one(
            &statement,
            &[&draft.topic.as_str(), &draft.kind, &draft.data, &draft.key],
        )
        .await?;
    row.try_get(0)
}

/// Tells what is wrong with the draft from what is wrong with the database.
impl From<tokio_postgres::Error> for PublishError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code() else {
            return Self::Unserved(error.into());
        };
        match code {
            // Of all that `tidings.publish` itself refuses, only this is left to it.
            &SqlState::INVALID_PARAMETER_VALUE => Self::TooLarge,
            &SqlState::UNTRANSLATABLE_CHARACTER | &SqlState::CHARACTER_NOT_IN_REPERTOIRE => {
                Self::Data("Postgres stores no text that holds \\u0000.")
            }
            &SqlState::NUMERIC_VALUE_OUT_OF_RANGE => {
                Self::Data("The data holds a number that Postgres cannot store.")
            }
            code => match &code.code()[..2] {
                "22" | "23" => Self::Data("Postgres cannot store this data as jsonb."),
                "54" => Self::Data("The data is nested too deeply or has too large a part."),
                "42" => Self::Forbidden(tell(&error)),
                _ => Self::Unserved(error.into()),
            },
        }
    }
}
