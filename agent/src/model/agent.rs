//! An agent on the model host: the real journal, ledger, books and recovery, with a disk and a guardian in memory.
//!
//! Every step that can be told apart from outside ticks: there the agent can be made to die.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use squall_experiments::protocol::{Refusal, RunId};

use super::host::Host;
use crate::books::{Books, Pen, Written, take_back};
use crate::host::netns::Id;
use crate::host::undo::{Undo, Undone};
use crate::journal::{Disk, Entry, Journal, VERSION, lines};
use crate::ledger::{Ledger, Shelf};
use crate::records::Ask;
use crate::recover;

/// What is done wrong on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mistake {
    /// Nothing.
    #[default]
    None,
    /// A change is made, and then its undo is written.
    PerformFirst,
    /// The disk is not synced.
    NoSync,
    /// An undo is marked as done, and then done.
    MarkFirst,
    /// A recovery takes the journal away, and then undoes what it says.
    RemoveFirst,
    /// What is taken back is taken back in the order in which it was made.
    Forwards,
    /// What did not work is forgotten.
    Forget,
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// The host.
    pub host: Host,
    /// What is on disk for certain; `None` where there is no journal.
    synced: Option<Vec<u8>>,
    /// What was written and may be lost, from its end.
    unsynced: Vec<u8>,
}

/// Everything that the parts of an agent share.
#[derive(Debug)]
pub struct Stage {
    left: RefCell<Left>,
    /// Ticks until it dies.
    fuse: Cell<usize>,
    /// Ticks so far.
    ticks: Cell<usize>,
    /// How many undos are still to fail.
    failing: Cell<u32>,
    mistake: Mistake,
}

/// The end of an agent, on its way up the stack.
struct Death;

impl Stage {
    fn tick(&self) {
        if self.fuse.get() == self.ticks.get() {
            resume_unwind(Box::new(Death));
        }
        self.ticks.set(self.ticks.get() + 1);
    }

    fn perform(&self, undo: &Undo) {
        self.tick();
        self.left.borrow_mut().host.perform(undo);
    }

    fn undo(&self, undo: &Undo) -> Undone {
        self.tick();
        if self.failing.get() > 0 {
            self.failing.set(self.failing.get() - 1);
            return Err("it does not work now".to_owned());
        }
        self.left.borrow_mut().host.undo(undo)
    }
}

/// The disk of the stage.
#[derive(Clone, Debug)]
struct Stone(Rc<Stage>);

impl Disk for Stone {
    fn reserve(&mut self, _bytes: usize) -> io::Result<()> {
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.tick();
        self.0.left.borrow_mut().unsynced.extend(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.tick();
        if self.0.mistake != Mistake::NoSync {
            let left = &mut *self.0.left.borrow_mut();
            left.synced.get_or_insert_default().append(&mut left.unsynced);
        }
        Ok(())
    }

    fn cut(&mut self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Shelf for Stone {
    type Disk = Stone;

    fn create(&self) -> io::Result<Journal<Stone>> {
        let header =
            Entry::Header { version: VERSION, boot: "now".into(), namespace: Id { inode: 1, cookie: 1 } };
        // The real one comes into being with its header, by renaming: all of it or nothing.
        let fuse = self.0.fuse.replace(usize::MAX);
        let ticks = self.0.ticks.get();
        let journal = Journal::begin(self.clone(), header);
        let left = &mut *self.0.left.borrow_mut();
        left.synced.get_or_insert_default().append(&mut left.unsynced);
        self.0.fuse.set(fuse);
        self.0.ticks.set(ticks);
        journal
    }

    fn bytes(&self) -> io::Result<Option<Vec<u8>>> {
        let left = self.0.left.borrow();
        Ok(left.synced.as_ref().map(|synced| [&synced[..], &left.unsynced].concat()))
    }

    fn remove(&self) {
        self.0.tick();
        let mut left = self.0.left.borrow_mut();
        left.synced = None;
        left.unsynced.clear();
    }
}

/// A guardian without a socket.
#[derive(Debug)]
struct Guardian(RefCell<Ledger<Stone>>);

impl Pen for Guardian {
    fn ask(&self, ask: &Ask, _attached: Option<BorrowedFd<'_>>) -> Result<u64, Refusal> {
        self.0.borrow_mut().write(ask).map_err(|error| Refusal::bare(error.to_string()))
    }
}

/// What a worker is told.
#[derive(Clone, Debug)]
pub enum Act {
    /// A run begins.
    Begin(u8),
    /// A step of it: changes, each with what takes its parts back.
    Step(u8, Vec<Vec<Undo>>),
    /// Its earliest step that is live ends.
    Lift(u8),
    /// It ends.
    End(u8),
    /// So many undos will fail.
    Fail(u32),
}

#[derive(Debug, Default)]
struct Run {
    steps: Vec<Vec<Written>>,
    footings: Written,
}

/// A worker that does what it is told.
#[derive(Debug)]
struct Worker<'a> {
    stage: &'a Rc<Stage>,
    guardian: Guardian,
    runs: BTreeMap<u8, Run>,
}

fn name(run: u8) -> RunId {
    RunId(format!("r{run}"))
}

impl Worker<'_> {
    fn act(&mut self, act: &Act) {
        match act {
            Act::Begin(run) => {
                if !self.runs.contains_key(run) {
                    let ask = Ask::Begin { run: name(*run), title: "t".into(), deadline: 0 };
                    self.guardian.ask(&ask, None).expect("the disk has room");
                    self.runs.insert(*run, Run::default());
                }
            }
            Act::Step(run, changes) => self.step(*run, changes),
            Act::Lift(run) => {
                if let Some(mut one) = self.runs.remove(run) {
                    if !one.steps.is_empty() {
                        let step = one.steps.remove(0);
                        self.lift(step, &mut one);
                    }
                    self.runs.insert(*run, one);
                }
            }
            Act::End(run) => self.end(*run),
            Act::Fail(count) => self.stage.failing.set(*count),
        }
    }

    fn step(&mut self, run: u8, changes: &[Vec<Undo>]) {
        let Some(one) = self.runs.get_mut(&run) else { return };
        let mut step = Vec::new();
        let mut books = Books { records: &self.guardian, footings: &mut one.footings };
        for parts in changes {
            let mut written = Written::new();
            for undo in parts {
                let may_outlast = undo.netns().is_none();
                if self.stage.mistake == Mistake::PerformFirst {
                    self.stage.perform(undo);
                }
                books
                    .record(&name(run), &mut written, may_outlast, undo.clone(), None)
                    .expect("the disk has room");
                self.stage.perform(undo);
            }
            step.push(written);
        }
        one.steps.push(step);
    }

    /// Takes a step back; what does not work goes back to the run.
    fn lift(&self, mut step: Vec<Written>, run: &mut Run) -> bool {
        for written in step.iter_mut().rev() {
            self.take_back(written);
        }
        step.retain(|written| !written.is_empty());
        let done = step.is_empty();
        if !done {
            run.steps.insert(0, step);
        }
        done
    }

    fn take_back(&self, written: &mut Written) {
        match self.stage.mistake {
            Mistake::MarkFirst => {
                let mut taken = take_back(&mut written.clone(), |_| Ok(String::new()));
                taken.mark(&self.guardian);
                take_back(written, |undo| self.stage.undo(undo));
            }
            Mistake::Forwards => {
                written.reverse();
                take_back(written, |undo| self.stage.undo(undo)).mark(&self.guardian);
            }
            Mistake::Forget => {
                let forgetful = |undo: &Undo| Ok(self.stage.undo(undo).unwrap_or_default());
                take_back(written, forgetful).mark(&self.guardian);
            }
            _ => take_back(written, |undo| self.stage.undo(undo)).mark(&self.guardian),
        }
    }

    fn end(&mut self, run: u8) {
        let Some(mut one) = self.runs.remove(&run) else { return };
        let mut done = true;
        for step in std::mem::take(&mut one.steps).into_iter().rev() {
            done &= self.lift(step, &mut one);
        }
        self.take_back(&mut one.footings);
        if done && one.footings.is_empty() {
            self.guardian.ask(&Ask::End { run: name(run) }, None).expect("the disk has room");
        } else {
            // Tried again later.
            self.runs.insert(run, one);
        }
    }
}

/// How an agent died, and what of its last words is lost.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// Before which tick.
    pub at: usize,
    /// How much of what was not synced is there afterwards, in hundredths.
    pub kept: usize,
    /// Both processes at once; otherwise the guardian lives and holds what belongs to the kernel.
    pub both: bool,
}

fn dies(stage: &Rc<Stage>, act: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(()) => false,
        Err(payload) if payload.is::<Death>() => true,
        Err(payload) => {
            stage.fuse.set(usize::MAX);
            resume_unwind(payload)
        }
    }
}

fn stage(left: Left, at: Option<usize>, mistake: Mistake) -> Rc<Stage> {
    Rc::new(Stage {
        left: RefCell::new(left),
        fuse: Cell::new(at.unwrap_or(usize::MAX)),
        ticks: Cell::new(0),
        failing: Cell::new(0),
        mistake,
    })
}

impl Left {
    /// A host that no agent has touched.
    pub fn of(host: Host) -> Self {
        Left { host, ..Left::default() }
    }

    /// By what two of them are the same.
    pub fn key(&self) -> (String, Option<Vec<u8>>) {
        (format!("{:?}", self.host), self.synced.clone())
    }

    /// Whether a journal is there.
    pub fn has_journal(&self) -> bool {
        self.synced.is_some()
    }

    /// A crash takes what was not synced, or its end.
    fn lose(&mut self, kept: usize) {
        self.unsynced.truncate(self.unsynced.len() * kept / 100);
        let tail = std::mem::take(&mut self.unsynced);
        if let Some(synced) = &mut self.synced {
            synced.extend(tail);
        }
    }

    /// An agent does all this, and dies as is said, or ends. Gives what is left, and how many ticks there were.
    pub fn live(self, acts: &[Act], crash: Option<Crash>, mistake: Mistake) -> (Self, usize) {
        let stage = stage(self, crash.map(|crash| crash.at), mistake);
        let died = dies(&stage, || {
            let guardian = Guardian(RefCell::new(Ledger::new(Stone(stage.clone()))));
            let mut worker = Worker { stage: &stage, guardian, runs: BTreeMap::new() };
            acts.iter().for_each(|act| worker.act(act));
            // Whoever is told to end ends every run, and tries again what did not work.
            stage.failing.set(0);
            for run in worker.runs.keys().copied().collect::<Vec<_>>() {
                worker.end(run);
            }
        });
        let ticks = stage.ticks.get();
        let mut left = stage.left.take();
        match crash {
            Some(crash) if died => {
                left.lose(crash.kept);
                if crash.both {
                    left.host.both_die();
                }
            }
            _ => left.lose(100),
        }
        (left, ticks)
    }

    /// Somebody recovers, and dies before a tick, or ends. An unreadable journal is the error.
    pub fn recover(self, at: Option<usize>, mistake: Mistake) -> Result<(Self, usize), String> {
        let stage = stage(self, at, mistake);
        let shelf = Stone(stage.clone());
        let Some(bytes) = shelf.bytes().map_err(|error| error.to_string())? else {
            return Ok((stage.left.take(), 0));
        };
        let entries = lines::parse(&bytes).map_err(|flaw| format!("{flaw:?}"))?;
        let mut stuck = Vec::new();
        let died = dies(&stage, || {
            if mistake == Mistake::RemoveFirst {
                shelf.remove();
            }
            let outcome = recover::apply(&entries, false, |undo| stage.undo(undo));
            stuck = outcome.stuck;
            if stuck.is_empty() {
                shelf.remove();
            }
        });
        let mut left = stage.left.take();
        left.lose(100);
        if died {
            left.host.both_die();
        }
        if stuck.is_empty() { Ok((left, stage.ticks.get())) } else { Err(stuck.join("; ")) }
    }
}
