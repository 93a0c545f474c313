//! What is wrong with a plan: judged is what its scans of the log touched.

use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::log::Call;

/// What an index scan may read for each time it is begun, and for each row that it returns: from the root to a
/// leaf and the neighbours of both, and the row's page with one of the index.
const PAGES_TO_BEGIN: i64 = 8;
const PAGES_A_ROW: i64 = 3;

/// Finds what is wrong with the plans of some calls.
pub(super) async fn faults(client: &Client, state: &str, calls: &[Call]) -> Vec<String> {
    let mut faults = Vec::new();
    for call in calls {
        let arguments = match call.arguments.as_str() {
            "" => String::new(),
            arguments => format!("({arguments})"),
        };
        let execute = format!("execute {} {arguments}", call.statement);
        for fault in explained(client, &execute, call.rows).await {
            let shown: String = execute.chars().take(160).collect();
            faults.push(format!("{state}: {shown}: {fault}"));
        }
    }
    faults
}

/// Runs a statement and tells what of its plan is a fault, when it may touch so many events.
pub(super) async fn explained(client: &Client, statement: &str, rows: i64) -> Vec<String> {
    let explain = format!(
        "explain (analyze, buffers, costs off, timing off, summary off, format json) {statement}"
    );
    let answer = client.simple_query(&explain).await;
    let answer = answer.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    let text = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let plan: Value = serde_json::from_str(text.expect("a plan")).expect("JSON");
    let mut faults = Vec::new();
    let touched = scan(&plan[0]["Plan"], &mut faults);
    if touched > rows {
        faults.push(format!("touched {touched} events where {rows} are enough"));
    }
    faults
}

/// Judges the scans of a plan one by one, and counts the events that they touched.
pub(super) fn scan(node: &Value, faults: &mut Vec<String>) -> i64 {
    let number = |name: &str| node[name].as_f64().unwrap_or(0.0);
    let text = |name: &str| node[name].as_str().unwrap_or("");
    let mut touched = 0;
    let loops = number("Actual Loops") as i64;
    if text("Relation Name").starts_with("event_") && loops > 0 {
        // What is told for one loop is a mean.
        let rows = number("Actual Rows")
            + number("Rows Removed by Filter")
            + number("Rows Removed by Index Recheck");
        touched = (rows * loops as f64).round() as i64;
        let pages = (number("Shared Hit Blocks") + number("Shared Read Blocks")) as i64;
        let (kind, index) = (text("Node Type"), text("Index Name"));
        if !kind.starts_with("Index") {
            faults.push(format!("{kind} on {}", text("Relation Name")));
        } else if pages > PAGES_TO_BEGIN * loops + PAGES_A_ROW * touched {
            faults.push(format!(
                "{kind} using {index} read {pages} pages in {loops} loops for {touched} events, by {}",
                text("Index Cond")
            ));
        }
    }
    let children = node["Plans"].as_array().into_iter().flatten();
    touched + children.map(|child| scan(child, faults)).sum::<i64>()
}
