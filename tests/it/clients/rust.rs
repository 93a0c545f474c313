//! A client in Rust: `eventsource-client`.

use tokio::process::Command;

use super::installed;
use super::journey::{Traveller, travel};
use super::snippet;

#[tokio::test]
async fn rusts_eventsource_client_misses_nothing() {
    let Some(program) = installed::rust(&snippet("rust-eventsource-client")).await else {
        return;
    };
    travel(Traveller::new("rust", Command::new(program))).await;
}
