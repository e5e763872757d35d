//! One injection: the changes that are live on this host for one run, with their undo, lease and deadline.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use squall_experiments::change::{Change, Claim};
use squall_experiments::evidence::Evidence;
use squall_experiments::protocol::{Active, Applied, Lifted, Refusal, RunId};

use crate::host::aim::Aim;
use crate::host::process::Target;
use crate::host::undo::{TAG, Undo};
use crate::host::{Host, Live, Place, Prepared, sys};
use crate::link::Connection;
use crate::records::{Ask, Records};
use crate::snapshot::Snapshot;

/// A part ends by itself so many nanoseconds after its time: only a conductor that hangs is overtaken, and a fault
/// lasts as long as its file says, not a connection's delay less.
const GRACE: u64 = 500_000_000;

/// See the module.
#[derive(Debug)]
pub struct Injection {
    /// Which run.
    pub run: RunId,
    /// The experiment's title.
    pub title: String,
    /// The connection that is its lease.
    pub connection: Connection,
    /// Nanoseconds without a renewal after which it ends.
    pub lease: u64,
    /// When it was last renewed, on the boot clock.
    pub renewed: u64,
    /// When it ends in any case, on the boot clock.
    pub deadline: u64,
    seed: u64,
    parts: BTreeMap<u32, Part>,
    /// What stays when a step ends: see [`Undo::outlasts_its_step`].
    footings: Vec<(u64, Undo)>,
    before: Snapshot,
}

/// The changes of one step.
#[derive(Debug)]
struct Part {
    made: Vec<Made>,
    ends: u64,
    /// What lifting it came to, once nothing of it was left: whoever asks again gets the same answer.
    lifted: Option<Lifted>,
}

/// One change.
#[derive(Debug)]
struct Made {
    change: Change,
    place: Place,
    live: Option<Live>,
    undos: Vec<(u64, Undo)>,
    held: Vec<Target>,
    evidence: Evidence,
}

/// What a step asks for.
#[derive(Debug)]
pub struct Step {
    /// New for each step of a run.
    pub number: u32,
    /// All or none.
    pub changes: Vec<Change>,
    /// Lifted after so many nanoseconds, if nobody lifts it before.
    pub lasts: u64,
}

/// What a new injection is told.
#[derive(Debug)]
pub struct Terms {
    /// Which run.
    pub run: RunId,
    /// The experiment's title.
    pub title: String,
    /// The run's seed.
    pub seed: u64,
    /// Whose lease.
    pub connection: Connection,
    /// In nanoseconds.
    pub lease: u64,
    /// On the boot clock.
    pub deadline: u64,
}

impl Injection {
    /// Opens an injection without changes.
    pub fn begin(terms: Terms) -> Self {
        let Terms { run, title, seed, connection, lease, deadline } = terms;
        let renewed = sys::boot_nanos();
        let before = Snapshot::take();
        let (parts, footings) = (BTreeMap::new(), Vec::new());
        Injection { run, title, connection, lease, renewed, deadline, seed, parts, footings, before }
    }

    /// Makes the changes of one step, all or none.
    pub fn apply(
        &mut self,
        step: Step,
        host: &mut Host,
        records: &Records,
        aim: &Aim<'_>,
        others: &BTreeMap<RunId, Injection>,
    ) -> Result<Applied, Refusal> {
        let Step { number, changes, lasts } = step;
        let began = sys::boot_nanos();
        let claims: Vec<Claim> = changes.iter().flat_map(Change::claims).collect();
        if let Some(what) = others.values().chain([&*self]).find_map(|other| other.collides(&claims)) {
            return Err(Refusal::new(what, "wait for it to end, or aim at other traffic"));
        }
        if self.parts.contains_key(&number) {
            return Err(Refusal::bare(format!("part {number} of this run has been applied already")));
        }
        let place = |index: usize| Place {
            tag: format!("{TAG}{} part {number} change {index};", self.run),
            choice: format!("part {number}, change {index}"),
            seed: self.seed,
        };
        let forget = |host: &mut Host, prepared: &[Prepared]| {
            prepared.iter().enumerate().for_each(|(index, one)| host.forget(one, &place(index)));
        };
        let mut prepared = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            host.learn(change, || records.breathe());
            match host.prepare(change, &place(index), aim) {
                Ok(one) => prepared.push(one),
                Err(refusal) => {
                    forget(host, &prepared);
                    return Err(refusal);
                }
            }
        }
        let processes: Vec<Target> = prepared.iter().flat_map(Prepared::processes).collect();
        if let Some(what) = others.values().chain([&*self]).find_map(|other| other.holds(&processes)) {
            forget(host, &prepared);
            return Err(Refusal::new(what, "wait for it to end, or choose other processes"));
        }
        let mut applied = Applied::default();
        for one in &prepared {
            applied.targets.extend(one.targets());
            applied.notes.extend(one.notes());
        }
        let mut part =
            Part { made: Vec::new(), ends: began.saturating_add(lasts).saturating_add(GRACE), lifted: None };
        let mut all = changes.into_iter().zip(prepared).enumerate();
        while let Some((index, (change, prepared))) = all.next() {
            let asked = (place(index), &self.run, &mut self.footings);
            let (made, result) = Made::perform(change, prepared, asked, host, records, aim);
            part.made.push(made);
            if let Err(refusal) = result {
                all.for_each(|(index, (_, rest))| host.forget(&rest, &place(index)));
                let lifted = part.lift(host, records);
                let stuck = lifted.stuck.join("; ");
                if stuck.is_empty() {
                    return Err(refusal);
                }
                self.parts.insert(number, part);
                let what = format!("{refusal}; and it could not be taken back: {stuck}");
                return Err(Refusal {
                    what,
                    exit: squall_experiments::exit::Exit::Modified as u8,
                    ..refusal
                });
            }
        }
        self.parts.insert(number, part);
        applied.took_us = (sys::boot_nanos() - began) / 1000;
        Ok(applied)
    }

    /// Whether a change of another run may not be made beside this injection: says what is in the way.
    pub fn collides(&self, claims: &[Claim]) -> Option<String> {
        let live = self.live().find(|made| {
            made.change.claims().iter().any(|mine| claims.iter().any(|theirs| mine.collides(theirs)))
        });
        live.map(|made| format!("run {} (`{}`) holds it: {}", self.run, self.title, made.change))
    }

    /// Whether it holds one of these processes.
    pub fn holds(&self, prepared: &[Target]) -> Option<String> {
        let live = self.live().find(|made| made.held.iter().any(|target| prepared.contains(target)));
        live.map(|made| format!("run {} (`{}`) holds it: {}", self.run, self.title, made.change))
    }

    fn live(&self) -> impl Iterator<Item = &Made> {
        self.parts.values().flat_map(|part| &part.made).filter(|made| made.live.is_some())
    }

    /// What has been measured of a step.
    pub fn observe(&mut self, number: u32, host: &mut Host) -> Result<Vec<Evidence>, Refusal> {
        let run = &self.run;
        let unknown = || Refusal::bare(format!("run {run} has no part {number}"));
        let part = self.parts.get_mut(&number).ok_or_else(unknown)?;
        Ok(part.made.iter_mut().map(|made| made.observe(host)).collect())
    }

    /// Undoes one step. A step that is not there, or was lifted before, is lifted.
    pub fn lift(&mut self, number: u32, host: &mut Host, records: &Records) -> Lifted {
        match self.parts.get_mut(&number) {
            Some(part) => part.lift(host, records),
            None => Lifted::default(),
        }
    }

    /// Undoes everything, and compares the host with what it was.
    pub fn end(&mut self, host: &mut Host, records: &Records) -> Lifted {
        let began = sys::boot_nanos();
        let mut all = Lifted::default();
        for part in self.parts.values_mut().rev().filter(|part| part.lifted.is_none()) {
            let lifted = part.lift(host, records);
            all.undone.extend(lifted.undone);
            all.stuck.extend(lifted.stuck);
        }
        self.clear(host, records, &mut all);
        all.evidence =
            self.parts.values().flat_map(|part| &part.made).map(|made| made.evidence.clone()).collect();
        all.others = Snapshot::take().changed_since(&self.before);
        all.took_us = (sys::boot_nanos() - began) / 1000;
        all
    }

    /// Undoes what outlasted its step. What that still holds is waited for: no packet is lost at the end.
    fn clear(&mut self, host: &mut Host, records: &Records, lifted: &mut Lifted) {
        let mut numbers = Vec::new();
        let mut left = Vec::new();
        for (number, undo) in std::mem::take(&mut self.footings).into_iter().rev() {
            let began = std::time::Instant::now();
            while host.drains(&undo, began.elapsed()) {
                records.breathe();
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            match host.undo(&undo) {
                Ok(what) => {
                    lifted.undone.push(what);
                    numbers.push(number);
                }
                Err(what) => {
                    lifted.stuck.push(what);
                    left.push((number, undo));
                }
            }
        }
        left.reverse();
        self.footings = left;
        if !numbers.is_empty()
            && let Err(refusal) = records.ask(&Ask::Undone { numbers }, None)
        {
            tracing::info!(%refusal, "the journal does not know yet of what was undone");
        }
    }

    /// When something of it is due, on the boot clock.
    pub fn due(&self) -> u64 {
        let parts = self.parts.values().filter(|part| part.is_live());
        let inner = parts.flat_map(|part| {
            let changes = part.made.iter().filter_map(|made| made.live.as_ref()?.due());
            changes.chain([part.ends])
        });
        inner.chain([self.deadline, self.renewed + self.lease]).min().unwrap_or(self.deadline)
    }

    /// Does what is due inside the steps, and follows their targets; names the steps whose time is over.
    pub fn tick(&mut self, host: &mut Host, aim: &Aim<'_>) -> Vec<u32> {
        let now = sys::boot_nanos();
        for made in self.parts.values_mut().flat_map(|part| &mut part.made) {
            if let Some(live) = &mut made.live {
                host.tick(live, aim);
            }
        }
        let over = self.parts.iter().filter(|(_, part)| part.is_live() && part.ends <= now);
        over.map(|(number, _)| *number).collect()
    }

    /// For `status`.
    pub fn active(&mut self, host: &mut Host) -> Active {
        let left = self.deadline.saturating_sub(sys::boot_nanos());
        let stuck = self
            .parts
            .values()
            .any(|part| part.made.iter().any(|made| made.live.is_none() && !made.undos.is_empty()));
        let live = self.parts.values_mut().flat_map(|part| &mut part.made).filter(|made| made.live.is_some());
        Active {
            run: self.run.clone(),
            title: self.title.clone(),
            expires_s: left / 1_000_000_000,
            stuck,
            changes: live.map(|made| (made.change.to_string(), made.observe(host))).collect(),
        }
    }
}

impl Part {
    fn is_live(&self) -> bool {
        self.made.iter().any(|made| made.live.is_some())
    }

    fn lift(&mut self, host: &mut Host, records: &Records) -> Lifted {
        if let Some(lifted) = &self.lifted {
            return lifted.clone();
        }
        let began = sys::boot_nanos();
        let mut lifted = Lifted::default();
        for made in self.made.iter_mut().rev() {
            let (undone, stuck) = made.lift(host, records);
            lifted.undone.extend(undone);
            lifted.stuck.extend(stuck);
        }
        lifted.evidence = self.made.iter().map(|made| made.evidence.clone()).collect();
        lifted.took_us = (sys::boot_nanos() - began) / 1000;
        if lifted.stuck.is_empty() {
            self.lifted = Some(lifted.clone());
        }
        lifted
    }
}

impl Made {
    fn perform(
        change: Change,
        prepared: Prepared,
        (place, run, footings): (Place, &RunId, &mut Vec<(u64, Undo)>),
        host: &mut Host,
        records: &Records,
        aim: &Aim<'_>,
    ) -> (Self, Result<(), Refusal>) {
        let mut undos = Vec::new();
        let mut record = |undo: Undo, socket: Option<BorrowedFd<'_>>| {
            let outlasts = undo.outlasts_its_step();
            if outlasts && footings.iter().any(|(_, recorded)| *recorded == undo) {
                return Ok(());
            }
            let number = records.ask(&Ask::Record { run: run.clone(), undo: undo.clone() }, socket)?;
            if outlasts { &mut *footings } else { &mut undos }.push((number, undo));
            Ok(())
        };
        let held = prepared.processes().into_iter().collect();
        let performed = host.perform(&change, prepared, &place, aim, &mut record);
        let mut made = Made { change, place, live: None, undos, held, evidence: Evidence::default() };
        let result = performed.map(|live| made.live = Some(live));
        (made, result)
    }

    fn observe(&mut self, host: &mut Host) -> Evidence {
        if let Some(live) = &mut self.live {
            self.evidence = host.observe(live, &self.place);
        }
        self.evidence.clone()
    }

    /// Takes the last evidence, lets go, and applies every undo, latest first. What fails stays for the next time.
    fn lift(&mut self, host: &mut Host, records: &Records) -> (Vec<String>, Vec<String>) {
        let mut undone = Vec::new();
        let mut stuck = Vec::new();
        self.observe(host);
        let mut live = self.live.take();
        if let Some(live) = &mut live {
            if !self.change.reversible() {
                undone.push(format!("not undone, as it cannot be: {}", self.change));
            }
            live.let_go();
        }
        let mut numbers = Vec::new();
        let mut left = Vec::new();
        for (number, undo) in std::mem::take(&mut self.undos).into_iter().rev() {
            match host.undo(&undo) {
                Ok(what) => {
                    undone.push(what);
                    numbers.push(number);
                }
                Err(what) => {
                    stuck.push(what);
                    left.push((number, undo));
                }
            }
        }
        left.reverse();
        self.undos = left;
        if let Some(live) = live {
            self.evidence = host.last(live, &self.evidence);
        }
        if !numbers.is_empty()
            && let Err(refusal) = records.ask(&Ask::Undone { numbers }, None)
        {
            tracing::info!(%refusal, "the journal does not know yet of what was undone");
        }
        host.settle();
        (undone, stuck)
    }
}
