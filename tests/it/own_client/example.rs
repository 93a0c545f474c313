//! The example that the client's page begins with, run as it stands there.

use serde::Deserialize;
use serde_json::{Value, json};

use super::agent::Agent;
use crate::support::backend::run;
use crate::support::front::snippet_of;
use crate::support::gateway::{Gateway, token};
use crate::support::postgres::database;

/// What a program's function is called with.
#[derive(Debug, Deserialize, PartialEq)]
struct Call {
    name: String,
    values: Vec<Value>,
}

#[tokio::test]
async fn the_first_example_shows_state_events_and_status() {
    let database = database();
    let backend = database.connect().await;
    run(
        &backend,
        "create table request (id int, title text); insert into request values (7, 'A new lamp');
         create function request_state(topic text, claims jsonb) returns jsonb language sql stable as
             $$ select to_jsonb(r) from request r where topic = 'request:' || r.id $$;
         select tidings.define_state('request:*', 'request_state(text, jsonb)')",
    )
    .await;
    let gateway = Gateway::start(&database).await;
    let example = snippet_of(include_str!("../../../client/README.md"), "js-client");
    let (import, example) = example.split_once('\n').expect("lines");
    assert_eq!(import, "import { connect } from \"@tidings/client\";");
    let url = format!("http://{}", gateway.address());
    let settings = json!({
        "example": example.replace("https://events.example.org", &url),
        "token": token("ann", json!({"topics": ["request:7"]})),
    });
    let Some(mut program) = Agent::start("example.js", &settings) else {
        return;
    };
    let call = |name: &str, values: Value| Call {
        name: name.to_owned(),
        values: serde_json::from_value(values).expect("a list"),
    };
    let shown = program.next::<Call>().await;
    assert_eq!(
        shown,
        call("show", json!([{"id": 7, "title": "A new lamp"}]))
    );
    assert_eq!(
        program.next::<Call>().await,
        call("badge", json!(["live", "stream"]))
    );
    run(
        &backend,
        "select tidings.publish('request:7', 'request.answered', '{\"by\": \"ann\"}')",
    )
    .await;
    assert_eq!(
        program.next::<Call>().await,
        call("celebrate", json!(["ann"]))
    );
    program.end().await;
}
