//! What the application behind tidings does in a test: it publishes, and looks at its database.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;

use super::client::PATIENCE;

/// Publishes one event of type `said` and returns its id.
pub(crate) async fn publish(client: &Client, topic: &str) -> i64 {
    publish_all(client, &[topic]).await[0]
}

/// Publishes one event in each of these topics, in one statement, and returns their ids.
pub(crate) async fn publish_all(client: &Client, topics: &[&str]) -> Vec<i64> {
    let statement =
        "select tidings.publish(topic, 'said', to_jsonb(topic)) from unnest($1::text[]) topic";
    let rows = client.query(statement, &[&topics]).await;
    rows.expect("publishes")
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// The cursor of now, as a backend puts it into a page.
pub(crate) async fn cursor(client: &Client) -> String {
    let row = client.query_one("select tidings.cursor()", &[]).await;
    row.expect("a cursor").get(0)
}

/// Runs statements.
pub(crate) async fn run(client: &Client, statements: &str) {
    let done = client.batch_execute(statements).await;
    done.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// Asks until the answer, a boolean, is true.
pub(crate) async fn until(client: &Client, question: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let row = client.query_one(question, &[]).await;
        if row
            .unwrap_or_else(|error| panic!("{question}: {error:?}"))
            .get(0)
        {
            return;
        }
        assert!(Instant::now() < deadline, "never became true: {question}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
