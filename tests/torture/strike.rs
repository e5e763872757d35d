//! One blow, and what came of it.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use squall_agent::host::sys::boot_nanos;
use squall_tests::netns::{Process, signal};

use crate::alone;
use crate::faults::Seen;
use crate::stage::{Life, Orders, Passed, Stage};

/// How long a killed agent's host may stay changed: milliseconds on an idle machine.
const KILLED: Duration = Duration::from_secs(5);
/// The same where the self-killing timers, or the other's patience, must run out first (1.5 s).
const STOPPED: Duration = Duration::from_secs(8);
/// The same while the guardian writes: a disk may be slow for 10 s without anybody being dead.
const WRITING: Duration = Duration::from_secs(20);

/// How long is looked where there may be nothing to undo: long enough for whoever is there to do it.
const IDLE: Duration = Duration::from_secs(4);

/// Who is hit, from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The one that acts.
    Worker,
    /// Its parent.
    Guardian,
    /// Both at once.
    Both,
}

/// What is done from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// A signal.
    Signal(Whom, Signal),
    /// The whole control group is killed, by the kernel.
    KillGroup,
    /// The whole control group is frozen, and stays so.
    FreezeGroup,
}

/// A blow.
#[derive(Clone, Debug)]
pub enum Strike {
    /// By the agent itself, at a point. The last order is the blow; others lead to it.
    At(String),
    /// It stops at a point, and meets this.
    Stopped(String, Outside),
    /// While the fault is live, so long after.
    Live(Duration, Outside),
}

/// What came of a blow.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Who was hit.
    pub victim: String,
    /// How.
    pub way: String,
    /// Who ended what could be seen of the fault.
    pub layer: &'static str,
    /// Who did the rest, when both were dead.
    pub rest: &'static str,
    /// How long the fault could be seen after the blow; for what cannot be seen, until both were dead.
    pub took: Duration,
    /// Whether the fault was certainly live when the blow fell.
    pub live: bool,
    /// How many processes it ended, or held until they were ended.
    pub deaths: usize,
}

impl Strike {
    /// The orders for the agent.
    pub fn orders(&self) -> Orders {
        let mut orders = Orders::default();
        match self {
            Strike::At(at) => orders.at.clone_from(at),
            Strike::Stopped(at, outside) => {
                orders.at = format!("{at}:stop");
                orders.in_group = outside.needs_group();
            }
            Strike::Live(_, outside) => {
                orders.held = true;
                orders.in_group = outside.needs_group();
            }
        }
        orders
    }

    /// Role, point and count of the blow; none without a point.
    fn place(&self) -> Option<(&str, &str)> {
        let at = match self {
            Strike::At(at) => at.rsplit(',').next()?.rsplit_once(':')?.0,
            Strike::Stopped(at, _) => at,
            Strike::Live(..) => return None,
        };
        at.split_once('/')
    }

    /// Who is hit and how, for the table.
    pub fn shown(&self) -> (String, String) {
        let of = |outside: &Outside| match outside {
            Outside::Signal(Whom::Worker, signal) => ("worker".to_owned(), shown(*signal)),
            Outside::Signal(Whom::Guardian, signal) => ("guardian".to_owned(), shown(*signal)),
            Outside::Signal(Whom::Both, signal) => ("both".to_owned(), shown(*signal)),
            Outside::KillGroup => ("control group".to_owned(), "cgroup.kill".to_owned()),
            Outside::FreezeGroup => ("control group".to_owned(), "cgroup.freeze".to_owned()),
        };
        match self {
            Strike::Stopped(_, outside) | Strike::Live(_, outside) => of(outside),
            Strike::At(at) => {
                let role = self.place().map_or("", |(role, _)| role);
                let action = at.rsplit(':').next().unwrap_or_default();
                let other = if role == "guardian" { "worker" } else { "guardian" };
                let (victim, way) = match action {
                    "kill-self" => (role, "SIGKILL"),
                    "kill-other" => (other, "SIGKILL"),
                    "kill-both" => ("both", "SIGKILL"),
                    "stop" => (role, "SIGSTOP"),
                    "stop-both" => ("both", "SIGSTOP"),
                    "revoke" => (role, "no CAP_NET_ADMIN"),
                    way => (role, way),
                };
                let victim = match victim {
                    "recovery" => "an agent that starts",
                    // The other has been killed before.
                    _ if at.contains(',') => "who reverts",
                    victim => victim,
                };
                (victim.to_owned(), way.to_owned())
            }
        }
    }

    /// Whether somebody hangs instead of dying.
    fn hangs(&self) -> bool {
        match self {
            Strike::At(at) => [":stop", ":stop-both", ":hang"].iter().any(|end| at.ends_with(end)),
            Strike::Stopped(_, outside) | Strike::Live(_, outside) => {
                matches!(outside, Outside::Signal(_, Signal::STOP) | Outside::FreezeGroup)
            }
        }
    }

    fn allowed(&self) -> Duration {
        match self.place() {
            // The other has been killed before: only its own timer ends who hangs.
            Some(_) if self.hangs() && matches!(self, Strike::At(at) if at.contains(',')) => alone::ENDED,
            Some((_, point)) if self.hangs() && is_idle(point) => IDLE,
            Some((_, point)) if self.hangs() && is_written(point) => WRITING,
            _ if self.hangs() => STOPPED,
            _ => KILLED,
        }
    }

    /// Strikes, and looks until the host is what it was.
    ///
    /// # Errors
    /// What is left, or what did not happen, with everything about it.
    pub fn fall(&self, stage: &Stage, number: usize) -> Result<Outcome, String> {
        self.fall_with(stage, number, self.orders())
    }

    /// [`Strike::fall`] with more orders.
    pub fn fall_with(&self, stage: &Stage, number: usize, orders: Orders) -> Result<Outcome, String> {
        let (victim, way) = self.shown();
        let story = |what: String| format!("{}: {victim}, {way}, {self:?}: {what}", stage.fault.name);
        let mut life = stage.begin(&orders);
        let (struck, live) = match self {
            Strike::Live(after, _) => {
                if !life.live() {
                    return Err(story(format!("it never was live: {:?}", life.finish())));
                }
                thread::sleep(*after);
                (Some(boot_nanos()), true)
            }
            _ => {
                let (role, point) = self.place().expect("a blow at a point has one");
                (life.reached(&format!("{role}/{point}")), false)
            }
        };
        let Some(struck) = struck else {
            return Err(story(format!("the point was never reached: {:?}", life.finish())));
        };
        let deaths = match self {
            Strike::At(_) => 1 + usize::from(way == "SIGKILL" && victim == "both"),
            Strike::Stopped(_, outside) | Strike::Live(_, outside) => {
                outside.fall(stage, &life, matches!(self, Strike::Stopped(..))).map_err(story)?
            }
        };
        if !self.hangs() {
            life.go_on();
        }
        let watched = stage.watch(struck, &life, self.allowed());
        let seen = life.passed();
        let thawed = self.thaw(stage);
        let pair = life.pair();
        // A hang is no death while there is nothing to undo: idle, nobody looks.
        let idle = watched.dead.is_none() && self.hangs() && stage.left("journal").is_none_or(nothing_in);
        let came = life.end();
        thawed.map_err(story)?;
        let Some(effects) = watched.effects else {
            return Err(story(format!("the fault could still be seen after {:?}", self.allowed())));
        };
        let took = match (watched.dead, stage.fault.seen) {
            (None, _) if idle => effects,
            (None, _) => return Err(story(format!("{pair:?} lived on; {came:?}"))),
            (Some(dead), Seen::Nothing) => dead,
            _ => effects,
        };
        let survivor = survivor(&seen, struck);
        let layer = match survivor {
            Some(role) => role,
            None if idle => "nothing live",
            None if self.hangs() => "kernel timers",
            None => "kernel",
        };
        let rest = mend(stage, number).map_err(story)?;
        Ok(Outcome { victim, way, layer, rest, took, live, deaths })
    }

    /// Lets the group run again.
    fn thaw(&self, stage: &Stage) -> Result<(), String> {
        match (self, &stage.group) {
            (
                Strike::Stopped(_, Outside::FreezeGroup) | Strike::Live(_, Outside::FreezeGroup),
                Some(group),
            ) => fs::write(group.join("cgroup.freeze"), "0").map_err(|error| error.to_string()),
            _ => Ok(()),
        }
    }
}

/// Whether there may be nothing to undo there, so that nobody looks whether the other lives.
fn is_idle(point: &str) -> bool {
    ["begin:", "after-end:", "before-remove:", "before-clear:"].iter().any(|part| point.contains(part))
}

/// Whether the guardian may be writing there.
fn is_written(point: &str) -> bool {
    ["half-written", "begin", "record", "undone", "end"].iter().any(|part| point.contains(part))
}

/// Whether nothing has to be undone by a journal.
pub fn nothing_in(journal: std::path::PathBuf) -> bool {
    squall_agent::journal::read(&journal)
        .is_ok_and(|entries| squall_agent::journal::pending(&entries).is_empty())
}

/// The name of a signal that is used here.
pub fn shown(signal: Signal) -> String {
    let name = [
        (Signal::KILL, "SIGKILL"),
        (Signal::STOP, "SIGSTOP"),
        (Signal::TERM, "SIGTERM"),
        (Signal::INT, "SIGINT"),
        (Signal::HUP, "SIGHUP"),
    ];
    name.iter().find(|(known, _)| *known == signal).map_or("?", |(_, name)| name).to_owned()
}

/// Who reverted after the blow.
fn survivor(seen: &[Passed], struck: u64) -> Option<&'static str> {
    let reverts = |role: &'static str| {
        let point = format!("{role}/before-revert:");
        seen.iter().any(|passed| passed.nanos > struck && passed.at.starts_with(&point)).then_some(role)
    };
    reverts("guardian").or_else(|| reverts("worker"))
}

/// Does what the next command does, where something is left, and compares the host with what it was. Says who did it.
pub fn mend(stage: &Stage, number: usize) -> Result<&'static str, String> {
    let journal = stage.left("journal").is_some();
    let mut by = "–";
    if journal || ["agent.sock", "journal.new"].iter().any(|file| stage.left(file).is_some()) {
        let (verb, run) = if number.is_multiple_of(2) {
            ("recover", stage.host().agent(&["recover"]).run())
        } else {
            ("next command", stage.host().squall(&["status"]).run())
        };
        if run.status.code() != Some(0) {
            return Err(format!("it was not recovered: {}", run.story()));
        }
        if journal {
            by = verb;
        }
    }
    let begun = std::time::Instant::now();
    loop {
        match stage.world.difference() {
            None => return Ok(by),
            Some(difference) if begun.elapsed() > Duration::from_secs(3) => {
                return Err(format!("not as found:\n{difference}"));
            }
            Some(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

impl Outside {
    fn needs_group(self) -> bool {
        matches!(self, Outside::KillGroup | Outside::FreezeGroup)
    }

    /// Falls; gives how many it hit. `stopped`: one of the pair waits for it at a point.
    fn fall(self, stage: &Stage, life: &Life, stopped: bool) -> Result<usize, String> {
        let [guardian, worker] = life.pair();
        let mut hit: Vec<Process> = match self {
            Outside::Signal(Whom::Worker, _) => worker.into_iter().collect(),
            Outside::Signal(Whom::Guardian, _) => guardian.into_iter().collect(),
            _ => [guardian, worker].into_iter().flatten().collect(),
        };
        match self {
            Outside::Signal(_, hits) => {
                // Held first, so that neither notices the other's end.
                if hit.len() > 1 && hits == Signal::KILL {
                    for process in &hit {
                        signal(process, Signal::STOP);
                    }
                }
                hit.retain(|process| signal(process, hits));
                if stopped && hits == Signal::TERM {
                    for process in life.pair().iter().flatten() {
                        signal(process, Signal::CONT);
                    }
                }
            }
            Outside::KillGroup | Outside::FreezeGroup => {
                let group = stage.group.as_ref().ok_or("there are no control groups of version 2")?;
                let file = if self == Outside::KillGroup { "cgroup.kill" } else { "cgroup.freeze" };
                fs::write(group.join(file), "1").map_err(|error| format!("{file}: {error}"))?;
            }
        }
        Ok(hit.len())
    }
}
