//! Clients in Python: `httpx-sse` and `sseclient-py`.

use tokio::process::Command;

use super::installed::python;
use super::journey::{Traveller, travel};
use super::{snippet, workshop};

#[tokio::test]
async fn httpx_sse_and_sseclient_miss_nothing() {
    tokio::join!(travels("httpx-sse"), travels("sseclient"));
}

async fn travels(package: &'static str) {
    let Some(python) = python().await else {
        return;
    };
    let text = snippet(&format!("python-{package}"));
    let driver = ("driver.py", include_str!("drivers/python.py"));
    let workshop = workshop(driver, ("snippet.py", &text));
    let mut command = Command::new(python);
    command.arg(workshop.0.join("driver.py"));
    travel(Traveller::new(package, command)).await;
}
