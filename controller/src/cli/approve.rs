//! `squall plan --submit` and `squall approve`: a second pair of eyes before something is done.

use std::collections::BTreeSet;
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
        for line in host["engines"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            out.push_str(&format!("  {line}\n"));
        }
    }
    let gone = plan["plan"]["unconnected"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let gone: Vec<&str> = gone.collect();
    if !gone.is_empty() {
        out.push_str(&format!("Not connected, so not chosen from: {}\n", gone.join(", ")));
    }
    watched(&plan["plan"], &mut out);
    let warned = |host: &Value| host["plan"]["warnings"].as_array().cloned().unwrap_or_default();
    let warnings = plan["plan"]["hosts"].as_array().into_iter().flatten().flat_map(warned);
    let warnings: BTreeSet<String> = warnings.filter_map(|one| one.as_str().map(str::to_owned)).collect();
    if !warnings.is_empty() {
        out.push_str("\nWarnings\n");
        warnings.iter().for_each(|warning| out.push_str(&format!("  {warning}\n")));
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

/// What is looked at, sent and watched for: it does something to whom it asks, and a guard that is missing ends nothing.
fn watched(plan: &Value, out: &mut String) {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let hosts = list(&plan["hosts"]);
    let on: Vec<String> =
        hosts.iter().filter(|host| host["watching"] == true).map(|host| text(host, "host")).collect();
    out.push_str(&format!("\nLooked at on {}\n", on.join(", ")));
    let watched = &plan["watched"];
    for (word, claims) in [("hypothesis", &watched["hypothesis"]), ("guard", &watched["stop-when"])] {
        let claims = list(claims);
        if claims.is_empty() {
            out.push_str(&format!("  no {word}\n"));
        }
        for mut claim in claims {
            let name = text(&claim, "name");
            claim.as_object_mut().and_then(|claim| claim.shift_remove("name"));
            out.push_str(&format!("  {word} {name}: {claim}\n"));
        }
    }
    for host in &hosts {
        for load in list(&host["plan"]["loads"]) {
            let (name, rate, url) = (text(&load, "name"), text(&load, "rate"), text(&load, "url"));
            let (requests, most) = (text(&load, "requests"), text(&load, "at-most"));
            let control = if load["control"] == true { ", some of them to a control group" } else { "" };
            let host = text(host, "host");
            out.push_str(&format!(
                "  load of {name} from {host}: {rate} to {url}, at most {requests} requests in {most}{control}\n"
            ));
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_approves_sees_what_is_sent_and_what_would_end_it() {
        let load = json!({
            "name": "fast", "url": "http://shop/", "rate": "900/s", "at-most": "1m", "requests": 54000
        });
        let host = |name: &str, watching: bool| json!({ "host": name, "watching": watching, "plan": { "steps": [], "loads": if watching { json!([load]) } else { json!([]) } } });
        let claim =
            json!({ "name": "fast", "load": { "url": "http://shop/", "rate": "900/s" }, "every": "1s" });
        let mut plan = json!({
            "title": "T", "hash": "ab", "seed": 7, "submitted_by": "ada",
            "plan": { "hosts": [host("web", true), host("db", false)], "watched": { "hypothesis": [claim], "stop-when": [] } }
        });
        let shown = human(&plan);
        for line in [
            "Looked at on web\n",
            "  hypothesis fast: {\"load\":{\"url\":\"http://shop/\",\"rate\":\"900/s\"},\"every\":\"1s\"}\n",
            "  no guard\n",
            "  load of fast from web: 900/s to http://shop/, at most 54000 requests in 1m\n",
        ] {
            assert!(shown.contains(line), "{line}: {shown}");
        }
        assert!(!shown.contains("from db") && !shown.contains("Not connected"), "{shown}");
        plan["plan"]["unconnected"] = json!(["web-3", "web-4"]);
        assert!(human(&plan).contains("\nNot connected, so not chosen from: web-3, web-4\n"));
        plan["plan"]["watched"]["stop-when"] = json!([{ "name": "up", "process": { "argv": ["true"] } }]);
        let shown = human(&plan);
        assert!(shown.contains("  guard up: {\"process\":{\"argv\":[\"true\"]}}\n"), "{shown}");
    }
}
