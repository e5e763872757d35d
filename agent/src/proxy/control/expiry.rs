//! Toxics that end by themselves.

use std::collections::BinaryHeap;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Instant;

use super::Control;
use crate::proxy::toxic::Toxic;

/// When which toxic of which proxy ends. A toxic is told from its successors by what counts its hits.
struct End {
    at: Instant,
    proxy: String,
    hits: Weak<AtomicU64>,
}

/// Toxics are told here when they begin.
pub(super) struct Expiry(Sender<End>);

/// The other end.
pub(super) struct Ends(Receiver<End>);

impl Expiry {
    pub(super) fn new() -> (Self, Ends) {
        let (sender, receiver) = channel();
        (Expiry(sender), Ends(receiver))
    }

    /// This toxic begins now.
    pub(super) fn begin(&self, proxy: &str, toxic: &Toxic) {
        let at = toxic.expires.and_then(|after| Instant::now().checked_add(after));
        if let Some(at) = at {
            let end = End { at, proxy: proxy.to_owned(), hits: Arc::downgrade(&toxic.hits) };
            // Its thread lives as long as somebody can tell it.
            let _ = self.0.send(end);
        }
    }
}

impl Ends {
    /// Ends them in a thread of its own, as long as their owner lives.
    pub(super) fn watch(self, control: &Arc<Control>) -> io::Result<()> {
        let control = Arc::downgrade(control);
        let thread = thread::Builder::new().name("squall-expiry".into()).stack_size(256 << 10);
        thread.spawn(move || self.run(&control)).map(drop)
    }

    fn run(self, control: &Weak<Control>) {
        let mut ends = BinaryHeap::new();
        loop {
            let told = match ends.peek() {
                None => self.0.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(End { at, .. }) => self.0.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match told {
                Ok(end) => ends.push(end),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let Some(end) = ends.pop() else { continue };
                    if let (Some(control), Some(hits)) = (control.upgrade(), end.hits.upgrade()) {
                        control.expire(&end.proxy, &hits);
                    }
                }
            }
        }
    }
}

/// The earliest is the greatest: it stands on top of the heap.
impl Ord for End {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for End {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for End {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for End {}
