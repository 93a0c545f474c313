//! What models tell of themselves, held against the database.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::agent::Agent;
use super::trouble::System;

/// How long clients may take to come back once all is calm: waits between attempts grow to half a minute.
const SETTLING: Duration = Duration::from_secs(60);

/// What a model tells of itself.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    pub(super) name: String,
    pub(super) counts: BTreeMap<String, i64>,
    wrong: Vec<String>,
    /// What came last, if something is wrong.
    #[allow(dead_code, reason = "for whoever reads why a test has failed")]
    lately: Vec<String>,
    pub(super) seen: Seen,
    pub(super) status: Status,
    pub(super) statuses: Vec<String>,
    /// How often a tab has asked the gateway for something.
    #[serde(default)]
    pub(super) asked: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Seen {
    pub(super) events: u64,
    pub(super) states: u64,
    pub(super) resets: u64,
    pub(super) opened: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) is: String,
    pub(super) reason: String,
}

/// Looks at models, and knows what each has told so far.
pub(super) struct Judge {
    seed: u64,
    /// How often each has had which status.
    history: BTreeMap<String, BTreeMap<String, u32>>,
}

impl Judge {
    /// `seed` is told when something is wrong.
    pub(super) fn new(seed: u64) -> Judge {
        Judge {
            seed,
            history: BTreeMap::new(),
        }
    }

    /// Nothing may be wrong.
    pub(super) async fn look(&mut self, agent: &mut Agent) -> Vec<Told> {
        let models: Vec<Told> = agent.ask("look").await;
        for told in &models {
            assert!(told.wrong.is_empty(), "seed {}: {told:#?}", self.seed);
            let known = self.history.entry(told.name.clone()).or_default();
            for status in &told.statuses {
                *known.entry(status.clone()).or_default() += 1;
            }
        }
        models
    }

    /// Looks until what is told is as wished.
    pub(super) async fn until(
        &mut self,
        agent: &mut Agent,
        wish: impl Fn(&[Told]) -> bool,
    ) -> Vec<Told> {
        let deadline = Instant::now() + SETTLING / 2;
        loop {
            let models = self.look(agent).await;
            if wish(&models) {
                return models;
            }
            assert!(
                Instant::now() < deadline,
                "not as wished: {models:?}, {:?}",
                self.history
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until so many models are there, each with its state, and live.
    pub(super) async fn all_live(&mut self, agent: &mut Agent, count: usize) -> Vec<Told> {
        let live = |told: &Told| told.status.is == "live" && told.seen.states > 0;
        let wish = |models: &[Told]| models.len() == count && models.iter().all(live);
        self.until(agent, wish).await
    }

    /// How often a model has come to this status, which is written as `is: reason`.
    pub(super) fn times(&self, name: &str, status: &str) -> u32 {
        let known = self.history.get(name).and_then(|known| known.get(status));
        known.copied().unwrap_or(0)
    }

    /// Publishers end; every model must come to hold what the database does.
    pub(super) async fn settle(&mut self, agent: &mut Agent, system: &mut System) -> Vec<Told> {
        let counts: BTreeMap<String, i64> = system.settle().await.into_iter().collect();
        let deadline = Instant::now() + SETTLING;
        loop {
            let models = self.look(agent).await;
            // A model may follow some topics only, or know them from their next event on.
            let settled = |told: &Told| {
                let mut known = told.counts.iter();
                known.all(|(topic, n)| counts[topic] == *n) && told.status.is == "live"
            };
            if models.iter().all(settled) {
                for Told { name, seen, .. } in &models {
                    println!("{name}: {seen:?}, {:?}", self.history[name]);
                }
                return models;
            }
            assert!(
                Instant::now() < deadline,
                "seed {}: not {counts:?}: {models:?}, {:?}",
                self.seed,
                self.history
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}
