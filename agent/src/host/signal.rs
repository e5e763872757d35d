//! Signals to processes held by pidfd. Not undone: what is reported is who ended, when, and what came in its place.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use procfs::ticks_per_second;
use rustix::process::{Signal as Number, pidfd_send_signal};
use squall_experiments::change::{Signal, SignalName};
use squall_experiments::evidence::{Evidence, Incident, Unit};
use squall_experiments::protocol::Refusal;

use super::aim::{Aim, choose};
use super::process::{Processes, Target};
use super::sys;

/// How often ended and new processes are looked for.
const LOOK_NANOS: u64 = 50_000_000;
/// How long a replacement is waited for.
const REPLACEMENT_NANOS: u64 = 30_000_000_000;

/// A signal that has been looked at.
#[derive(Debug)]
pub struct Prepared {
    /// Which processes are in scope now, for the report.
    pub targets: Vec<String>,
    /// What was left out.
    pub notes: Vec<String>,
    /// The choice of the first round.
    pub chosen: Vec<Target>,
}

/// A process that has had a signal.
#[derive(Debug)]
struct Struck {
    target: Target,
    pidfd: OwnedFd,
    ended: bool,
    second_due: Option<u64>,
}

/// A signal fault that lasts.
#[derive(Debug)]
pub struct Live {
    signal: Signal,
    seed: u64,
    place: String,
    began: u64,
    round: u32,
    next_round: Option<u64>,
    /// When ended and new processes are looked for next.
    look: u64,
    struck: Vec<Struck>,
    known: BTreeSet<Target>,
    /// Which process the scope's pid meant when it began: whoever is given that pid later is another one.
    meant: Option<Target>,
    evidence: Evidence,
}

/// Looks at the host. Changes nothing.
pub fn prepare(signal: &Signal, seed: u64, place: &str, aim: &Aim<'_>) -> Result<Prepared, Refusal> {
    let in_scope = aim.processes(&Processes::reached_by(&signal.scope)?, &signal.scope)?;
    let chosen = choose(&in_scope.targets, signal.pick, seed, &round_place(place, 0))?;
    Ok(Prepared { targets: chosen.iter().map(ToString::to_string).collect(), notes: in_scope.notes, chosen })
}

fn round_place(place: &str, round: u32) -> String {
    format!("{place}, round {round}")
}

impl Live {
    /// Sends the first signal.
    pub fn perform(signal: &Signal, prepared: &Prepared, seed: u64, place: &str) -> Result<Self, Refusal> {
        let began = sys::boot_nanos();
        let mut live = Live {
            signal: signal.clone(),
            seed,
            place: place.to_owned(),
            began,
            round: 0,
            next_round: signal.every.map(|every| began + every.get().as_nanos() as u64),
            look: began + LOOK_NANOS,
            struck: Vec::new(),
            meant: Target::named_by(&signal.scope),
            known: Processes::reached_by(&signal.scope)?.of(&signal.scope)?.into_iter().collect(),
            evidence: Evidence { unit: Unit::Processes, ..Evidence::default() },
        };
        live.strike(&prepared.chosen)?;
        Ok(live)
    }

    fn strike(&mut self, targets: &[Target]) -> Result<(), Refusal> {
        for target in targets {
            let Some(pidfd) = target.open() else { continue };
            self.evidence.matched += 1;
            self.send(&pidfd, target, self.signal.signal)?;
            let now = sys::boot_nanos();
            let then = self.signal.then.as_ref();
            let second_due = then.map(|then| now + then.after.get().as_nanos() as u64);
            self.struck.push(Struck { target: target.clone(), pidfd, ended: false, second_due });
            if !ends(self.signal.signal) {
                self.evidence.impaired += 1;
            }
        }
        self.look_for_ends(20);
        Ok(())
    }

    fn send(&mut self, pidfd: &OwnedFd, target: &Target, name: SignalName) -> Result<(), Refusal> {
        match pidfd_send_signal(pidfd, number(name)) {
            Ok(()) => {
                self.incident(format!("{name} sent to {target}"));
                Ok(())
            }
            Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(Refusal::new(
                format!("cannot send {name} to {target}: {error}"),
                "it needs root, or to be the process's own user",
            )),
        }
    }

    fn incident(&mut self, what: String) {
        let after_ms = (sys::boot_nanos() - self.began) / 1_000_000;
        self.evidence.incidents.push(Incident { after_ms, what });
    }

    /// When [`Live::tick`] wants to be called next, on the boot clock.
    pub fn due(&self) -> Option<u64> {
        let now = sys::boot_nanos();
        let second =
            self.struck.iter().filter(|struck| !struck.ended).filter_map(|struck| struck.second_due).min();
        let watching = self.struck.iter().any(|struck| !struck.ended)
            || (!self.struck.is_empty() && now - self.began < REPLACEMENT_NANOS);
        let look = watching.then_some(self.look);
        [second, self.next_round, look].into_iter().flatten().min()
    }

    /// Sends what is due and notes who ended and what came in its place.
    pub fn tick(&mut self, aim: &Aim<'_>) {
        self.look_for_ends(0);
        let now = sys::boot_nanos();
        let looks = self.look <= now;
        if let Some(then) = self.signal.then.clone() {
            let due = |struck: &Struck| !struck.ended && struck.second_due.is_some_and(|due| due <= now);
            let late: Vec<usize> = (0..self.struck.len()).filter(|index| due(&self.struck[*index])).collect();
            for index in late {
                self.struck[index].second_due = None;
                let target = self.struck[index].target.clone();
                if let Ok(pidfd) = self.struck[index].pidfd.try_clone()
                    && let Err(refusal) = self.send(&pidfd, &target, then.signal)
                {
                    self.evidence.notes.push(refusal.what);
                }
            }
            self.look_for_ends(20);
        }
        if let Some(next) = self.next_round.filter(|next| *next <= now) {
            let every = self.signal.every.map_or(u64::MAX, |every| every.get().as_nanos() as u64);
            self.next_round = Some(next.max(now - every.min(now)) + every);
            self.round += 1;
            if let Err(refusal) = self.next_round(aim) {
                self.incident(format!("round {} found no target: {}", self.round + 1, refusal.what));
            }
        }
        if looks {
            self.look_for_replacements();
            self.look = now + LOOK_NANOS;
        }
    }

    fn next_round(&mut self, aim: &Aim<'_>) -> Result<(), Refusal> {
        let mut in_scope = aim.processes(&Processes::reached_by(&self.signal.scope)?, &self.signal.scope)?;
        if let Some(meant) = &self.meant {
            // By its start: a process that runs another program by now has another name, and is the same.
            in_scope.targets.retain(|target| target.start == meant.start);
        }
        self.known.extend(in_scope.targets.iter().cloned());
        let place = round_place(&self.place, self.round);
        let chosen = choose(&in_scope.targets, self.signal.pick, self.seed, &place)?;
        self.strike(&chosen)
    }

    fn look_for_ends(&mut self, patience_ms: u8) {
        for index in 0..self.struck.len() {
            if self.struck[index].ended {
                continue;
            }
            let mut waited = [PollFd::new(self.struck[index].pidfd.as_fd(), PollFlags::POLLIN)];
            if poll(&mut waited, PollTimeout::from(patience_ms)).is_ok_and(|ready| ready > 0) {
                self.struck[index].ended = true;
                let target = self.struck[index].target.clone();
                self.incident(format!("{target} ended"));
                if ends(self.signal.signal) {
                    self.evidence.impaired += 1;
                }
            }
        }
    }

    fn look_for_replacements(&mut self) {
        if !self.struck.iter().any(|struck| struck.ended) {
            return;
        }
        let Ok(now) = Processes::reached_by(&self.signal.scope).and_then(|all| all.of(&self.signal.scope))
        else {
            return;
        };
        for target in now {
            if !self.known.contains(&target) {
                let started = target.start * 1_000_000_000 / ticks_per_second();
                let after_ms = started.saturating_sub(self.began) / 1_000_000;
                let what = match &self.meant {
                    Some(meant) if target.start == meant.start => continue,
                    Some(_) => format!("{target} has its pid now, is another process, and is left alone"),
                    None => format!("{target} came in its place"),
                };
                self.evidence.incidents.push(Incident { after_ms, what });
                self.known.insert(target);
            }
        }
    }

    /// What has been measured so far.
    pub fn observe(&mut self) -> Evidence {
        self.look_for_ends(0);
        self.look_for_replacements();
        self.evidence.clone()
    }
}

/// Whether the signal ends a process that does not handle it, so that its end is the measured effect.
fn ends(name: SignalName) -> bool {
    !matches!(name, SignalName::Hup | SignalName::Usr1 | SignalName::Usr2)
}

fn number(name: SignalName) -> Number {
    match name {
        SignalName::Kill => Number::KILL,
        SignalName::Term => Number::TERM,
        SignalName::Int => Number::INT,
        SignalName::Hup => Number::HUP,
        SignalName::Quit => Number::QUIT,
        SignalName::Abrt => Number::ABORT,
        SignalName::Segv => Number::SEGV,
        SignalName::Usr1 => Number::USR1,
        SignalName::Usr2 => Number::USR2,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Duration;

    use squall_experiments::scope::{ProcessSelector, Scope};

    use super::*;
    use crate::host::aim::Resolved;
    use crate::policy::Policy;

    fn sleeper() -> (Child, Target) {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let target = Target::of(i32::try_from(child.id()).unwrap()).unwrap();
        (child, target)
    }

    #[test]
    fn the_next_look_comes_due_however_often_it_is_asked_for() {
        let (mut child, target) = sleeper();
        let scope =
            Scope::Process(ProcessSelector { pid: u32::try_from(target.pid).ok(), ..Default::default() });
        let (pick, signal) = (squall_experiments::quantity::Pick::All, SignalName::Term);
        let signal = Signal { scope, pick, signal, then: None, every: None };
        // Nothing is sent: it is only watched.
        let prepared = Prepared { targets: Vec::new(), notes: Vec::new(), chosen: Vec::new() };
        let mut live = Live::perform(&signal, &prepared, 1, "here").unwrap();
        live.struck.push(Struck { pidfd: target.open().unwrap(), target, ended: false, second_due: None });
        let due = live.due().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(live.due(), Some(due), "asking puts it off");
        child.kill().unwrap();
        child.wait().unwrap();
        std::thread::sleep(Duration::from_nanos(LOOK_NANOS));
        assert!(live.due().unwrap() <= sys::boot_nanos());
        let (policy, resolved) = (Policy::default(), Resolved::new());
        live.tick(&Aim::new(&policy, &resolved, BTreeSet::new()));
        assert!(live.due().unwrap() > due, "it was looked");
        assert!(live.evidence.incidents.iter().any(|incident| incident.what.ends_with("ended")));
    }
}
