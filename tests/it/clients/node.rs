//! Clients in Node: `eventsource` and `eventsource-client`.

use std::os::unix::fs::symlink;

use tokio::process::Command;

use super::installed::node_modules;
use super::journey::{Traveller, travel};
use super::{snippet, workshop};
use crate::support::program;

#[tokio::test]
async fn eventsource_and_eventsource_client_miss_nothing() {
    tokio::join!(travels("eventsource"), travels("eventsource-client"));
}

async fn travels(package: &'static str) {
    let (Some(node), Some(modules)) = (program(&["node"], "nodejs"), node_modules().await) else {
        return;
    };
    let text = snippet(&format!("js-{package}")) + "export { follow };\n";
    let driver = ("driver.mjs", include_str!("drivers/node.mjs"));
    let workshop = workshop(driver, ("snippet.mjs", &text));
    symlink(modules, workshop.0.join("node_modules")).expect("a link can be made");
    let mut command = Command::new(node);
    command.arg(workshop.0.join("driver.mjs"));
    travel(Traveller::new(package, command)).await;
}
