//! One change of an injection: made, made again where its target ends and comes back, and taken back.

mod joining;

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use squall_experiments::change::{Change, Claim};
use squall_experiments::evidence::{Evidence, Incident};
use squall_experiments::flow::Flow;
use squall_experiments::protocol::{Refusal, RunId};
use squall_experiments::scope::Scope;

pub use joining::Addition;

use crate::books::{self, Books, Written};
use crate::host::aim::{Aim, News, Resolved};
use crate::host::machine::Machine;
use crate::host::process::Target;
use crate::host::reach::{self, addressed};
use crate::host::site::{Ground, Site};
use crate::host::undo::{Undo, Undone};
use crate::host::view::Viewpoint;
use crate::host::{Live, Place, Prepared, sys};
use crate::points::{self, Point};
use crate::records::Records;

/// See the module.
#[derive(Debug)]
pub struct Made {
    /// As it was asked for.
    pub change: Change,
    run: RunId,
    place: Place,
    site: Site,
    /// The machine counts it among the changes at its site.
    counted: bool,
    live: Option<Live>,
    /// Its target has ended, and is looked for.
    gap: Option<Gap>,
    undos: Written,
    held: Vec<Target>,
    /// The addresses of its names.
    resolved: Resolved,
    left_out: joining::LeftOut,
    /// When it was made first and last, on the boot clock.
    began: u64,
    again: u64,
    /// What was measured until its target ended, and since it was made last.
    past: Evidence,
    now: Evidence,
}

/// The time in which a target is not there.
#[derive(Debug)]
struct Gap {
    since: u64,
    look: u64,
    /// Why the change could not be made again although the target was there.
    why: Option<String>,
}

/// A change that has been looked at.
#[derive(Debug)]
pub struct Ready {
    /// As it was asked for.
    pub change: Change,
    /// Where it acts.
    pub site: Site,
    /// What was seen there.
    pub prepared: Prepared,
    /// What it is called.
    pub place: Place,
}

impl Ready {
    /// Finds the site of a change and looks at it.
    pub fn of(
        change: Change,
        mut site: Site,
        place: Place,
        machine: &mut Machine,
        aim: &Aim<'_>,
    ) -> Result<Self, Refusal> {
        let prepared = machine.prepare(&mut site, &place, aim)?;
        Ok(Ready { change, site, prepared, place })
    }

    /// It is not performed after all.
    pub fn forget(&self, machine: &mut Machine) {
        machine.forget(&self.site, &self.prepared, &self.place);
    }
}

impl Made {
    /// Makes it. After an error what was made must be lifted.
    pub fn perform(
        ready: Ready,
        run: &RunId,
        machine: &mut Machine,
        books: &mut Books<'_>,
        aim: &Aim<'_>,
    ) -> (Self, Result<(), Refusal>) {
        let Ready { change, site, prepared, place } = ready;
        let names = change.flow().into_iter().flat_map(|flow| flow.names());
        let resolved = names.filter_map(|name| aim.resolved.get_key_value(name));
        let began = sys::boot_nanos();
        let mut made = Made {
            run: run.clone(),
            place,
            site,
            counted: true,
            live: None,
            gap: None,
            undos: Vec::new(),
            held: prepared.processes().into_iter().collect(),
            resolved: resolved.map(|(name, addresses)| (name.clone(), addresses.clone())).collect(),
            left_out: joining::LeftOut::new(),
            began,
            again: began,
            past: Evidence::default(),
            now: Evidence::default(),
            change,
        };
        let result = made.make(prepared, machine, books, aim);
        (made, result)
    }

    fn make(
        &mut self,
        prepared: Prepared,
        machine: &mut Machine,
        books: &mut Books<'_>,
        aim: &Aim<'_>,
    ) -> Result<(), Refusal> {
        let Made { run, undos, site, place, .. } = self;
        // Another namespace is left with the last change in it: nothing outlasts that.
        let may_outlast = site.at.is_none();
        let mut record =
            |undo: Undo, socket: Option<BorrowedFd<'_>>| books.record(run, undos, may_outlast, undo, socket);
        points::pass(Point::BeforePerform);
        self.live = Some(machine.perform(site, prepared, place, aim, &mut record)?);
        points::pass(Point::AfterPerform);
        Ok(())
    }

    /// Whether it acts, or will when its target is there again.
    pub fn is_live(&self) -> bool {
        self.live.is_some() || self.gap.is_some()
    }

    /// Whether something is left of it although it acts no more.
    pub fn is_stuck(&self) -> bool {
        !self.is_live() && !self.undos.is_empty()
    }

    /// Why a change at a site may not be made beside it, whose names have these addresses.
    pub fn collides(&self, site: &Site, resolved: &Resolved) -> Option<String> {
        let claims = site.change.claims().into_iter();
        let theirs: Vec<Claim> =
            claims.map(|claim| claim.of_flow(|flow| addressed(flow, resolved))).collect();
        self.stands_in_the_way(site, &theirs)
    }

    /// What it holds, with its flow as it is given.
    fn claims(&self, change: impl Fn(&Flow) -> Flow) -> Vec<Claim> {
        let claims = self.site.change.claims().into_iter();
        claims.map(|claim| claim.of_flow(&change)).collect()
    }

    /// Why something at a site may not hold this beside it.
    fn stands_in_the_way(&self, site: &Site, theirs: &[Claim]) -> Option<String> {
        // Traffic is another one in another namespace; processes are the same from everywhere.
        let same = |claim: &&Claim| site.at == self.site.at || matches!(claim, Claim::Processes(_));
        let reach = || self.live.as_ref().and_then(Live::reach);
        let apart = |new: &Scope, standing: &Scope| reach::apart(new, standing, reach);
        let mine = self.claims(|flow| addressed(flow, &self.resolved));
        let mut theirs = theirs.iter().filter(same);
        theirs.find_map(|theirs| mine.iter().filter(same).find_map(|mine| theirs.meets(mine, &apart)))
    }

    /// Whether it holds one of these processes.
    pub fn holds(&self, targets: &[Target]) -> bool {
        self.held.iter().any(|target| targets.contains(target))
    }

    /// When [`Made::tick`] wants to be called next, on the boot clock.
    pub fn due(&self) -> Option<u64> {
        let live = self.live.as_ref();
        let ground = live.and(self.site.ground.as_ref()).and_then(Ground::due);
        let gap = self.gap.as_ref().map(|gap| gap.look);
        [live.and_then(Live::due), ground, gap].into_iter().flatten().min()
    }

    /// Does what is due, and follows its target.
    pub fn tick(&mut self, machine: &mut Machine, books: &mut Books<'_>, aim: &Aim<'_>) {
        if let Some(gap) = &mut self.gap {
            if gap.look <= sys::boot_nanos() {
                gap.look = Ground::next_look();
                self.seek(machine, books, aim);
            }
        } else if self.live.is_some() && self.site.ground.as_mut().is_some_and(|ground| !ground.stands()) {
            self.lose(machine, books.records);
        } else if let Some(live) = &mut self.live {
            let (run, undos) = (&self.run, &mut self.undos);
            let may_outlast = self.site.at.is_none();
            let mut record = |undo: Undo, socket: Option<BorrowedFd<'_>>| {
                books.record(run, undos, may_outlast, undo, socket)
            };
            machine.tick(self.site.at, live, aim, &mut record);
        }
    }

    /// A name has been asked again.
    pub fn hear(&mut self, news: &News, machine: &mut Machine, aim: &Aim<'_>) {
        if news.from != Viewpoint::of(&self.change) {
            return;
        }
        // Where its target comes back, it is made again with all of them.
        if let Some(known) = self.resolved.get_mut(&news.name) {
            let new: Vec<_> =
                news.addresses.iter().filter(|address| !known.contains(address)).copied().collect();
            known.extend(new);
        }
        if let Some(live) = &mut self.live {
            machine.hear(self.site.at, live, news, aim);
        }
    }

    /// The target has ended. Everything that is held there is closed at once: it would keep the target's devices.
    fn lose(&mut self, machine: &mut Machine, records: &Records) {
        let since = sys::boot_nanos();
        let undos = std::mem::take(&mut self.undos);
        self.undos = undos.into_iter().map(|(number, undo)| (number, undo.hurried())).collect();
        self.live.iter().for_each(|live| machine.abandon(live));
        self.take_back(machine, records);
        self.past = self.evidence();
        self.now = Evidence::default();
        self.incident(since, "ended");
        self.gap = Some(Gap { since, look: since, why: None });
    }

    /// Makes it again where the target is there again.
    fn seek(&mut self, machine: &mut Machine, books: &mut Books<'_>, aim: &Aim<'_>) {
        if !self.undos.is_empty() {
            self.take_back(machine, books.records);
            if !self.undos.is_empty() {
                return;
            }
        }
        let Ok(site) = machine.site(&self.change) else { return };
        // A container that is being started is still in its runtime's namespaces for a moment.
        if site.at.is_some() != self.site.at.is_some() {
            return;
        }
        let (resolved, began) = (std::mem::take(&mut self.resolved), sys::boot_nanos());
        let made = self.make_again(site, machine, books, &aim.with(&resolved));
        self.resolved = resolved;
        let Some(gap) = &mut self.gap else { return };
        match made {
            Ok(()) => {
                let absent = (began - gap.since) / 1_000_000;
                self.gap = None;
                self.again = began;
                self.incident(
                    began,
                    &format!("came back after {absent} ms, and the fault is made there again"),
                );
            }
            Err(refusal) => gap.why = Some(refusal.what),
        }
    }

    fn make_again(
        &mut self,
        mut site: Site,
        machine: &mut Machine,
        books: &mut Books<'_>,
        aim: &Aim<'_>,
    ) -> Result<(), Refusal> {
        let prepared = machine.prepare(&mut site, &self.place, aim)?;
        self.site = site;
        self.counted = true;
        let made = self.make(prepared, machine, books, aim);
        if made.is_err() {
            self.take_back(machine, books.records);
        }
        made
    }

    fn incident(&mut self, at: u64, what: &str) {
        let name = self.site.ground.as_ref().map_or("the target", |ground| &ground.name);
        let what = format!("{name} {what}");
        self.past.incidents.push(Incident { after_ms: (at - self.began) / 1_000_000, what });
    }

    /// What has been measured so far.
    pub fn observe(&mut self, machine: &mut Machine) -> Evidence {
        if let Some(live) = &mut self.live
            && let Some(evidence) = machine.observe(self.site.at, live, &self.place)
        {
            self.now = evidence;
        }
        self.evidence()
    }

    /// What was measured when it was looked at last.
    pub fn evidence(&self) -> Evidence {
        if self.again == self.began && self.past == Evidence::default() {
            return self.now.clone();
        }
        self.past.clone().then(&self.now, (self.again - self.began) / 1_000_000)
    }

    /// Ends it: takes the last evidence, lets go, and applies every undo, latest first. What fails stays for the next time.
    pub fn lift(&mut self, machine: &mut Machine, records: &Records) -> (Vec<String>, Vec<String>) {
        let mut done = Vec::new();
        if let Some(gap) = self.gap.take() {
            let since = sys::boot_nanos();
            let why = gap.why.map(|why| format!(", where the fault could not be made again: {why}"));
            self.incident(
                since,
                &format!("did not come back before the fault ended{}", why.unwrap_or_default()),
            );
        }
        if self.live.is_some() && !self.change.reversible() {
            done.push(format!("not undone, as it cannot be: {}", self.change));
        }
        let (undone, stuck) = self.take_back(machine, records);
        done.extend(undone);
        (done, stuck)
    }

    fn take_back(&mut self, machine: &mut Machine, records: &Records) -> (Vec<String>, Vec<String>) {
        self.observe(machine);
        let mut live = self.live.take();
        if let Some(live) = &mut live {
            live.let_go();
        }
        let mut taken = books::take_back(&mut self.undos, |undo| self::undo(undo, machine, records));
        if let Some(live) = live {
            self.now = machine.last(self.site.at, live, &self.now);
        }
        taken.mark(records);
        machine.settle(self.site.at);
        if self.counted && self.undos.is_empty() {
            self.counted = false;
            machine.leave(self.site.at);
        }
        (taken.undone, taken.stuck)
    }
}

/// Makes one undo so. What the thing still holds is waited for: no packet is lost at the end.
pub fn undo(undo: &Undo, machine: &mut Machine, records: &Records) -> Undone {
    let began = Instant::now();
    while machine.drains(undo, began.elapsed()) {
        records.breathe();
        std::thread::sleep(Duration::from_millis(5));
    }
    records.breathe();
    points::pass(Point::BeforeUndo);
    let done = machine.undo(undo);
    points::pass(Point::AfterUndo);
    done
}
