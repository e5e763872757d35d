//! What was claimed, and what was seen of it.

use squall_experiments::curve::{Curve, Quantile, Window};
use squall_experiments::probe::Count;
use squall_experiments::run::{Event, Record, Stated};
use squall_experiments::summary::{Claim, Figures, Guard, Summary, seconds};
use squall_experiments::verdict::{Bound, Finding, Outcome, Phase, percent, thousands};

use super::curves::{self, Limits, time};
use super::frame::Frame;
use super::markup::Markup;

/// Writes the sections of the hypotheses and of the guards.
pub(super) fn claims(
    page: &mut Markup,
    frame: &Frame,
    summary: &Summary,
    log: &[Record],
    known: &[Curve],
    ended: bool,
) {
    let stated = |name: &str, guard: bool| {
        let started = log.iter().find_map(|record| match &record.event {
            Event::Started(started) => Some(started),
            _ => None,
        })?;
        let all = if guard { &started.guards } else { &started.hypotheses };
        all.iter().find(|stated| stated.name == name)
    };
    let curve =
        |name: &str, guard: bool| known.iter().find(|curve| curve.name == name && curve.guard == guard);
    if !summary.hypotheses.is_empty() {
        page.element("section", &[], |page| {
            page.text("h2", &[], "Hypotheses");
            for claim in &summary.hypotheses {
                let limits = limits(stated(&claim.name, false), &claim.findings);
                page.element("article", &[], |page| {
                    one(page, frame, claim, curve(&claim.name, false), &limits, ended)
                });
            }
        });
    }
    if !summary.guards.is_empty() {
        page.element("section", &[], |page| {
            page.text("h2", &[], "Guards");
            for guard in &summary.guards {
                let limits = limits(stated(&guard.name, true), &[]);
                page.element("article", &[], |page| {
                    self::guard(page, guard, ended);
                    if let Some(curve) = curve(&guard.name, true) {
                        curves::curve(page, frame, curve, &limits);
                    }
                });
            }
        });
    }
}

fn one(page: &mut Markup, frame: &Frame, claim: &Claim, curve: Option<&Curve>, limits: &Limits, ended: bool) {
    let outcome = claim.judgement.as_ref().map(|judgement| judgement.outcome);
    page.element("h3", &[], |page| {
        page.text("bdi", &[], &claim.name);
        page.words(" ");
        let (tone, word) = match outcome {
            Some(Outcome::Held) if ended => ("held", "✓ held"),
            Some(Outcome::Deviated) => ("deviated", "✗ deviated"),
            Some(Outcome::Held) => ("held", "holds so far"),
            Some(_) | None if !ended => ("unclear", "watched"),
            Some(outcome) => ("unclear", outcome.word()),
            None => ("unclear", "not judged"),
        };
        page.text("span", &[("class", &format!("badge {tone}"))], word);
    });
    let not_yet = match ended {
        true => "the run did not get that far",
        false => "it is judged by what is seen while the fault is live",
    };
    let why = claim.judgement.as_ref().map_or(not_yet, |judged| &judged.why);
    page.prosaic("p", &[], why);
    if claim.recovered == Some(false) {
        page.text("p", &[("class", "alarm")], "It did not hold again in time after the revert.");
    }
    if let Some(why) = &claim.unshown {
        page.prosaic("p", &[], &format!("it is not shown that it held again after the revert: {why}"));
    }
    if let Some(curve) = curve {
        phases(page, curve);
    }
    findings(page, claim);
    seen(page, claim);
    if let Some(curve) = curve {
        curves::curve(page, frame, curve, limits);
    }
}

/// What is drawn as a limit.
fn limits(stated: Option<&Stated>, findings: &[Finding]) -> Limits {
    let mut limits = Limits { shares: Vec::new(), times: Vec::new() };
    let bounds = stated.and_then(|stated| stated.rate.as_ref()).map_or(&[][..], |terms| &terms.bounds);
    for (at, bound) in bounds.iter().enumerate() {
        let word = bound.to_string();
        // What follows from the baseline is known only to the finding.
        let tolerated = bound.tolerated().or_else(|| findings.get(at).map(|found| found.tolerated));
        match bound {
            Bound::Quantile { within, .. } => limits.times.push((within.get().as_secs_f64(), word)),
            Bound::Errors(_)
            | Bound::ErrorsOfBaseline(_)
            | Bound::ErrorsOfControl(_)
            | Bound::Throughput(_) => {
                limits.shares.extend(tolerated.map(|share| (share, word)));
            }
            Bound::QuantileOfBaseline(_)
            | Bound::QuantileOfControl(_)
            | Bound::Latency
            | Bound::LatencyOfControl => {}
        }
    }
    limits
}

/// What a phase is called.
pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Baseline => "before",
        Phase::During => "during the fault",
        Phase::Between => "between",
        Phase::Recovery => "after",
    }
}

fn phases(page: &mut Markup, curve: &Curve) {
    let share = |sum: &Window| match sum.all {
        0 => "-".to_owned(),
        _ => format!("{} ({} to {})", percent(sum.share()), percent(sum.low), percent(sum.high)),
    };
    let rows = curve.phases.iter().map(|(name, sum)| {
        let quantile = |of: fn(&squall_experiments::curve::Latency) -> Quantile| {
            sum.latency.as_ref().map(of).map_or_else(|| "-".to_owned(), between)
        };
        vec![
            phase(*name).to_owned(),
            thousands(sum.all),
            thousands(sum.bad),
            share(sum),
            quantile(|latency| latency.p50),
            quantile(|latency| latency.p90),
            quantile(|latency| latency.p99),
        ]
    });
    let kind = if curve.load { "requests" } else { "looks" };
    let heads = ["phase", kind, "bad", "share (not excluded)", "p50", "p90", "p99 (not excluded)"];
    page.table("What was seen in each phase", &heads, &rows.collect::<Vec<_>>());
}

/// `312 ms (290 ms to 401 ms)`.
fn between(quantile: Quantile) -> String {
    match (quantile.time, quantile.low, quantile.high) {
        (found, Some(low), Some(high)) if low < high => {
            format!("{} ({} to {})", time(found), time(Some(low)), time(Some(high)))
        }
        (Some(found), Some(low), None) => format!("{} (from {})", time(Some(found)), time(Some(low))),
        (found, ..) => time(found),
    }
}

fn findings(page: &mut Markup, claim: &Claim) {
    if claim.findings.is_empty() {
        return;
    }
    let evidence = |evidence: f64| match evidence {
        0.0..10_000.0 => format!("{evidence:.1}"),
        _ => format!("{evidence:.0e}"),
    };
    let rows = claim.findings.iter().map(|found| {
        let again = found.well_again.map_or_else(
            || "-".to_owned(),
            |well| match well.from_ms < well.to_ms {
                true => format!(
                    "{} ({} to {})",
                    seconds(well.after_ms),
                    seconds(well.from_ms),
                    seconds(well.to_ms)
                ),
                false => seconds(well.after_ms),
            },
        );
        vec![
            found.bound.clone(),
            found.judgement.outcome.word().to_owned(),
            match found.control {
                Some((all, bad)) => format!(
                    "{} of {}; control group: {} of {}",
                    thousands(found.bad),
                    thousands(found.requests),
                    thousands(bad),
                    thousands(all)
                ),
                None => format!("{} of {}", thousands(found.bad), thousands(found.requests)),
            },
            format!("{} to {}", percent(found.low), percent(found.high)),
            percent(found.tolerated),
            evidence(found.against),
            evidence(found.keeps),
            found.sure_after_ms.map_or_else(|| "-".to_owned(), seconds),
            again,
        ]
    });
    let heads = [
        "bound",
        "verdict",
        "bad",
        "not excluded",
        "allowed",
        "evidence against",
        "evidence for",
        "sure after",
        "well again",
    ];
    page.table("What the verdict on each bound rests on", &heads, &rows.collect::<Vec<_>>());
}

/// What the bad ones saw.
fn seen(page: &mut Markup, claim: &Claim) {
    let phases = [("before", &claim.before), ("during", &claim.during), ("after", &claim.after)];
    let (mut lines, mut notes) = (Vec::new(), Vec::new());
    for (phase, figures) in phases {
        let errors = figures.load.as_ref().map_or(&figures.bad_seen, |load| &load.errors);
        if !errors.is_empty() {
            lines.push(format!("{phase}: {}", Count::in_words(errors)));
        }
        let control = figures.load.as_ref().and_then(|load| load.control.as_ref());
        if let Some(control) = control.filter(|control| !control.errors.is_empty()) {
            lines.push(format!("{phase}, in the control group: {}", Count::in_words(&control.errors)));
        }
        notes.extend(late(phase, figures));
        if figures.unclear > 0 {
            notes.push(format!("note: {phase}, said nothing: {}", Count::in_words(&figures.unclear_seen)));
        }
    }
    if !lines.is_empty() {
        page.text("h4", &[], "What the bad ones saw");
        page.list(&lines);
    }
    page.list(&notes);
}

/// What the load generator itself added.
fn late(phase: &str, figures: &Figures) -> Option<String> {
    let load = figures.load.as_ref().filter(|load| load.generator_was_late)?;
    let late = load.late_p99_us.map_or_else(String::new, squall_experiments::summary::in_words);
    Some(format!("note: {phase}, the load generator itself was late: p99 {late}, {} never sent", load.unsent))
}

fn guard(page: &mut Markup, guard: &Guard, ended: bool) {
    page.element("h3", &[], |page| {
        page.text("bdi", &[], &guard.name);
        page.words(" ");
        match &guard.tripped {
            Some(_) => page.text("span", &[("class", "badge deviated")], "✗ tripped"),
            None if ended => page.text("span", &[("class", "badge held")], "✓ never tripped"),
            None => page.text("span", &[("class", "badge held")], "not tripped"),
        }
    });
    let held = format!("{} of {} samples good", guard.samples.good, guard.samples.total());
    match &guard.tripped {
        Some(seen) => page.prosaic("p", &[], &format!("{seen}; {held}")),
        None => page.text("p", &[], &held),
    }
}
