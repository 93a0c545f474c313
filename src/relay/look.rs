//! Looking: bell → tail → frame → window → shards, in an order that is fixed here once.
//!
//! This loop alone owns the gateway's position. It promises that every committed event is handed
//! over exactly once, that a stream which brings a cursor attaches to the first look that began
//! after it arrived, and that a history rewritten under the gateway ends all streams rather than
//! being continued. Frames of a look carry the position before it and how far they have come;
//! the last one carries the look's whole position.

mod session;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::attach::{Arrival, Attached};
use super::awake::{Awake, Rhythm};
use super::pace::{Gone, Pace};
use super::status::Status;
use crate::cursor::{Cursor, Leg, LegText, Mark, Standing};
use crate::event::Event;
use crate::frame::{Bye, Frame, Position};
use crate::hub::Command;
use crate::hub::window::{Entry, Window};
use crate::metrics::Metrics;
use crate::postgres::backoff::Backoff;
use crate::postgres::{Bell, ConnectError, Database, Head, Page, Tail};
use crate::topic::Topic;

/// Why a session of looking ended.
enum Over {
    Lost(ConnectError),
    Cancelled,
}

impl From<ConnectError> for Over {
    fn from(error: ConnectError) -> Self {
        Self::Lost(error)
    }
}

impl From<Gone> for Over {
    fn from(Gone: Gone) -> Self {
        Self::Cancelled
    }
}

/// The loop and what it owns.
pub struct Look {
    database: Database,
    /// The bytes of a page.
    page_bytes: i64,
    bell: Arc<Bell>,
    awake: Awake,
    arrivals: mpsc::Receiver<Arrival>,
    /// Those who wait for a look that begins after they came.
    waiting: Vec<Arrival>,
    pace: Pace,
    window: Arc<Window>,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
    draining: Arc<AtomicBool>,
    /// Where the gateway is; `None` until it has first reached the database.
    position: Option<Cursor>,
    /// The text of the position, or of the last one that fitted.
    text: Option<Position>,
    /// Whether there is a session to look by.
    connected: bool,
    /// How many streams have attached, by which they are spread over shards.
    attached: usize,
    cancel: CancellationToken,
}

impl Look {
    /// A loop without a position yet.
    #[expect(clippy::too_many_arguments, reason = "one caller, each part named")]
    pub fn new(
        database: Database,
        page_bytes: usize,
        rhythm: Rhythm,
        bell: Arc<Bell>,
        arrivals: mpsc::Receiver<Arrival>,
        pace: Pace,
        window: Arc<Window>,
        metrics: Arc<Metrics>,
        status: Arc<Status>,
        draining: Arc<AtomicBool>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            database,
            page_bytes: page_bytes as i64,
            bell,
            awake: Awake::new(rhythm, Instant::now()),
            arrivals,
            waiting: Vec::new(),
            pace,
            window,
            metrics,
            status,
            draining,
            position: None,
            text: None,
            connected: false,
            attached: 0,
            cancel,
        }
    }

    /// Looks until cancelled, through every loss of the session.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let Err(over) = self.session(&mut backoff).await;
            let Over::Lost(error) = over else { return };
            self.metrics.tail_up.set(0);
            self.metrics.awake.set(0);
            self.awake.lose(Instant::now());
            self.status.set_lost();
            backoff.log("tail", &error);
            // What vouched for the window is gone.
            if let Some(position) = &self.position {
                self.window.restart(position.anchor().clone());
            }
            if self.disconnected().await.is_err() || self.meanwhile(backoff.wait()).await.is_err() {
                return;
            }
        }
    }

    /// Awaits something of the database while streams keep arriving.
    async fn meanwhile<T>(&mut self, act: impl Future<Output = T>) -> Result<T, Over> {
        let mut act = std::pin::pin!(act);
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Over::Cancelled),
                done = &mut act => return Ok(done),
                arrival = self.arrivals.recv() => {
                    self.receive(arrival.ok_or(Over::Cancelled)?).await?;
                }
            }
        }
    }

    /// Takes a stream in. It waits for a look that begins after it came; but while there is none to be
    /// had, a stream without a cursor goes on from the position that is known, which may lie a little
    /// in the past and so only gives it more.
    async fn receive(&mut self, arrival: Arrival) -> Result<(), Over> {
        if arrival.cursor.is_some() || self.connected || self.position.is_none() {
            self.keep(arrival);
            return Ok(());
        }
        self.attach(arrival).await
    }

    /// The session is lost, and with it the looks that streams waited for.
    async fn disconnected(&mut self) -> Result<(), Over> {
        self.connected = false;
        for arrival in std::mem::take(&mut self.waiting) {
            self.receive(arrival).await?;
        }
        Ok(())
    }

    /// Keeps somebody waiting, and forgets those who have gone: while the database is away, clients
    /// come and go.
    fn keep(&mut self, arrival: Arrival) {
        if self.waiting.len() == self.waiting.capacity() {
            self.waiting.retain(|other| !other.reply.is_closed());
        }
        self.waiting.push(arrival);
    }

    /// Between two pages of the look that began at `from`, nobody waits for its end who need not: those
    /// who came before it attach to where it has come, and those without a cursor go on from there.
    /// But whoever has seen more than `from` may know what the next pages hold, and waits.
    async fn between_pages(&mut self, from: &Mark, arrived: &mut Vec<Arrival>) -> Result<(), Over> {
        let is_behind = |arrival: &mut Arrival| {
            let cursor = arrival.cursor.as_ref();
            cursor.is_none_or(|cursor| cursor.is_behind(from))
        };
        for arrival in arrived.extract_if(.., is_behind).collect::<Vec<_>>() {
            self.attach(arrival).await?;
        }
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.keep(arrival);
        }
        let waiting = std::mem::take(&mut self.waiting);
        for arrival in waiting {
            if arrival.cursor.is_some() {
                self.keep(arrival);
            } else {
                self.attach(arrival).await?;
            }
        }
        Ok(())
    }

    async fn attach(&mut self, arrival: Arrival) -> Result<(), Over> {
        let position = self.position.clone().expect("attached only once known");
        self.attached += 1;
        let shard = self.pace.shard(self.attached).clone();
        shard
            .send(Command::Join(arrival.join))
            .await
            .map_err(|_| Over::Cancelled)?;
        // Whoever does not want the answer any more has closed its outbox as well.
        let _ = arrival.reply.send(Attached {
            position,
            earlier: self.text.clone(),
            shard,
        });
        Ok(())
    }

    /// One look, with all its pages, and how many events it found.
    async fn look(&mut self, tail: &Tail, verify: bool) -> Result<usize, Over> {
        // What a session that was lost had left of its last look comes first.
        let mut rows = self.rest(tail, &mut Vec::new()).await?;
        let mut arrived = std::mem::take(&mut self.waiting);
        let rung = self.bell.answer();
        let from = self.whole();
        let act = async {
            match rung {
                None if !verify => tail.look_again(&from).await,
                _ => tail.look(&from, verify).await,
            }
        };
        let page = match self.meanwhile(act).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => {
                self.waiting.extend(arrived);
                return Err(error.into());
            }
            Err(over) => return Err(over),
        };
        self.metrics.looks.inc();
        rows += page.events.len();
        let mark = page.head.mark();
        let standing = self.standing(&page.head);
        if standing == Standing::Served {
            let rings = rows > 0 && self.awake.rings();
            // The other gateways do not wait until those who read here have been served.
            let ring = async { if rings { tail.ring().await } else { Ok(()) } };
            let (rung, handed) = tokio::join!(ring, self.hand_over(&from, mark, page));
            handed?;
            self.metrics.bells_rung.inc_by(u64::from(rings));
            let rest = match rung {
                Ok(()) => self.rest(tail, &mut arrived).await,
                Err(error) => Err(error.into()),
            };
            match rest {
                Ok(more) => rows += more,
                Err(over) => {
                    self.waiting.extend(arrived);
                    return Err(over);
                }
            }
        } else {
            self.begin_anew(standing, mark).await?;
        }
        if rows > 0 {
            self.metrics.rows_per_look.observe(rows as f64);
            if let Some(rung) = rung {
                self.metrics
                    .bell_to_hub
                    .observe(rung.elapsed().as_secs_f64());
            }
        }
        for arrival in arrived {
            self.attach(arrival).await?;
        }
        Ok(rows)
    }

    /// The pages that are left of a look, and how many events they held; `arrived` came before it began.
    async fn rest(&mut self, tail: &Tail, arrived: &mut Vec<Arrival>) -> Result<usize, Over> {
        let mut rows = 0;
        while let Some(Cursor::Between { from, to, sent }) = self.position.clone() {
            self.between_pages(&from, arrived).await?;
            let page = self.meanwhile(tail.rest(&from, &to, sent)).await??;
            let standing = self.standing(&page.head);
            if standing != Standing::Served {
                let head = self.meanwhile(tail.position()).await??;
                self.begin_anew(standing, head.mark()).await?;
                return Ok(rows);
            }
            rows += page.events.len();
            self.hand_over(&from, to, page).await?;
        }
        Ok(rows)
    }

    /// How the gateway's position stands to the log.
    fn standing(&self, head: &Head) -> Standing {
        let position = self.position.as_ref().expect("looked from a position");
        position.standing(&head.floor, head.anchor)
    }

    /// Hands a page over and moves the position on.
    async fn hand_over(&mut self, from: &Mark, to: Mark, page: Page) -> Result<(), Over> {
        let last = page.events.last().map(|event| event.id);
        if let Some(last) = last {
            self.metrics.events_in.inc_by(page.events.len() as u64);
            self.observe_delay(&page.events);
            let frames = self.encode(from, &to, &page);
            let entries = page.events.iter().zip(&frames);
            let entries = entries.map(|(event, (_, frame))| Entry::new(event, frame.clone()));
            self.window.push(entries.collect(), &to);
            self.metrics.window_bytes.set(self.window.bytes() as i64);
            self.pace.frames(frames).await?;
            if page.more {
                self.position = Some(Cursor::Between {
                    from: from.clone(),
                    to,
                    sent: last,
                });
                return Ok(());
            }
        }
        self.reach(to).await
    }

    /// Frames of the events, each with the position of whoever has received it.
    fn encode(&mut self, from: &Mark, to: &Mark, page: &Page) -> Vec<(Topic, Frame)> {
        let way = LegText::new(&Leg::whole(from.clone(), to.clone()));
        let mut frames = Vec::with_capacity(page.events.len());
        for (n, event) in page.events.iter().enumerate() {
            let through = !page.more && n + 1 == page.events.len();
            let text = if through {
                Cursor::At(to.clone()).to_text()
            } else {
                way.at(event.id)
            };
            if text.is_none() {
                self.metrics.positions_too_long.inc();
            }
            let frame = Frame::event(event, text.map(Position::from));
            frames.push((event.topic.clone(), frame));
        }
        frames
    }

    /// The look is through.
    async fn reach(&mut self, mark: Mark) -> Result<(), Over> {
        let position = Cursor::At(mark);
        match position.to_text() {
            Some(text) => self.text = Some(text.into()),
            None => {
                self.metrics.positions_too_long.inc();
            }
        }
        self.position = Some(position);
        let text = self.text.clone();
        self.pace.all(|| Command::Through(text.clone())).await?;
        Ok(())
    }

    /// Takes a first position, or a new one.
    async fn begin(&mut self, mark: Mark) -> Result<(), Over> {
        self.window.restart(mark.clone());
        self.reach(mark).await
    }

    /// What the gateway has read does not lead on to what is there: it begins anew, and so does every
    /// stream, whose cursor then decides what it can resume.
    async fn begin_anew(&mut self, standing: Standing, mark: Mark) -> Result<(), Over> {
        if standing == Standing::Trimmed {
            tracing::warn!(
                "events were trimmed before this gateway had read them; streams reconnect"
            );
        } else {
            tracing::error!(
                "the database does not continue the history that this gateway has read (a failover \
                 that lost commits, or a restored copy); streams reconnect"
            );
        }
        self.pace.all(|| Command::EndAll(Bye::Diverged)).await?;
        self.begin(mark).await
    }

    fn whole(&self) -> Mark {
        match &self.position {
            Some(Cursor::At(mark)) => mark.clone(),
            _ => unreachable!("a look begins when the rest of the last one is through"),
        }
    }

    fn observe_delay(&self, events: &[Event]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_micros() as i64);
        for event in events {
            // Two clocks are compared; they may disagree by more than the delay.
            let delay = Duration::from_micros((now - event.at).max(0) as u64);
            self.metrics.insert_to_hub.observe(delay.as_secs_f64());
        }
    }
}
