//! Waiting for conditions instead of sleeping, and figures that survive a busy machine.

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for something that normally takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again until there is something to see.
///
/// # Panics
/// After `within`, naming `what`.
pub fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < within, "waited {within:?} in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// [`until`] for a condition.
pub fn holds(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    until(what, within, || condition().then_some(()));
}

/// The middle one of some measurements.
///
/// # Panics
/// Without measurements.
pub fn median(mut figures: Vec<Duration>) -> Duration {
    assert!(!figures.is_empty(), "a median needs measurements");
    figures.sort_unstable();
    figures[figures.len() / 2]
}
