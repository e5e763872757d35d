//! What everybody does in a simulated fleet, seen from outside of it, and what must never be seen there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use squall_experiments::muster::Muster;
use squall_experiments::protocol::RunId;

/// The longest time between two looks of a host at its own leases.
pub const LOOK: Duration = Duration::from_millis(100);
/// How long something may stand after its lease is over: a look, and the ticks of the simulation.
const SLACK: Duration = Duration::from_millis(150);

/// The ledger of one simulation. A clone is the same.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    hosts: BTreeMap<String, OnHost>,
    performed: BTreeMap<(String, RunId, u32), u32>,
    broken: BTreeSet<String>,
    /// What happened, for whoever looks for the reason.
    story: Vec<String>,
    counts: Counts,
    /// Since the simulation began, at the last look.
    elapsed: Duration,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Changes that were made.
    pub injected: u32,
    /// Those of them that were undone by word of somebody.
    pub reverted: u32,
    /// Faults that several hosts had and began together.
    pub together: u32,
    /// Runs that were driven to their end.
    pub runs: u32,
}

impl Counts {
    pub fn and(self, more: Counts) -> Counts {
        Counts {
            injected: self.injected + more.injected,
            reverted: self.reverted + more.reverted,
            together: self.together + more.together,
            runs: self.runs + more.runs,
        }
    }
}

/// What a machine has, whoever lives on it.
#[derive(Default)]
struct OnHost {
    /// How far its clock is ahead: it began earlier, or slept.
    ahead: Duration,
    /// When it woke last, on that clock: nothing can be done by who sleeps.
    woke: Duration,
    /// The changes that are active.
    active: BTreeSet<(RunId, u32)>,
    /// The word by which each run lives: when the last one came, on the host's clock, and for how long it is good.
    leases: BTreeMap<RunId, (Duration, Duration)>,
    /// Runs of which its agent knows that another controller has closed them.
    fenced: BTreeSet<RunId>,
}

impl Ledger {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("nobody panics while writing")
    }

    /// A host's clock: it never goes back, and jumps ahead when the host was asleep.
    pub fn clock(&self, host: &str) -> Duration {
        let ahead = self.kept().hosts.get(host).map(|host| host.ahead).unwrap_or_default();
        turmoil::sim_elapsed().unwrap_or_default() + ahead
    }

    pub fn jump(&self, host: &str, by: Duration) {
        let kept = &mut *self.kept();
        let host = kept.hosts.entry(host.to_owned()).or_default();
        host.ahead += by;
        host.woke = kept.elapsed + host.ahead;
    }

    /// Somebody who may says that a run is to go on.
    pub fn renewed(&self, host: &str, run: &RunId, lease: Duration) {
        let now = self.clock(host);
        self.kept().hosts.entry(host.to_owned()).or_default().leases.insert(run.clone(), (now, lease));
    }

    pub fn performed(&self, host: &str, run: &RunId, part: u32) {
        let kept = &mut *self.kept();
        kept.counts.injected += 1;
        let times = kept.performed.entry((host.to_owned(), run.clone(), part)).or_default();
        *times += 1;
        if *times > 1 {
            kept.broken.insert(format!("part {part} of `{run}` was injected twice on `{host}`"));
        }
        let here = kept.hosts.entry(host.to_owned()).or_default();
        if here.fenced.contains(run) {
            kept.broken.insert(format!("part {part} of `{run}` was injected on `{host}` after its end"));
        }
        here.active.insert((run.clone(), part));
    }

    pub fn undone(&self, host: &str, run: &RunId, part: u32) {
        let kept = &mut *self.kept();
        let here = kept.hosts.entry(host.to_owned()).or_default();
        kept.counts.reverted += u32::from(here.active.remove(&(run.clone(), part)));
    }

    /// The agent of a host was told that a run is over for good.
    pub fn fenced(&self, host: &str, run: &RunId) {
        self.kept().hosts.entry(host.to_owned()).or_default().fenced.insert(run.clone());
    }

    /// The agent of a host died: its guardian undoes everything.
    pub fn died(&self, host: &str) {
        if let Some(host) = self.kept().hosts.get_mut(host) {
            host.active.clear();
            host.leases.clear();
            host.fenced.clear();
        }
    }

    /// A run has ended.
    pub fn ran(&self, muster: &Muster) {
        let mut kept = self.kept();
        kept.counts.runs += 1;
        kept.counts.together += muster.starts.iter().filter(|start| start.began_us.is_some()).count() as u32;
        kept.story.push(format!("{:?} {}: {}", now(), muster.began.run, muster.sentence));
    }

    pub fn tell(&self, what: String) {
        self.kept().story.push(what);
    }

    /// Looks whether everything that is active has a lease that lives, at a moment of the simulation.
    pub fn look(&self, elapsed: Duration) {
        let kept = &mut *self.kept();
        kept.elapsed = elapsed;
        for (name, host) in &kept.hosts {
            let now = elapsed + host.ahead;
            for (run, part) in &host.active {
                let lives = host
                    .leases
                    .get(run)
                    .is_some_and(|(at, lease)| now <= host.woke.max(*at + *lease) + SLACK);
                if !lives {
                    kept.broken
                        .insert(format!("part {part} of `{run}` is active on `{name}` without a live lease"));
                }
            }
        }
    }

    /// A host on which something is active.
    pub fn busy(&self) -> Option<String> {
        let kept = self.kept();
        kept.hosts.iter().find(|(_, host)| !host.active.is_empty()).map(|(name, _)| name.clone())
    }

    /// What is still active anywhere.
    pub fn active(&self) -> Vec<String> {
        let kept = self.kept();
        let of = |name: &String, (run, part): &(RunId, u32)| format!("part {part} of `{run}` on `{name}`");
        kept.hosts.iter().flat_map(|(name, host)| host.active.iter().map(move |one| of(name, one))).collect()
    }

    /// What was seen and must never be; with the story that led there.
    pub fn broken(&self) -> Option<String> {
        let kept = self.kept();
        let broken: Vec<&str> = kept.broken.iter().map(String::as_str).collect();
        (!broken.is_empty()).then(|| format!("{}\n  {}", broken.join("\n"), kept.story.join("\n  ")))
    }

    pub fn counts(&self) -> Counts {
        self.kept().counts
    }
}

fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}
