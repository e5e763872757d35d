//! Ends of runs that wait for connections which a proxy carries on without harm.

use squall_experiments::protocol::{Lifted, Message, Reply, RunId};

use super::Supervisor;
use crate::host::sys;
use crate::injection::Injection;
use crate::link::Connection;

/// How long the end of a run waits for that, and how often it looks, in nanoseconds.
const CARRY: u64 = 10_000_000_000;
const LOOK: u64 = 50_000_000;

/// The end of a run that somebody waits for.
#[derive(Debug)]
pub(super) struct Ending {
    run: RunId,
    connection: Connection,
    number: u64,
    until: u64,
    look: u64,
}

impl Ending {
    /// When it is looked at next, on the boot clock.
    pub(super) fn due(&self) -> u64 {
        self.look.min(self.until)
    }
}

impl Supervisor {
    /// Ends a run that its command wants to end: at once where nothing is carried on, else later (`None`).
    pub(super) fn end_when_carried(
        &mut self,
        run: RunId,
        connection: Connection,
        number: u64,
    ) -> Option<Reply> {
        if !self.carries(&run) {
            return Some(Reply::Lifted(self.end(&run, None)));
        }
        let now = sys::boot_nanos();
        self.ending.push(Ending { run, connection, number, until: now + CARRY, look: now + LOOK });
        None
    }

    /// Undoes everything.
    pub(super) fn end_all(&mut self, why: &str) -> Lifted {
        let runs: Vec<RunId> = self.injections.keys().cloned().collect();
        let mut all = Lifted::default();
        for run in runs {
            let lifted = self.end(&run, Some(why));
            all.evidence.extend(lifted.evidence);
            all.undone.extend(lifted.undone.into_iter().map(|what| format!("{run}: {what}")));
            all.stuck.extend(lifted.stuck.into_iter().map(|what| format!("{run}: {what}")));
            all.others.extend(lifted.others);
            // The last one was alone, and has seen everything.
            all.host = lifted.host;
            all.took_us += lifted.took_us;
        }
        all
    }

    fn carries(&mut self, run: &RunId) -> bool {
        let carries = |injection: &mut Injection| injection.carries(&mut self.machine, &self.records);
        self.injections.get_mut(run).is_some_and(carries)
    }

    /// Ends runs for which nothing is carried on any more, or for long enough.
    pub(super) fn end_those_that_wait(&mut self, now: u64) {
        for mut ending in std::mem::take(&mut self.ending) {
            if ending.until > now && self.carries(&ending.run) {
                ending.look = now + LOOK;
                self.ending.push(ending);
                continue;
            }
            let reply = Reply::Lifted(self.end(&ending.run, None));
            self.send(ending.connection, Message::Answer { number: ending.number, reply });
        }
    }
}
