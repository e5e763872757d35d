//! Work that takes a while, not in the thread that answers everybody.

use std::panic::resume_unwind;

use tokio::task::spawn_blocking;

/// What the work gives, done in a thread of its own; a panic of it goes on here. Needs a runtime. Dropped, the work still
/// ends. Where the runtime ends before the work begins it gives nothing any more.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(given) => given,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
