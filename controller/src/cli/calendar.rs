//! `squall calendar`.

use axum::http::Method;
use serde_json::Value;
use squall_experiments::exit::Exit;

use super::remote::{self, At, table, text};
use super::{Common, Format, print};

/// Options of `squall calendar`.
#[derive(Debug, clap::Args)]
pub struct Calendar {
    #[command(flatten)]
    at: At,
    /// From this time on, as in `2027-03-01T00:00:00Z` [default: now].
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Before this time, at most 366 days later [default: a week later].
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only this schedule.
    #[arg(long, value_name = "NAME")]
    schedule: Option<String>,
    /// The same as `--format json`.
    #[arg(long)]
    json: bool,
}

impl Calendar {
    /// Runs the verb.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let asked = [("from", &self.from), ("to", &self.to), ("schedule", &self.schedule)];
        let asked = asked
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", remote::part(value.as_ref()?))));
        let query = asked.collect::<Vec<_>>().join("&");
        let answer = match self.at.ask(Method::GET, &format!("/v1/calendar?{query}"), None)? {
            Ok(answer) => answer,
            Err(exit) => return Ok(exit),
        };
        match common.format {
            _ if self.json => print::json(&answer)?,
            Format::Json => print::json(&answer)?,
            Format::Human => print::result(&human(&answer))?,
        }
        Ok(Exit::Held)
    }
}

fn human(answer: &Value) -> String {
    let list = |name: &str| answer[name].as_array().map_or(&[][..], Vec::as_slice);
    let mut out = String::new();
    if let Some(why) = answer["blocked"].as_str() {
        out.push_str(&format!("nothing begins before the halt is lifted: {why}\n"));
    }
    for problem in list("problems").iter().filter_map(Value::as_str) {
        out.push_str(&format!("problem: {problem}; nothing runs before it is mended\n"));
    }
    for freeze in list("freezes") {
        let (from, to) = (remote::time(&freeze["from"]), remote::time(&freeze["to"]));
        out.push_str(&format!("change freeze from {from} to {to} UTC: {}\n", text(freeze, "why")));
    }
    match list("entries") {
        [] => out.push_str("nothing is scheduled in this time\n"),
        entries => out.push_str(&lines(entries)),
    }
    if answer["more"] == true {
        out.push_str("... and more: ask for a shorter time, or for one schedule\n");
    }
    remote::plain(&out)
}

/// Entries, a line each.
pub(super) fn lines(entries: &[Value]) -> String {
    let row = |entry: &Value| {
        let group = text(entry, "group");
        let why = match (entry["run"].as_str(), entry["why"].as_str()) {
            (Some(run), Some(why)) => format!("run {run}: {why}"),
            (Some(run), None) => format!("run {run}"),
            (None, why) => why.unwrap_or("-").lines().next().unwrap_or("-").to_owned(),
        };
        let group = if group.is_empty() { "-".to_owned() } else { group };
        vec![text(entry, "local"), text(entry, "schedule"), group, text(entry, "state"), why]
    };
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    table(&["when", "schedule", "group", "state", "why"], &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_coming_is_told_with_why_it_will_not_run() {
        let entry = |state: &str, why: Value, run: Value| {
            json!({ "schedule": "night", "at": 0, "local": "2027-03-01 02:30:00 +01:00", "group": "",
                    "state": state, "why": why, "run": run })
        };
        let answer = json!({
            "entries": [entry("planned", json!(null), json!(null)), entry("barred", json!("a holiday"), json!(null)),
                        entry("refused", json!("budget: full"), json!("r1"))],
            "freezes": [{ "from": 0, "to": 1000, "why": "the year ends" }],
            "problems": ["the calendar `x` cannot be read"], "more": true,
        });
        assert_eq!(
            human(&answer),
            "problem: the calendar `x` cannot be read; nothing runs before it is mended\n\
             change freeze from 1970-01-01 00:00:00 to 1970-01-01 00:00:01 UTC: the year ends\n\
             WHEN                        SCHEDULE  GROUP  STATE    WHY\n\
             2027-03-01 02:30:00 +01:00  night     -      planned  -\n\
             2027-03-01 02:30:00 +01:00  night     -      barred   a holiday\n\
             2027-03-01 02:30:00 +01:00  night     -      refused  run r1: budget: full\n\
             ... and more: ask for a shorter time, or for one schedule\n"
        );
        assert!(human(&json!({ "entries": [] })).contains("nothing is scheduled"));
    }
}
