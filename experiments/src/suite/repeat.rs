//! The verdict over several runs of one experiment, with the error of all of them together kept.

use crate::exit::Exit;
use crate::summary::{Claim, Summary};
use crate::verdict::{Finding, Outcome};

/// What several runs say.
pub(super) struct Judged {
    /// `None` without a run.
    pub(super) exit: Option<Exit>,
    pub(super) sentence: String,
    /// Whether a run deviated by itself without enough evidence for so many runs.
    pub(super) chance: Vec<bool>,
}

/// Judges the runs that took place of those that were planned.
///
/// Of a rate, one run is believed to have deviated when its evidence reaches as many times 1/α as runs were planned: by
/// Ville's inequality and Bonferroni's the chance that this happens in any of them to what is within its bound is at
/// most α, however the runs depend on each other. An outage, single looks, guards and recoveries are counts of what
/// was, and count as in one run.
pub(super) fn judge(runs: &[(Summary, Option<String>)], planned: u32) -> Judged {
    let chance: Vec<bool> = runs.iter().map(|(summary, _)| may_be_chance(summary, planned)).collect();
    let exits: Vec<Exit> = runs
        .iter()
        .zip(&chance)
        .map(|((summary, _), chance)| if *chance { Exit::Inconclusive } else { summary.exit })
        .collect();
    let mut exit = exits.iter().copied().reduce(Exit::worse);
    let missing = runs.len() < planned as usize;
    if missing && exit == Some(Exit::Held) {
        exit = Some(Exit::Inconclusive);
    }
    let sentence = match (exit, runs) {
        (None, _) => "not run".to_owned(),
        (Some(_), [(only, _)]) if planned == 1 => only.sentence.clone(),
        (Some(exit), runs) => in_words(exit, &exits, runs, &chance, planned),
    };
    Judged { exit, sentence, chance }
}

fn in_words(
    exit: Exit,
    exits: &[Exit],
    runs: &[(Summary, Option<String>)],
    chance: &[bool],
    planned: u32,
) -> String {
    let word = exit.meaning();
    let such = exits.iter().filter(|own| **own == exit).count();
    let Some(first) = exits.iter().position(|own| *own == exit) else {
        // All that took place held, and some did not take place.
        return format!("{word}: held in {} runs, but {planned} were asked for", runs.len());
    };
    let (summary, _) = &runs[first];
    let own = &summary.sentence;
    let rest = own.split_once(": ").map_or(own.as_str(), |(_, rest)| rest);
    match exit {
        Exit::Held => format!("{word}: in all {planned} runs; in the first {rest}"),
        Exit::Inconclusive if chance[first] => format!(
            "{word}: run {} of {planned} deviated by itself, which so many runs do by chance \
             (its evidence is {:.0}, not {:.0}): {rest}",
            first + 1,
            strongest(summary),
            asked(summary, planned)
        ),
        _ => format!("{word}: in {such} of {planned} runs; in run {} {rest}", first + 1),
    }
}

/// Whether a run deviated, and everything that did so is a rate whose evidence is too small for so many runs.
fn may_be_chance(summary: &Summary, planned: u32) -> bool {
    if summary.exit != Exit::Deviated || planned < 2 {
        return false;
    }
    let weak = |claim: &&Claim| {
        let judged = claim.judgement.as_ref();
        judged.is_some_and(|judgement| judgement.outcome == Outcome::Deviated)
            && !claim.findings.is_empty()
            && broken(claim).all(|found| !is_sure(found, planned))
    };
    let excused: Vec<String> = summary
        .hypotheses
        .iter()
        .filter(weak)
        .filter_map(|claim| Some(format!("`{}`: {}", claim.name, claim.judgement.as_ref()?.why)))
        .collect();
    let mut reasons = summary.reasons.iter().filter(|reason| reason.exit == Exit::Deviated);
    reasons.all(|reason| excused.contains(&reason.what))
}

fn broken(claim: &Claim) -> impl Iterator<Item = &Finding> {
    claim.findings.iter().filter(|found| found.judgement.outcome == Outcome::Deviated)
}

fn is_sure(found: &Finding, planned: u32) -> bool {
    found.outage || found.against >= f64::from(planned) / found.alpha
}

fn all_broken(summary: &Summary) -> impl Iterator<Item = &Finding> {
    summary.hypotheses.iter().flat_map(broken)
}

/// The largest evidence against any bound of a run.
fn strongest(summary: &Summary) -> f64 {
    all_broken(summary).map(|found| found.against).fold(0.0, f64::max)
}

/// The evidence that so many runs ask for.
fn asked(summary: &Summary, planned: u32) -> f64 {
    all_broken(summary).map(|found| f64::from(planned) / found.alpha).fold(0.0, f64::max)
}
