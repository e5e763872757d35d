//! What a plan does, step by step, in words.

use std::fmt::Write;

use squall_experiments::plan::{Plan, PlanStep};

/// The steps of a plan, a line for each and for each of their changes, behind an indent.
pub fn steps(plan: &Plan, indent: &str) -> String {
    let mut out = String::new();
    plan.steps.iter().for_each(|step| write_step(step, indent, &mut out));
    out
}

fn write_step(step: &PlanStep, indent: &str, out: &mut String) {
    match step {
        PlanStep::Fault { part, name, changes, lasts, stays } => {
            let _ = match stays {
                None => writeln!(out, "{indent}part {part}, for {lasts}: {name}"),
                Some(held) => {
                    writeln!(out, "{indent}part {part}, for {held}, and it stays (at most {lasts}): {name}")
                }
            };
            for change in changes {
                let end = if change.reversible() { "undone at the end" } else { "not undone" };
                let words = change.to_string();
                let words = if name.contains(&words) { String::new() } else { format!("{words}; ") };
                let claims: Vec<String> = change.claims().iter().map(ToString::to_string).collect();
                let holds = match claims.is_empty() {
                    true => "shares its packets with others that shape them".to_owned(),
                    false => format!("holds {}", claims.join(" and ")),
                };
                let _ = writeln!(out, "{indent}  {words}{holds}; {end}");
            }
        }
        PlanStep::Stays { part, name, lasts, last } => {
            let end = if *last { ", and ends" } else { "" };
            let _ = writeln!(out, "{indent}part {part} stays, for {lasts}{end}: {name}");
        }
        PlanStep::Wait(wait) => {
            let _ = writeln!(out, "{indent}wait {wait}");
        }
        PlanStep::Elsewhere { name, .. } => {
            let _ = writeln!(out, "{indent}on other hosts: {name}");
        }
        PlanStep::Parallel(children) => {
            let _ = writeln!(out, "{indent}at the same time:");
            for child in children {
                write_step(child, &format!("{indent}  "), out);
            }
        }
        PlanStep::Action { name, action, undo } => {
            let words = action.to_string();
            let words = if *name == words { String::new() } else { format!(": {words}") };
            let _ = writeln!(out, "{indent}action: {name}{words}");
            match undo {
                Some(undo) => drop(writeln!(out, "{indent}  undone by: {undo}")),
                None => drop(writeln!(out, "{indent}  not undone: it has no `undo`")),
            }
        }
    }
}
