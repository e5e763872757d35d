//! Where hosts wait for each other.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::conductor::Gate;

/// From the word to go to the instant of going: time for every thread to hear it and for every host to be told, so that none
/// goes later than others only because it was told last.
const LEAD: Duration = Duration::from_millis(100);
/// The same for each host, and the longest for all.
const EACH: Duration = Duration::from_micros(500);
const LONGEST: Duration = Duration::from_secs(5);

/// Lets those that take part pass each gate together.
pub(super) struct Barrier {
    /// `None` is closed.
    members: Mutex<Option<Members>>,
    go: watch::Sender<Go>,
    /// Is told each gate that was passed, and by how many.
    told: Box<dyn Fn(Gate, usize) + Send + Sync>,
}

/// Those that take part, each with the last gate that it came to; and how many came to each gate last.
struct Members {
    at: BTreeMap<String, Option<Gate>>,
    many: BTreeMap<Option<Gate>, usize>,
}

impl Members {
    fn new(names: impl Iterator<Item = String>) -> Members {
        let at: BTreeMap<String, Option<Gate>> = names.map(|name| (name, None)).collect();
        Members { many: BTreeMap::from([(None, at.len())]), at }
    }

    fn came(&mut self, member: &str, gate: Gate) {
        if let Some(at) = self.at.get_mut(member) {
            let before = at.replace(gate);
            *self.many.entry(Some(gate)).or_default() += 1;
            self.left(before);
        }
    }

    fn gone(&mut self, member: &str) {
        if let Some(at) = self.at.remove(member) {
            self.left(at);
        }
    }

    fn left(&mut self, gate: Option<Gate>) {
        if let Some(many) = self.many.get_mut(&gate) {
            *many -= 1;
            if *many == 0 {
                self.many.remove(&gate);
            }
        }
    }

    /// The earliest gate at which somebody waits, when all have come to one.
    fn earliest(&self) -> Option<Gate> {
        *self.many.first_key_value()?.0
    }
}

/// The last gate that was opened, and when it is passed.
#[derive(Clone, Copy, Debug)]
struct Go {
    gate: Option<Gate>,
    at: Instant,
}

impl Barrier {
    pub(super) fn new(
        members: impl Iterator<Item = String>,
        told: Box<dyn Fn(Gate, usize) + Send + Sync>,
    ) -> Barrier {
        let (go, _) = watch::channel(Go { gate: None, at: Instant::now() });
        Barrier { members: Mutex::new(Some(Members::new(members))), go, told }
    }

    /// Comes to a gate; ready when it is known at which instant it is passed, never after a close. The arrival counts even if
    /// the future is not polled.
    pub(super) fn arrive(&self, member: &str, gate: Gate) -> impl Future<Output = Instant> + use<> {
        let mut go = self.go.subscribe();
        let mut members = self.members();
        if let Some(members) = members.as_mut() {
            members.came(member, gate);
        }
        self.open(&members);
        drop(members);
        async move {
            let passed = go.wait_for(|go| go.gate >= Some(gate)).await.map(|go| go.at);
            match passed {
                Ok(at) => at,
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Takes part no longer: nobody waits for it.
    pub(super) fn leave(&self, member: &str) {
        let mut members = self.members();
        if let Some(members) = members.as_mut() {
            members.gone(member);
        }
        self.open(&members);
    }

    /// Nobody passes any gate any more, but one that was opened already.
    pub(super) fn close(&self) {
        *self.members() = None;
    }

    fn open(&self, members: &Option<Members>) {
        let Some(members) = members else { return };
        let Some(gate) = members.earliest() else { return };
        // Not open yet.
        if self.go.borrow().gate < Some(gate) {
            let hosts = u32::try_from(members.at.len()).unwrap_or(u32::MAX);
            let lead = LEAD + EACH.saturating_mul(hosts);
            self.go.send_replace(Go { gate: Some(gate), at: Instant::now() + lead.min(LONGEST) });
            (self.told)(gate, members.at.len());
        }
    }

    fn members(&self) -> MutexGuard<'_, Option<Members>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A gate in words, for the log.
pub(super) fn in_words(gate: Gate, steps: usize, stages: &[usize]) -> String {
    match gate {
        Gate::Method => "the baseline".to_owned(),
        Gate::Step(step) if step > steps => "the method".to_owned(),
        Gate::Step(step) if step <= stages.len() => match stages[step - 1] {
            1 => format!("to stage {step}: 1 host"),
            hosts => format!("to stage {step}: {hosts} hosts"),
        },
        Gate::Step(step) => format!("to step {step}"),
    }
}
