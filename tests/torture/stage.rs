//! A world with one fault's targets, on which an agent lives and dies again and again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use squall_agent::host::sys::boot_nanos;
use squall_agent::host::table::Table;
use squall_experiments::change::Change;
use squall_experiments::document::{Sources, read};
use squall_experiments::plan::{Plan, PlanStep};
use squall_tests::host::Host;
use squall_tests::netns::{Process, signal};
use squall_tests::squall::{Background, Finished, Squall};
use squall_tests::trial::calm;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::conductor::{script, serves};
use crate::faults::{Fault, Seen};

/// See the module.
pub struct Stage {
    /// The hosts; the agent lives on the first.
    pub world: World,
    /// What is done there.
    pub fault: &'static Fault,
    changes: Vec<Change>,
    step: String,
    sleeper: Process,
    /// A version 2 control group for the agent, where there are such.
    pub group: Option<PathBuf>,
    agent: PathBuf,
    next: AtomicU32,
}

impl Stage {
    /// Makes it. `agent` is the program with stopping points.
    pub fn new(fault: &'static Fault, agent: &Path) -> Self {
        let world = World::new(2);
        world.echo(1, 7);
        let groups = squall_tests::skip::cgroup_root().is_some();
        let (mut cgroup, mut unit) = (String::new(), String::new());
        let mut home = "true".to_owned();
        let mut group = None;
        if groups {
            group = Some(world.cgroup("agent").1);
            let place = if fault.step.contains("{unit}") {
                let (name, path) = world.unit("shop.service", false);
                unit = name;
                Some(path)
            } else if fault.step.contains("{cgroup}") {
                let (name, path) = world.cgroup("shop");
                cgroup = name;
                Some(path)
            } else {
                None
            };
            if let Some(path) = place {
                home = format!("echo $$ >{}/cgroup.procs", path.display());
            }
        }
        // It holds a socket, which a scope may mark, and ignores what the kill fault sends.
        let life =
            format!("{home}; trap '' USR1; exec 3<>/dev/udp/{}/7; exec sleep 100000", world.hosts[1].v4);
        let sleeper = world.program(0, None, &["bash", "-c", &life]);
        holds("the sleeper", PATIENCE, || {
            Process::of(sleeper.pid).is_some_and(|process| process.name == "sleep")
        });
        for command in fault.standing {
            world.hosts[0].look(&[&["tc"], &command.split(' ').collect::<Vec<_>>()[..]].concat());
        }
        if !fault.standing.is_empty() {
            world.as_found();
        }
        let names =
            [("{cgroup}", cgroup.as_str()), ("{unit}", &unit), ("{netns}", world.hosts[1].netns.name())];
        let step = names.iter().fold(fault.step.to_owned(), |step, (key, name)| step.replace(key, name));
        let text = calm(&[&step]);
        let document = read("torture", text.as_bytes(), &Sources::default())
            .unwrap_or_else(|problems| panic!("`{step}`: {problems:?}"));
        let plan = Plan::of(&document.experiment, 7, &[], "none");
        let changes = plan.faults().find_map(|step| match step {
            PlanStep::Fault { changes, .. } => Some(changes.clone()),
            _ => None,
        });
        let changes = changes.expect("the document has a fault");
        let mut process = sleeper.clone();
        process.name = "sleep".to_owned();
        let next = AtomicU32::new(0);
        Stage { world, fault, changes, step, sleeper: process, group, agent: agent.to_owned(), next }
    }

    /// Where the agent lives.
    pub fn host(&self) -> &Host {
        &self.world.hosts[0]
    }

    /// Whether the fault can be seen, by a duplicate of nobody's socket.
    fn effects(&self, table: &mut Table) -> bool {
        match self.fault.seen {
            // A dump that the kernel interrupts is one to be made again.
            Seen::Table => table.existing().map_or(true, |found| found.is_some()),
            Seen::Paused => Process::of(self.sleeper.pid).is_some_and(|process| process.halted().is_some()),
            Seen::Proxy => {
                self.host().netns.processes().iter().any(|process| process.name == "squall-outage")
            }
            Seen::Nothing => false,
        }
    }

    /// Looks until nothing can be seen of the fault and both processes are dead, or for so long. On a thread inside.
    pub fn watch(&self, struck: u64, life: &Life, within: Duration) -> Watched {
        self.watch_until(struck, life, within, |watched| watched.dead.is_some() && watched.effects.is_some())
    }

    /// The same until something else has been seen.
    pub fn watch_until(
        &self,
        struck: u64,
        life: &Life,
        within: Duration,
        enough: impl Fn(&Watched) -> bool + Sync,
    ) -> Watched {
        self.world.hosts[self.fault.site].netns.inside(|| {
            let mut table = Table::open().expect("nf_tables can be looked at");
            let mut watched = Watched { effects: None, dead: None };
            loop {
                let since = Duration::from_nanos(boot_nanos().saturating_sub(struck));
                if watched.effects.is_none() && !self.effects(&mut table) {
                    watched.effects = Some(since);
                }
                // A moment's absence before the fault was made is none.
                if watched.dead.is_none() && watched.effects.is_some() && self.effects(&mut table) {
                    watched.effects = None;
                }
                if watched.dead.is_none() && !life.lives() {
                    watched.dead = Some(Duration::from_nanos(boot_nanos().saturating_sub(struck)));
                }
                if enough(&watched) || since > within {
                    return watched;
                }
                thread::sleep(Duration::from_millis(1));
            }
        })
    }

    /// Starts an agent that lives through one fault, from its beginning to its orderly end unless something happens.
    pub fn begin(&self, orders: &Orders) -> Life {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let log = self.world.directory.join(format!("points-{number}"));
        let host = self.host();
        let own = orders.in_group.then_some(self.group.as_ref()).flatten();
        let enter: String = own.into_iter().chain(&orders.in_another).map(|group| enter(group)).collect();
        let mut command = host.netns.command("sh");
        command.args(["-c", &format!("{enter}exec \"$0\" run")]).arg(&self.agent);
        let at = self.fault.lead.map_or(String::new(), |lead| format!("{lead},")) + &orders.at;
        command.env("SQUALL_STATE_DIR", &host.state).env("SQUALL_STOP_AT", at);
        command.env("SQUALL_STOP_LOG", &log);
        let flaw = std::env::var("SQUALL_TORTURE_FLAW").ok();
        if let Some(flaw) = orders.flaw.map(str::to_owned).or(flaw) {
            command.env("SQUALL_FLAW", flaw);
        }
        let shown = format!("squall-agent-stopping run ({})", orders.at);
        let process = Squall::with(command, shown, &host.directory).start();
        let shared = Arc::new(Shared::default());
        shared.guardian.store(process.pid(), Ordering::Relaxed);
        let changes = self.changes.clone();
        let (state, held, theirs) = (host.state.clone(), orders.held, Arc::clone(&shared));
        let script = match orders.serves {
            false => thread::spawn(move || script(&state, changes, held, &theirs)),
            true => thread::spawn(move || serves(&state, &theirs)),
        };
        Life { process, shared, script: Some(script), log }
    }

    /// `squall run` on the stage's host: it finds an agent that serves. The fault lasts for so long.
    pub fn command(&self, lasts: &str) -> Squall {
        let text = calm(&[&self.step.replace("for: 60s", &format!("for: {lasts}"))]);
        self.host().squall(&["run", &self.world.file("command.yaml", text)])
    }

    /// What `squall-agent-stopping recover` says, with orders of its own.
    pub fn recover(&self, at: &str, log: &Path) -> Finished {
        let host = self.host();
        let mut command = host.netns.command(&self.agent);
        command.arg("recover").env("SQUALL_STATE_DIR", &host.state);
        command.env("SQUALL_STOP_AT", at).env("SQUALL_STOP_LOG", log);
        Squall::with(command, "squall-agent-stopping recover", &host.directory).run()
    }

    /// A file of the agent's that is still there, by the end of its name.
    pub fn left(&self, name: &str) -> Option<PathBuf> {
        let places = fs::read_dir(&self.host().state).into_iter().flatten().flatten();
        places.map(|place| place.path().join(name)).find(|path| path.exists())
    }
}

/// What a shell says to move itself into a control group.
pub fn enter(group: &Path) -> String {
    format!("echo $$ >{}/cgroup.procs && ", group.display())
}

/// What an agent is told beforehand.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    /// `SQUALL_STOP_AT`.
    pub at: String,
    /// `SQUALL_FLAW`.
    pub flaw: Option<&'static str>,
    /// Whether the fault stays live until [`Life::go_on`].
    pub held: bool,
    /// Whether it lives in the stage's control group.
    pub in_group: bool,
    /// A control group of another hierarchy in which it lives, too.
    pub in_another: Option<PathBuf>,
    /// Whether it only waits for commands ([`Stage::command`]), and nothing is asked of it.
    pub serves: bool,
}

/// What [`Stage::watch`] saw, counted from the strike.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// When nothing could be seen of the fault any more.
    pub effects: Option<Duration>,
    /// When both processes were dead.
    pub dead: Option<Duration>,
}

/// What a life and its script know of each other.
#[derive(Default)]
pub struct Shared {
    /// Its pid.
    pub guardian: AtomicI32,
    /// Its pid, once it has said so.
    pub worker: AtomicI32,
    /// Whether the fault is live.
    pub live: AtomicBool,
    /// Whether it needs not stay so.
    pub go_on: Mutex<bool>,
    /// Told with it.
    pub word: Condvar,
}

/// One agent, from start to end.
pub struct Life {
    process: Background,
    shared: Arc<Shared>,
    script: Option<JoinHandle<Result<(), String>>>,
    log: PathBuf,
}

/// One passing of a stopping point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// `role/point:nth`.
    pub at: String,
    /// On the boot clock.
    pub nanos: u64,
}

impl Life {
    /// The guardian and the worker, as far as they are known and alive.
    pub fn pair(&self) -> [Option<Process>; 2] {
        [&self.shared.guardian, &self.shared.worker]
            .map(|pid| Process::of(pid.load(Ordering::Relaxed)).filter(Process::lives))
    }

    fn lives(&self) -> bool {
        self.pair().iter().any(Option::is_some)
    }

    /// Waits until the fault is live; `false`: the agent was gone before.
    pub fn live(&self) -> bool {
        while !self.shared.live.load(Ordering::Relaxed) {
            if self.script.as_ref().is_none_or(JoinHandle::is_finished) {
                return self.shared.live.load(Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Waits until an agent that only serves listens.
    pub fn serving(&mut self) -> Result<(), String> {
        let script = self.script.replace(thread::spawn(|| Ok(()))).expect("a life ends once");
        script.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The fault needs not stay live any longer.
    pub fn go_on(&self) {
        *self.shared.go_on.lock().expect("nobody panics with it") = true;
        self.shared.word.notify_all();
    }

    /// Where its passings are noted.
    pub fn log(&self) -> PathBuf {
        self.log.clone()
    }

    /// Every point that was passed so far.
    pub fn passed(&self) -> Vec<Passed> {
        passed(&self.log)
    }

    /// Waits until a point is passed; when it was. `None`: the agent's life went by without.
    pub fn reached(&mut self, at: &str) -> Option<u64> {
        loop {
            // The guardian is what was started; the worker may be left.
            let over = self.process.ended() && !self.lives();
            if let Some(passed) = self.passed().into_iter().find(|passed| passed.at == at) {
                return Some(passed.nanos);
            }
            if over {
                return None;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends what is left of it, and says what came of its script.
    pub fn end(self) -> Result<(), String> {
        self.go_on();
        for process in self.pair().into_iter().flatten() {
            signal(&process, Signal::KILL);
        }
        self.finish()
    }

    /// Waits for what its script comes to, then tells it to end.
    pub fn end_orderly(self) -> Result<(), String> {
        self.go_on();
        while self.script.as_ref().is_some_and(|script| !script.is_finished()) {
            thread::sleep(Duration::from_millis(1));
        }
        for process in self.pair()[..1].iter().flatten() {
            signal(process, Signal::TERM);
        }
        self.finish()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<(), String> {
        self.go_on();
        let script = self.script.take().expect("a life ends once");
        let came = script.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.process.finish();
        came
    }
}

/// What a log of stopping points holds.
pub fn passed(log: &Path) -> Vec<Passed> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [role, point, nth, nanos, _] = words[..] else { return None };
        Some(Passed { at: format!("{role}/{point}:{nth}"), nanos: nanos.parse().ok()? })
    });
    lines.collect()
}
