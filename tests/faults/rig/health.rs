//! Whether `/readyz` told the truth: every gateway that runs is asked all the time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::readers::Doors;
use crate::support::client::Visit;
use crate::support::interface::Server;

/// How often it is asked, and how long an answer may take before it counts as none.
const PAUSE: Duration = Duration::from_millis(200);
const ANSWER: Duration = Duration::from_secs(2);

/// What was answered.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    ready: u64,
    unready: u64,
    /// Not at all, or too late.
    none: u64,
}

/// The one who asks; dropping it ends that.
pub(super) struct Health {
    answers: Arc<Mutex<Answers>>,
    _asking: JoinSet<()>,
}

impl Health {
    pub(super) fn watch(doors: Doors) -> Health {
        let answers = Arc::<Mutex<Answers>>::default();
        let mut asking = JoinSet::new();
        asking.spawn(ask(doors, answers.clone()));
        Health {
            answers,
            _asking: asking,
        }
    }

    /// Whether a gateway said that it is not ready although it may not.
    pub(super) fn judge(&self, may_be_unready: bool) -> Result<(), String> {
        let answers = *self.answers.lock().expect("nobody panics here");
        match answers {
            Answers { ready: 0, .. } => Err(format!("nobody was ready: {answers:?}")),
            Answers { unready: 1.., .. } if !may_be_unready => {
                Err(format!("not ready although it was: {answers:?}"))
            }
            _ => Ok(()),
        }
    }
}

async fn ask(doors: Doors, answers: Arc<Mutex<Answers>>) {
    loop {
        let open: Vec<_> = {
            let doors = doors.lock().expect("nobody panics here");
            doors.iter().flatten().copied().collect()
        };
        for door in open {
            let visit = Visit::new(door.ops_address, "GET", "/readyz").of(Server::Operators);
            let answer = timeout(ANSWER, visit.try_send()).await;
            let mut answers = answers.lock().expect("nobody panics here");
            match answer {
                Ok(Ok(answer)) if answer.status == 200 => answers.ready += 1,
                Ok(Ok(_)) => answers.unready += 1,
                Ok(Err(_)) | Err(_) => answers.none += 1,
            }
        }
        sleep(PAUSE).await;
    }
}
