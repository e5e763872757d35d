//! What the proxies of a run have seen, told to whoever watches it.

use squall_experiments::protocol::{Message, Reply, RunId};

use super::Supervisor;
use crate::injection::Injection;

/// How many pages of a proxy are told in the last word of a run: more than it can have kept.
const LAST: u32 = 1024;

impl Supervisor {
    /// From now on what proxies of a run see is wanted.
    pub(super) fn watch(&mut self, run: &RunId) -> Reply {
        if let Some(injection) = self.injections.get_mut(run) {
            injection.watched = true;
        }
        Reply::Done
    }

    /// Tells what was seen since.
    pub(super) fn tell_sights(&self) {
        for injection in self.injections.values().filter(|injection| injection.watched) {
            self.tell(injection);
        }
    }

    /// Tells everything of a run that has ended, and forgets it.
    pub(super) fn tell_last_sights(&self, injection: &Injection) {
        if injection.watched {
            let _ = (0..LAST).find(|_| !self.tell(injection));
            self.machine.forget_sights(&injection.run);
        }
    }

    /// Tells a page of each proxy; whether there was anything.
    fn tell(&self, injection: &Injection) -> bool {
        let pages = self.machine.saw(&injection.run);
        let any = !pages.is_empty();
        for seen in pages {
            self.send(injection.connection, Message::Saw { run: injection.run.clone(), seen });
        }
        any
    }
}
