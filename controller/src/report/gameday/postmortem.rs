//! The skeleton of a post-mortem: what is known is filled in, what only people know is asked.

use squall_experiments::exit::Exit;
use squall_experiments::gameday::{Mark, StepFigures};
use squall_experiments::summary::seconds;

use super::GameDayReport;
use super::parts::Block;
use super::words::{gameday_sentence, took, verb};
use crate::conductor::date_of;

const ASK: &str = "…";

/// What people did not do in time.
fn missed(step: &StepFigures) -> Vec<Mark> {
    let each = [
        (Mark::Detected, step.detect),
        (Mark::Acknowledged, step.acknowledge),
        (Mark::Mitigated, step.mitigate),
    ];
    let late =
        each.into_iter().filter(|(_, reaction)| reaction.is_some_and(|reaction| reaction.met == Some(false)));
    late.map(|(mark, _)| mark).collect()
}

fn met(step: &StepFigures) -> Vec<Mark> {
    let each = [
        (Mark::Detected, step.detect),
        (Mark::Acknowledged, step.acknowledge),
        (Mark::Mitigated, step.mitigate),
    ];
    let kept =
        each.into_iter().filter(|(_, reaction)| reaction.is_some_and(|reaction| reaction.met == Some(true)));
    kept.map(|(mark, _)| mark).collect()
}

/// Its blocks.
pub(super) fn blocks(report: &GameDayReport) -> Vec<Block> {
    let steps = &report.figures.steps;
    let (course, day) = (&report.course, &report.day);
    let bad: Vec<&StepFigures> =
        steps.iter().filter(|step| step.exit.is_some_and(|exit| exit != Exit::Held)).collect();
    let mut blocks = vec![
        Block::Text(format!(
            "Of the game day `{}` ({}), begun {} by {}. {}",
            day.name,
            day.title,
            date_of(course.begun.unwrap_or_default()).replace('T', " ").replace('Z', " UTC"),
            report.by,
            gameday_sentence(report)
        )),
        Block::Title("Impact".to_owned()),
    ];
    let mut impact: Vec<String> = bad
        .iter()
        .filter(|step| step.exit == Some(Exit::Deviated))
        .map(|step| {
            let fault =
                step.fault_ms.map_or_else(String::new, |ms| format!(" under a fault of {}", seconds(ms)));
            format!(
                "`{}` gave way{fault}; well again after {}. Who felt it, and how: {ASK}",
                step.step,
                took(step.recover)
            )
        })
        .collect();
    if impact.is_empty() {
        impact.push(format!("No step gave way. What users felt all the same: {ASK}"));
    }
    blocks.push(Block::List(impact));
    blocks.push(Block::Title("Contributing factors".to_owned()));
    let mut factors: Vec<String> = Vec::new();
    for step in &bad {
        let course = course.step(&step.step);
        if let Some(sentence) =
            course.and_then(|course| course.last()).and_then(|last| last.sentence.as_ref())
        {
            factors.push(format!("`{}`: {sentence}. What made it so: {ASK}", step.step));
        }
    }
    factors.push(format!("What else had a part in it: {ASK}"));
    blocks.push(Block::List(factors));
    for step in bad.iter().filter(|step| step.exit == Some(Exit::Deviated)) {
        blocks.push(Block::Title(format!("Five times why: `{}`", step.step)));
        let first = format!("Why did `{}` deviate? Because {ASK}", step.step);
        let rest = (0..4).map(|_| format!("And why that? Because {ASK}"));
        blocks.push(Block::Numbered(std::iter::once(first).chain(rest).collect()));
    }
    blocks.push(Block::Title("What went well".to_owned()));
    let mut well: Vec<String> = steps
        .iter()
        .filter(|step| step.exit == Some(Exit::Held))
        .map(|step| format!("`{}` held", step.step))
        .collect();
    for step in steps {
        well.extend(met(step).into_iter().map(|mark| format!("`{}` was {mark} in time", step.step)));
    }
    well.push(ASK.to_owned());
    blocks.push(Block::List(well));
    blocks.push(Block::Title("What went badly".to_owned()));
    let mut badly: Vec<String> = Vec::new();
    for step in steps {
        badly.extend(missed(step).into_iter().map(|mark| format!("`{}` was not {mark} in time", step.step)));
    }
    badly.push(ASK.to_owned());
    blocks.push(Block::List(badly));
    blocks.push(Block::Title("Actions".to_owned()));
    let mut actions: Vec<Vec<String>> = Vec::new();
    let mut action = |what: String| actions.push(vec![what, ASK.to_owned(), ASK.to_owned()]);
    for step in &bad {
        action(match step.exit {
            Some(Exit::Deviated) => format!("Let the service hold under `{}`, and run it again", step.step),
            Some(Exit::Inconclusive) => format!("Let `{}` say something: more traffic, or longer", step.step),
            Some(Exit::Modified) => {
                format!("Find out what was left on a host by `{}`, and report it", step.step)
            }
            _ => format!("Run `{}` again, which did not come to an end", step.step),
        });
    }
    for step in steps {
        for mark in missed(step) {
            action(format!("Find out why nobody could {} `{}` in time", verb(mark), step.step));
        }
    }
    action(ASK.to_owned());
    blocks.push(Block::Table("What is done about it".to_owned(), vec!["what", "who", "until"], actions));
    blocks
}
