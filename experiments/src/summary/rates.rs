//! The claims about rates: from samples to counts, and from counts to findings.

use std::time::Duration;

use super::samples::Samples;
use super::{Figures, unclear};
use crate::distribution::Distribution;
use crate::probe::{QUANTILES, Slot};
use crate::run::{Seen, Stated};
use crate::verdict::{
    Asked, Bound, Counts, Course, Finding, Mode, Phase, Tally, Terms, Tick, beside_control, findings,
    thousands, upper_mean, upper_share, well_again,
};

/// What is taken for granted of a look that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nothing: it is left out.
    Unheard,
    /// That it would have been good.
    Good,
    /// That it would have been bad.
    Bad,
}

impl Silence {
    /// The other of both; what is left out stays left out.
    fn opposite(self) -> Silence {
        match self {
            Silence::Unheard => Silence::Unheard,
            Silence::Good => Silence::Bad,
            Silence::Bad => Silence::Good,
        }
    }
}

/// Adds what a sample says of a bound, by the times when its requests began; nothing where it says nothing.
pub fn count(bound: Bound, seen: &Seen, counts: &mut Counts) {
    count_with(Silence::Unheard, bound, seen, counts);
}

/// The same, with something else for a look that says nothing.
pub fn count_with(silence: Silence, bound: Bound, seen: &Seen, counts: &mut Counts) {
    if seen.unclear {
        match silence {
            Silence::Unheard => {}
            Silence::Good => counts.add(seen.begun_ms, 1, 0),
            Silence::Bad => counts.add(seen.begun_ms, 1, 1),
        }
        return;
    }
    let Some(load) = &seen.load else {
        let slow = |within: Duration| Duration::from_micros(seen.took_us) > within;
        let bad = !seen.good || matches!(bound, Bound::Quantile { within, .. } if slow(within.get()));
        return counts.add(seen.begun_ms, 1, u64::from(bad));
    };
    if load.slots.is_empty() {
        // Of a load whose events have no slots the stretch is all that is known.
        let slow = match bound {
            Bound::Quantile { within, .. } => load.latency.beyond(within.get()),
            _ => 0,
        };
        return counts.add(seen.begun_ms, load.requests, load.failed() + slow);
    }
    let place = match bound {
        Bound::Quantile { thousandths, .. } => QUANTILES.iter().position(|(_, known)| *known == thousandths),
        _ => None,
    };
    for (at, slot) in (0u64..).zip(&load.slots).filter(|(_, slot)| slot.requests > 0) {
        let slow = place.map_or(0, |place| slot.slow[place]);
        let at_ms = seen.begun_ms.saturating_add(at * Slot::MS);
        counts.add(at_ms, slot.requests.into(), u64::from(slot.failed) + u64::from(slow));
    }
}

/// Adds what a sample says of the errors of its control group.
pub fn count_control(seen: &Seen, counts: &mut Counts) {
    let Some(control) = seen.load.as_ref().and_then(|load| load.control.as_ref()) else { return };
    for (at, slot) in (0u64..).zip(&control.slots).filter(|(_, slot)| slot.requests > 0) {
        counts.add(seen.begun_ms.saturating_add(at * Slot::MS), slot.requests.into(), slot.failed.into());
    }
}

/// The findings of every hypothesis that is about a rate, with its place among all hypotheses. `planned_ms` is how long
/// the method was to take.
///
/// Looks that say nothing may be what would be worst, or best, for the bounds; what is known without them is left as it is where that
/// changes nothing, and is inconclusive elsewhere.
pub(super) fn of(stated: &[Stated], samples: &Samples<'_>, planned_ms: Option<u64>) -> Vec<Vec<Finding>> {
    let mut known = read(Silence::Unheard, stated, samples, planned_ms);
    let silent = |stated: &Stated| {
        let unclear = |phase| samples.of_phase(&stated.name, phase).any(|seen| seen.unclear);
        stated.rate.is_some() && (unclear(Phase::During) || unclear(Phase::Baseline))
    };
    if !stated.iter().any(silent) {
        return known;
    }
    let [worst, best] = [Silence::Bad, Silence::Good].map(|one| read(one, stated, samples, planned_ms));
    let extremes = worst.iter().zip(&best);
    for ((stated, found), (worst, best)) in stated.iter().zip(&mut known).zip(extremes) {
        if silent(stated) {
            let figures = [Phase::During, Phase::Baseline].map(|phase| samples.figures(&stated.name, phase));
            unclear::of_rate(found, worst, best, &figures);
        }
    }
    known
}

/// What is found if that is taken for granted of the looks that say nothing.
fn read(
    silence: Silence,
    stated: &[Stated],
    samples: &Samples<'_>,
    planned_ms: Option<u64>,
) -> Vec<Vec<Finding>> {
    let mut asked = Vec::new();
    for stated in stated {
        for bound in stated.rate.iter().flat_map(|terms| &terms.bounds) {
            let terms = stated.rate.as_ref().unwrap_or_else(|| unreachable!("it has a bound"));
            asked.push(ask(*bound, terms, &stated.name, samples, planned_ms, silence));
        }
    }
    let mut found = findings(&asked).into_iter();
    let own = |stated: &Stated| stated.rate.as_ref().map_or(0, |terms| terms.bounds.len());
    stated.iter().map(|stated| found.by_ref().take(own(stated)).collect()).collect()
}

fn ask(
    bound: Bound,
    terms: &Terms,
    name: &str,
    samples: &Samples<'_>,
    planned_ms: Option<u64>,
    silence: Silence,
) -> Asked {
    let counts = |phase: Phase| {
        // What is bad in the baseline allows more while the fault is live.
        let silence = if phase == Phase::Baseline { silence.opposite() } else { silence };
        let mut counts = Counts::default();
        samples.of_phase(name, phase).for_each(|seen| count_with(silence, bound, seen, &mut counts));
        counts
    };
    let during = counts(Phase::During);
    let alpha = terms.alpha();
    let from_ms = during.first_ms().unwrap_or_default();
    let by_baseline = |tolerated: fn(&Terms, Bound, &Counts) -> f64| {
        let baseline = counts(Phase::Baseline);
        if baseline.total().0 == 0 {
            return None;
        }
        let tolerated = tolerated(terms, bound, &baseline);
        Some(Course::of(&during, tolerated, terms.mode, planned_ms, alpha / 2.0).halved())
    };
    let course = match bound {
        Bound::Errors(_) | Bound::Quantile { .. } => {
            let tolerated = bound.tolerated().unwrap_or_default();
            Some(Course::of(&during, tolerated, terms.mode, planned_ms, alpha))
        }
        Bound::ErrorsOfBaseline(_) | Bound::Throughput(_) => by_baseline(derived),
        Bound::ErrorsOfControl(times) => {
            let mut control = Counts::default();
            samples.of_phase(name, Phase::During).for_each(|seen| count_control(seen, &mut control));
            match during.total().0 {
                0 => Some(Course::default()),
                _ => Course::of_groups(&during, &control, times, terms.mode, planned_ms, alpha),
            }
        }
        Bound::Latency => latency(name, samples, terms.mode, planned_ms, alpha),
        Bound::LatencyOfControl => match during.total().0 {
            0 => Some(Course::default()),
            _ => {
                let pairs = pairs(name, samples, Phase::During);
                Course::of_latency_groups(&pairs, terms.mode, planned_ms, alpha)
            }
        },
        Bound::QuantileOfBaseline(multiple) => {
            let baseline = bare(&ticks(name, samples, Phase::Baseline));
            let during = ticks(name, samples, Phase::During);
            Course::of_quantile(multiple, &baseline, &during, terms.mode, planned_ms, alpha)
        }
        Bound::QuantileOfControl(multiple) => match during.total().0 {
            0 => Some(Course::default()),
            _ => {
                let [before, pairs] =
                    [Phase::Baseline, Phase::During].map(|phase| pairs(name, samples, phase));
                let before: Vec<Tick<'_>> = before.iter().map(|(_, _, control)| *control).collect();
                Course::of_quantile_groups(multiple, &before, &pairs, terms.mode, planned_ms, alpha)
            }
        },
    };
    Asked { bound, mode: terms.mode, alpha, from_ms, course }
}

/// The share of bad requests that a bound by the baseline tolerates: half of the error is spent on what the baseline is
/// known to be at most. In strict mode that is right for bursts too, and asks for a long baseline.
pub(crate) fn derived(terms: &Terms, bound: Bound, baseline: &Counts) -> f64 {
    let half = terms.alpha() / 2.0;
    let (all, bad) = baseline.total();
    let mut most = upper_share(all, bad, half);
    if terms.mode == Mode::Strict {
        let blocks: Vec<(u64, u64)> = baseline.grouped(5000).iter().map(|(_, all, bad)| (all, bad)).collect();
        most = most.max(upper_mean(&blocks, half));
    }
    match bound {
        Bound::ErrorsOfBaseline(times) => (times * most).min(0.9),
        Bound::Throughput(share) => (1.0 - share.fraction() * (1.0 - most)).min(0.99),
        _ => most,
    }
}

fn latency(
    name: &str,
    samples: &Samples<'_>,
    mode: Mode,
    planned_ms: Option<u64>,
    alpha: f64,
) -> Option<Course> {
    let baseline = bare(&ticks(name, samples, Phase::Baseline));
    Course::of_latency(&baseline, &ticks(name, samples, Phase::During), mode, planned_ms, alpha)
}

/// The latencies of a load in a phase, stretch by stretch, with the time when each began.
pub(super) fn ticks<'a>(
    name: &str,
    samples: &Samples<'a>,
    phase: Phase,
) -> Vec<(u64, (&'a Distribution, u64))> {
    let mut ticks: Vec<_> = samples
        .of_phase(name, phase)
        .filter_map(|seen| seen.load.as_ref().map(|load| (seen.begun_ms, (&load.latency, load.failed()))))
        .collect();
    ticks.sort_by_key(|(at, _)| *at);
    ticks
}

/// The same without the times.
fn bare<'a>(ticks: &[(u64, Tick<'a>)]) -> Vec<Tick<'a>> {
    ticks.iter().map(|(_, tick)| *tick).collect()
}

/// The latencies of both groups of a load in a phase, stretch by stretch, with the time when each began.
fn pairs<'a>(name: &str, samples: &Samples<'a>, phase: Phase) -> Vec<(u64, Tick<'a>, Tick<'a>)> {
    let mut pairs: Vec<_> = samples
        .of_phase(name, phase)
        .filter_map(|seen| {
            let load = seen.load.as_ref()?;
            let control = load.control.as_ref()?;
            let (tested, control) = ((&load.latency, load.failed()), (&control.latency, control.failed()));
            Some((seen.begun_ms, tested, control))
        })
        .collect();
    pairs.sort_by_key(|(at, ..)| *at);
    pairs
}

/// Adds to the findings of a claim when each bound was kept again after the faults ended. Whether some bound of them was
/// bad to the end.
pub(super) fn recover(found: &mut [Finding], stated: &Stated, samples: &Samples<'_>, ended_ms: u64) -> bool {
    let Some(terms) = &stated.rate else { return false };
    let mut never = false;
    for (finding, bound) in found.iter_mut().zip(&terms.bounds) {
        // What is compared with other latencies has no single share to come back to.
        if bound.compares_latencies() {
            continue;
        }
        let (mut counts, mut usual) = (Counts::default(), Counts::default());
        samples.of(&stated.name).for_each(|seen| count(*bound, seen, &mut counts));
        samples.of_phase(&stated.name, Phase::Baseline).for_each(|seen| count(*bound, seen, &mut usual));
        let (all, bad) = usual.total();
        let Some(tolerated) = tolerated_after(finding, *bound, stated, samples, ended_ms) else { continue };
        // A bound of nothing at all is asked as one of a hundredth: fewer cannot be told from none in seconds.
        let tolerated = if tolerated > 0.0 { tolerated } else { 0.01 };
        let usual = bad as f64 / all.max(1) as f64;
        let after = counts.since(ended_ms);
        finding.well_again = well_again(&after, tolerated, usual, terms.alpha());
        never |= finding.well_again.is_none() && after.total().0 > 0;
    }
    never
}

/// The share that a bound tolerates after the revert: that of the fault, but beside a control group what that one shows
/// since. `None` where it showed nothing.
pub(super) fn tolerated_after(
    finding: &Finding,
    bound: Bound,
    stated: &Stated,
    samples: &Samples<'_>,
    ended_ms: u64,
) -> Option<f64> {
    let (Bound::ErrorsOfControl(times), Some(terms)) = (bound, &stated.rate) else {
        return Some(finding.tolerated);
    };
    let mut control = Counts::default();
    samples.of(&stated.name).for_each(|seen| count_control(seen, &mut control));
    beside_control(times, &control.since(ended_ms), terms.alpha() / 2.0)
}

/// Why it is not shown that a claim held again.
pub(super) fn unshown(after: &Figures) -> String {
    let (requests, bad) = match &after.load {
        Some(load) => (load.requests, load.failed),
        None => (after.tally.total(), after.tally.bad),
    };
    let (requests, bad) = (thousands(requests), thousands(bad));
    let neither = "then, which shows neither; a longer `recovery` may tell";
    match after.load {
        Some(_) => format!("{bad} of {requests} requests failed {neither}"),
        None if after.unclear > 0 => {
            format!("{}; {bad} of {requests} other samples were bad {neither}", unclear::silent(after, ""))
        }
        None => format!("{bad} of {requests} samples were bad {neither}"),
    }
}

/// Whether as many requests at most were bad after the revert as each bound allows, as far as that is a share, even if all
/// looks that say nothing were bad; of what has no such bound, as many samples as are tolerated.
pub(super) fn within(found: &[Finding], stated: &Stated, samples: &Samples<'_>, ended_ms: u64) -> bool {
    let bounds = stated.rate.as_ref().map_or(&[][..], |terms| &terms.bounds);
    let mut shares = found.iter().zip(bounds).filter(|(_, bound)| !bound.compares_latencies()).peekable();
    if shares.peek().is_none() {
        let after = samples.figures(&stated.name, Phase::Recovery);
        let all = Tally { bad: after.tally.bad + after.unclear, ..after.tally };
        return all.total() > 0 && all.within(stated.tolerate);
    }
    shares.all(|(found, bound)| {
        let mut counts = Counts::default();
        let after = samples.of_phase(&stated.name, Phase::Recovery);
        after.for_each(|seen| count_with(Silence::Bad, *bound, seen, &mut counts));
        let (all, bad) = counts.total();
        let tolerated = tolerated_after(found, *bound, stated, samples, ended_ms);
        tolerated.is_some_and(|tolerated| bad as f64 <= tolerated * all as f64)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Summary;
    use crate::exit::Exit;
    use crate::run::Record;

    /// A second of 50 requests that begins then, with so many bad ones in each tenth.
    fn second(phase: &str, begun_ms: u64, bad: [u32; 10]) -> Value {
        let failed: u32 = bad.iter().sum();
        let slots: Vec<[u32; 2]> = bad.iter().map(|bad| [5, *bad]).collect();
        let answered = 50 - failed;
        json!({
            "event": "sample", "name": "a", "phase": phase, "good": failed == 0, "begun_ms": begun_ms, "took_us": 1,
            "seen": "", "load": {
                "requests": 50, "errors": [{ "seen": "503", "times": failed }], "latency": [[1_000_000, answered]],
                "late": [], "slots": slots
            }
        })
    }

    /// Ten good seconds, ten in which a tenth fails, and thirty after the fault of which the first four seconds fail alike.
    fn run(within_ms: u64, order: impl Fn(&mut Vec<Value>)) -> Summary {
        let mut during: Vec<Value> =
            (10..20).map(|at| second("during", at * 1000, [1, 0, 1, 0, 1, 0, 1, 0, 1, 0])).collect();
        order(&mut during);
        let after = (20..50).map(|at| second("recovery", at * 1000, [u32::from(at < 24) * 2; 10]));
        told(Some(within_ms), during, after.collect(), json!({ "event": "well-again", "after_ms": 1 }))
    }

    /// A run with those samples while the fault was live and after it, and what was said in the end.
    fn told(within_ms: Option<u64>, during: Vec<Value>, after: Vec<Value>, said: Value) -> Summary {
        let mut events = vec![json!({
            "event": "started", "run": "r", "title": "t", "date": "", "seed": 1, "plan": "p", "faults": 1,
            "version": "0", "agent": null, "planned_ms": 10_000, "guards": [], "hypotheses": [{
                "name": "a", "tolerate": "0%", "recovers_within_ms": within_ms,
                "rate": { "bounds": [{ "errors": "1%" }], "mode": "fast", "confidence": "95%" }
            }]
        })];
        events.extend((0..10).map(|at| second("baseline", at * 1000, [0; 10])));
        events.push(json!({ "event": "baseline-met" }));
        events
            .push(json!({ "event": "injecting", "part": 1, "name": "f", "changes": [], "lasts_ms": 10_000 }));
        let applied = json!({ "targets": [], "notes": [], "took_us": 1 });
        events.push(json!({ "event": "injected", "part": 1, "applied": applied }));
        events.extend(during);
        let lifted = json!({ "evidence": [], "undone": [], "stuck": [], "others": [], "took_us": 1 });
        events.push(json!({ "event": "lifted", "part": 1, "lifted": lifted, "why": null }));
        events.push(json!({ "event": "method-ended" }));
        events.push(json!({ "event": "lifted", "part": null, "lifted": lifted, "why": null }));
        events.push(json!({ "event": "recovery-began" }));
        events.extend(after);
        events.push(said);
        let mut log = Vec::new();
        for mut event in events {
            let at_ms = event["begun_ms"].as_u64().map_or(0, |begun| begun + 1000);
            let earlier = log.last().map_or(0, |last: &Record| last.at_ms);
            event["at_ms"] = json!(at_ms.max(earlier));
            log.push(serde_json::from_value::<Record>(event).unwrap());
        }
        Summary::of(&log).unwrap()
    }

    #[test]
    fn a_rate_that_breaks_and_recovers_is_told_in_one_sentence() {
        let summary = run(30_000, |_| {});
        // Thirteen good slots more or less are no evidence yet (a drop of 3 in the logarithm); one bad slot is.
        assert_eq!(summary.exit, Exit::Deviated, "{summary:#?}");
        let expected = "deviated: `a`: 10 % of 500 requests failed, at most 1 % allowed; sure after 1.0 s during `f`; \
                        well again 4.0 s (4.0 s to 5.3 s) after the fault ended";
        assert_eq!(summary.sentence, expected);
        let well = summary.hypotheses[0].findings[0].well_again.unwrap();
        assert!(well.shown_ms.is_some_and(|shown| shown > 4000 && shown < 30_000), "{well:?}");
    }

    #[test]
    fn well_again_too_late_has_deviated() {
        let late =
            |summary: &Summary| summary.reasons.iter().any(|reason| reason.what.contains("not within 2.0 s"));
        assert!(late(&run(2000, |_| {})));
        assert!(!late(&run(30_000, |_| {})));
    }

    #[test]
    fn what_is_bad_to_the_end_was_never_well_again() {
        let during = |bad| (10..20).map(|at| second("during", at * 1000, [bad; 10])).collect();
        let after = (20..50).map(|at| second("recovery", at * 1000, [2; 10])).collect();
        let summary = told(None, during(2), after, json!({ "event": "well-again", "after_ms": 1 }));
        assert_eq!((summary.hypotheses[0].recovered, summary.well_again_ms), (Some(false), None));
        assert!(summary.sentence.ends_with("; `a` did not hold again in time"), "{}", summary.sentence);
        let why = "`a` did not hold again in time after the revert";
        assert!(summary.reasons.iter().any(|reason| reason.exit == Exit::Deviated && reason.what == why));
    }

    #[test]
    fn what_is_not_shown_to_be_well_again_is_a_note_where_nothing_was_ever_bad() {
        let during =
            |bad| (10..20).map(|at| second("during", at * 1000, [bad, 0, 0, 0, 0, 0, 0, 0, 0, 0])).collect();
        let after = |bad| {
            (20..24).map(|at| second("recovery", at * 1000, [bad, 0, 0, 0, 0, 0, 0, 0, 0, 0])).collect()
        };
        let said = || json!({ "event": "not-recovered", "names": [], "unshown": ["a"] });
        let calm = told(None, during(0), after(0), said());
        assert_eq!((calm.exit, calm.hypotheses[0].recovered), (Exit::Held, None), "{:?}", calm.reasons);
        let note = "0 of 200 requests failed then, which shows neither; a longer `recovery` may tell";
        assert_eq!(calm.hypotheses[0].unshown.as_deref(), Some(note));
        assert!(
            calm.sentence.ends_with("; it is not shown that `a` held again after it"),
            "{}",
            calm.sentence
        );
        let claimed = told(Some(2000), during(0), after(0), said());
        assert_eq!(claimed.exit, Exit::Inconclusive);
        let why = format!("`a` was not shown to hold again after the revert: {note}");
        assert!(claimed.reasons.iter().any(|reason| reason.what == why), "{:?}", claimed.reasons);
        assert_eq!(told(None, during(0), after(1), said()).exit, Exit::Inconclusive, "2 % of 1 % allowed");
        assert_eq!(told(None, during(2), after(0), said()).exit, Exit::Deviated);
    }

    #[test]
    fn the_order_in_which_samples_arrive_changes_nothing() {
        let (straight, turned) = (run(30_000, |_| {}), run(30_000, |during| during.reverse()));
        assert_eq!(straight.hypotheses[0].findings, turned.hypotheses[0].findings);
        assert_eq!(straight.sentence, turned.sentence);
    }
}
