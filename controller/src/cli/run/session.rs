//! The runs of a command: one after the other, or several at the same time where none wants what another one has.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use squall_agent::join;
use squall_controller::conductor::signals::Held;
use squall_controller::conductor::{Order, Outlet, Tell, conduct, into_file, run_id};
use squall_controller::report::Progress;
use squall_experiments::document::Redactor;
use squall_experiments::exit::Exit;
use squall_experiments::summary::Summary;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::{JoinSet, LocalSet};

use super::super::Common;
use super::super::host::{LocalHost, refused};
use super::super::telling::{self, Tellings};
use super::climb::Climb;
use super::outputs::Events;
use super::pipeline::Pipeline;
use super::prepared::Prepared;

/// What is to be run, and how.
pub struct Session {
    pub experiments: Vec<Rc<Prepared>>,
    /// Whether each run is announced.
    pub suite: bool,
    /// At most so many at the same time.
    pub parallel: usize,
    /// Each so often.
    pub repeat: u32,
    /// Whether progress is a plain log.
    pub log: bool,
    /// Whether lines of the log may be read as commands.
    pub guard: bool,
    /// How long an agent waits for a word of this command.
    pub lease: Duration,
    /// Where events are written.
    pub events: Option<Events>,
    /// The version that is tested, where that was said.
    pub build: Option<String>,
    /// Where it is written what proxies see.
    pub observations: Option<File>,
    /// How else runs are told.
    pub tellings: Tellings,
    /// Where the experiments are the steps of a ramp: what says which one comes next.
    pub climb: Option<Climb>,
    pub common: Common,
}

/// One run of one experiment.
#[derive(Clone, Copy, Debug)]
struct Unit {
    experiment: usize,
    time: usize,
}

/// A run under way.
struct Live {
    unit: Unit,
    interrupt: UnboundedSender<String>,
}

/// What a run came to, and where its events are.
type Ended = (Unit, Summary, Option<PathBuf>);

/// The runs of one experiment, each with the place of its events.
pub type Runs = Vec<(Summary, Option<String>)>;

impl Session {
    /// Carries out all runs; gives those of each experiment that took place, in their order.
    ///
    /// The first signal ends whatever is live, and nothing more begins; nor does it after a run that a person ended or that left
    /// its host modified.
    pub fn carry_out(&mut self, held: Held) -> io::Result<Vec<Runs>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = LocalSet::new();
        let mut ended = runtime.block_on(local.run_until(self.drive(held)))?;
        runtime.shutdown_background();
        ended.sort_by_key(|(unit, ..)| (unit.experiment, unit.time));
        let mut runs: Vec<Runs> = self.experiments.iter().map(|_| Vec::new()).collect();
        for (unit, summary, events) in ended {
            runs[unit.experiment].push((summary, events.map(|path| path.display().to_string())));
        }
        Ok(runs)
    }

    async fn drive(&mut self, held: Held) -> io::Result<Vec<Ended>> {
        let mut interruptions = held.listen()?;
        let units = 0..self.experiments.len();
        let times = 0..self.repeat as usize;
        let mut waiting: VecDeque<Unit> =
            units.flat_map(|experiment| times.clone().map(move |time| Unit { experiment, time })).collect();
        let mut live: Vec<Live> = Vec::new();
        let mut tasks: JoinSet<Ended> = JoinSet::new();
        let mut ended = Vec::new();
        let mut stopped = false;
        loop {
            while live.len() < self.parallel {
                let next =
                    waiting.iter().position(|unit| live.iter().all(|other| self.go_together(unit, other)));
                let Some(unit) = next.and_then(|at| waiting.remove(at)) else { break };
                live.push(self.start(unit, &mut tasks));
            }
            if live.is_empty() {
                return Ok(ended);
            }
            tokio::select! {
                Some(by) = interruptions.recv() => {
                    stopped = true;
                    waiting.clear();
                    live.iter().for_each(|run| drop(run.interrupt.send(by.clone())));
                }
                Some(done) = tasks.join_next() => {
                    let (unit, summary, path) = match done {
                        Ok(done) => done,
                        // A bug: the connections break with this process, and the agent reverts.
                        Err(error) => match error.try_into_panic() {
                            Ok(panic) => std::panic::resume_unwind(panic),
                            Err(error) => return Err(io::Error::other(error)),
                        },
                    };
                    live.retain(|run| run.unit.experiment != unit.experiment || run.unit.time != unit.time);
                    waiting.extend(self.climb_on(unit, &summary));
                    // A signal may have come when the run was over already.
                    if stopped || matches!(summary.exit, Exit::Interrupted | Exit::Modified | Exit::Bug) {
                        waiting.clear();
                    }
                    ended.push((unit, summary, path));
                }
            }
        }
    }

    /// The step that follows one that has ended, where this is a ramp that goes on.
    fn climb_on(&mut self, ended: Unit, summary: &Summary) -> Option<Unit> {
        let climb = self.climb.as_mut()?;
        climb.tell(self.experiments[ended.experiment].document.step.as_ref()?.at, summary);
        match climb.next(&Pipeline::of(self.log)) {
            Ok(next) => {
                self.experiments.push(Rc::new(next?.1));
                Some(Unit { experiment: self.experiments.len() - 1, time: 0 })
            }
            Err(refusal) => {
                refused(&refusal);
                None
            }
        }
    }

    fn go_together(&self, unit: &Unit, live: &Live) -> bool {
        let plan = |unit: &Unit| &self.experiments[unit.experiment].plans[unit.time];
        unit.experiment != live.unit.experiment && !plan(unit).collides(plan(&live.unit))
    }

    fn start(&mut self, unit: Unit, tasks: &mut JoinSet<Ended>) -> Live {
        let (interrupt, interruptions) = unbounded_channel();
        let prepared = Rc::clone(&self.experiments[unit.experiment]);
        let run = run_id();
        let (path, file) = self.events.as_mut().and_then(|events| events.of(&run, &self.common)).unzip();
        let sights = self.observations.as_ref().and_then(|file| file.try_clone().ok()).map(into_file);
        let mut ready = self.tellings.of(&run);
        let mut progress = self.progress(unit);
        let agent = prepared.plans[unit.time]
            .has_changes()
            .then(|| join::agent(self.common.state_dir.as_deref()).map(Into::into));
        let mut host = LocalHost::new(&self.common);
        let (suite, lease, build) = (self.suite, self.lease, self.build.clone());
        tasks.spawn_local(async move {
            let document = &prepared.document;
            let plan = &prepared.plans[unit.time];
            let redactor = &document.redactor;
            for warning in &plan.warnings {
                progress.note(&format!("warning: {}", redactor.redact(warning)));
            }
            let order = Order {
                run,
                experiment: &document.experiment,
                plan,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                origin: Some(telling::origin(document, plan.seed, build, std::env::args().skip(1))),
                lease,
                since_ns: None,
                mandate: Arc::default(),
                agent,
            };
            let outlet = Outlet {
                file,
                sights,
                redact: (!redactor.is_empty()).then(|| redact(redactor)),
                watcher: Box::new(|tell| {
                    if let Tell::Event(record, _) = &tell {
                        ready.keep(record);
                    }
                    progress.tell(&tell);
                }),
            };
            let summary = conduct(order, &mut host, interruptions, outlet).await;
            let summary = ready.tell(summary, path.as_deref());
            if suite {
                progress.note(&summary.sentence);
            }
            (unit, summary, path)
        });
        Live { unit, interrupt }
    }

    /// How a run is shown while it goes on, with its announcement. Runs at the same time cannot share a living line.
    fn progress(&self, unit: Unit) -> Progress<io::Stderr> {
        let together = self.parallel > 1;
        let mut progress = match self.log || together {
            true => Progress::log(io::stderr(), self.guard),
            false => Progress::on(io::stderr(), false),
        };
        let step = self.experiments[unit.experiment].document.step.as_ref();
        if let (Some(climb), Some(step)) = (&self.climb, step) {
            progress.note(&climb.announce(step.at));
            return progress;
        }
        if !self.suite {
            return progress;
        }
        let subject = &self.experiments[unit.experiment].subject;
        let time = match self.repeat {
            1 => String::new(),
            repeat => format!(", run {} of {repeat}", unit.time + 1),
        };
        if together {
            progress.label(&format!("{}{time}", subject.title));
        }
        let (number, all) = (unit.experiment + 1, self.experiments.len());
        progress.note(&format!("experiment {number} of {all}{time}: {} ({})", subject.title, subject.file));
        progress
    }
}

fn redact(redactor: &Redactor) -> Box<dyn Fn(&str) -> String + '_> {
    Box::new(|text| redactor.redact(text).into_owned())
}

/// An event file that was opened, with its place.
pub type Opened = (PathBuf, File);
