//! `squall runs` and `squall show`.

use axum::http::Method;
use serde_json::Value;
use squall_experiments::exit::Exit;

use super::remote::{self, At, table, text, time};
use super::{Common, Format, print};

/// Options of `squall runs`.
#[derive(Debug, clap::Args)]
pub struct Runs {
    #[command(flatten)]
    at: At,
    /// How many at most.
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    limit: u64,
    /// Those that are older: what the page before ended with.
    #[arg(long, value_name = "PAGE")]
    after: Option<String>,
    /// The experiments by their last runs of 90 days, each with its history, and the resilience score over all.
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    experiments: bool,
}

/// Options of `squall show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    #[command(flatten)]
    at: At,
    /// The run.
    run: String,
    /// Print its events, a line of JSON each, instead of what is known of it: `squall verdict` makes a report of them.
    #[arg(long)]
    events: bool,
}

impl Runs {
    /// Runs the verb.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        if self.experiments {
            return self.standing(common);
        }
        let after = self.after.as_deref().map(|after| format!("&after={}", remote::part(after)));
        let path = format!("/v1/runs?limit={}{}", self.limit, after.unwrap_or_default());
        let answer = match self.at.ask(Method::GET, &path, None)? {
            Ok(answer) => answer,
            Err(exit) => return Ok(exit),
        };
        match common.format {
            Format::Json => print::json(&answer)?,
            Format::Human => {
                print::result(&human(&answer))?;
                if let Some(next) = answer["next"].as_str() {
                    eprintln!("there are more: `squall runs --after {}`", remote::plain(next));
                }
            }
        }
        Ok(Exit::Held)
    }
}

impl Runs {
    fn standing(&self, common: &Common) -> anyhow::Result<Exit> {
        let answer = match self.at.ask(Method::GET, "/v1/experiments", None)? {
            Ok(answer) => answer,
            Err(exit) => return Ok(exit),
        };
        match common.format {
            Format::Json => print::json(&answer)?,
            Format::Human => print::result(&experiments(&answer))?,
        }
        Ok(Exit::Held)
    }
}

impl Show {
    /// Runs the verb.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let path = format!("/v1/runs/{}", remote::part(&self.run));
        if self.events {
            return self.lines(&path);
        }
        let mut answer = match self.at.ask(Method::GET, &path, None)? {
            Ok(answer) => answer,
            Err(exit) => return Ok(exit),
        };
        match self.at.ask(Method::GET, &format!("{path}/gates"), None)? {
            Ok(gates) => answer["gates"] = gates["gates"].clone(),
            Err(exit) => return Ok(exit),
        }
        match common.format {
            Format::Json => print::json(&answer)?,
            Format::Human => {
                let mut out = String::new();
                for (word, value) in [
                    ("Run", text(&answer, "id")),
                    ("Title", text(&answer, "title")),
                    ("State", text(&answer, "state")),
                    ("By", text(&answer, "by")),
                    ("Begun", time(&answer["at"])),
                    ("Events", text(&answer, "events")),
                    ("Plan", text(&answer, "plan")),
                    ("Build", text(&answer, "build")),
                    ("History", text(&answer, "history")),
                ] {
                    if value.is_empty() || value == "-" {
                        continue;
                    }
                    out.push_str(&format!("{word:8}{}\n", remote::plain(&value)));
                }
                for gate in answer["gates"].as_array().into_iter().flatten() {
                    let word = if gate["passed"] == true { "passed" } else { "refused" };
                    let said = format!("Gate    {}: {word}: {}", text(gate, "gate"), text(gate, "why"));
                    out.push_str(&format!("{}\n", remote::plain(&said)));
                }
                out.push_str(&format!("\n{}\n", remote::plain(text(&answer, "document").trim_end())));
                print::result(&out)?;
            }
        }
        Ok(Exit::Held)
    }

    fn lines(&self, path: &str) -> anyhow::Result<Exit> {
        let mut from = 0;
        loop {
            let page =
                match self.at.ask(Method::GET, &format!("{path}/events?limit=1000&from={from}"), None)? {
                    Ok(page) => page,
                    Err(exit) => return Ok(exit),
                };
            let events = page["events"].as_array().map_or(&[][..], Vec::as_slice);
            if events.is_empty() {
                return Ok(Exit::Held);
            }
            let lines: String = events.iter().map(|event| format!("{}\n", event["event"])).collect();
            print::result(&lines)?;
            from = page["next"].as_u64().unwrap_or_default();
        }
    }
}

fn experiments(answer: &Value) -> String {
    let row = |stood: &Value| {
        let weight = stood["weight"].to_string();
        vec![text(stood, "verdict"), weight, text(stood, "title"), text(stood, "story")]
    };
    let rows: Vec<Vec<String>> = answer["experiments"].as_array().into_iter().flatten().map(row).collect();
    let words = remote::plain(&text(answer, "words"));
    match rows.is_empty() {
        true => format!("{words}\n"),
        false => format!("{}\n{words}\n", table(&["last", "weight", "experiment", "history"], &rows)),
    }
}

fn human(answer: &Value) -> String {
    let row = |run: &Value| {
        vec![text(run, "id"), text(run, "state"), time(&run["at"]), text(run, "by"), text(run, "title")]
    };
    let rows: Vec<Vec<String>> = answer["runs"].as_array().into_iter().flatten().map(row).collect();
    match rows.is_empty() {
        true => "no runs\n".to_owned(),
        false => table(&["run", "state", "begun", "by", "title"], &rows),
    }
}
