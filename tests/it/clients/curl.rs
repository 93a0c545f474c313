//! `curl -N` and a shell.

use tokio::process::Command;

use super::journey::{Traveller, travel};
use super::{snippet, workshop};
use crate::support::program;

#[tokio::test]
async fn curl_misses_nothing() {
    let (Some(bash), Some(_)) = (program(&["bash"], "bash"), program(&["curl"], "curl")) else {
        return;
    };
    let driver = ("driver.bash", include_str!("drivers/curl.bash"));
    let workshop = workshop(driver, ("snippet.bash", &snippet("bash-curl")));
    let mut command = Command::new(bash);
    command.arg(workshop.0.join("driver.bash"));
    travel(Traveller::new("curl", command)).await;
}
