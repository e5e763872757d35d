//! What became of the notices of each receiver.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;

use super::happening::When;
use super::receiver::Receiver;
use crate::store::now_ms;

/// What became of the notices of one receiver, as far as this process knows.
#[derive(Default)]
pub(super) struct Tally {
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    trouble: Mutex<Option<Trouble>>,
}

/// A receiver that does not take its notices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Trouble {
    /// Since when: milliseconds since 1970.
    pub since: u64,
    /// How many attempts have failed one after the other.
    pub attempts: u64,
    /// What was said last.
    pub why: String,
}

/// A receiver, and what became of its notices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// How it is told: `webhook`, `slack`, `email`, `grafana`.
    pub kind: String,
    /// Of what.
    pub when: Vec<When>,
    /// How many notices wait, of all controllers on this store.
    pub waiting: u64,
    /// How many it has taken, since this controller began.
    pub sent: u64,
    /// How many were given up.
    pub failed: u64,
    /// How many were dropped because too many waited.
    pub dropped: u64,
    /// What is wrong with it; none: nothing is known.
    pub trouble: Option<Trouble>,
}

impl Tally {
    fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One more attempt has failed; gives how many that are, one after the other.
    pub(super) fn fails(&self, why: &str) -> u64 {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, attempts) = trouble.as_ref().map_or((now_ms(), 0), |old| (old.since, old.attempts));
        *trouble = Some(Trouble { since, attempts: attempts + 1, why: why.to_owned() });
        attempts + 1
    }

    pub(super) fn takes(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// One is given up.
    pub(super) fn gives_up(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// So many are dropped.
    pub(super) fn drops(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }
}

impl Standing {
    /// That of a receiver for which so many notices wait.
    pub(super) fn of(receiver: &Receiver, waiting: u64, tally: Option<&Tally>) -> Self {
        let count = |of: fn(&Tally) -> &AtomicU64| tally.map_or(0, |tally| of(tally).load(Ordering::Relaxed));
        Standing {
            name: receiver.name.clone(),
            kind: receiver.kind().to_owned(),
            when: receiver.when().to_vec(),
            waiting,
            sent: count(|tally| &tally.sent),
            failed: count(|tally| &tally.failed),
            dropped: count(|tally| &tally.dropped),
            trouble: tally.and_then(Tally::trouble),
        }
    }
}
