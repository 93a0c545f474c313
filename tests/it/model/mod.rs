//! The rules of the cursor, tried without sockets or a database: a model of Postgres, three
//! gateways that look page by page, and clients that are cut at any event.
//!
//! The model of Postgres hands out transaction ids and event ids as the real one does: to
//! savepoints too, in the order of writing and not of committing; after a crash, those that no flushed commit
//! vouches for are handed out again. Marks, cursors, legs, their texts and the window are the
//! gateway's own code; the statements (`look.sql`, `rest.sql`, `replay.sql`) are restated here as
//! what they mean. Every client must get every committed event of its topics once and in order, or a
//! reset when something was trimmed. A second test leaves rules out, one at a time, and expects faults.

mod postgres;

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tidings::cursor::{Cursor, Leg, LegText, Mark, Standing};
use tidings::event::Event;
use tidings::frame::Frame;
use tidings::hub::window::Entry;
use tidings::hub::{Missed, Window};
use tidings::topic::Topic;

use self::postgres::{Postgres, Row};
use crate::support::setting;

const WRITERS: usize = 5;
const GATEWAYS: usize = 3;
const CLIENTS: usize = 6;
const TOPICS: usize = 4;

/// The rules that the model can leave out; all true is what tidings does.
#[derive(Clone, Copy)]
struct Rules {
    /// A stream with a cursor attaches to a look that began after it arrived.
    attach_to_a_later_look: bool,
    /// Between the pages of a look only those attach who have seen no more than what came before it.
    wait_when_ahead: bool,
    /// The first look of a session also looks beyond its newest id, whatever the transaction id.
    verify_after_loss: bool,
    /// A look that is not through is finished, in its own snapshot, before the next.
    finish_the_look: bool,
    /// Positions within a look are two marks and not the new one alone.
    two_marks: bool,
    /// Who may have missed what was trimmed is told so.
    floor: bool,
}

const RULES: Rules = Rules {
    attach_to_a_later_look: true,
    wait_when_ahead: true,
    verify_after_loss: true,
    finish_the_look: true,
    two_marks: true,
    floor: true,
};

/// What a client is sent live: an event of its topics and its position.
type Sent = (i64, String);

struct Gateway {
    position: Option<Cursor>,
    /// The position of those who have read all that was sent.
    text: String,
    verified: bool,
    window: Window,
    /// Clients who wait for the next look, and those for whom this one is it.
    waiting: Vec<usize>,
    arrived: Vec<usize>,
}

enum Phase {
    Away,
    /// Waits for a look.
    Waiting(usize),
    /// Is brought up to where it attached.
    Replaying(Box<Replay>),
    Live(Fed),
}

/// Where live frames of a gateway wait for a client.
struct Fed {
    gateway: usize,
    queue: VecDeque<Sent>,
}

struct Replay {
    fed: Fed,
    cursor: Cursor,
    target: Cursor,
    legs: Vec<Leg>,
    plan: Plan,
    sent: usize,
}

enum Plan {
    Unknown,
    /// From the window: leg and id of each event.
    Window(VecDeque<(usize, i64)>),
    /// From the log: the leg, and the id after which it goes on.
    Log(usize, i64),
}

struct Client {
    topics: Vec<usize>,
    /// The last `id:` it has read.
    cursor: Option<String>,
    phase: Phase,
    got: Vec<i64>,
    /// What came before its time, or was trimmed before a reset.
    excused: BTreeSet<i64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tried {
    deliveries: usize,
    resumes: usize,
    within: usize,
    /// Resumes at a position between the pages of a look.
    between: usize,
    from_window: usize,
    from_log: usize,
    resets: usize,
    crashes: usize,
    trims: usize,
    reused: usize,
    /// Resets of a cursor that had seen all that was trimmed.
    spurious: usize,
}

impl Tried {
    fn add(&mut self, other: Tried) {
        self.deliveries += other.deliveries;
        self.resumes += other.resumes;
        self.within += other.within;
        self.between += other.between;
        self.from_window += other.from_window;
        self.from_log += other.from_log;
        self.resets += other.resets;
        self.crashes += other.crashes;
        self.trims += other.trims;
        self.reused += other.reused;
        self.spurious += other.spurious;
    }
}

struct World {
    rules: Rules,
    postgres: Postgres,
    gateways: Vec<Gateway>,
    clients: Vec<Client>,
    tried: Tried,
}

/// What happens next, and how.
type Step = (u8, u16);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0u8..100, any::<u16>()), 20..500)
}

impl World {
    fn new(rules: Rules) -> Self {
        let gateway = |n: usize| Gateway {
            position: None,
            text: String::new(),
            verified: false,
            // One remembers next to nothing, one a little, one everything.
            window: Window::new([600, 4_000, 1 << 20][n]),
            waiting: Vec::new(),
            arrived: Vec::new(),
        };
        let client = |n: usize| Client {
            topics: (0..TOPICS)
                .filter(|topic| (n + 1) >> topic & 1 == 1 || *topic == n % TOPICS)
                .collect(),
            cursor: None,
            phase: Phase::Away,
            got: Vec::new(),
            excused: BTreeSet::new(),
        };
        Self {
            rules,
            postgres: Postgres::new(),
            gateways: (0..GATEWAYS).map(gateway).collect(),
            clients: (0..CLIENTS).map(client).collect(),
            tried: Tried::default(),
        }
    }

    fn run(mut self, steps: &[Step]) -> Result<Tried, String> {
        for &(act, draw) in steps {
            self.postgres.clock += 1;
            let draw = draw as usize;
            match act {
                0..20 => self
                    .postgres
                    .insert(draw % WRITERS, draw / WRITERS % TOPICS),
                20..23 => self.postgres.rolled_back_savepoint(draw % WRITERS),
                23..35 => self.postgres.commit(draw % WRITERS, draw / WRITERS),
                35..38 => self.postgres.roll_back(draw % WRITERS),
                38..60 => self.look(draw % GATEWAYS, [1, 2, 3, 1000][draw / GATEWAYS % 4])?,
                60..68 => self.arrive(draw % CLIENTS, draw / CLIENTS % GATEWAYS),
                68..72 => self.clients[draw % CLIENTS].phase = Phase::Away,
                72..94 => {
                    for _ in 0..=draw / CLIENTS % 3 {
                        self.read(draw % CLIENTS)?;
                    }
                }
                94..97 => self.beat(draw % CLIENTS),
                97 => self.lose_session(draw % GATEWAYS),
                98 => {
                    let before = self.postgres.next_xid;
                    self.postgres.crash();
                    self.tried.reused += usize::from(self.postgres.next_xid < before);
                    self.tried.crashes += 1;
                    (0..GATEWAYS).for_each(|gateway| self.lose_session(gateway));
                }
                _ => {
                    let before = self.postgres.log.len();
                    self.postgres.trim();
                    self.tried.trims += usize::from(self.postgres.log.len() < before);
                }
            }
        }
        self.end()
    }

    /// Everything becomes quiet, everyone comes back and reads to the end; then all is judged.
    fn end(mut self) -> Result<Tried, String> {
        for writer in 0..WRITERS {
            self.postgres.clock += 1;
            self.postgres.commit(writer, 0);
        }
        for round in 0..4 {
            for client in 0..CLIENTS {
                if let Phase::Away = self.clients[client].phase {
                    self.arrive(client, (client + round) % GATEWAYS);
                }
            }
            for gateway in 0..GATEWAYS {
                // One look may be in the middle; the next begins after the arrivals.
                for _ in 0..3 {
                    self.look(gateway, 1000)?;
                }
            }
            for client in 0..CLIENTS {
                for _ in 0..600 {
                    self.read(client)?;
                }
            }
        }
        for (n, client) in self.clients.iter().enumerate() {
            if !matches!(client.phase, Phase::Live(_)) {
                return Err(format!("client {n} could not come back"));
            }
            self.judge(n, client)?;
        }
        Ok(self.tried)
    }

    fn judge(&self, n: usize, client: &Client) -> Result<(), String> {
        let mut got = BTreeSet::new();
        let mut inserted = 0;
        for id in &client.got {
            if !got.insert(*id) {
                return Err(format!("client {n} got {id} twice: {:?}", client.got));
            }
            let Some(row) = self.postgres.all.get(id) else {
                return Err(format!("client {n} got {id}, which was never committed"));
            };
            if row.committed < inserted {
                return Err(format!("client {n} got {id} late: {:?}", client.got));
            }
            inserted = inserted.max(row.inserted);
        }
        for row in self.postgres.all.values() {
            let due = client.topics.contains(&row.topic) && !client.excused.contains(&row.id);
            if due && !got.contains(&row.id) {
                return Err(format!("client {n} never got {row:?}: {:?}", client.got));
            }
        }
        Ok(())
    }

    /// One page: of a new look, or what is left of the last.
    fn look(&mut self, n: usize, rows: usize) -> Result<(), String> {
        let gateway = &mut self.gateways[n];
        let postgres = &self.postgres;
        let Some(position) = gateway.position.clone() else {
            self.begin(n, postgres.mark());
            return Ok(());
        };
        if self.rules.floor && postgres.standing(&position) != Standing::Served {
            if postgres.standing(&position) == Standing::Diverged {
                return Err(format!("gateway {n} takes its own history for another"));
            }
            let mark = postgres.mark();
            self.end_streams(n);
            self.begin(n, mark);
            return Ok(());
        }
        let (from, to, after) = match position {
            Cursor::Between { from, to, sent } if self.rules.finish_the_look => (from, to, sent),
            Cursor::Between { to: from, .. } | Cursor::At(from) => {
                gateway.arrived.append(&mut gateway.waiting);
                (from, postgres.mark(), 0)
            }
        };
        let beyond = after == 0 && (!gateway.verified && self.rules.verify_after_loss);
        gateway.verified |= after == 0;
        let found: Vec<Row> = postgres
            .log
            .values()
            .filter(|row| to.snapshot.sees(row.xid) && row.id <= to.newest && row.id > after)
            .filter(|row| {
                let new = !from.snapshot.sees(row.xid);
                let rest = after > 0 && row.id > from.newest;
                new || rest || beyond && row.id > from.newest
            })
            .cloned()
            .collect();
        let more = found.len() > rows;
        let page = &found[..found.len().min(rows)];
        self.hand_over(n, &from, &to, page, more);
        Ok(())
    }

    fn hand_over(&mut self, n: usize, from: &Mark, to: &Mark, page: &[Row], more: bool) {
        let way = LegText::new(&Leg::whole(from.clone(), to.clone()));
        let whole = Cursor::At(to.clone()).to_string();
        let mut entries = Vec::new();
        for (place, row) in page.iter().enumerate() {
            let through = !more && place + 1 == page.len();
            let text = if through || !self.rules.two_marks {
                whole.clone()
            } else {
                way.at(row.id).expect("short")
            };
            let event = Event {
                id: row.id,
                xid: row.xid,
                at: row.inserted as i64,
                topic: topic(row.topic),
                kind: "k".into(),
                data: "null".into(),
            };
            entries.push(Entry::new(
                &event,
                Frame::event(&event, Some(text.as_str().into())),
            ));
            for client in &mut self.clients {
                let member = client.topics.contains(&row.topic);
                if let Some(fed) = client.fed().filter(|fed| fed.gateway == n && member) {
                    fed.queue.push_back((row.id, text.clone()));
                }
            }
        }
        let gateway = &mut self.gateways[n];
        gateway.window.push(entries, to);
        if let (true, Some(last)) = (more, page.last()) {
            gateway.position = Some(Cursor::Between {
                from: from.clone(),
                to: to.clone(),
                sent: last.id,
            });
            self.between_pages(n, from);
            return;
        }
        gateway.position = Some(Cursor::At(to.clone()));
        gateway.text = whole;
        for client in std::mem::take(&mut gateway.arrived) {
            self.attach(client, n);
        }
    }

    /// Nobody waits for the end of a long look who need not.
    fn between_pages(&mut self, n: usize, from: &Mark) {
        let arrived = std::mem::take(&mut self.gateways[n].arrived);
        for c in arrived {
            let cursor = self.clients[c].cursor.as_deref();
            let cursor = cursor.map(|text| text.parse::<Cursor>().expect("a text of ours reads"));
            if cursor.is_some_and(|cursor| self.rules.wait_when_ahead && !cursor.is_behind(from)) {
                self.gateways[n].arrived.push(c);
                continue;
            }
            let resumes = self.tried.resumes;
            self.attach(c, n);
            self.tried.between += self.tried.resumes - resumes;
        }
    }

    fn begin(&mut self, n: usize, mark: Mark) {
        let gateway = &mut self.gateways[n];
        gateway.window.restart(mark.clone());
        gateway.text = Cursor::At(mark.clone()).to_string();
        gateway.position = Some(Cursor::At(mark));
        gateway.verified = false;
        let mut arrived = std::mem::take(&mut gateway.arrived);
        arrived.append(&mut gateway.waiting);
        for client in arrived {
            // Those who bring nothing may begin here; the others wait for a look.
            match self.clients[client].cursor {
                None => self.attach(client, n),
                Some(_) => self.gateways[n].waiting.push(client),
            }
        }
    }

    fn end_streams(&mut self, n: usize) {
        for client in &mut self.clients {
            if client.fed().is_some_and(|fed| fed.gateway == n) {
                client.phase = Phase::Away;
            }
        }
    }

    fn lose_session(&mut self, n: usize) {
        let gateway = &mut self.gateways[n];
        gateway.verified = false;
        let mut arrived = std::mem::take(&mut gateway.arrived);
        gateway.waiting.append(&mut arrived);
        if let Some(position) = &gateway.position {
            gateway.window.restart(position.anchor().clone());
        }
    }

    fn arrive(&mut self, client: usize, gateway: usize) {
        if !matches!(self.clients[client].phase, Phase::Away) {
            return;
        }
        self.clients[client].phase = Phase::Waiting(gateway);
        let brings_cursor = self.clients[client].cursor.is_some();
        let known = self.gateways[gateway].position.is_some();
        let waits = brings_cursor && self.rules.attach_to_a_later_look;
        if known && !waits {
            self.attach(client, gateway);
        } else {
            self.gateways[gateway].waiting.push(client);
        }
    }

    fn attach(&mut self, c: usize, n: usize) {
        // It may have gone, and even be waiting elsewhere, meanwhile.
        if !matches!(self.clients[c].phase, Phase::Waiting(gateway) if gateway == n) {
            return;
        }
        let target = self.gateways[n].position.clone().expect("known");
        let queue = VecDeque::new();
        let fed = Fed { gateway: n, queue };
        let client = &mut self.clients[c];
        let Some(brought) = &client.cursor else {
            client.cursor = Some(target.to_string());
            client.phase = Phase::Live(fed);
            self.clients[c].excused = self.seen_by(&target);
            return;
        };
        let cursor: Cursor = brought.parse().expect("a text of ours reads");
        self.tried.resumes += 1;
        self.tried.within += usize::from(matches!(cursor, Cursor::Between { .. }));
        client.phase = Phase::Replaying(Box::new(Replay {
            fed,
            legs: cursor.legs(&target),
            cursor,
            target,
            plan: Plan::Unknown,
            sent: 0,
        }));
    }

    fn seen_by(&self, position: &Cursor) -> BTreeSet<i64> {
        let rows = self.postgres.all.values();
        let seen = rows.filter(|row| position.sees(row.xid, row.id));
        seen.map(|row| row.id).collect()
    }

    /// A live client whose queue is empty is told where it stands.
    fn beat(&mut self, c: usize) {
        let client = &mut self.clients[c];
        if let Phase::Live(fed) = &client.phase {
            let gateway = &self.gateways[fed.gateway];
            if fed.queue.is_empty() && matches!(gateway.position, Some(Cursor::At(_))) {
                client.cursor = Some(gateway.text.clone());
            }
        }
    }

    /// A client reads one block.
    fn read(&mut self, c: usize) -> Result<(), String> {
        match std::mem::replace(&mut self.clients[c].phase, Phase::Away) {
            Phase::Live(mut fed) => {
                let client = &mut self.clients[c];
                if let Some((id, text)) = fed.queue.pop_front() {
                    client.got.push(id);
                    client.cursor = Some(text);
                    self.tried.deliveries += 1;
                }
                client.phase = Phase::Live(fed);
            }
            Phase::Replaying(replay) => self.replay(c, replay)?,
            phase => self.clients[c].phase = phase,
        }
        Ok(())
    }

    fn replay(&mut self, c: usize, mut replay: Box<Replay>) -> Result<(), String> {
        if let Plan::Unknown = replay.plan {
            replay.plan = self.plan(c, &replay)?;
        }
        let next = match &mut replay.plan {
            Plan::Window(events) => events.pop_front(),
            Plan::Log(leg, after) => {
                match self.postgres.standing(&replay.cursor) {
                    Standing::Served => {}
                    _ if !self.rules.floor => {}
                    Standing::Diverged => {
                        return Err(format!(
                            "client {c} is told that its own history is another"
                        ));
                    }
                    // A good-bye: the cursor it holds by now decides when it comes back.
                    Standing::Trimmed if replay.sent > 0 => return Ok(()),
                    Standing::Trimmed => return self.reset(c, *replay),
                }
                let topics = &self.clients[c].topics;
                let next = self.postgres.missed(&replay.legs, topics, *leg, *after);
                if let Some((found, id)) = next {
                    (*leg, *after) = (found, id);
                }
                next
            }
            Plan::Unknown => unreachable!("it was just made"),
        };
        let client = &mut self.clients[c];
        match next {
            Some((leg, id)) => {
                client.got.push(id);
                client.cursor = Some(LegText::new(&replay.legs[leg]).at(id).expect("short"));
                replay.sent += 1;
                self.tried.deliveries += 1;
                client.phase = Phase::Replaying(replay);
            }
            None => {
                client.cursor = Some(replay.target.to_string());
                client.phase = Phase::Live(replay.fed);
            }
        }
        Ok(())
    }

    /// Where a replay comes from; what the window says must be what the log says.
    fn plan(&mut self, c: usize, replay: &Replay) -> Result<Plan, String> {
        let client = &self.clients[c];
        let topics: Vec<Topic> = client.topics.iter().map(|n| topic(*n)).collect();
        let window = &self.gateways[replay.fed.gateway].window;
        let missed = window.missed(
            &replay.cursor,
            &replay.target,
            &replay.legs,
            &topics,
            usize::MAX,
        );
        let Missed::Events(events) = missed else {
            self.tried.from_log += 1;
            return Ok(Plan::Log(0, replay.legs[0].after));
        };
        self.tried.from_window += 1;
        let events: VecDeque<(usize, i64)> =
            events.iter().map(|(leg, entry)| (*leg, entry.id)).collect();
        if self.postgres.standing(&replay.cursor) == Standing::Served {
            let mut logged = VecDeque::new();
            let (mut leg, mut after) = (0, replay.legs[0].after);
            while let Some(next) = self
                .postgres
                .missed(&replay.legs, &client.topics, leg, after)
            {
                logged.push_back(next);
                (leg, after) = next;
            }
            if logged != events {
                return Err(format!(
                    "the window says {events:?}, the log says {logged:?}"
                ));
            }
        }
        Ok(Plan::Window(events))
    }

    fn reset(&mut self, c: usize, replay: Replay) -> Result<(), String> {
        let seen = self.seen_by(&replay.cursor);
        let trimmed = |id: &i64| !self.postgres.log.contains_key(id);
        if self
            .postgres
            .all
            .keys()
            .filter(|id| trimmed(id))
            .all(|id| seen.contains(id))
        {
            self.tried.spurious += 1;
        }
        self.tried.resets += 1;
        let seen = self.seen_by(&replay.target);
        let client = &mut self.clients[c];
        client.excused.extend(seen);
        client.cursor = Some(replay.target.to_string());
        client.phase = Phase::Live(replay.fed);
        Ok(())
    }
}

impl Client {
    fn fed(&mut self) -> Option<&mut Fed> {
        match &mut self.phase {
            Phase::Live(fed) => Some(fed),
            Phase::Replaying(replay) => Some(&mut replay.fed),
            Phase::Away | Phase::Waiting(_) => None,
        }
    }
}

fn topic(n: usize) -> Topic {
    Topic::parse(&format!("t{n}")).expect("a topic")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(setting("TIDINGS_TEST_CASES", 400) as u32))]

    #[test]
    fn every_client_of_the_model_gets_every_event_once_and_in_order(steps in steps()) {
        if let Err(fault) = World::new(RULES).run(&steps) {
            return Err(TestCaseError::fail(fault));
        }
    }
}

/// Runs many worlds with these rules; returns the first fault, or what was tried without one.
fn first_fault(rules: Rules) -> Result<Tried, String> {
    let mut runner = TestRunner::deterministic();
    let mut tried = Tried::default();
    for _ in 0..400 {
        let steps = steps()
            .new_tree(&mut runner)
            .expect("a strategy without filters");
        tried.add(World::new(rules).run(&steps.current())?);
    }
    Ok(tried)
}

#[test]
fn the_model_is_not_idle_and_notices_each_rule_that_is_left_out() {
    let tried = first_fault(RULES).expect("no fault");
    eprintln!("{tried:?}");
    for count in [
        tried.deliveries,
        tried.resumes,
        tried.within,
        tried.between,
        tried.from_window,
        tried.from_log,
        tried.resets,
        tried.crashes,
        tried.trims,
        tried.reused,
    ] {
        assert!(count > 50, "{tried:?}");
    }
    for (rule, rules) in [
        (
            "attach to a later look",
            Rules {
                attach_to_a_later_look: false,
                ..RULES
            },
        ),
        (
            "wait when ahead",
            Rules {
                wait_when_ahead: false,
                ..RULES
            },
        ),
        (
            "verify after a loss",
            Rules {
                verify_after_loss: false,
                ..RULES
            },
        ),
        (
            "finish the look",
            Rules {
                finish_the_look: false,
                ..RULES
            },
        ),
        (
            "two marks",
            Rules {
                two_marks: false,
                ..RULES
            },
        ),
        (
            "floor",
            Rules {
                floor: false,
                ..RULES
            },
        ),
    ] {
        let fault = first_fault(rules).expect_err(rule);
        eprintln!("without \"{rule}\": {fault}");
    }
}
