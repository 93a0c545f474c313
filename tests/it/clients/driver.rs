//! A client in a process of its own, which runs a snippet of `docs/clients.md` on several streams at once and
//! prints one line of JSON for each thing that the snippet hears.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::support::client::PATIENCE;

/// A browser that starts beside two hundred other tests takes its time.
const LONG: Duration = PATIENCE.saturating_mul(2);

/// One stream that the client is to follow.
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) token: String,
}

/// What a route has heard: a kind, and the data as JSON.
#[derive(Clone, Debug, Deserialize)]
struct Heard {
    route: String,
    kind: String,
    data: Value,
}

/// Everything that was heard so far, by route, in the order in which it was heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    routes: BTreeMap<String, Vec<(String, Value)>>,
    /// Lines that are not as agreed, and the end of the output.
    faults: Vec<String>,
}

impl Log {
    /// The data of everything of this kind that a route has heard.
    pub(crate) fn of(&self, route: &str, kind: &str) -> Vec<&Value> {
        let heard = self.routes.get(route).into_iter().flatten();
        let of_kind = heard.filter(|(other, _)| other == kind);
        of_kind.map(|(_, data)| data).collect()
    }

    /// For people: the kinds by route, and of events the id.
    fn summary(&self) -> String {
        let routes = self.routes.iter().map(|(route, heard)| {
            let heard = heard.iter().map(|(kind, data)| match data["id"].as_str() {
                Some(id) => id.to_owned(),
                None if data.is_object() => kind.trim_start_matches("tidings.").to_owned(),
                None => format!("{kind} {data}"),
            });
            format!("{route}: {}", heard.collect::<Vec<_>>().join(" "))
        });
        routes.collect::<Vec<_>>().join("\n")
    }
}

/// The process; dropping it ends it with everything that it has started.
pub(crate) struct Driver {
    name: &'static str,
    child: Child,
    log: watch::Receiver<Log>,
}

impl Driver {
    /// Starts it. It is to end when its standard input does.
    pub(crate) fn start(name: &'static str, mut command: Command, routes: &[Route]) -> Driver {
        for route in routes {
            command.args([&route.name, &route.url, &route.token]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {command:?}: {error}"));
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (send, log) = watch::channel(Log::default());
        tokio::spawn(async move {
            loop {
                let line = lines.next_line().await.expect("output is text");
                let ended = line.is_none();
                send.send_modify(|log| match line.as_deref().map(serde_json::from_str) {
                    Some(Ok(Heard { route, kind, data })) => {
                        log.routes.entry(route).or_default().push((kind, data));
                    }
                    Some(Err(error)) => {
                        let start: String = line.unwrap_or_default().chars().take(200).collect();
                        log.faults.push(format!("{error}: {start}"));
                    }
                    None => log.faults.push("its output has ended".to_owned()),
                });
                if ended {
                    return;
                }
            }
        });
        Driver { name, child, log }
    }

    /// Waits until this is true of what was heard; fails as soon as anything else than blocks is heard.
    pub(crate) async fn until(&mut self, what: &str, mut come: impl FnMut(&Log) -> bool) {
        let name = self.name;
        let waited = self.log.wait_for(|log| !log.faults.is_empty() || come(log));
        let waited = tokio::time::timeout(LONG, waited).await;
        let came = waited.is_ok();
        drop(waited);
        let log = self.log.borrow();
        assert!(log.faults.is_empty(), "{name}: {:?}", log.faults);
        assert!(
            came,
            "{name} waited in vain for {what}, but heard\n{}",
            log.summary()
        );
    }

    /// Tells it to end, and returns all that it has heard.
    pub(crate) async fn end(mut self) -> Log {
        let log = self.log.borrow().clone();
        drop(self.child.stdin.take());
        let ended = tokio::time::timeout(LONG, self.child.wait()).await;
        ended.expect("it ends with its input").expect("it is ours");
        log
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Shells and browsers are many processes. One that has been waited for has no id any more.
        if let Some(id) = self.child.id() {
            let group = rustix::process::Pid::from_raw(id.cast_signed()).expect("an id");
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}
