//! Whether a gateway says that it is alive and ready, all the time: as an orchestrator asks, which is
//! elsewhere (here in a thread of its own, since the crowd keeps the others busy), and takes a late answer
//! for none.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::support::client::{PATIENCE, Visit};
use crate::support::gateway::Door;
use crate::support::interface::Server;

/// How often both are asked, and how long an answer may take on a machine that has much else to do.
const PAUSE: Duration = Duration::from_millis(50);
const ANSWER: Duration = Duration::from_secs(5);

/// What was answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) well: u64,
    /// Every answer that was not 200, and every one that did not come in time.
    pub(crate) ill: Vec<String>,
    pub(crate) slowest: Duration,
}

/// The one who asks; dropping it ends that.
pub(crate) struct Probes {
    answers: Arc<Mutex<Answers>>,
    _stop: oneshot::Sender<()>,
}

impl Probes {
    pub(crate) fn watch(door: Door) -> Probes {
        let answers = Arc::<Mutex<Answers>>::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let asking = ask(door, answers.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime can be built").block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = asking => {}
                }
            });
        });
        Probes {
            answers,
            _stop: stop,
        }
    }

    /// What was answered so far.
    pub(crate) fn answers(&self) -> Answers {
        self.answers.lock().expect("nobody panics here").clone()
    }
}

/// Waits until a gateway is ready, from when on it knows where in the log it is.
pub(crate) async fn until_ready(door: &Door) {
    let deadline = Instant::now() + PATIENCE;
    while door.ops("/readyz").await.status != 200 {
        assert!(Instant::now() < deadline, "never ready");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn ask(door: Door, answers: Arc<Mutex<Answers>>) {
    loop {
        for path in ["/livez", "/readyz"] {
            let asked = Instant::now();
            let visit = Visit::new(door.ops_address, "GET", path).of(Server::Operators);
            let answer = timeout(ANSWER, visit.try_send()).await;
            let taken = asked.elapsed();
            let mut answers = answers.lock().expect("nobody panics here");
            answers.slowest = answers.slowest.max(taken);
            match answer {
                Ok(Ok(answer)) if answer.status == 200 => answers.well += 1,
                Ok(Ok(answer)) => answers.ill.push(format!("{path}: {}", answer.status)),
                Ok(Err(error)) => answers.ill.push(format!("{path}: {error}")),
                Err(_) => answers.ill.push(format!("{path}: no answer")),
            }
        }
        sleep(PAUSE).await;
    }
}
