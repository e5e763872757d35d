//! `squall schedule`.

use std::path::PathBuf;

use axum::http::Method;
use clap::Subcommand;
use serde_json::{Value, json};
use squall_experiments::exit::Exit;

use super::remote::{self, At, table, text, time};
use super::{Common, Format, load, print};

/// Options of `squall schedule`.
#[derive(Debug, clap::Args)]
pub struct Schedule {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All schedules, which is also what `squall schedule` alone shows.
    List,
    /// Add a schedule.
    Add {
        /// The schedule file.
        file: PathBuf,
        /// The experiment file, where the schedule does not hold it.
        #[arg(long, value_name = "FILE")]
        experiment: Option<PathBuf>,
    },
    /// One schedule, with what is coming of it.
    Show {
        /// Its name.
        name: String,
    },
    /// Let nothing of a schedule run until it is resumed.
    Pause {
        /// Its name.
        name: String,
        /// Why: it stands in the calendar and in the audit log.
        #[arg(long, value_name = "TEXT", default_value = "paused from the command line")]
        reason: String,
    },
    /// Let a schedule run again, from now on: what was not run meanwhile stays so.
    Resume {
        /// Its name.
        name: String,
        /// Why: it stands in the audit log.
        #[arg(long, value_name = "TEXT", default_value = "resumed from the command line")]
        reason: String,
    },
    /// Approve a schedule as it is, for all its entries: where runs need an approval, nothing of it runs before.
    Approve {
        /// Its name.
        name: String,
        /// The hash that `squall schedule show` told: another schedule of that name is not approved.
        #[arg(long, value_name = "HASH")]
        hash: Option<String>,
    },
    /// Remove a schedule; what became of its entries is kept.
    Remove {
        /// Its name.
        name: String,
    },
}

impl Schedule {
    /// Runs the verb.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let one = |name: &str| format!("/v1/schedules/{}", remote::part(name));
        let said = |name: &str, verb: &str, reason: &str| {
            self.at.ask(Method::POST, &format!("{}/{verb}", one(name)), Some(&json!({ "reason": reason })))
        };
        let asked = match self.what.as_ref().unwrap_or(&What::List) {
            What::List => self.at.ask(Method::GET, "/v1/schedules", None)?,
            What::Add { file, experiment } => {
                let read = |file: &PathBuf, begin| {
                    load::bytes(file, begin)
                        .map(|(name, bytes)| (name, String::from_utf8_lossy(&bytes).into_owned()))
                };
                let experiment = || experiment.as_ref().map(|file| read(file, load::BEGIN)).transpose();
                let files =
                    read(file, "docs/schedules.md shows one").and_then(|file| Ok((file, experiment()?)));
                let ((name, document), experiment) = match files {
                    Ok(files) => files,
                    Err(problems) => return Ok(load::refuse(&problems, common)),
                };
                let experiment = experiment.map(|(_, text)| text);
                let wanted = json!({ "document": document, "name": name, "experiment": experiment });
                self.at.ask(Method::POST, "/v1/schedules", Some(&wanted))?
            }
            What::Show { name } => self.at.ask(Method::GET, &one(name), None)?,
            What::Pause { name, reason } => said(name, "pause", reason)?,
            What::Resume { name, reason } => said(name, "resume", reason)?,
            What::Approve { name, hash } => {
                let seen = json!({ "hash": hash });
                self.at.ask(Method::POST, &format!("{}/approve", one(name)), Some(&seen))?
            }
            What::Remove { name } => self.at.ask(Method::POST, &format!("{}/remove", one(name)), None)?,
        };
        let answer = match asked {
            Ok(answer) => answer,
            Err(exit) => return Ok(exit),
        };
        match (common.format, self.what.as_ref().unwrap_or(&What::List)) {
            (Format::Json, _) => print::json(&answer)?,
            (_, What::List) => print::result(&list(&answer))?,
            (_, What::Remove { name }) => print::result(&format!("`{}` is removed\n", remote::plain(name)))?,
            _ => print::result(&one_of(&answer))?,
        }
        Ok(Exit::Held)
    }
}

fn list(answer: &Value) -> String {
    let schedules = answer["schedules"].as_array().map_or(&[][..], Vec::as_slice);
    if schedules.is_empty() {
        return "no schedule yet; `squall schedule add FILE` adds one\n".to_owned();
    }
    let row = |schedule: &Value| {
        vec![
            text(schedule, "name"),
            when(schedule),
            state(schedule),
            text(schedule, "by"),
            time(&schedule["at"]),
        ]
    };
    let rows: Vec<Vec<String>> = schedules.iter().map(row).collect();
    table(&["name", "when", "state", "by", "since (utc)"], &rows)
}

/// When it runs, in its own words.
fn when(schedule: &Value) -> String {
    let (document, when) = (&schedule["schedule"], &schedule["schedule"]["when"]);
    let zone = text(document, "zone");
    if let Some(cron) = when["cron"].as_str() {
        return format!("{cron} {zone}");
    }
    if let Some(at) = when["at"].as_str() {
        return format!("at {at} {zone}");
    }
    let random = &when["random"];
    let of = |name: &str| text(random, name);
    format!("random, mean {} apart {}, {}-{} {zone}", of("mean"), of("apart"), of("from"), of("to"))
}

fn state(schedule: &Value) -> String {
    match (schedule["paused"]["why"].as_str(), schedule["schedule"]["leashed"] == true) {
        (Some(why), _) => format!("paused: {why}"),
        (None, true) => "leashed".to_owned(),
        (None, false) => "active".to_owned(),
    }
}

fn one_of(schedule: &Value) -> String {
    let (when, state) = (when(schedule), state(schedule));
    let mut out = format!("{}: {when}, {state}, seed {}\n", text(schedule, "name"), text(schedule, "seed"));
    match schedule["approved"]["by"].as_str() {
        Some(by) => out.push_str(&format!("approved by {by}\n")),
        None => out.push_str(&format!("not approved; its hash is {}\n", text(schedule, "hash"))),
    }
    let next = schedule["next"].as_array().map_or(&[][..], Vec::as_slice);
    if next.is_empty() {
        out.push_str("nothing of it is coming within ten years\n");
    } else {
        out.push_str(&super::calendar::lines(next));
    }
    remote::plain(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_lines_with_when_they_run() {
        let schedule = json!({
            "name": "night", "by": "ada (1)", "at": 0, "seed": 7, "paused": null, "hash": "abc",
            "schedule": { "zone": "UTC", "when": { "cron": "30 2 * * *" } },
            "next": [{ "schedule": "night", "local": "1970-01-01 02:30:00 +00:00", "group": "", "state": "planned" }],
        });
        let mut random = schedule.clone();
        random["schedule"]["when"] =
            json!({ "random": { "mean": 5, "apart": 2, "from": "09:00", "to": "15:00" } });
        random["paused"] = json!({ "why": "we move" });
        assert_eq!(
            list(&json!({ "schedules": [schedule, random] })),
            "NAME   WHEN                                     STATE            BY       SINCE (UTC)\n\
             night  30 2 * * * UTC                           active           ada (1)  1970-01-01 00:00:00\n\
             night  random, mean 5 apart 2, 09:00-15:00 UTC  paused: we move  ada (1)  1970-01-01 00:00:00\n"
        );
        let told = one_of(&schedule);
        let start = "night: 30 2 * * * UTC, active, seed 7\nnot approved; its hash is abc\nWHEN";
        assert!(told.starts_with(start), "{told}");
        assert!(list(&json!({ "schedules": [] })).contains("squall schedule add"));
    }
}
