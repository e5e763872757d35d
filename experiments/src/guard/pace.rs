//! Whether two groups answer as fast as each other already before anything is done.

use crate::distribution::Distribution;
use crate::run::Seen;
use crate::verdict::{Bound, Course, Mode, Multiple, Paired, Starts, Terms, Tick, percent};

/// The latencies of the baseline of two groups.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Where they are compared in general.
    paired: Option<Paired>,
    /// The quantiles that are compared.
    quantiles: Vec<Multiple>,
    /// Time, tested group, control group; only where quantiles are compared.
    seen: Vec<(u64, Latencies, Latencies)>,
}

/// Latencies, and how many requests have none because they failed.
type Latencies = (Distribution, u64);

impl Pace {
    /// `None` where no latency is compared with that of a control group.
    pub(super) fn of(terms: &Terms) -> Option<Pace> {
        let paired = terms.bounds.contains(&Bound::LatencyOfControl).then(|| Paired::new(Starts::Open));
        let quantiles: Vec<Multiple> = terms
            .bounds
            .iter()
            .filter_map(|bound| match bound {
                Bound::QuantileOfControl(multiple) => Some(*multiple),
                _ => None,
            })
            .collect();
        (paired.is_some() || !quantiles.is_empty()).then(|| Pace { paired, quantiles, seen: Vec::new() })
    }

    /// Takes a sample of the baseline.
    pub(super) fn add(&mut self, seen: &Seen) {
        let groups = seen.load.as_ref().and_then(|load| Some((load, load.control.as_deref()?)));
        let Some((load, control)) = groups else { return };
        if let Some(paired) = &mut self.paired {
            paired.step((&load.latency, load.failed()), (&control.latency, control.failed()));
        }
        if !self.quantiles.is_empty() {
            let [load, control] = [load, control].map(|load| (load.latency.clone(), load.failed()));
            self.seen.push((seen.begun_ms, load, control));
        }
    }

    /// Why the groups cannot be compared.
    pub(super) fn differ(&self, alpha: f64) -> Option<String> {
        if let Some(paired) = self.paired.as_ref().filter(|paired| paired.evidence() >= 1.0 / alpha) {
            let share = percent(paired.effect().unwrap_or_default());
            return Some(format!(
                "the groups differ already: {share} of requests are slower than the control group's"
            ));
        }
        let mut pairs: Vec<(u64, Tick<'_>, Tick<'_>)> = self
            .seen
            .iter()
            .map(|(at, own, control)| (*at, (&own.0, own.1), (&control.0, control.1)))
            .collect();
        pairs.sort_by_key(|(at, ..)| *at);
        self.quantiles.iter().find_map(|multiple| {
            let course = Course::of_quantile_groups(*multiple, &[], &pairs, Mode::Fast, None, alpha)?;
            let figures = course.figures(Bound::QuantileOfControl(*multiple))?;
            (course.most() >= 1.0 / alpha).then(|| format!("the groups differ already: {figures}"))
        })
    }
}
