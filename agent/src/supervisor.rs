//! The one actor that owns live injections, their leases and deadlines.
//!
//! Everything that alters the host is done here, one thing after the other; connections only carry lines.

mod ending;
mod mandate;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ending::Ending;
use squall_experiments::exit::Exit;
use squall_experiments::protocol::{Call, Guard, Lifted, Message, Refusal, Reply, Request, RunId, VERSION};
pub use steps::Ready;
use steps::{Apply, Appointed};
use tokio::sync::mpsc;

use crate::guards::{Guards, Told};
use crate::host::aim::{Aim, News, Resolved};
use crate::host::machine::Machine;
use crate::host::sys;
use crate::host::watch::Watch;
use crate::injection::{Injection, Step, Terms};
use crate::link::{Connection, Incoming, Origin};
use crate::policy::Policy;
use crate::records::{Ask, Records};
use crate::resolve::Follower;
use crate::state::Place;

mod guarded;
mod sights;

/// How often an undo that failed is tried again.
const RETRY: u64 = 1_000_000_000;
/// How long an agent that leaves when idle tries to undo what is stuck.
const PERSIST: u64 = 30_000_000_000;
/// Renewals may have waited unheard while the worker was at something for longer than this, and for so long at most.
const AWAY: std::ops::Range<u64> = 600_000_000..10_000_000_000;

#[derive(Debug)]
struct Client {
    pid: Option<i32>,
    origin: Origin,
    outgoing: mpsc::UnboundedSender<Message>,
}

/// What was heard of names and guards.
#[derive(Debug)]
pub enum Heard {
    /// Those of a request have been resolved.
    First(Ready),
    /// One of a live step was asked again.
    Again(Part, News),
    /// A prober of a run's guards has said something.
    Looked(RunId, Told),
}

/// A step of a run.
type Part = (RunId, u32);

/// See the module.
#[derive(Debug)]
pub struct Supervisor {
    place: Place,
    machine: Machine,
    records: Records,
    policy: Policy,
    watch: Watch,
    clients: BTreeMap<Connection, Client>,
    injections: BTreeMap<RunId, Injection>,
    /// Injections that could not be undone, with the time of the next try and of the first.
    stuck: Vec<(Injection, u64, u64)>,
    heard: mpsc::UnboundedSender<Heard>,
    /// Who asks the names of live steps again.
    followers: BTreeMap<Part, Vec<Follower>>,
    /// What stops a run, by the run.
    guards: BTreeMap<RunId, Guards>,
    guardian: i32,
    controllers: Vec<SocketAddr>,
    /// Ends of runs that wait.
    ending: Vec<Ending>,
    mandates: mandate::Mandates,
    /// Steps that wait for their instant.
    appointed: Vec<Appointed>,
    /// When it last had time to hear, on the boot clock.
    free: u64,
}

/// Milliseconds of the protocol as nanoseconds, a year at most: sums with the clock stay far from overflow.
fn nanos(ms: u64) -> u64 {
    const YEAR_MS: u64 = 365 * 86_400_000;
    ms.min(YEAR_MS) * 1_000_000
}

impl Supervisor {
    /// Nothing is live yet. `heard` brings what is heard of names to [`Supervisor::resolved`].
    pub fn new(
        place: Place,
        machine: Machine,
        records: Records,
        policy: Policy,
        watch: Watch,
        heard: mpsc::UnboundedSender<Heard>,
    ) -> Self {
        Supervisor {
            place,
            machine,
            records,
            policy,
            watch,
            clients: BTreeMap::new(),
            injections: BTreeMap::new(),
            stuck: Vec::new(),
            heard,
            followers: BTreeMap::new(),
            guards: BTreeMap::new(),
            guardian: nix::unistd::getppid().as_raw(),
            controllers: Vec::new(),
            ending: Vec::new(),
            mandates: mandate::Mandates::default(),
            appointed: Vec::new(),
            free: sys::boot_nanos(),
        }
    }

    /// Where the agent's controllers are: no fault touches the way there.
    pub fn led_by(&mut self, controllers: Vec<SocketAddr>) {
        self.controllers = controllers;
    }

    /// Whether there is anything to undo.
    pub fn is_live(&self) -> bool {
        !self.injections.is_empty() || !self.stuck.is_empty()
    }

    /// Keeps the rules matching. Where that came too late they have been inert, and everything is undone; so it is where
    /// an engine hangs, with the packets that it holds.
    pub fn keep_alive(&mut self) {
        if !self.machine.renew() {
            self.end_all("this host was too slow to keep the rules alive");
        } else if !self.machine.engines_answer() {
            self.end_all("a packet engine did not answer any more");
        }
    }

    /// Takes what a connection says.
    pub fn hear(&mut self, message: Incoming) {
        match message {
            Incoming::Opened { connection, pid, origin, outgoing } => {
                self.clients.insert(connection, Client { pid, origin, outgoing });
            }
            Incoming::Closed(connection) => {
                self.clients.remove(&connection);
                let theirs = self.injections.values().filter(|injection| injection.connection == connection);
                let runs: Vec<RunId> = theirs.map(|injection| injection.run.clone()).collect();
                for run in runs {
                    self.end(&run, Some("its command is gone"));
                }
            }
            Incoming::Asked(connection, Call { number, request }) => {
                if let Some(reply) = self.answer(connection, number, request) {
                    self.send(connection, Message::Answer { number, reply });
                }
            }
        }
    }

    fn send(&self, connection: Connection, message: Message) {
        if let Some(client) = self.clients.get(&connection) {
            let _ = client.outgoing.send(message);
        }
    }

    /// The answer, unless it comes later.
    fn answer(&mut self, connection: Connection, number: u64, request: Request) -> Option<Reply> {
        let mine = |injections: &BTreeMap<RunId, Injection>, run: &RunId| {
            let found = injections.get(run).filter(|injection| injection.connection == connection);
            found
                .map(|_| ())
                .ok_or_else(|| Refusal::bare(format!("run {run} is not live on this connection")))
        };
        let refused = |result: Result<Reply, Refusal>| result.unwrap_or_else(Reply::Refused);
        Some(match request {
            Request::Hello { version } if version != VERSION => Reply::Refused(Refusal::new(
                format!("this agent speaks version {VERSION} of the protocol, not {version}"),
                "use the same release of squall and squall-agent",
            )),
            Request::Hello { .. } => Reply::Hello {
                version: VERSION,
                guardian: self.guardian as u32,
                worker: std::process::id(),
                state: self.place.directory().display().to_string(),
                policy: self.policy.version.clone(),
                clock_ns: Some(sys::boot_nanos()),
            },
            Request::Clock => Reply::Clock { now_ns: sys::boot_nanos() },
            Request::Begin { run, title, seed, lease_ms, deadline_ms, plan, guards, mandate } => {
                let deadline = sys::boot_nanos() + nanos(deadline_ms);
                let lease = nanos(lease_ms);
                let terms = Terms { run, title, seed, connection, lease, deadline };
                refused(self.begin_by(terms, (&plan, deadline_ms), guards, *mandate))
            }
            Request::Renew { run } => refused(mine(&self.injections, &run).map(|()| {
                if let Some(injection) = self.injections.get_mut(&run) {
                    injection.lease.renew(sys::boot_nanos());
                }
                Reply::Done
            })),
            Request::Watch { run } => refused(mine(&self.injections, &run).map(|()| self.watch(&run))),
            Request::Apply { run, part, changes, lasts_ms, at_ns } => {
                let step = Step { number: part, changes, lasts: nanos(lasts_ms) };
                let apply = Apply { run, step, at: at_ns };
                match mine(&self.injections, &apply.run).and_then(|()| self.may_apply(&apply)) {
                    Ok(()) => {
                        self.resolve(connection, number, apply);
                        return None;
                    }
                    Err(refusal) => Reply::Refused(refusal),
                }
            }
            Request::Observe { run, part } => refused(mine(&self.injections, &run).and_then(|()| {
                let injection = self.injections.get_mut(&run).ok_or_else(|| Refusal::bare("no such run"))?;
                injection.observe(part, &mut self.machine).map(Reply::Measured)
            })),
            Request::Lift { run, part } => {
                let lifted = match self.injections.get_mut(&run) {
                    Some(injection) => injection.lift(part, &mut self.machine, &self.records),
                    None => Lifted::default(),
                };
                self.call_off(&run, Some(part));
                self.followers.remove(&(run, part));
                Reply::Lifted(lifted)
            }
            Request::Fence { run, epoch } => Reply::Lifted(self.fence(&run, epoch)),
            Request::End { run } => return self.end_when_carried(run, connection, number),
            Request::Status => {
                let machine = &mut self.machine;
                let live = self.injections.values_mut();
                let stuck = self.stuck.iter_mut().map(|(injection, ..)| injection);
                Reply::Status(live.chain(stuck).map(|injection| injection.active(machine)).collect())
            }
            Request::Halt => Reply::Lifted(self.end_all("halted")),
        })
    }

    fn begin(&mut self, terms: Terms, guards: Vec<Guard>) -> Result<Reply, Refusal> {
        if self.injections.contains_key(&terms.run) {
            return Err(Refusal::bare(format!("run {} has begun already", terms.run)));
        }
        if !self.stuck.is_empty() {
            return Err(Refusal::new(
                "this host is still modified by an earlier run",
                "`squall status` names what is left; nothing new is injected until it is gone",
            ));
        }
        let (run, title, deadline) = (terms.run.clone(), terms.title.clone(), terms.deadline);
        self.may_guard(terms.connection, &guards)?;
        self.records.ask(&Ask::Begin { run: run.clone(), title, deadline }, None)?;
        let injection = Injection::begin(terms, &self.records);
        self.injections.insert(run.clone(), injection);
        if guards.is_empty() {
            return Ok(Reply::Done);
        }
        match self.guard(&run, guards) {
            Ok(()) => Ok(Reply::Guarding),
            Err(refusal) => {
                self.end(&run, None);
                Err(refusal)
            }
        }
    }

    /// Names have been resolved, or asked again; or a guard was looked at.
    pub fn resolved(&mut self, heard: Heard) {
        match heard {
            Heard::First(ready) => self.apply(ready),
            Heard::Looked(run, told) => self.looked(&run, told),
            Heard::Again((run, part), news) => {
                let nothing = Resolved::new();
                let aim = Aim::new(&self.policy, &nothing, self.ours()).led_by(&self.controllers);
                // Taken out for a moment: the others are what stands beside it.
                let live = self.injections.remove(&run).is_some_and(|mut injection| {
                    let live = injection.hear(part, &news, &mut self.machine, &aim, &self.injections);
                    self.injections.insert(run.clone(), injection);
                    live
                });
                if !live {
                    self.followers.remove(&(run, part));
                }
            }
        }
    }

    /// The processes that are Squall's own, by whom the veto knows its parents.
    fn ours(&self) -> BTreeSet<i32> {
        self.clients.values().filter_map(|client| client.pid).chain([self.guardian]).collect()
    }

    /// When something is due, on the boot clock.
    pub fn due(&self) -> Option<u64> {
        let live = self.injections.values().map(Injection::due);
        let ending = self.ending.iter().map(Ending::due);
        let appointed = self.appointed.iter().map(Appointed::due);
        live.chain(self.stuck.iter().map(|(_, retry, _)| *retry)).chain(ending).chain(appointed).min()
    }

    /// Does what is due, and follows targets where something has happened to one.
    pub fn tick(&mut self) {
        let now = sys::boot_nanos();
        self.excuse(now);
        if !self.watch.take() && self.due().is_none_or(|due| due > now) {
            return;
        }
        let resolved = Resolved::new();
        let aim = Aim::new(&self.policy, &resolved, self.ours()).led_by(&self.controllers);
        let mut over = Vec::new();
        for injection in self.injections.values_mut() {
            let parts = injection.tick(&mut self.machine, &self.records, &aim);
            if let Some(why) = injection.lease.over(now) {
                over.push((injection.run.clone(), why));
            } else {
                for part in parts {
                    let lifted = injection.lift(part, &mut self.machine, &self.records);
                    self.followers.remove(&(injection.run.clone(), part));
                    let why = "its time was over".to_owned();
                    let message =
                        Message::Ended { run: injection.run.clone(), part: Some(part), why, lifted };
                    if let Some(client) = self.clients.get(&injection.connection) {
                        let _ = client.outgoing.send(message);
                    }
                }
            }
        }
        self.tell_sights();
        for (run, why) in over {
            self.end(&run, Some(why));
        }
        self.begin_those_whose_instant_has_come();
        self.retry(now);
        self.end_those_that_wait(now);
    }

    /// Who does not listen cannot tell that a lease was not renewed. A deadline is one in any case.
    fn excuse(&mut self, now: u64) {
        let away = now.saturating_sub(std::mem::replace(&mut self.free, now));
        if away > AWAY.start {
            let live = self.injections.values_mut();
            live.for_each(|injection| injection.lease.excuse(now, away.min(AWAY.end)));
        }
    }

    /// Tries again what could not be undone.
    fn retry(&mut self, now: u64) {
        let stuck = std::mem::take(&mut self.stuck);
        let alone = stuck.len() == 1 && self.injections.is_empty();
        for (mut injection, retry, since) in stuck {
            if retry > now {
                self.stuck.push((injection, retry, since));
                continue;
            }
            let lifted = injection.end(&mut self.machine, &self.records, alone);
            if lifted.stuck.is_empty() {
                let _ = self.records.ask(&Ask::End { run: injection.run.clone() }, None);
            } else {
                self.stuck.push((injection, now + RETRY, since));
            }
        }
    }

    /// Whether nobody needs this agent: no command, no injection, and what is stuck has been so for so long that a later
    /// start must try.
    pub fn may_leave(&self) -> bool {
        let now = sys::boot_nanos();
        let idle = self.clients.is_empty() && self.injections.is_empty();
        idle && self.stuck.iter().all(|(_, _, since)| now - since > PERSIST)
    }

    /// Undoes a run. Whoever began it is told when somebody else wanted it.
    fn end(&mut self, run: &RunId, why: Option<&str>) -> Lifted {
        self.guards.remove(run);
        self.mandates.ended(run);
        let Some(mut injection) = self.injections.remove(run) else {
            return Lifted::default();
        };
        let alone = self.injections.is_empty() && self.stuck.is_empty();
        let lifted = injection.end(&mut self.machine, &self.records, alone);
        self.followers.retain(|(other, _), _| other != run);
        self.tell_last_sights(&injection);
        if lifted.stuck.is_empty() {
            if let Err(refusal) = self.records.ask(&Ask::End { run: run.clone() }, None) {
                tracing::info!(%refusal, "the journal does not know yet that the run has ended");
            }
        } else {
            tracing::error!(%run, stuck = ?lifted.stuck, "this host is still modified");
        }
        if let Some(why) = why {
            let message =
                Message::Ended { run: run.clone(), part: None, why: why.to_owned(), lifted: lifted.clone() };
            self.send(injection.connection, message);
        }
        // Whoever ordered it knows by now why.
        self.call_off(run, None);
        if !lifted.stuck.is_empty() {
            let now = sys::boot_nanos();
            self.stuck.push((injection, now + RETRY, now));
        }
        lifted
    }

    /// Undoes everything and ends the worker.
    pub fn farewell(mut self, why: &str) -> Exit {
        self.end_all(why);
        let _ = std::fs::remove_file(self.place.socket());
        if self.stuck.is_empty() { Exit::Held } else { Exit::Modified }
    }
}
