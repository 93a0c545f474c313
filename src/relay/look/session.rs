//! One session of looking: when a look is called for, and what follows from it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Look, Over};
use crate::postgres::Tail;
use crate::postgres::backoff::Backoff;
use crate::relay::awake::Step;

/// Who is awake and needs longer than this for a look lets publishers ring: other gateways wait for its rings,
/// and the server would end the session soon.
const TOO_LONG: Duration = Duration::from_millis(500);

impl Look {
    /// One session: verify, then look whenever there is reason to.
    pub(super) async fn session(
        &mut self,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, Over> {
        let database = self.database.clone();
        let tail = self
            .meanwhile(Tail::open(&database, self.page_bytes))
            .await??;
        if self.position.is_none() {
            let head = self.meanwhile(tail.position()).await??;
            self.begin(head.mark()).await?;
        }
        self.connected = true;
        self.bell.set_own(tail.process());
        let mut verified = false;
        loop {
            let begun = Instant::now();
            let rows = self.look_in_time(&tail, !verified).await?;
            if !verified {
                verified = true;
                backoff.mended("tail");
                self.metrics.tail_up.set(1);
            }
            self.status.set_looked();
            self.step(&tail, begun, rows).await?;
            while !self.reason_to_look().await? {}
        }
    }

    /// Does what follows from a look that began then and found so many events.
    async fn step(&mut self, tail: &Tail, begun: Instant, rows: usize) -> Result<(), Over> {
        if self.draining.load(Ordering::Relaxed) {
            self.awake.retire();
        }
        let unfinished = self.whole().snapshot.first_unfinished();
        let now = Instant::now();
        let took = now - begun;
        let time = self.awake.time(now).as_secs_f64();
        self.metrics.awake_time.inc_by(time);
        let step = self
            .awake
            .looked(now, took, rows, self.bell.rings(), unfinished);
        match step {
            Step::Wake | Step::Settle if self.meanwhile(tail.wake()).await?? => {
                self.awake.woken(Instant::now());
                self.metrics.wakes.inc();
            }
            Step::Settle => {
                let barrier = self.meanwhile(tail.barrier()).await??;
                self.awake.settle(Instant::now(), barrier);
            }
            Step::Sleep => {
                let barrier = self.meanwhile(tail.sleep()).await??;
                self.awake.settle(Instant::now(), barrier);
            }
            Step::Wake | Step::Stay => {}
        }
        self.metrics.awake.set(self.awake.is_awake().into());
        Ok(())
    }

    /// One look; who is awake stops being so if it takes too long.
    async fn look_in_time(&mut self, tail: &Tail, verify: bool) -> Result<usize, Over> {
        if !self.awake.is_awake() {
            return self.look(tail, verify).await;
        }
        let (rows, barrier) = {
            let mut look = std::pin::pin!(self.look(tail, verify));
            if let Ok(looked) = tokio::time::timeout(TOO_LONG, &mut look).await {
                return looked;
            }
            let (rows, barrier) = tokio::join!(look, tail.sleep());
            (rows?, barrier?)
        };
        self.awake.settle(Instant::now(), barrier);
        Ok(rows)
    }

    /// Waits for whatever may call for a look, and tells whether it does.
    async fn reason_to_look(&mut self) -> Result<bool, Over> {
        // Who is awake looks soon, and then for everybody.
        let called = !self.awake.is_awake();
        if called && !self.waiting.is_empty() {
            return Ok(true);
        }
        let bell = self.bell.clone();
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Over::Cancelled),
            () = bell.rung(), if called => Ok(true),
            arrival = self.arrivals.recv() => {
                self.receive(arrival.ok_or(Over::Cancelled)?).await?;
                while let Ok(arrival) = self.arrivals.try_recv() {
                    self.receive(arrival).await?;
                }
                Ok(called && !self.waiting.is_empty())
            }
            () = tokio::time::sleep_until(self.awake.next().into()) => Ok(true),
        }
    }
}
