//! Who speaks with the interface: so many at most, and nobody who holds a place without using it.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};

/// How many callers there may be at the same time.
const MOST: usize = 512;
/// How long a caller may take nothing of its answer.
const WRITING: Duration = Duration::from_secs(30);
/// How long whoever is closed may take to be gone, before another one is.
const LEAVING: Duration = Duration::from_millis(20);

/// All callers.
pub(super) struct Callers {
    room: Arc<Semaphore>,
    present: Mutex<HashMap<u64, Arc<Caller>>>,
    next: AtomicU64,
}

/// One of them.
struct Caller {
    /// When a byte came from it or went to it last.
    moved: Mutex<Instant>,
    /// What it has asked for is being done.
    served: AtomicBool,
    leave: Notify,
}

/// The place of a caller, until it is dropped.
pub(super) struct Place {
    callers: Arc<Callers>,
    caller: Arc<Caller>,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Callers {
    pub(super) fn new() -> Arc<Self> {
        let room = Arc::new(Semaphore::new(MOST));
        Arc::new(Callers { room, present: Mutex::default(), next: AtomicU64::default() })
    }

    /// A place for a caller who has just come. Where there is none, whoever has been idle for longest is closed; who is
    /// being served is waited for.
    pub(super) async fn place(self: &Arc<Self>) -> Place {
        loop {
            let permit = match self.room.clone().try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) => {
                    self.close_idlest();
                    match timeout(LEAVING, self.room.clone().acquire_owned()).await {
                        Ok(Ok(permit)) => permit,
                        _ => continue,
                    }
                }
            };
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let (moved, served) = (Mutex::new(Instant::now()), AtomicBool::new(false));
            let caller = Arc::new(Caller { moved, served, leave: Notify::new() });
            self.present().insert(number, caller.clone());
            return Place { callers: self.clone(), caller, number, _permit: permit };
        }
    }

    fn present(&self) -> MutexGuard<'_, HashMap<u64, Arc<Caller>>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_idlest(&self) {
        let present = self.present();
        let idle = present.values().filter(|caller| !caller.served.load(Ordering::Relaxed));
        if let Some(caller) = idle.min_by_key(|caller| caller.moved()) {
            caller.leave.notify_one();
        }
    }
}

impl Caller {
    fn moved(&self) -> Instant {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moves(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Place {
    /// Until the place is needed for somebody else.
    pub(super) async fn is_needed(&self) {
        self.caller.leave.notified().await;
    }

    /// It is being served while this is done.
    pub(super) async fn serve<T>(&self, done: impl Future<Output = T>) -> T {
        self.caller.served.store(true, Ordering::Relaxed);
        let done = done.await;
        self.caller.moves();
        self.caller.served.store(false, Ordering::Relaxed);
        done
    }

    /// Its stream: an error once nothing can be written for long.
    pub(super) fn watch<S>(&self, stream: S) -> Watched<S> {
        Watched { stream, caller: self.caller.clone(), writing: WRITING, stuck: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.callers.present().remove(&self.number);
    }
}

/// The stream of a caller.
pub(super) struct Watched<S> {
    stream: S,
    caller: Arc<Caller>,
    writing: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    /// What was tried to be written: not for ever.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stuck = None;
            self.caller.moves();
            return wrote;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(self.writing)));
        std::task::ready!(stuck.as_mut().poll(cx));
        self.stuck = None;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.caller.moves();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wrote(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { timeout(Duration::from_secs(60), test).await.expect("it ends") });
    }

    #[test]
    fn who_reads_nothing_for_long_is_let_go_and_who_reads_is_not() {
        run(async {
            let place = Callers::new().place().await;
            let (near, mut far) = duplex(16);
            let mut near = place.watch(near);
            near.writing = Duration::from_millis(50);
            let error = near.write_all(&[0; 1000]).await.expect_err("nobody reads");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            near.writing = Duration::from_secs(3600);
            let reading = async { far.read_exact(&mut [0; 1000]).await };
            let (wrote, read) = tokio::join!(near.write_all(&[0; 1000]), reading);
            assert!(wrote.is_ok() && read.is_ok());
        });
    }

    #[test]
    fn where_no_place_is_left_the_longest_idle_goes_and_nobody_who_is_served() {
        run(async {
            let callers = Callers::new();
            let mut places = Vec::new();
            for _ in 0..MOST {
                places.push(callers.place().await);
            }
            // The first is being served, the second has just moved: the third has been idle for longest.
            places[0].caller.served.store(true, Ordering::Relaxed);
            places[1].caller.moves();
            let third = places.remove(2);
            let gone = tokio::spawn(async move { third.is_needed().await });
            let _new = callers.place().await;
            gone.await.expect("it was told to go");
            for place in &places {
                assert!(timeout(Duration::ZERO, place.is_needed()).await.is_err());
            }
        });
    }
}
