//! What is published on a journey, so that what is heard can be held against it.

use serde_json::{Value, json};
use tokio_postgres::Client;

/// Everything that some client somewhere takes for the end of a line, and characters of two to four bytes.
const TEXT: &str =
    "zwei\nZeilen\r\nGrüße aus 東京 \u{1f680}\u{2028}\u{2029}\u{85}\u{b}\u{c}\u{1e}\t\"\\ \u{feff}";

/// An event, as a client should hear it.
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) data: Value,
}

/// What was published, in order.
pub(crate) struct Published {
    backend: Client,
    pub(crate) events: Vec<Event>,
}

impl Published {
    pub(crate) fn by(backend: Client) -> Published {
        Published {
            backend,
            events: Vec::new(),
        }
    }

    /// Publishes one event of this type, with enough text to be cut in.
    pub(crate) async fn publish(&mut self, kind: &'static str) {
        let number = self.events.len();
        let data = json!({"number": number, "text": TEXT, "long": "ü".repeat(10_000)});
        let statement = "select tidings.publish('news', $1, $2::text::jsonb)";
        let text = data.to_string();
        let row = self.backend.query_one(statement, &[&kind, &text]).await;
        let id: i64 = row.expect("publishes").get(0);
        let id = id.to_string();
        self.events.push(Event { id, kind, data });
    }
}
