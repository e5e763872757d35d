//! The run in a few lines: what changed, without the samples.

use super::closing::seconds;
use super::{Moment, Part};
use crate::run::{Event, Record};

/// The lines of a log, and what happened to the targets of its parts, by time.
pub(super) fn of(log: &[Record], parts: &[Part]) -> Vec<Moment> {
    let mut names = Vec::new();
    let stated = log.iter().any(|record| matches!(record.event, Event::Sample(_)));
    let mut lines = Vec::new();
    for record in log {
        if matches!(record.event, Event::BaselineMet) && !stated {
            continue;
        }
        if let Event::Injecting { part, name, .. } = &record.event {
            names.push((*part, name.clone()));
        }
        let name = |part: u32| {
            let found = names.iter().find(|(number, _)| *number == part);
            found.map_or_else(|| format!("part {part}"), |(_, name)| format!("`{name}`"))
        };
        lines.extend(line(&record.event, name).map(|what| Moment { at_ms: record.at_ms, what }));
    }
    for part in parts {
        let incidents = part.evidence.iter().flat_map(|evidence| &evidence.incidents);
        lines.extend(incidents.filter_map(|incident| {
            Some(Moment { at_ms: part.injected_at_ms? + incident.after_ms, what: incident.what.clone() })
        }));
    }
    lines.sort_by_key(|moment| moment.at_ms);
    lines
}

/// An event in words; `None` for one that a short account leaves out. `name` says what a part is called.
pub fn line(event: &Event, name: impl Fn(u32) -> String) -> Option<String> {
    Some(match event {
        Event::Started(started) if started.hypotheses.is_empty() => "the run began".to_owned(),
        Event::Started(_) => "the run began: baseline".to_owned(),
        Event::BaselineMet => "the baseline is met".to_owned(),
        Event::BaselineNotMet { name, .. } => format!("the baseline is not met: `{name}` did not hold"),
        Event::StepBegan { what, .. } if what.starts_with("wait ") => what.clone(),
        Event::Injected { part, applied } => {
            let took = applied.took_us as f64 / 1000.0;
            format!("{} injected (took {took:.1} ms)", name(*part))
        }
        Event::Refused { part, refusal } => match part {
            Some(part) => format!("{} refused: {}", name(*part), refusal.what),
            None => format!("refused: {}", refusal.what),
        },
        Event::Lifted { part, lifted, why } => {
            let because = why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
            match (part, lifted.stuck.is_empty()) {
                (Some(part), true) => format!("{} ended{because}", name(*part)),
                (Some(part), false) => format!("{} NOT undone{because}", name(*part)),
                (None, true) if lifted.undone.is_empty() && why.is_none() => return None,
                (None, true) => format!("everything undone{because}"),
                (None, false) => format!("NOT everything undone{because}"),
            }
        }
        Event::ActionBegan { name, .. } => format!("action `{name}` began"),
        Event::ActionEnded { good, seen, .. } => {
            let how = if *good { "succeeded" } else { "failed" };
            format!("action {how}: {seen}")
        }
        Event::UndoPlayed { good, seen, .. } => {
            let how = if *good { "played" } else { "FAILED" };
            format!("undo of the action {how}: {seen}")
        }
        Event::GuardTripped { name, seen } => format!("guard `{name}` did not hold: {seen}"),
        Event::GaveWay { stage, name, seen } => {
            format!("`{name}` did not hold in stage {stage}, so no further one began: {seen}")
        }
        Event::BudgetSpent { name, failed, budget } => {
            format!("`{name}` has spent its budget: {failed} failed, {} may", budget.0)
        }
        Event::Interrupted { by } => format!("interrupted by {by}"),
        Event::AgentLost { why } => format!("the connection to the agent broke: {why}"),
        Event::Blind { why } => format!("the system could not be looked at: {why}"),
        Event::RecoveryBegan => "recovery".to_owned(),
        Event::WellAgain { after_ms } => {
            format!("the hypothesis holds again: {} after the revert", seconds(*after_ms))
        }
        Event::NotRecovered { names, unshown } => {
            let listed = |what: &str, names: &[String]| format!("{what}: {}", names.join(", "));
            let unshown = (!unshown.is_empty()).then(|| listed("not shown to be well again", unshown));
            let names = (!names.is_empty()).then(|| listed("not recovered in time", names));
            [names, unshown].into_iter().flatten().collect::<Vec<String>>().join("; ")
        }
        Event::Finished { .. } => "the run ended".to_owned(),
        Event::Stuck { .. } => "the run ended; a host is still modified".to_owned(),
        Event::Sample(_)
        | Event::StepBegan { .. }
        | Event::StepEnded { .. }
        | Event::Injecting { .. }
        | Event::Measured { .. }
        | Event::MethodEnded => return None,
    })
}
