//! `squall plan --submit` and `squall approve`: a second pair of eyes before something is done.

use std::path::Path;

use axum::http::Method;
use serde_json::{Value, json};
use squall_experiments::exit::Exit;

use super::load::{self, Vars};
use super::remote::{self, At, text, time};
use super::run::elsewhere;
use super::{Common, Format, print};

/// Options of `squall approve`.
#[derive(Debug, clap::Args)]
pub struct Approve {
    #[command(flatten)]
    at: At,
    /// The hash of the plan; without one the newest plans are listed.
    #[arg(value_name = "HASH")]
    hash: Option<String>,
    /// What is to be remembered about it.
    #[arg(long, value_name = "TEXT", requires = "hash")]
    note: Option<String>,
    /// Show the plan, and approve nothing.
    #[arg(long, requires = "hash", conflicts_with = "note")]
    show: bool,
}

impl Approve {
    /// Runs the verb.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let Some(hash) = &self.hash else {
            return Ok(match self.at.ask(Method::GET, "/v1/plans", None)? {
                Ok(answer) => shown(&answer, common, list)?,
                Err(exit) => exit,
            });
        };
        let path = format!("/v1/plans/{}", remote::part(hash));
        let answer = match self.show {
            true => self.at.ask(Method::GET, &path, None)?,
            false => {
                let note = json!({ "note": self.note });
                self.at.ask(Method::POST, &format!("{path}/approve"), Some(&note))?
            }
        };
        Ok(match answer {
            Ok(answer) => shown(&answer, common, human)?,
            Err(exit) => exit,
        })
    }
}

/// Gives an experiment to a controller, which plans it and keeps the plan.
pub fn submit(at: &At, file: &Path, vars: &Vars, seed: Option<u64>, common: &Common) -> anyhow::Result<Exit> {
    let submission = match elsewhere::submission(file, vars, seed) {
        Ok(submission) => submission,
        Err(problems) => return Ok(load::refuse(&problems, common)),
    };
    Ok(match at.ask(Method::POST, "/v1/plans", Some(&submission))? {
        Ok(answer) => shown(&answer, common, human)?,
        Err(exit) => exit,
    })
}

fn shown(answer: &Value, common: &Common, human: fn(&Value) -> String) -> anyhow::Result<Exit> {
    match common.format {
        Format::Json => print::json(answer)?,
        Format::Human => print::result(&human(answer))?,
    }
    Ok(Exit::Held)
}

fn list(answer: &Value) -> String {
    let row = |plan: &Value| {
        let state = match (&plan["run"], &plan["approved_by"]) {
            (Value::String(run), _) => format!("run as {run}"),
            (_, Value::String(by)) => format!("approved by {by}"),
            _ => "to be approved".to_owned(),
        };
        vec![
            text(plan, "hash"),
            time(&plan["submitted_at"]),
            text(plan, "submitted_by"),
            state,
            text(plan, "title"),
        ]
    };
    let rows: Vec<Vec<String>> = answer["plans"].as_array().into_iter().flatten().map(row).collect();
    match rows.is_empty() {
        true => "no plans\n".to_owned(),
        false => remote::table(&["hash", "submitted", "by", "state", "title"], &rows),
    }
}

/// What it would do on each host, and who said what of it.
fn human(plan: &Value) -> String {
    let mut out = format!("{}\n\n", text(plan, "title"));
    for host in plan["plan"]["hosts"].as_array().into_iter().flatten() {
        out.push_str(&format!("On {}\n", text(host, "host")));
        steps(&host["plan"]["steps"], "  ", &mut out);
    }
    out.push('\n');
    for (word, value) in [
        ("Seed", text(plan, "seed")),
        ("By", text(plan, "submitted_by")),
        ("Until", time(&plan["expires_at"])),
        ("Approved", text(plan, "approved_by")),
        ("Note", text(plan, "note")),
        ("Run", text(plan, "run")),
        ("Hash", text(plan, "hash")),
    ] {
        out.push_str(&format!("{word:10}{value}\n"));
    }
    remote::plain(&out)
}

fn steps(steps_of: &Value, indent: &str, out: &mut String) {
    for step in steps_of.as_array().into_iter().flatten() {
        let Some((kind, about)) = step.as_object().and_then(|step| step.iter().next()) else { continue };
        match kind.as_str() {
            "fault" => {
                let (part, name, lasts) = (text(about, "part"), text(about, "name"), text(about, "lasts"));
                out.push_str(&format!("{indent}part {part}, for {lasts}: {name}\n"));
                for change in about["changes"].as_array().into_iter().flatten() {
                    out.push_str(&format!("{indent}  {change}\n"));
                }
            }
            "parallel" => {
                out.push_str(&format!("{indent}at the same time:\n"));
                steps(about, &format!("{indent}  "), out);
            }
            "wait" => out.push_str(&format!("{indent}wait {}\n", about.as_str().unwrap_or_default())),
            _ => out.push_str(&format!("{indent}{kind}: {}\n", text(about, "name"))),
        }
    }
}
