//! What a live change owes: somebody joined its targets and could not be put into the rules, so it is tried again.

use super::sys;

/// How long after a try that failed the next one comes.
const AGAIN_NANOS: u64 = 1_000_000_000;

/// When it is tried again; nothing is owed at first.
#[derive(Debug, Default)]
pub struct Owed {
    next: Option<u64>,
}

impl Owed {
    /// When to try again, on the boot clock.
    pub fn due(&self) -> Option<u64> {
        self.next
    }

    /// Whether it is time.
    pub fn is_due(&self) -> bool {
        self.next.is_some_and(|next| next <= sys::boot_nanos())
    }

    /// Nobody is to be put in any more.
    pub fn forget(&mut self) {
        self.next = None;
    }

    /// It was tried. Gives why it failed where that is news: of many failures in a row only the first is.
    pub fn tried<E>(&mut self, done: Result<(), E>) -> Tried<E> {
        let first = self.next.is_none();
        match done {
            Ok(()) => {
                self.next = None;
                Tried::Done
            }
            Err(error) => {
                self.next = Some(sys::boot_nanos() + AGAIN_NANOS);
                if first { Tried::Failed(error) } else { Tried::FailedAgain }
            }
        }
    }
}

/// What came of a try.
#[derive(Debug, PartialEq, Eq)]
pub enum Tried<E> {
    /// Nothing is owed.
    Done,
    /// For the first time in a row.
    Failed(E),
    /// As before.
    FailedAgain,
}
