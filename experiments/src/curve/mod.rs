//! How a claim went over time: counts, intervals and latencies in windows, for whoever draws them.
//!
//! Made of the event log and of nothing else, as a summary is. A long run has longer windows, never more of them.

use std::time::Duration;

use crate::distribution::Distribution;
use crate::probe::Slot;
use crate::quantity::Percent;
use crate::run::{Event, Record, Seen, Started, Stated};
use crate::summary::count;
use crate::verdict::{Bound, Counts, Phase, anytime_ranks, anytime_share, lower_share, upper_share};

/// A curve has at most so many windows, and two for the ends.
pub const MOST: u64 = 120;
/// Fewer windows than this show nothing of a course: then a window may have few requests.
const FEWEST: u64 = 24;
/// So many requests in a window say something about its share of bad ones.
const ENOUGH: u64 = 20;
/// What the band of single looks leaves open.
const USUAL_ALPHA: f64 = 0.05;
/// Lengths of windows that a reader can count in, in milliseconds.
const LENGTHS: [u64; 18] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000,
    1_800_000, 3_600_000, 7_200_000, 14_400_000,
];

/// What was seen of a hypothesis or a guard over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What is claimed.
    pub name: String,
    /// Whether it is a guard.
    pub guard: bool,
    /// Whether requests of a load were counted; else single looks.
    pub load: bool,
    /// How long a window is, in milliseconds. One of them begins with the first fault.
    pub window_ms: u64,
    /// The windows in which something was seen, by time.
    pub windows: Vec<Window>,
    /// The same for each phase in which something was seen; here the interval of the share is that of the verdict, which
    /// holds at every moment at once.
    pub phases: Vec<(Phase, Window)>,
}

/// What was seen in a stretch of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// Where it begins, in milliseconds since the run began.
    pub from_ms: u64,
    /// Where it ends.
    pub to_ms: u64,
    /// Requests or looks that began in it.
    pub all: u64,
    /// The bad ones among them: without the expected answer.
    pub bad: u64,
    /// Looks that said nothing, and are in neither.
    pub unclear: u64,
    /// The shares of bad ones that are not excluded (Clopper and Pearson, both ends): from here.
    pub low: f64,
    /// To here.
    pub high: f64,
    /// How long answers took; `None` where nothing that was counted has a time.
    pub latency: Option<Latency>,
}

/// Quantiles over all requests of a window: one that failed is slower than any answer, and `None` is a quantile that lies
/// among those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// The median.
    pub p50: Quantile,
    /// What 90 % kept.
    pub p90: Quantile,
    /// What 99 % kept.
    pub p99: Quantile,
}

/// A quantile with the times that are not excluded, at every moment at once ([`anytime_ranks`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantile {
    /// The quantile of what was seen.
    pub time: Option<Duration>,
    /// The times that are not excluded: from here.
    pub low: Option<Duration>,
    /// To here; `None` where nothing bounds it.
    pub high: Option<Duration>,
}

impl Window {
    /// The share of bad ones, from 0 to 1; 0 where nothing was counted.
    pub fn share(&self) -> f64 {
        self.bad as f64 / self.all.max(1) as f64
    }
}

/// The curves of a log: those of its hypotheses, then those of its guards, in the file's order. Empty without a first
/// event.
pub fn curves(log: &[Record]) -> Vec<Curve> {
    let Some(started) = log.iter().find_map(|record| match &record.event {
        Event::Started(started) => Some(started),
        _ => None,
    }) else {
        return Vec::new();
    };
    let took_ms = log.last().map_or(0, |record| record.at_ms);
    let edge_ms = log.iter().find_map(|record| match record.event {
        Event::Injected { .. } => Some(record.at_ms),
        _ => None,
    });
    stated(started)
        .map(|(stated, guard)| {
            let samples = log.iter().filter_map(|record| match &record.event {
                Event::Sample(seen) if seen.guard == guard && seen.name == stated.name => Some(seen),
                _ => None,
            });
            Curve::of(stated, guard, &samples.collect::<Vec<_>>(), took_ms, edge_ms.unwrap_or_default())
        })
        .collect()
}

fn stated(started: &Started) -> impl Iterator<Item = (&Stated, bool)> {
    let guards = started.guards.iter().map(|stated| (stated, true));
    started.hypotheses.iter().map(|stated| (stated, false)).chain(guards)
}

impl Curve {
    fn of(stated: &Stated, guard: bool, samples: &[&Seen], took_ms: u64, edge_ms: u64) -> Curve {
        let alpha = stated.rate.as_ref().map_or(USUAL_ALPHA, |terms| terms.alpha());
        let load = samples.iter().any(|seen| seen.load.is_some());
        let window_ms = length(samples, load, took_ms);
        let mut windows: Vec<Gathered> = Vec::new();
        let mut phases: Vec<(Phase, Gathered)> = Vec::new();
        for seen in samples {
            let mut counts = Counts::default();
            count(Bound::Errors(Percent::ALL), seen, &mut counts);
            for (at_ms, all, bad) in counts.iter() {
                let window = window(&mut windows, at_ms, window_ms, edge_ms);
                window.all += all;
                window.bad += bad;
            }
            // A stretch of load has one distribution, which belongs to where most of it lies.
            let middle = seen.begun_ms + if seen.load.is_some() { stretch(seen) / 2 } else { 0 };
            window(&mut windows, middle, window_ms, edge_ms).answered(seen);
            let known = phases.iter().position(|(phase, _)| *phase == seen.phase);
            let place = known.unwrap_or_else(|| {
                let begun = Gathered { from_ms: seen.begun_ms, ..Gathered::default() };
                phases.push((seen.phase, begun));
                phases.len() - 1
            });
            let phase = &mut phases[place].1;
            let (all, bad) = counts.total();
            phase.all += all;
            phase.bad += bad;
            phase.from_ms = phase.from_ms.min(seen.begun_ms);
            phase.to_ms = phase.to_ms.max(seen.begun_ms + stretch(seen));
            phase.answered(seen);
        }
        windows.sort_by_key(|window| window.from_ms);
        phases.sort_by_key(|(phase, _)| *phase);
        let share = |all, bad| (lower_share(all, bad, alpha / 2.0), upper_share(all, bad, alpha / 2.0));
        let whole = |all, bad| anytime_share(all, bad, alpha);
        Curve {
            name: stated.name.clone(),
            guard,
            load,
            window_ms,
            windows: windows.into_iter().map(|window| window.finish(alpha, share)).collect(),
            phases: phases.into_iter().map(|(phase, sum)| (phase, sum.finish(alpha, whole))).collect(),
        }
    }
}

/// A window that is being filled.
#[derive(Default)]
struct Gathered {
    from_ms: u64,
    to_ms: u64,
    all: u64,
    bad: u64,
    unclear: u64,
    answered: Distribution,
    never: u64,
}

impl Gathered {
    /// Adds the times of a sample.
    fn answered(&mut self, seen: &Seen) {
        match &seen.load {
            _ if seen.unclear => self.unclear += 1,
            Some(load) => {
                self.answered.merge(&load.latency);
                self.never += load.failed();
            }
            None if seen.good => self.answered.add(Duration::from_micros(seen.took_us)),
            None => self.never += 1,
        }
    }

    fn finish(self, alpha: f64, share: impl Fn(u64, u64) -> (f64, f64)) -> Window {
        let (low, high) = if self.all == 0 { (0.0, 1.0) } else { share(self.all, self.bad) };
        let all = self.answered.total() + self.never;
        let quantile = |thousandths: u64| {
            let (from, to) = anytime_ranks(all, thousandths as f64 / 1000.0, alpha);
            Quantile {
                time: self.answered.quantile(thousandths, self.never),
                low: self.answered.at_rank(from.max(1)),
                high: self.answered.at_rank(to + 1),
            }
        };
        let latency =
            (all > 0).then(|| Latency { p50: quantile(500), p90: quantile(900), p99: quantile(990) });
        let Gathered { from_ms, to_ms, all, bad, unclear, .. } = self;
        Window { from_ms, to_ms, all, bad, unclear, low, high, latency }
    }
}

/// The window of a moment. Their edges are counted from `edge_ms`; the first one begins with the run.
fn window(windows: &mut Vec<Gathered>, at_ms: u64, window_ms: u64, edge_ms: u64) -> &mut Gathered {
    let offset = edge_ms % window_ms;
    let to_ms = (at_ms.saturating_sub(offset) / window_ms + u64::from(at_ms >= offset)) * window_ms + offset;
    let place = windows.iter().rposition(|window| window.to_ms == to_ms).unwrap_or_else(|| {
        windows.push(Gathered { from_ms: to_ms.saturating_sub(window_ms), to_ms, ..Gathered::default() });
        windows.len() - 1
    });
    &mut windows[place]
}

/// How long a window is: as short as requests, stretches and the number of windows allow.
fn length(samples: &[&Seen], load: bool, took_ms: u64) -> u64 {
    let all: u64 = samples.iter().map(|seen| seen.load.as_ref().map_or(1, |load| load.requests)).sum();
    let wanted = if load { ENOUGH } else { 1 };
    let enough = (took_ms * wanted / all.max(1)).min(took_ms / FEWEST);
    let longest = samples.iter().filter(|seen| seen.load.is_some()).map(|seen| stretch(seen)).max();
    let least = enough.max(took_ms.div_ceil(MOST)).max(longest.unwrap_or_default());
    LENGTHS.into_iter().find(|length| *length >= least).unwrap_or(least)
}

/// How long a sample is about, in milliseconds.
fn stretch(seen: &Seen) -> u64 {
    match &seen.load {
        Some(load) if !load.slots.is_empty() => load.slots.len() as u64 * Slot::MS,
        _ => seen.took_us / 1000,
    }
}

#[cfg(test)]
mod tests;
