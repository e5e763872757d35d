//! From events to a summary.

use super::samples::Samples;
use super::{Action, Claim, Guard, Part, Reason, Spent, Summary, Undo, closing};
use super::{again, late, rates, timeline, unclear};
use crate::evidence::Evidence;
use crate::exit::Exit;
use crate::probe::When;
use crate::protocol::{Lifted, Refusal};
use crate::run::{Event, Record, Started, State, Stated, next};
use crate::verdict::{Finding, Outcome, Phase, during};

/// A summary that is being made.
#[derive(Default)]
struct Making<'a> {
    state: State,
    started: Option<Started>,
    samples: Samples<'a>,
    parts: Vec<Part>,
    actions: Vec<Action>,
    reasons: Vec<Reason>,
    whole: Lifted,
    others: Vec<String>,
    met: bool,
    tripped: Option<(String, String)>,
    spent: Option<(String, u64)>,
    gave_way: Option<String>,
    well_again_ms: Option<u64>,
    not_recovered: Option<Vec<String>>,
    unshown: Vec<String>,
    unknown: Vec<String>,
}

impl Summary {
    /// What a log adds up to; `None` for a log without a first event. An event that could not happen after those
    /// before it ends the log: see [`crate::run::next`].
    ///
    /// A log without a last event is a run that was cut off: what was live then counts as still there.
    pub fn of(log: &[Record]) -> Option<Summary> {
        let mut making = Making::default();
        let mut took_ms = 0;
        let mut used = 0;
        for record in log {
            match next(std::mem::take(&mut making.state), &record.event) {
                Ok(state) => making.state = state,
                Err(_) => break,
            }
            making.take(record);
            took_ms = record.at_ms;
            used += 1;
        }
        making.finish(took_ms, &log[..used])
    }
}

impl<'a> Making<'a> {
    fn take(&mut self, record: &'a Record) {
        let at_ms = record.at_ms;
        match &record.event {
            Event::Started(started) => self.started = Some(started.clone()),
            Event::Sample(seen) => self.samples.add(seen),
            Event::BaselineMet => self.met = true,
            Event::BaselineNotMet { name, seen } => {
                self.reason(Exit::Refused, format!("`{name}` did not hold before anything was done: {seen}"));
            }
            Event::Injecting { part, name, changes, lasts_ms } => self.parts.push(Part {
                part: *part,
                name: name.clone(),
                changes: changes.clone(),
                lasts_ms: *lasts_ms,
                injected_at_ms: None,
                lifted_at_ms: None,
                apply_us: None,
                lift_us: None,
                targets: Vec::new(),
                notes: Vec::new(),
                evidence: Vec::new(),
                measured: false,
                undone: Vec::new(),
                stuck: Vec::new(),
            }),
            Event::Injected { part, applied } => self.part(*part, |part| {
                part.injected_at_ms = Some(at_ms);
                part.apply_us = Some(applied.took_us);
                part.targets = applied.targets.clone();
                part.notes = applied.notes.clone();
            }),
            Event::Refused { part, refusal } => self.refused(*part, refusal),
            Event::Measured { part, evidence } => self.part(*part, |part| part.measure(evidence)),
            Event::Lifted { part, lifted, .. } => self.lifted(*part, lifted, at_ms),
            Event::ActionBegan { step, name, undo } => self.actions.push(Action {
                step: step.clone(),
                name: name.clone(),
                good: None,
                seen: None,
                undo: undo.then(Undo::default),
            }),
            Event::ActionEnded { step, good, seen } => {
                if let Some(action) = self.actions.iter_mut().find(|action| action.step == *step) {
                    action.good = Some(*good);
                    action.seen = Some(seen.clone());
                    let what = format!("the action `{}` failed: {seen}", action.name);
                    if !good {
                        self.reason(Exit::Inconclusive, what);
                    }
                }
            }
            Event::UndoPlayed { step, good, seen } => {
                let action = self.actions.iter_mut().find(|action| action.step == *step);
                if let Some(undo) = action.and_then(|action| action.undo.as_mut()) {
                    undo.good = Some(*good);
                    undo.seen = Some(seen.clone());
                }
            }
            Event::GuardTripped { name, seen } => {
                self.tripped = Some((name.clone(), seen.clone()));
                self.reason(Exit::Deviated, format!("the guard `{name}` did not hold: {seen}"));
            }
            Event::GaveWay { stage, name, seen } => {
                self.gave_way = Some(name.clone());
                self.reason(Exit::Deviated, format!("`{name}` did not hold in stage {stage}: {seen}"));
            }
            Event::BudgetSpent { name, failed, .. } => self.spent = Some((name.clone(), *failed)),
            Event::Interrupted { by } => self.reason(Exit::Interrupted, format!("interrupted: {by}")),
            Event::AgentLost { why } => {
                self.reason(Exit::Interrupted, format!("the connection to the agent broke: {why}"));
            }
            Event::Blind { why } => {
                self.reason(Exit::Inconclusive, format!("the system could not be looked at: {why}"));
            }
            Event::WellAgain { after_ms } => self.well_again_ms = Some(*after_ms),
            Event::NotRecovered { names, unshown } => {
                self.not_recovered = Some(names.clone());
                self.unshown.clone_from(unshown);
            }
            Event::Stuck { left, .. } => self.unknown = left.clone(),
            Event::StepBegan { .. }
            | Event::StepEnded { .. }
            | Event::MethodEnded
            | Event::RecoveryBegan
            | Event::Finished { .. } => {}
        }
    }

    fn part(&mut self, number: u32, change: impl FnOnce(&mut Part)) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.part == number) {
            change(part);
        }
    }

    fn reason(&mut self, exit: Exit, what: String) {
        self.reasons.push(Reason::new(exit, what));
    }

    fn refused(&mut self, part: Option<u32>, refusal: &Refusal) {
        let named = part.and_then(|number| self.parts.iter().find(|part| part.part == number));
        let what = match named {
            Some(part) => format!("`{}` was refused: {}", part.name, refusal.what),
            None => refusal.what.clone(),
        };
        self.reasons.push(Reason {
            exit: Exit::try_from(refusal.exit).unwrap_or(Exit::Refused),
            what,
            help: refusal.help.clone(),
            about: None,
        });
    }

    fn lifted(&mut self, part: Option<u32>, lifted: &Lifted, at_ms: u64) {
        for other in &lifted.others {
            if !self.others.contains(other) {
                self.others.push(other.clone());
            }
        }
        match part {
            Some(number) => self.part(number, |part| {
                part.lifted_at_ms = Some(at_ms);
                part.lift_us.get_or_insert(lifted.took_us);
                part.measure(&lifted.evidence);
                // Of what cannot be undone nothing was, whatever is said about its end.
                if part.changes.iter().any(|change| change.reversible) {
                    part.undone.extend(lifted.undone.iter().cloned());
                }
                part.stuck = lifted.stuck.clone();
            }),
            None => {
                // Evidence of the whole run is in the order of the parts; it is taken only where it fits.
                let wanted: usize = self.parts.iter().map(|part| part.changes.len()).sum();
                if lifted.evidence.len() == wanted {
                    let mut rest = lifted.evidence.as_slice();
                    for part in &mut self.parts {
                        let (own, others) = rest.split_at(part.changes.len());
                        part.measure(own);
                        rest = others;
                    }
                }
                for part in &mut self.parts {
                    let open = part.lifted_at_ms.is_none() && part.injected_at_ms.is_some();
                    if lifted.stuck.is_empty() {
                        part.stuck.clear();
                        part.lifted_at_ms = part.lifted_at_ms.or(open.then_some(at_ms));
                    }
                }
                self.whole.undone.extend(lifted.undone.iter().cloned());
                self.whole.stuck = lifted.stuck.clone();
                self.whole.host = lifted.host.clone().or(self.whole.host.take());
            }
        }
    }

    fn finish(mut self, took_ms: u64, log: &[Record]) -> Option<Summary> {
        let started = self.started.take()?;
        let faults = started.faults > 0 || started.elsewhere;
        let injected = self.parts.iter().any(|part| part.injected_at_ms.is_some());
        let judged = self.met && (injected || !faults || started.elsewhere);
        let claims = self.claims(&started, judged, faults);
        let guards: Vec<Guard> = started.guards.iter().map(|guard| self.guard(guard)).collect();
        self.overspent(&guards, &claims);
        let ended = self.parts.iter().filter_map(|part| part.lifted_at_ms).max();
        self.reasons.extend(again::reasons(&started.hypotheses, &claims, &self.samples, ended));
        for claim in &claims {
            let Some(judgement) = &claim.judgement else {
                continue;
            };
            // What did not hold again in time, or was not shown to, has its reason already.
            let again = claim.recovered == Some(false) || claim.unshown.is_some();
            if again && !judged_during(&started, &claim.name) {
                continue;
            }
            let exit = match judgement.outcome {
                Outcome::Held => continue,
                Outcome::Deviated if self.gave_way.as_ref() == Some(&claim.name) => continue,
                Outcome::Deviated => Exit::Deviated,
                Outcome::Inconclusive | Outcome::NoData => Exit::Inconclusive,
                Outcome::NotSteady => Exit::Refused,
            };
            let what = format!("`{}`: {}", claim.name, judgement.why);
            self.reasons.push(Reason::new(exit, what).about(&claim.name));
        }
        let unmeasured: Vec<String> = self
            .parts
            .iter()
            .filter(|part| part.injected_at_ms.is_some() && !part.measured)
            .map(Part::unmeasured)
            .collect();
        for what in unmeasured {
            self.reason(Exit::Inconclusive, what);
        }
        let stuck = self.stuck();
        for what in &stuck {
            self.reasons.push(Reason {
                exit: Exit::Modified,
                what: what.clone(),
                help: Some("`squall halt` tries again; `squall status` says what is left".to_owned()),
                about: None,
            });
        }
        let all_well = claims.iter().all(|claim| claim.recovered != Some(false));
        let moment = |ended| {
            let moments = claims.iter().filter_map(|claim| again::moment(claim, &self.samples, ended));
            moments.map(|(_, likeliest)| likeliest).max()
        };
        let since_revert = self.well_again_ms.filter(|_| all_well);
        let well = since_revert.map(|since_revert| ended.and_then(moment).unwrap_or(since_revert));
        if let Some(ended) = ended {
            self.reasons.extend(late::too_late(&started.hypotheses, &claims, &self.samples, ended));
        }
        let exit = self.reasons.iter().fold(Exit::Held, |exit, reason| exit.worse(reason.exit));
        let mut summary = Summary {
            run: started.run,
            title: started.title,
            date: started.date,
            took_ms,
            seed: started.seed,
            plan: started.plan,
            version: started.version,
            agent: started.agent,
            origin: started.origin,
            verdict: exit.meaning().to_owned(),
            exit,
            sentence: String::new(),
            hypotheses: claims,
            guards,
            undone: self.undone(),
            stuck,
            not_undone: self.not_undone(),
            reasons: self.reasons,
            timeline: timeline::of(log, &self.parts),
            parts: self.parts,
            actions: self.actions,
            others: self.others,
            host: self.whole.host,
            well_again_ms: well,
            regression: None,
            audit: None,
        };
        summary.sentence = closing::sentence(&summary);
        Some(summary)
    }

    fn claims(&self, started: &Started, judged: bool, faults: bool) -> Vec<Claim> {
        let ended = self.parts.iter().filter_map(|part| part.lifted_at_ms).max();
        let found = rates::of(&started.hypotheses, &self.samples, started.planned_ms);
        let claim = |(stated, mut found): (&Stated, Vec<Finding>)| {
            let figures = |phase| self.samples.figures(&stated.name, phase);
            let in_force = figures(Phase::During);
            let missing = |names: &Vec<String>| !names.contains(&stated.name);
            let watched = self.well_again_ms.map(|_| true);
            let ended = ended.filter(|_| watched.is_some() || self.not_recovered.is_some());
            let never = ended.is_some_and(|ended| rates::recover(&mut found, stated, &self.samples, ended));
            let recovered = self.not_recovered.as_ref().map(missing).or(watched);
            let recovered = recovered.filter(|_| stated.is_for(When::After));
            let unshown = recovered.is_some() && self.unshown.contains(&stated.name);
            let unshown = unshown.then(|| rates::unshown(&figures(Phase::Recovery)));
            // What is bad to the end has no moment at which it was well, whatever the last samples looked like.
            let recovered = recovered.filter(|_| unshown.is_none()).map(|well| well && !never);
            let counted = || unclear::judge(&in_force, |tally| during(tally, stated.tolerate, faults));
            // Of several that are as grave, the first: errors go before what is derived from them.
            let gravest = found.iter().rev().max_by_key(|finding| weight(finding.judgement.outcome));
            let judgement = match gravest {
                Some(_) if !faults && in_force.tally.total() == 0 => counted(),
                Some(worst) => unclear::sent(&worst.judgement, &in_force),
                None => counted(),
            };
            let budget = Spent::of(stated, false, &self.samples, self.known(&stated.name));
            let alone = stated.rate.as_ref().is_some_and(|terms| terms.bounds.is_empty());
            let judgement = match budget {
                Some(spent) => {
                    let silent = Spent::silent(&stated.name, &self.samples);
                    spent.judge(judgement, &in_force, silent, alone)
                }
                None => judgement,
            };
            let judgement = match stated.is_for(When::During) {
                true => Some(judgement),
                false => unclear::elsewhere(stated, recovered, unshown.as_deref()),
            };
            if !judged {
                found.clear();
            }
            Claim {
                name: stated.name.clone(),
                tolerate: stated.tolerate,
                judgement: judgement.filter(|_| judged),
                findings: found,
                before: figures(Phase::Baseline),
                during: in_force,
                after: figures(Phase::Recovery),
                recovered,
                unshown,
                budget,
            }
        };
        started.hypotheses.iter().zip(found).map(claim).collect()
    }

    fn guard(&self, stated: &Stated) -> Guard {
        let tripped = self.tripped.as_ref().filter(|(tripped, _)| *tripped == stated.name);
        Guard {
            name: stated.name.clone(),
            samples: self.samples.of_guard(&stated.name),
            tripped: tripped.map(|(_, seen)| seen.clone()),
            budget: Spent::of(stated, true, &self.samples, self.known(&stated.name)),
        }
    }

    /// How many failures stopped the run, where it was the budget of this one that did.
    fn known(&self, name: &str) -> u64 {
        self.spent.as_ref().filter(|(spent, _)| spent == name).map_or(0, |(_, failed)| *failed)
    }

    /// Budgets that were spent: those of guards, and of a hypothesis that is not judged because nothing was injected yet.
    fn overspent(&mut self, guards: &[Guard], claims: &[Claim]) {
        let of_guards = guards.iter().map(|guard| (&guard.name, guard.budget, true));
        let of_claims = claims.iter().map(|claim| (&claim.name, claim.budget, claim.judgement.is_none()));
        let all: Vec<Reason> = of_guards
            .chain(of_claims)
            .filter_map(|(name, budget, open)| Some((name, budget.filter(Spent::is_all)?, open)))
            .filter(|(_, _, open)| *open)
            .map(|(name, spent, _)| {
                let what = format!("`{name}` has spent its budget: {}", spent.in_words());
                Reason::new(Exit::Deviated, what).about(name)
            })
            .collect();
        self.reasons.extend(all);
    }

    fn undone(&self) -> Vec<String> {
        let parts = self.parts.iter().flat_map(|part| part.undone.iter().cloned());
        let played = self.actions.iter().filter_map(|action| {
            let undo = action.undo.as_ref().filter(|undo| undo.good == Some(true))?;
            Some(format!("`{}`: its undo was played: {}", action.name, undo.seen.as_deref()?))
        });
        parts.chain(self.whole.undone.iter().cloned()).chain(played).collect()
    }

    fn stuck(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.parts.iter().flat_map(|part| part.stuck.iter().cloned()).collect();
        lines.extend(self.whole.stuck.iter().cloned());
        let live = self.state.live().cloned().unwrap_or_default();
        for (number, _) in live.parts {
            let part = self.parts.iter().find(|part| part.part == number);
            if let Some(part) = part.filter(|part| part.stuck.is_empty()) {
                lines.push(format!("`{}`: whether it was undone is not known", part.name));
            }
        }
        for action in self.actions.iter().filter(|action| live.owed.contains(&action.step)) {
            let seen = action.undo.as_ref().and_then(|undo| undo.seen.as_deref());
            lines.push(match seen {
                Some(seen) => format!("the undo of `{}` failed: {seen}", action.name),
                None => format!("the undo of `{}` was not played", action.name),
            });
        }
        for line in &self.unknown {
            if !lines.contains(line) {
                lines.push(line.clone());
            }
        }
        lines
    }

    fn not_undone(&self) -> Vec<String> {
        let injected = self.parts.iter().filter(|part| part.injected_at_ms.is_some());
        let gone = injected.flat_map(|part| {
            let changes = part.changes.iter().filter(|change| !change.reversible);
            changes.map(move |change| match part.name.contains(&change.what) {
                true => part.name.clone(),
                false => format!("`{}`: {}", part.name, change.what),
            })
        });
        let own = self.actions.iter().filter(|action| action.undo.is_none());
        let own = own.map(|action| format!("`{}`: the file has no `undo:` for it", action.name));
        gone.chain(own).collect()
    }
}

fn judged_during(started: &Started, name: &str) -> bool {
    let stated = started.hypotheses.iter().find(|stated| stated.name == name);
    stated.is_none_or(|stated| stated.is_for(When::During))
}

/// Which of the outcomes of several bounds is that of the claim: the largest.
fn weight(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Held => 0,
        Outcome::NoData => 1,
        Outcome::Inconclusive => 2,
        Outcome::NotSteady => 3,
        Outcome::Deviated => 4,
    }
}

impl Part {
    fn measure(&mut self, evidence: &[Evidence]) {
        if evidence.len() == self.changes.len() {
            self.evidence = evidence.to_vec();
            self.measured = evidence.iter().all(Evidence::measured);
        }
    }
}
