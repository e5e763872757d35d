//! The head of the report: what came out, in one sentence and a handful of facts.

use squall_experiments::exit::Exit;
use squall_experiments::summary::{Summary, seconds};
use squall_experiments::verdict::Outcome;

use super::markup::Markup;

/// Writes the head.
pub(super) fn head(page: &mut Markup, summary: &Summary) {
    page.element("header", &[], |page| {
        page.text("p", &[("class", "kicker")], "Squall: the report of a run");
        page.element("h1", &[], |page| page.text("bdi", &[], &summary.title));
        let class = format!("verdict {}", tone(summary.exit));
        page.element("p", &[("class", &class)], |page| {
            page.text("strong", &[], &format!("{} {}", sign(summary.exit), summary.exit.meaning()));
            let sentence = &summary.sentence;
            let rest = sentence.strip_prefix(summary.exit.meaning()).unwrap_or(sentence);
            page.prosaic("span", &[("dir", "auto")], rest.trim_start_matches([':', ' ']));
        });
        page.text("p", &[("class", "meaning")], meaning(summary.exit));
        facts(page, summary);
    });
    reasons(page, summary);
}

fn facts(page: &mut Markup, summary: &Summary) {
    let of = |outcome: Outcome| {
        let judged = summary.hypotheses.iter().filter_map(|claim| claim.judgement.as_ref());
        judged.filter(|judgement| judgement.outcome == outcome).count()
    };
    let injected: Vec<_> = summary.parts.iter().filter(|part| part.injected_at_ms.is_some()).collect();
    let measured = injected.iter().filter(|part| part.measured).count();
    page.element("dl", &[("class", "facts")], |page| {
        page.fact("began", &summary.date.replace('T', " ").replace('Z', " UTC"));
        page.fact("took", &seconds(summary.took_ms));
        if !summary.hypotheses.is_empty() {
            page.fact("hypotheses", &format!("{} of {} held", of(Outcome::Held), summary.hypotheses.len()));
        }
        if !summary.parts.is_empty() {
            let faults = format!("{measured} of {} injected and measured", summary.parts.len());
            page.fact("faults", &faults);
        }
        // What never failed was not well again.
        let failed = summary.hypotheses.iter().any(|claim| claim.during.tally.bad > 0);
        if let Some(ms) = summary.well_again_ms.filter(|_| failed) {
            page.fact("well again after", &seconds(ms));
        }
        let host = summary.host.as_ref().map_or("not compared", |host| match host.ours {
            0 => "as before",
            _ => "NOT as before",
        });
        page.fact("the host is", if injected.is_empty() { "untouched" } else { host });
        page.fact("exit code", &format!("{}", summary.exit as u8));
    });
}

fn reasons(page: &mut Markup, summary: &Summary) {
    if summary.reasons.iter().all(|reason| reason.help.is_none()) && summary.reasons.len() < 2 {
        return;
    }
    page.element("section", &[], |page| {
        page.text("h2", &[], "What kept it from “held”");
        let said = summary.reasons.iter().map(|reason| match &reason.help {
            Some(help) => format!("{}: {} ({help})", reason.exit.meaning(), reason.what),
            None => format!("{}: {}", reason.exit.meaning(), reason.what),
        });
        page.list(&said.collect::<Vec<_>>());
    });
}

/// The class of a result: its colour.
pub(super) fn tone(exit: Exit) -> &'static str {
    match exit {
        Exit::Held => "held",
        Exit::Deviated | Exit::Modified | Exit::Bug => "deviated",
        _ => "unclear",
    }
}

fn sign(exit: Exit) -> char {
    match tone(exit) {
        "held" => '✓',
        "deviated" => '✗',
        _ => '?',
    }
}

/// What a result means, for who reads the first.
fn meaning(exit: Exit) -> &'static str {
    match exit {
        Exit::Held => {
            "While the fault was live the system kept everything that was claimed of it, as far as was asked to be sure."
        }
        Exit::Deviated => "It is sure that the system did not keep everything that was claimed of it.",
        Exit::Inconclusive => {
            "What was seen says neither that it held nor that it did not. This is not a pass."
        }
        Exit::Refused => {
            "The run was not carried out, or not to its end: a condition for it was not met. This says nothing of the fault."
        }
        Exit::Interrupted => "The run was stopped before it could say anything.",
        Exit::Modified => "Something that the run did is still there. Look at the host before anything else.",
        _ => "The run came to no result.",
    }
}
