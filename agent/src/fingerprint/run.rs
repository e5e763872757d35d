//! A host before and after a run: what Squall itself left, and what others changed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use squall_experiments::protocol::Compared;

use super::claims::Claims;
use super::compare::Difference;
use super::{Fingerprint, Section};
use crate::host::modules::beside;
use crate::host::netns::{Id, Netns};
use crate::host::site::Site;
use crate::records::Records;

/// So many differences are listed one by one.
const LISTED: usize = 50;
/// How long what seems to be left is looked at again: the kernel closes some things a moment after it was asked to.
const PATIENCE: Duration = Duration::from_millis(500);

/// The host as it was when a run began, and each other network namespace as it was before the run came into it.
#[derive(Debug)]
pub struct Before {
    own: Place,
    others: BTreeMap<Id, Place>,
}

/// One network namespace as it was.
#[derive(Debug)]
struct Place {
    /// What lines about it begin with.
    whose: String,
    print: Fingerprint,
    /// What bore our mark before this agent did anything here: another one's, for which this one does not answer.
    foreign: BTreeSet<String>,
}

impl Place {
    fn new(at: Option<Id>, whose: String, print: Fingerprint, records: &Records) -> Self {
        let known = records.claims().reach(at);
        let foreign = print.ours().filter(|_| !known).map(str::to_owned).collect();
        Place { whose, print, foreign }
    }
}

/// What a run finds in the end.
#[derive(Debug)]
pub struct Judgement {
    /// What was claimed or bears our mark, and is not as it was: a line each.
    pub residue: Vec<String>,
    /// What others changed: a line each.
    pub others: Vec<String>,
    /// The figures.
    pub compared: Compared,
}

impl Before {
    /// Looks at the host, on a thread of its own beside the worker's beat.
    pub fn take(records: &Records) -> Self {
        Before { own: Place::new(None, String::new(), look(records), records), others: BTreeMap::new() }
    }

    /// Looks at the network namespace of a site, unless that has been done. To be called before anything is changed there.
    pub fn come(&mut self, site: &Site, records: &Records) {
        let Some(at) = site.at.filter(|at| !self.others.contains_key(at)) else { return };
        let name = site.ground.as_ref().map_or("a network namespace", |ground| &ground.name);
        if let Some(Ok(print)) = site.look(Fingerprint::of_network) {
            self.others.insert(at, Place::new(Some(at), format!("{name}: "), print, records));
        }
    }

    /// Compares. `alone`: no other run is live on this host, so nothing may bear Squall's mark.
    pub fn judge(&self, records: &Records, alone: bool) -> Judgement {
        let began = Instant::now();
        loop {
            let mut judgement = self.judge_once(records, alone);
            if judgement.residue.is_empty() || began.elapsed() > PATIENCE {
                let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                judgement.compared.took_us = took;
                return judgement;
            }
            records.breathe();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn judge_once(&self, records: &Records, alone: bool) -> Judgement {
        let claims = records.claims();
        let mut found = Findings { alone, ..Findings::default() };
        let now = look(records);
        found.namespace(None, &self.own, &now, &claims);
        for (target, how) in claims.halted() {
            let words = format!("{}: {how}", super::processes::named(&target.name));
            let was_so = self
                .own
                .print
                .sections
                .get(&Section::Processes)
                .is_some_and(|all| all.0.contains_key(&words));
            if !was_so && alone {
                found.residue.push(format!("{target} is {how}, and was not"));
            }
        }
        for (id, place) in &self.others {
            let whose = &place.whose;
            let there = Netns::find(*id)
                .and_then(|netns| netns.map(|netns| netns.enter(Fingerprint::of_network)).transpose());
            match there {
                Ok(Some(now)) => found.namespace(Some(*id), place, &now, &claims),
                Ok(None) => found.notes.push(format!("{whose}the network is gone, with all that was in it")),
                Err(error) => found.notes.push(format!("{whose}cannot be entered any more: {error}")),
            }
        }
        found.judgement(&self.own.print)
    }
}

fn look(records: &Records) -> Fingerprint {
    beside(|| records.breathe(), Fingerprint::take).unwrap_or_default()
}

/// Whether what is gone stood on an interface that is gone: whoever removed that took it along.
fn went_with_its_link(difference: &Difference, now: &Fingerprint) -> bool {
    let link = difference.name.split('`').nth(1).filter(|_| difference.section == Section::Disciplines);
    difference.after.is_none() && link.is_some_and(|link| !now.has_link(link))
}

/// Whether what is new stands on an interface that is new: it was not claimed as it stands, and what is ours bears our mark.
fn came_with_its_link(difference: &Difference, before: &Fingerprint) -> bool {
    let link = difference.name.split('`').nth(1).filter(|_| difference.section == Section::Disciplines);
    difference.before.is_none() && link.is_some_and(|link| !before.has_link(link))
}

#[derive(Debug, Default)]
struct Findings {
    alone: bool,
    residue: Vec<String>,
    others: Vec<String>,
    notes: Vec<String>,
    things: usize,
    namespaces: u32,
    changed: usize,
    after: BTreeMap<String, String>,
}

impl Findings {
    fn namespace(&mut self, at: Option<Id>, place: &Place, now: &Fingerprint, claims: &Claims) {
        let whose = &place.whose;
        self.namespaces += 1;
        self.things += now.len();
        if at.is_none() {
            self.after = now.digests();
        }
        self.notes.extend(now.notes().iter().map(|note| format!("{whose}{note}")));
        if self.alone {
            let left = now.ours().filter(|name| !place.foreign.contains(*name));
            self.residue.extend(left.map(|name| format!("{whose}{name} is still there")));
        }
        for difference in place.print.differences(now) {
            let line = |difference: &Difference| format!("{whose}{difference}");
            if difference.ours || claims.names(&difference) {
                // What stands has been said above; what was another run's and is gone, is as it should be.
                continue;
            }
            let with_its_link =
                went_with_its_link(&difference, now) || came_with_its_link(&difference, &place.print);
            if claims.hold(at, &difference) && !with_its_link {
                // Of marks and queues only what is there now is a residue: it may be another run's that is gone.
                let stays = difference.section == Section::Disciplines || difference.after.is_some();
                if self.alone && stays {
                    self.residue.push(format!("{} (it was claimed)", line(&difference)));
                }
                continue;
            }
            self.changed += 1;
            self.others.push(line(&difference));
        }
    }

    fn judgement(mut self, before: &Fingerprint) -> Judgement {
        let more = self.others.len().saturating_sub(LISTED);
        self.others.truncate(LISTED);
        if more > 0 {
            self.others.push(format!("and {more} more"));
        }
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Judgement {
            compared: Compared {
                things: number(self.things),
                namespaces: self.namespaces,
                ours: number(self.residue.len()),
                others: number(self.changed),
                before: before.digests(),
                after: self.after,
                notes: self.notes,
                took_us: 0,
            },
            residue: self.residue,
            others: self.others,
        }
    }
}
