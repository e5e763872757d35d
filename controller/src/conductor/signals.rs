//! Signals that stop a run: held back from the first moment, delivered once somebody can act on them.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Signals are held back: one that arrives now is kept until [`Held::listen`]. A process that is started meanwhile
/// must not inherit this; the standard library's `Command` takes care of it.
#[derive(Debug)]
#[must_use = "signals that are held and never listened to make a process that cannot be interrupted"]
pub struct Held(());

const STOPPING: [(Signal, &str); 3] =
    [(Signal::SIGINT, "SIGINT"), (Signal::SIGTERM, "SIGTERM"), (Signal::SIGHUP, "SIGHUP")];

/// Holds back SIGINT, SIGTERM and SIGHUP for the calling thread, which should be the only one.
pub fn hold() -> io::Result<Held> {
    set().thread_block()?;
    Ok(Held(()))
}

impl Held {
    /// From here on the names of arriving signals come out of the channel, those held back first. Must be called
    /// inside a runtime with its I/O driver.
    pub fn listen(self) -> io::Result<mpsc::UnboundedReceiver<String>> {
        let (send, names) = mpsc::unbounded_channel();
        for (number, name) in STOPPING {
            let mut arrivals = signal(SignalKind::from_raw(number as i32))?;
            let send = send.clone();
            tokio::spawn(async move {
                while arrivals.recv().await.is_some() {
                    if send.send(name.to_owned()).is_err() {
                        return;
                    }
                }
            });
        }
        set().thread_unblock()?;
        Ok(names)
    }
}

fn set() -> SigSet {
    STOPPING.iter().map(|(signal, _)| *signal).collect()
}
