//! Samples, and what they add up to.

use super::{Count, Figures, LoadFigures};
use crate::probe::Load;
use crate::quantity::Percent;
use crate::run::Seen;
use crate::verdict::{HeldAgain, Phase, Tally, held_again};

/// All samples of a run, in the order in which they were answered.
#[derive(Default)]
pub(super) struct Samples<'a>(Vec<&'a Seen>);

impl<'a> Samples<'a> {
    pub(super) fn add(&mut self, seen: &'a Seen) {
        self.0.push(seen);
    }

    /// All samples of a hypothesis or of a guard.
    pub(super) fn all_of(&self, name: &str, guard: bool) -> impl Iterator<Item = &'a Seen> {
        self.0.iter().copied().filter(move |seen| seen.guard == guard && seen.name == name)
    }

    /// The samples of a hypothesis.
    pub(super) fn of(&self, name: &str) -> impl Iterator<Item = &'a Seen> {
        self.0.iter().copied().filter(move |seen| !seen.guard && seen.name == name)
    }

    /// Those of a phase.
    pub(super) fn of_phase(&self, name: &str, phase: Phase) -> impl Iterator<Item = &'a Seen> {
        self.of(name).filter(move |seen| seen.phase == phase)
    }

    /// All samples of a guard.
    pub(super) fn of_guard(&self, name: &str) -> Tally {
        let mut tally = Tally::default();
        let own = self.0.iter().filter(|seen| seen.guard && seen.name == name && seen.is_whole());
        own.for_each(|seen| tally.add(seen.good));
        tally
    }

    /// The samples of a hypothesis in a phase.
    pub(super) fn figures(&self, name: &str, phase: Phase) -> Figures {
        let mut figures = Figures::default();
        let mut took = Vec::new();
        let mut load: Option<Load> = None;
        let own = self.0.iter().filter(|seen| !seen.guard && seen.name == name && seen.phase == phase);
        for seen in own {
            if let Some(part) = &seen.load {
                load.get_or_insert_default().merge(part);
            } else {
                took.push(seen.took_us);
            }
            if seen.unclear {
                figures.unclear += 1;
                Count::add(&mut figures.unclear_seen, &untimed(&seen.seen), 1);
            }
            if !seen.is_whole() {
                continue;
            }
            figures.tally.add(seen.good);
            match &seen.load {
                _ if seen.good => {}
                Some(load) => {
                    let missed = load.missed.iter().map(|missed| format!("missed {missed}"));
                    missed.for_each(|missed| Count::add(&mut figures.bad_seen, &missed, 1));
                }
                None => Count::add(&mut figures.bad_seen, &untimed(&seen.seen), 1),
            }
        }
        took.sort_unstable();
        figures.median_us = took.get(took.len().saturating_sub(1) / 2).copied();
        figures.slowest_us = took.last().copied();
        if let Some(load) = load.as_ref().map(LoadFigures::from) {
            figures.median_us = load.p50_us;
            figures.slowest_us = load.slowest_us;
            figures.load = Some(load);
        }
        Count::sort(&mut figures.bad_seen);
        figures.bad_seen.truncate(5);
        Count::sort(&mut figures.unclear_seen);
        figures.unclear_seen.truncate(5);
        figures
    }

    /// When a hypothesis held again by its samples; only those that were begun at or after `from_ms` count, in the order in
    /// which they were begun.
    pub(super) fn held_again(&self, from_ms: u64, name: &str, tolerate: Percent) -> Option<HeldAgain> {
        let later = self.of(name).filter(|seen| seen.begun_ms >= from_ms && seen.is_whole());
        let mut later: Vec<(u64, bool)> = later.map(|seen| (seen.begun_ms, seen.good)).collect();
        later.sort_by_key(|(begun_ms, _)| *begun_ms);
        held_again(&later, tolerate)
    }
}

/// What was seen without how long it took, so that equal things count as equal: `503 in 3.1 ms` is `503`, and
/// `200 in 812 ms (expected within 500ms)` is `200 (expected within 500ms)`.
fn untimed(seen: &str) -> String {
    match seen.rsplit_once(" in ") {
        Some((what, time))
            if time.starts_with(|first: char| first.is_ascii_digit()) && !time.contains(',') =>
        {
            let remark = time.find(" (").map_or("", |at| &time[at..]);
            format!("{what}{remark}")
        }
        _ => seen.to_owned(),
    }
}
