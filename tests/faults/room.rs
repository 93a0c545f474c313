//! Who runs beside whom: most scenarios wait more than they work, so that several run side by side,
//! however few threads the machine would suggest; of those that work hard, one at a time.

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};

/// So many that wait more than they work keep a small machine busy and no more.
static ROOM: Semaphore = Semaphore::const_new(6);
static HEAVY: Mutex<()> = Mutex::const_new(());

/// Holds a place beside others for as long as the guard lives.
pub(crate) async fn beside_others() -> SemaphorePermit<'static> {
    ROOM.acquire().await.expect("it is never closed")
}

/// Is the only one that works hard for as long as the guard lives.
pub(crate) async fn heavy() -> MutexGuard<'static, ()> {
    HEAVY.lock().await
}
