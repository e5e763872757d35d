//! What everybody does in a simulated fleet, seen from outside of it, and what must never be seen there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

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
    injected: u32,
    reverted: u32,
}

/// What a machine has, whoever lives on it.
#[derive(Default)]
struct OnHost {
    /// How far its clock is ahead: it slept, or was frozen.
    ahead: Duration,
    /// The changes that are active.
    active: BTreeSet<(RunId, u32)>,
    /// The word by which each run lives: when the last one came, on the host's clock, and for how long it is good.
    leases: BTreeMap<RunId, (Duration, Duration)>,
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
        self.kept().hosts.entry(host.to_owned()).or_default().ahead += by;
    }

    /// Somebody who may says that a run is to go on.
    pub fn renewed(&self, host: &str, run: &RunId, lease: Duration) {
        let now = self.clock(host);
        self.kept().hosts.entry(host.to_owned()).or_default().leases.insert(run.clone(), (now, lease));
    }

    pub fn performed(&self, host: &str, run: &RunId, part: u32) {
        let mut kept = self.kept();
        kept.injected += 1;
        let times = kept.performed.entry((host.to_owned(), run.clone(), part)).or_default();
        *times += 1;
        if *times > 1 {
            kept.broken.insert(format!("part {part} of `{run}` was injected twice on `{host}`"));
        }
        kept.hosts.entry(host.to_owned()).or_default().active.insert((run.clone(), part));
    }

    pub fn undone(&self, host: &str, run: &RunId, part: u32) {
        let mut kept = self.kept();
        kept.reverted += 1;
        kept.hosts.entry(host.to_owned()).or_default().active.remove(&(run.clone(), part));
    }

    /// The agent of a host died: its guardian undoes everything.
    pub fn died(&self, host: &str) {
        if let Some(host) = self.kept().hosts.get_mut(host) {
            host.active.clear();
            host.leases.clear();
        }
    }

    pub fn tell(&self, what: String) {
        self.kept().story.push(what);
    }

    /// Looks whether everything that is active has a lease that lives, at a moment of the simulation.
    pub fn look(&self, elapsed: Duration) {
        let kept = &mut *self.kept();
        for (name, host) in &kept.hosts {
            let now = elapsed + host.ahead;
            for (run, part) in &host.active {
                let lives = host.leases.get(run).is_some_and(|(at, lease)| now <= *at + *lease + SLACK);
                if !lives {
                    kept.broken
                        .insert(format!("part {part} of `{run}` is active on `{name}` without a live lease"));
                }
            }
        }
    }

    /// What is still active anywhere.
    pub fn active(&self) -> Vec<String> {
        let kept = self.kept();
        let active = |(name, host): (&String, &OnHost)| {
            let name = name.clone();
            host.active
                .iter()
                .map(move |(run, part)| format!("part {part} of `{run}` on `{name}`"))
                .collect::<Vec<_>>()
        };
        kept.hosts.iter().flat_map(active).collect()
    }

    /// What was seen and must never be; with the story that led there.
    pub fn broken(&self) -> Option<String> {
        let kept = self.kept();
        let broken: Vec<&str> = kept.broken.iter().map(String::as_str).collect();
        (!broken.is_empty()).then(|| format!("{}\n  {}", broken.join("\n"), kept.story.join("\n  ")))
    }

    /// How many changes were made and undone by word of somebody.
    pub fn counts(&self) -> (u32, u32) {
        let kept = self.kept();
        (kept.injected, kept.reverted)
    }
}
