//! What was seen while the fault was live, in both runs.

use std::time::Duration;

use super::{Aspect, Comparison, Samples, Trend, closing};
use crate::quantity::Percent;
use crate::run::Stated;
use crate::summary::{count, rates};
use crate::verdict::{
    Asked, Bound, Counts, Course, Finding, Mode, Phase, outage, percent, thousands, upper_share,
};

/// So many times the share of bad requests that the earlier run does not exclude is still no worse: what changes between
/// two runs is more than what changes within one.
const MARGIN: f64 = 1.25;
/// The figures of both runs that a sentence needs.
pub(super) struct Told {
    aspect: Aspect,
    earlier: (u64, u64),
    now: (u64, u64),
    times: [Option<(Option<Duration>, Option<Duration>)>; 2],
    /// Nearly everything was bad already: nothing can be worse.
    hopeless: bool,
}

pub(super) fn ask(
    stated: &Stated,
    aspect: Aspect,
    runs: &[Samples<'_>; 2],
    planned_ms: Option<u64>,
) -> Option<(Asked, Told)> {
    let terms = stated.rate.as_ref();
    let (alpha, mode) = terms
        .map_or((1.0 - Percent::USUALLY_SURE.fraction(), Mode::Fast), |terms| (terms.alpha(), terms.mode));
    let counts = |run: &Samples<'_>| {
        let mut counts = Counts::default();
        let bound = Bound::Errors(Percent::ALL);
        run.of_phase(&stated.name, Phase::During).for_each(|seen| count(bound, seen, &mut counts));
        counts
    };
    let [then, now] = [counts(&runs[0]), counts(&runs[1])];
    let from_ms = now.first_ms().unwrap_or_default();
    let (all, bad) = then.total();
    let most = MARGIN * upper_share(all, bad, alpha / 2.0);
    let hopeless = aspect == Aspect::Errors && most >= 1.0 && all > 0;
    let course = match aspect {
        Aspect::Latency => {
            let by_load = |run: &Samples<'_>| run.of(&stated.name).any(|seen| seen.load.is_some());
            if !runs.iter().all(by_load) {
                return None;
            }
            let [then, now] = [0, 1].map(|run| rates::ticks(&stated.name, &runs[run], Phase::During));
            let then: Vec<_> = then.into_iter().map(|(_, tick)| tick).collect();
            Course::of_latency(&then, &now, mode, planned_ms, alpha)
        }
        Aspect::Errors | Aspect::Recovery if all == 0 || hopeless => None,
        Aspect::Errors | Aspect::Recovery => {
            let mut course = Course::of(&now, most, mode, planned_ms, alpha / 2.0).halved();
            // An outage is no news where the earlier run had one too.
            course.outage_ms = course.outage_ms.filter(|_| outage(&then, most, mode).is_none());
            Some(course)
        }
    };
    let bound = match aspect {
        Aspect::Latency => Bound::Latency,
        Aspect::Errors | Aspect::Recovery => Bound::ErrorsOfBaseline(MARGIN),
    };
    let times = [0, 1].map(|run| {
        let load = runs[run].figures(&stated.name, Phase::During).load?;
        Some((load.p50_us.map(Duration::from_micros), load.p99_us.map(Duration::from_micros)))
    });
    let told = Told { aspect, earlier: (all, bad), now: now.total(), times, hopeless };
    Some((Asked { bound, mode, alpha, from_ms, course }, told))
}

impl Told {
    pub(super) fn judged(&self, stated: &Stated, found: &Finding, asked: &Asked) -> Comparison {
        let trend = match (self.hopeless, self.earlier.0, self.now.0) {
            (_, 0, _) | (_, _, 0) => Trend::NoData,
            (true, ..) => Trend::NoWorse,
            (false, ..) => found.judgement.outcome.into(),
        };
        let share = |(all, bad): (u64, u64)| bad as f64 / all.max(1) as f64;
        let kind = if self.times[1].is_some() { "requests" } else { "looks" };
        let errors =
            |counts: (u64, u64)| format!("{} of {} {kind} bad", percent(share(counts)), thousands(counts.0));
        let (earlier, now) = match self.aspect {
            Aspect::Latency => (in_words(self.times[0]), in_words(self.times[1])),
            Aspect::Errors | Aspect::Recovery => (errors(self.earlier), errors(self.now)),
        };
        let sure = found
            .sure_after_ms
            .map_or_else(String::new, |ms| format!("; sure after {}", closing::seconds(ms)));
        let why = match (trend, self.aspect) {
            (Trend::NoData, _) => "one of the runs has nothing to compare".to_owned(),
            (_, Aspect::Latency) => {
                let course = asked.course.as_ref();
                let (effect, most) = course.and_then(|course| course.effect).unwrap_or((0.5, 0.5));
                let (tail, allowed) = (share((found.requests, found.bad)), found.tolerated);
                format!(
                    "an answer is slower than one of then in {} of pairs, at most {} may be; {} are slower than all but its slowest hundredth, at most {} may be{sure}",
                    percent(effect),
                    percent(most),
                    percent(tail),
                    percent(allowed),
                )
            }
            _ if self.hopeless => "nearly all were bad then already: nothing can be worse".to_owned(),
            _ => format!(
                "{} were bad, {} then, at most {} is no worse{sure}",
                percent(share(self.now)),
                percent(share(self.earlier)),
                percent(found.tolerated)
            ),
        };
        let against = asked.course.is_some().then_some(found.against);
        Comparison { claim: stated.name.clone(), aspect: self.aspect, trend, why, earlier, now, against }
    }
}

/// `p50 1.2 ms, p99 312 ms`.
fn in_words(times: Option<(Option<Duration>, Option<Duration>)>) -> String {
    let Some((p50, p99)) = times else { return "nothing was answered".to_owned() };
    let word = |time: Option<Duration>| {
        time.map_or_else(
            || "no answer".to_owned(),
            |time| crate::summary::load::in_words(time.as_micros() as u64),
        )
    };
    format!("p50 {}, p99 {}", word(p50), word(p99))
}
