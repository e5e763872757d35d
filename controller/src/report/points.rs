//! What a reviewer should look at: everything that did not hold, each with its place in the experiment's file.

use squall_experiments::exit::Exit;
use squall_experiments::suite::{Ran, Suite, Tested};
use squall_experiments::summary::{Regression, Summary};
use squall_experiments::verdict::Outcome;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// A host is still modified, or Squall has a bug.
    Blocker,
    /// It is known not to hold.
    Error,
    /// Nothing can be said.
    Warning,
}

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) severity: Severity,
    /// What was looked at: `hypothesis`, `regression`, `guard`, `fault` or `run`.
    pub(super) check: &'static str,
    /// Its name, the same in every run.
    pub(super) name: String,
    /// What was seen.
    pub(super) what: String,
    /// The experiment's file; empty where there is none.
    pub(super) file: String,
    /// The line, from 1.
    pub(super) line: usize,
}

/// The points of all experiments, in their order.
pub(super) fn points(suite: &Suite) -> Vec<Point> {
    suite.experiments.iter().flat_map(of).collect()
}

fn of(tested: &Tested) -> Vec<Point> {
    let Some(exit) = tested.exit.filter(|exit| *exit != Exit::Held) else {
        return Vec::new();
    };
    let mut points: Vec<Point> = Vec::new();
    for (number, ran) in (1..).zip(&tested.runs) {
        let time = match tested.repeats {
            1 => String::new(),
            repeats => format!(" (run {number} of {repeats})"),
        };
        for mut point in seen(tested, ran) {
            // The same in several runs is one point.
            if !points.iter().any(|known| (known.check, &known.name) == (point.check, &point.name)) {
                point.what.push_str(&time);
                points.push(point);
            }
        }
    }
    let severity = match exit {
        Exit::Modified | Exit::Bug => Severity::Blocker,
        Exit::Deviated => Severity::Error,
        _ => Severity::Warning,
    };
    if severity == Severity::Blocker || points.is_empty() {
        let (name, what) = (tested.subject.title.clone(), tested.sentence.clone());
        points.insert(
            0,
            Point { severity, check: "run", name, what, file: tested.subject.file.clone(), line: 1 },
        );
    }
    points
}

/// Why the run did not hold for something that did by itself: it was well again too late, say, or its budget is spent.
fn because(summary: &Summary, name: &str) -> Option<(Severity, String)> {
    let reason = summary.reason_about(name)?;
    let severity = if reason.exit == Exit::Deviated { Severity::Error } else { Severity::Warning };
    Some((severity, reason.what.clone()))
}

/// What one run shows of hypotheses, guards and faults.
fn seen(tested: &Tested, ran: &Ran) -> Vec<Point> {
    let summary = &ran.summary;
    let places = &tested.subject.places;
    let point = |severity, check, name: &str, what: String, line: Option<&usize>| Point {
        severity,
        check,
        name: name.to_owned(),
        what,
        file: tested.subject.file.clone(),
        line: line.copied().unwrap_or(1),
    };
    let mut points = Vec::new();
    for (at, claim) in summary.hypotheses.iter().enumerate() {
        let line = places.hypotheses.get(at);
        let found = match &claim.judgement {
            Some(judgement) if judgement.outcome == Outcome::Deviated && !ran.may_be_chance => {
                let seen = claim.during.bad_in_words();
                let seen = if seen.is_empty() { seen } else { format!(" ({seen})") };
                Some((Severity::Error, format!("{}{seen}", judgement.why)))
            }
            _ if claim.recovered == Some(false) => {
                Some((Severity::Error, "did not hold again in time after the revert".to_owned()))
            }
            Some(judgement) if judgement.outcome != Outcome::Held => {
                Some((Severity::Warning, judgement.why.clone()))
            }
            None if claim.before.tally.bad > 0 && summary.reason_about(&claim.name).is_none() => {
                let why = format!("did not hold before anything was done: {}", claim.before.bad_in_words());
                Some((Severity::Warning, why))
            }
            _ => None,
        };
        let found = found.or_else(|| because(summary, &claim.name));
        points.extend(found.map(|(severity, what)| point(severity, "hypothesis", &claim.name, what, line)));
    }
    for worse in summary.regression.iter().flat_map(Regression::worse) {
        let at = summary.hypotheses.iter().position(|claim| claim.name == worse.claim);
        let line = at.and_then(|at| places.hypotheses.get(at));
        let name = format!("{}, {}", worse.claim, worse.aspect.word());
        let earlier = summary.regression.as_ref().map_or("", |regression| &regression.date);
        let what = format!("worse than in the run of {earlier}: {}", worse.why);
        points.push(point(Severity::Error, "regression", &name, what, line));
    }
    for (at, guard) in summary.guards.iter().enumerate() {
        let tripped =
            guard.tripped.as_ref().map(|seen| (Severity::Error, format!("the guard tripped: {seen}")));
        let found = tripped.or_else(|| because(summary, &guard.name));
        let line = places.guards.get(at);
        points.extend(found.map(|(severity, what)| point(severity, "guard", &guard.name, what, line)));
    }
    for part in summary.parts.iter().filter(|part| part.injected_at_ms.is_some() && !part.measured) {
        let what = format!("its effect was not measured: {}", part.evidence_in_words());
        let line = part.part.checked_sub(1).and_then(|at| places.faults.get(at as usize));
        points.push(point(Severity::Warning, "fault", &part.name, what, line));
    }
    points
}
