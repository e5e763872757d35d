//! The closing sentence: one line that somebody understands who did not read the rest.

use super::{Claim, Guard, Part, Reason, Summary};
use crate::evidence::{Evidence, THIN, Unit};
use crate::exit::Exit;
use crate::verdict::Outcome;

impl Summary {
    /// The same of a log that ends before its run did: what would have come is not known, so that nothing is said to have held.
    #[must_use]
    pub fn cut_off(mut self) -> Summary {
        let what = format!("the run was cut off after {}, before its last event", seconds(self.took_ms));
        let help = "what was seen until then stands in the report; run the experiment again".to_owned();
        self.reasons.push(Reason { help: Some(help), ..Reason::new(Exit::Inconclusive, what) });
        self.exit = self.exit.worse(Exit::Inconclusive);
        self.verdict = self.exit.meaning().to_owned();
        self.sentence = sentence(&self);
        self
    }
}

/// The sentence for a summary whose other fields are complete.
pub(super) fn sentence(summary: &Summary) -> String {
    let leading: Vec<&Reason> = summary.reasons.iter().filter(|reason| reason.exit == summary.exit).collect();
    let rest = match leading.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let first = leading.first().map_or("", |reason| reason.what.as_str());
    match summary.exit {
        Exit::Held => format!("held: {}", held(summary)),
        Exit::Deviated => format!("deviated: {}", deviated(summary, first)),
        Exit::Inconclusive => format!("inconclusive: {first}{rest}"),
        Exit::Interrupted => {
            let after = seconds(summary.took_ms);
            let how = match first.strip_prefix("interrupted: ") {
                Some(by) => format!(" by {by}"),
                None => format!(": {first}"),
            };
            format!("interrupted after {after}{how}; {}", revert(summary))
        }
        Exit::Modified => format!("a host is still modified: {first}{rest}"),
        other => format!("{}: {first}{rest}; {}", other.meaning(), revert(summary)),
    }
}

fn held(summary: &Summary) -> String {
    let during = while_injected(summary);
    if summary.hypotheses.is_empty() {
        let effect: Vec<String> = summary
            .parts
            .iter()
            .map(|part| format!("`{}` had its effect ({})", part.name, part.evidence_in_words()))
            .collect();
        return match effect.is_empty() {
            true => "the method was carried out; no hypothesis was stated".to_owned(),
            false => format!("{}; no hypothesis was stated", effect.join(", ")),
        };
    }
    let figures: Vec<String> = summary.hypotheses.iter().map(good).collect();
    format!("{}{during}{}", figures.join(", "), again(summary, false))
}

fn good(claim: &Claim) -> String {
    let figures = !claim.findings.is_empty() || claim.budget.is_some();
    if let Some(judgement) = claim.judgement.as_ref().filter(|_| figures) {
        return format!("`{}`: {}", claim.name, judgement.why);
    }
    let tally = claim.during.tally;
    match tally.total() {
        0 => format!("`{}` held before and after", claim.name),
        total => format!("`{}` was good in {} of {total} samples", claim.name, tally.good),
    }
}

fn deviated(summary: &Summary, first: &str) -> String {
    let spent = |guard: &Guard| guard.budget.is_some_and(|spent| spent.is_all());
    if summary.guards.iter().any(|guard| guard.tripped.is_some() || spent(guard)) {
        return format!("{first}{}; {}", while_injected(summary), revert(summary));
    }
    let mut failed: Vec<&Claim> = summary
        .hypotheses
        .iter()
        .filter(|claim| {
            let judged = claim.judgement.as_ref();
            judged.is_some_and(|judgement| judgement.outcome == Outcome::Deviated)
        })
        .collect();
    failed.sort_by_key(|claim| std::cmp::Reverse(claim.during.tally.bad));
    let Some(worst) = failed.first() else {
        return format!("{first}; {}", revert(summary));
    };
    let others = match failed.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    if !worst.findings.is_empty() || worst.budget.is_some() {
        let why = worst.judgement.as_ref().map_or("", |judgement| judgement.why.as_str());
        return format!("`{}`{others}: {why}{}{}", worst.name, while_injected(summary), again(summary, true));
    }
    let tally = worst.during.tally;
    format!(
        "`{}`{others} failed in {} of {} samples{}{}",
        worst.name,
        tally.bad,
        tally.total(),
        while_injected(summary),
        again(summary, true),
    )
}

/// What was live, as a clause: ` during "payments is silent"`.
fn while_injected(summary: &Summary) -> String {
    let names: Vec<String> = summary
        .parts
        .iter()
        .filter(|part| part.injected_at_ms.is_some())
        .map(|part| format!("`{}`", part.name))
        .collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => format!(" during {one}"),
        [first, .., last] if names.len() == 2 => format!(" during {first} and {last}"),
        [first, others @ ..] => format!(" during {first} and {} more", others.len()),
    }
}

/// What was seen after the revert; the time is only worth a word when something had failed.
fn again(summary: &Summary, failed: bool) -> String {
    let unwell = summary.hypotheses.iter().find(|claim| claim.recovered == Some(false));
    let faults = summary.parts.iter().any(|part| part.injected_at_ms.is_some());
    let unshown = summary.hypotheses.iter().find(|claim| claim.unshown.is_some());
    match (unwell.or(unshown), summary.well_again_ms) {
        (Some(claim), _) if claim.unshown.is_some() => {
            format!("; it is not shown that `{}` held again after it", claim.name)
        }
        (Some(claim), _) => format!("; `{}` did not hold again in time", claim.name),
        (None, Some(ms)) if faults && failed => {
            format!("; well again {}{} after the fault ended", seconds(ms), between(summary, ms))
        }
        (None, Some(_)) if faults => " and held after it".to_owned(),
        _ => String::new(),
    }
}

/// The moments that are nearly as likely as the one that is named: ` (3.8 s to 5.0 s)`.
fn between(summary: &Summary, ms: u64) -> String {
    let found = summary.hypotheses.iter().flat_map(|claim| &claim.findings);
    let mut points = found.filter_map(|found| found.well_again).filter(|well| well.after_ms == ms);
    match points.next() {
        Some(well) if well.from_ms < well.to_ms => {
            format!(" ({} to {})", seconds(well.from_ms), seconds(well.to_ms))
        }
        _ => String::new(),
    }
}

fn revert(summary: &Summary) -> &'static str {
    let injected = summary.parts.iter().any(|part| part.injected_at_ms.is_some());
    let acted = !summary.actions.is_empty();
    match (injected, acted, summary.not_undone.is_empty()) {
        (false, false, _) => "nothing was injected",
        (true, _, true) | (false, true, true) => "everything was undone",
        (_, _, false) => "everything that can be undone was undone",
    }
}

/// A time for a sentence: `870 ms`, `1.2 s`, `3 min 5 s`.
pub fn seconds(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{:.1} s", ms as f64 / 1000.0),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

impl Part {
    /// The evidence in a few words: `214 of 214 packets`.
    pub fn evidence_in_words(&self) -> String {
        let words: Vec<String> = self.evidence.iter().map(in_words).collect();
        if words.is_empty() { "nothing was measured".to_owned() } else { words.join(", ") }
    }

    /// Why it does not count as measured.
    pub(super) fn unmeasured(&self) -> String {
        let idle = |evidence: &Evidence| evidence.matched == 0 && evidence.unit != Unit::Processes;
        if !self.evidence.is_empty() && self.evidence.iter().all(idle) {
            return format!(
                "`{}` had no measured effect: nothing used the path while it was live",
                self.name
            );
        }
        if let Some(why) = self.evidence.iter().find_map(|evidence| evidence.cut_short.as_ref()) {
            return format!(
                "`{}` was not in force until its end ({}): {why}",
                self.name,
                self.evidence_in_words()
            );
        }
        let counted = |evidence: &Evidence| Evidence { witness: None, ..evidence.clone() }.measured();
        if self.evidence.iter().all(counted)
            && let Some(why) = self.evidence.iter().find_map(Evidence::unseen)
        {
            let counts = self.evidence_in_words();
            return format!(
                "`{}` was counted ({counts}), but probes do not show its effect: {why}",
                self.name
            );
        }
        let leaked: u64 = self.evidence.iter().map(Evidence::leaked).sum();
        let few =
            |evidence: &Evidence| evidence.unit == Unit::Packets && (1..THIN).contains(&evidence.impaired);
        if leaked == 0 && self.evidence.iter().any(few) {
            let counts = self.evidence_in_words();
            return format!(
                "`{}` met too few packets to tell: {counts}, at least {THIN} are needed",
                self.name
            );
        }
        let effect = match leaked {
            0 => "had no measured effect",
            _ => "left out more than 1 % of its packets",
        };
        let passed: u64 = self.evidence.iter().map(Evidence::passed).sum();
        let leaks =
            [(passed, "passed unharmed"), (leaked - passed, "were lost although nobody asked for it")];
        let leaks = leaks.into_iter().filter(|(count, _)| *count > 0);
        let leaks: String = leaks.map(|(count, what)| format!(", {count} {what}")).collect();
        format!("`{}` {effect}: {}{leaks}", self.name, self.evidence_in_words())
    }
}

fn in_words(evidence: &Evidence) -> String {
    let unit = match evidence.unit {
        Unit::Packets => "packets",
        Unit::Sockets => "sockets",
        Unit::Connections => "connections",
        Unit::Requests => "requests",
        Unit::Processes => "processes",
    };
    format!("{} of {} matching {unit} impaired", evidence.impaired, evidence.matched)
}
