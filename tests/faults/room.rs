//! Who runs beside whom: most scenarios wait more than they work, so that several run side by side,
//! however few threads the machine would suggest. Of those that work hard all the time, one runs at a
//! time, and of those that do so for a part of theirs, two.

use tokio::sync::{Semaphore, SemaphorePermit};

/// So many that wait more than they work keep a small machine busy and no more.
static ROOM: Semaphore = Semaphore::const_new(6);
/// Its permits are handed out in the order of asking, so that who wants both is not passed over for ever.
static HEAVY: Semaphore = Semaphore::const_new(2);

/// Holds a place beside others for as long as the guard lives.
pub(crate) async fn beside_others() -> SemaphorePermit<'static> {
    ROOM.acquire().await.expect("it is never closed")
}

/// Is the only one that works hard for as long as the guard lives.
pub(crate) async fn heavy() -> SemaphorePermit<'static> {
    HEAVY.acquire_many(2).await.expect("it is never closed")
}

/// Works hard for a part of the time, beside one other that does.
pub(crate) async fn half_heavy() -> SemaphorePermit<'static> {
    HEAVY.acquire().await.expect("it is never closed")
}
