//! One injection: the changes that are live on this host for one run, with their undo, lease and deadline.

use std::collections::BTreeMap;

use squall_experiments::change::Change;
use squall_experiments::evidence::Evidence;
use squall_experiments::protocol::{Active, Applied, Lifted, Refusal, RunId};

use crate::books::{self, Books, Written};
use crate::fingerprint::run::Before;
use crate::host::aim::{Aim, News, Resolved};
use crate::host::machine::Machine;
use crate::host::modules;
use crate::host::process::Target;
use crate::host::qdisc::choice;
use crate::host::site::Site;
use crate::host::undo::TAG;
use crate::host::view::{Seen, Viewpoint};
use crate::host::{Place, sys};
use crate::lease::Lease;
use crate::link::Connection;
use crate::made::{self, Addition, Made, Ready};
use crate::records::Records;

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
    /// For how long it lives.
    pub lease: Lease,
    /// Whether what its proxies see is wanted.
    pub watched: bool,
    seed: u64,
    parts: BTreeMap<u32, Part>,
    /// What stays when a step ends: see [`Undo::outlasts_its_step`].
    footings: Written,
    before: Before,
}

/// The changes of one step.
#[derive(Debug)]
struct Part {
    made: Vec<Made>,
    ends: u64,
    /// What lifting it came to, once nothing of it was left: whoever asks again gets the same answer.
    lifted: Option<Lifted>,
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
    /// Looks at the host, and opens an injection without changes.
    pub fn begin(terms: Terms, records: &Records) -> Self {
        let Terms { run, title, seed, connection, lease, deadline } = terms;
        let before = Before::take(records);
        let lease = Lease::new(sys::boot_nanos(), lease, deadline);
        let (parts, footings) = (BTreeMap::new(), Vec::new());
        Injection { run, title, connection, lease, watched: false, seed, parts, footings, before }
    }

    /// Whether the changes of one step could be made now; nothing is held for them.
    pub fn rehearse(
        &mut self,
        step: &Step,
        machine: &mut Machine,
        records: &Records,
        aimed: (&Aim<'_>, &Seen),
        others: &BTreeMap<RunId, Injection>,
    ) -> Result<(), Refusal> {
        let ready = self.prepare(step, machine, records, aimed, others)?;
        ready.iter().for_each(|one| one.forget(machine));
        Ok(())
    }

    /// Looks at the host for every change of one step; nothing is altered.
    fn prepare(
        &mut self,
        step: &Step,
        machine: &mut Machine,
        records: &Records,
        (aim, seen): (&Aim<'_>, &Seen),
        others: &BTreeMap<RunId, Injection>,
    ) -> Result<Vec<Ready>, Refusal> {
        let Step { number, changes, .. } = step;
        if self.parts.contains_key(number) {
            return Err(Refusal::bare(format!("part {number} of this run has been applied already")));
        }
        let sites: Vec<Site> = changes.iter().map(|change| machine.site(change)).collect::<Result<_, _>>()?;
        sites.iter().for_each(|site| self.before.come(site, records));
        let everybody = || others.values().chain([&*self]);
        let collision = |other: &Self| {
            let mut wanted = sites.iter().zip(changes);
            wanted.find_map(|(site, change)| {
                other.collides(site, aim_from(aim, seen, Viewpoint::of(change)).resolved)
            })
        };
        if let Some(what) = everybody().find_map(collision) {
            return Err(Refusal::new(what, "wait for it to end, or aim at other traffic"));
        }
        let mut ready = Vec::new();
        for (index, (change, site)) in changes.iter().zip(sites).enumerate() {
            let place = Place {
                tag: format!("{TAG}{} part {number} change {index};", self.run),
                choice: format!("part {number}, change {index}"),
                seed: self.seed,
                watched: self.watched.then(|| (self.run.clone(), *number)),
            };
            modules::load(change, || records.breathe());
            choice::learn(change, || records.breathe());
            let aim = aim_from(aim, seen, Viewpoint::of(change));
            match Ready::of(change.clone(), site, place, machine, &aim) {
                Ok(one) => ready.push(one),
                Err(refusal) => {
                    ready.iter().for_each(|one: &Ready| one.forget(machine));
                    return Err(refusal);
                }
            }
        }
        let processes: Vec<Target> = ready.iter().flat_map(|one| one.prepared.processes()).collect();
        if let Some(what) = everybody().find_map(|other| other.holds(&processes)) {
            ready.iter().for_each(|one| one.forget(machine));
            return Err(Refusal::new(what, "wait for it to end, or choose other processes"));
        }
        Ok(ready)
    }

    /// Makes the changes of one step, all or none.
    pub fn apply(
        &mut self,
        step: Step,
        machine: &mut Machine,
        records: &Records,
        (aim, seen): (&Aim<'_>, &Seen),
        others: &BTreeMap<RunId, Injection>,
    ) -> Result<Applied, Refusal> {
        let began = sys::boot_nanos();
        let ready = self.prepare(&step, machine, records, (aim, seen), others)?;
        let Step { number, lasts, .. } = step;
        let mut applied = Applied::default();
        for one in &ready {
            applied.targets.extend(one.site.targets.iter().cloned().chain(one.prepared.targets()));
            applied.notes.extend(one.site.notes.iter().cloned().chain(one.prepared.notes()));
        }
        let mut part =
            Part { made: Vec::new(), ends: began.saturating_add(lasts).saturating_add(GRACE), lifted: None };
        let mut all = ready.into_iter();
        let mut books = Books { records, footings: &mut self.footings };
        while let Some(ready) = all.next() {
            let aim = aim_from(aim, seen, Viewpoint::of(&ready.change));
            let (made, result) = Made::perform(ready, &self.run, machine, &mut books, &aim);
            part.made.push(made);
            if let Err(refusal) = result {
                all.for_each(|rest| rest.forget(machine));
                let lifted = part.lift(machine, records);
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
        let made = sys::boot_nanos();
        (applied.took_us, applied.made_ns) = ((made - began) / 1000, Some(made));
        Ok(applied)
    }

    /// Whether a change at a site may not be made beside this injection: says what is in the way.
    pub fn collides(&self, site: &Site, resolved: &Resolved) -> Option<String> {
        self.live().find_map(|made| Some(self.holding(made, &made.collides(site, resolved)?)))
    }

    fn holding(&self, made: &Made, why: &str) -> String {
        format!("run {} (`{}`) holds it: {}; {why}", self.run, self.title, made.change)
    }

    /// Whether it holds one of these processes.
    pub fn holds(&self, prepared: &[Target]) -> Option<String> {
        let live = self.live().find(|made| made.holds(prepared));
        live.map(|made| format!("run {} (`{}`) holds it: {}", self.run, self.title, made.change))
    }

    fn live(&self) -> impl Iterator<Item = &Made> {
        self.parts.values().flat_map(|part| &part.made).filter(|made| made.is_live())
    }

    /// What has been measured of a step.
    pub fn observe(&mut self, number: u32, machine: &mut Machine) -> Result<Vec<Evidence>, Refusal> {
        let run = &self.run;
        let unknown = || Refusal::bare(format!("run {run} has no part {number}"));
        let part = self.parts.get_mut(&number).ok_or_else(unknown)?;
        Ok(part.made.iter_mut().map(|made| made.observe(machine)).collect())
    }

    /// Undoes one step. A step that is not there, or was lifted before, is lifted.
    pub fn lift(&mut self, number: u32, machine: &mut Machine, records: &Records) -> Lifted {
        match self.parts.get_mut(&number) {
            Some(part) => part.lift(machine, records),
            None => Lifted::default(),
        }
    }

    /// Lifts every step, and says whether connections are still carried on that its end would reset.
    pub fn carries(&mut self, machine: &mut Machine, records: &Records) -> bool {
        let any =
            |written: &Written, machine: &Machine| written.iter().any(|(_, undo)| machine.carries(undo));
        if !any(&self.footings, machine) {
            return false;
        }
        for part in self.parts.values_mut().rev().filter(|part| part.lifted.is_none()) {
            part.lift(machine, records);
            records.breathe();
        }
        any(&self.footings, machine)
    }

    /// Undoes everything, and compares the host with what it was: what the run claimed and is not as it was counts as not
    /// undone, whatever the undos say. `alone`: no other run is live, so nothing may bear Squall's mark either.
    pub fn end(&mut self, machine: &mut Machine, records: &Records, alone: bool) -> Lifted {
        let began = sys::boot_nanos();
        let mut all = Lifted::default();
        for part in self.parts.values_mut().rev().filter(|part| part.lifted.is_none()) {
            let lifted = part.lift(machine, records);
            all.undone.extend(lifted.undone);
            all.stuck.extend(lifted.stuck);
            // Many steps take longer together than the guardian waits for a beat.
            records.breathe();
        }
        self.clear(machine, records, &mut all);
        all.evidence = self.parts.values().flat_map(|part| &part.made).map(Made::evidence).collect();
        let judgement = self.before.judge(records, alone);
        if all.stuck.is_empty() {
            all.stuck = judgement.residue;
        }
        all.others = judgement.others;
        all.host = Some(judgement.compared);
        all.took_us = (sys::boot_nanos() - began) / 1000;
        all
    }

    /// Undoes what outlasted its step. What that still holds is waited for: no packet is lost at the end.
    fn clear(&mut self, machine: &mut Machine, records: &Records, lifted: &mut Lifted) {
        let mut taken = books::take_back(&mut self.footings, |undo| made::undo(undo, machine, records));
        taken.mark(records);
        lifted.undone.append(&mut taken.undone);
        lifted.stuck.append(&mut taken.stuck);
    }

    /// When something of it is due, on the boot clock.
    pub fn due(&self) -> u64 {
        let parts = self.parts.values().filter(|part| part.is_live());
        let inner = parts.flat_map(|part| {
            let changes = part.made.iter().filter_map(Made::due);
            changes.chain([part.ends])
        });
        inner.chain([self.lease.due()]).min().unwrap_or(self.lease.deadline())
    }

    /// Does what is due inside the steps, and follows their targets; names the steps whose time is over.
    pub fn tick(&mut self, machine: &mut Machine, records: &Records, aim: &Aim<'_>) -> Vec<u32> {
        let now = sys::boot_nanos();
        let mut books = Books { records, footings: &mut self.footings };
        for made in self.parts.values_mut().flat_map(|part| &mut part.made) {
            made.tick(machine, &mut books, aim);
        }
        let over = self.parts.iter().filter(|(_, part)| part.is_live() && part.ends <= now);
        over.map(|(number, _)| *number).collect()
    }

    /// A name of a step has been asked again. Addresses that another step or run holds are left out. `false`: the step is
    /// not live.
    pub fn hear(
        &mut self,
        number: u32,
        news: &News,
        machine: &mut Machine,
        aim: &Aim<'_>,
        others: &BTreeMap<RunId, Injection>,
    ) -> bool {
        let Some(mut part) = self.parts.remove(&number) else { return false };
        let live = part.is_live();
        if live {
            // The changes of one step were asked for together.
            let everybody = || others.values().chain([&*self]);
            let standing = |made: &Made, addition: &Addition<'_>| {
                everybody().find_map(|other| {
                    let mut live = other.live();
                    live.find_map(|one| Some(other.holding(one, &one.stands_against(made, addition)?)))
                })
            };
            for made in &mut part.made {
                let news = made.sifted(news, standing);
                made.hear(&news, machine, aim);
            }
        }
        self.parts.insert(number, part);
        live
    }

    /// For `status`.
    pub fn active(&mut self, machine: &mut Machine) -> Active {
        let left = self.lease.deadline().saturating_sub(sys::boot_nanos());
        let stuck = self.parts.values().any(|part| part.made.iter().any(Made::is_stuck));
        let live = self.parts.values_mut().flat_map(|part| &mut part.made).filter(|made| made.is_live());
        Active {
            run: self.run.clone(),
            title: self.title.clone(),
            expires_s: left / 1_000_000_000,
            stuck,
            changes: live.map(|made| (made.change.to_string(), made.observe(machine))).collect(),
        }
    }
}

/// A name means what it means where the change acts.
fn aim_from<'a>(aim: &Aim<'a>, seen: &'a Seen, from: Viewpoint) -> Aim<'a> {
    static NOTHING: Resolved = Resolved::new();
    aim.with(seen.get(&from).unwrap_or(&NOTHING)).seen_from(from)
}

impl Part {
    fn is_live(&self) -> bool {
        self.made.iter().any(Made::is_live)
    }

    fn lift(&mut self, machine: &mut Machine, records: &Records) -> Lifted {
        if let Some(lifted) = &self.lifted {
            return lifted.clone();
        }
        let began = sys::boot_nanos();
        let mut lifted = Lifted::default();
        for made in self.made.iter_mut().rev() {
            let (undone, stuck) = made.lift(machine, records);
            lifted.undone.extend(undone);
            lifted.stuck.extend(stuck);
        }
        lifted.evidence = self.made.iter().map(Made::evidence).collect();
        lifted.took_us = (sys::boot_nanos() - began) / 1000;
        if lifted.stuck.is_empty() {
            self.lifted = Some(lifted.clone());
        }
        lifted
    }
}
