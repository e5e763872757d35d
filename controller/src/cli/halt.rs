//! `squall halt`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use axum::http::Method;
use serde_json::{Value, json};
use squall_agent::join;
use squall_controller::client::Client;
use squall_experiments::exit::Exit;
use squall_experiments::protocol::{Lifted, Refusal};

use super::host::{recover, refused};
use super::hosts::label;
use super::remote::{self, Shown};
use super::{Common, Format, print};

/// Options of `squall halt`.
#[derive(Debug, clap::Args)]
pub struct Halt {
    /// Not on this host, but on those of the controller at this address; on all of them, and new runs are blocked, unless
    /// `--run`, `--host` or `--on` say less.
    #[arg(long, value_name = "URL")]
    controller: Option<String>,
    #[command(flatten)]
    shown: Shown,
    /// Why: it stands in the audit log, and is what others are told.
    #[arg(
        long,
        value_name = "TEXT",
        requires = "controller",
        default_value = "halted from the command line"
    )]
    reason: String,
    /// Only this run.
    #[arg(long, value_name = "RUN", requires = "controller")]
    run: Option<String>,
    /// Only this host; may be repeated.
    #[arg(long = "host", value_name = "NAME", requires = "controller", conflicts_with = "run")]
    hosts: Vec<String>,
    /// Only the hosts that carry this label, as `squall hosts` shows it; may be repeated: those that carry all of them. New runs
    /// on them are not blocked.
    #[arg(
        long = "on",
        value_name = "NAME=VALUE",
        value_parser = label,
        requires = "controller",
        conflicts_with_all = ["run", "hosts"]
    )]
    on: Vec<(String, String)>,
    /// Undo nothing; let new runs begin again.
    #[arg(long, requires = "controller", conflicts_with_all = ["run", "hosts", "on"])]
    lift: bool,
}

impl Halt {
    /// Runs the verb: undoes everything of every run in this network namespace. Nothing to undo is success; what
    /// could not be undone is exit code 7.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        if let Some(url) = &self.controller {
            return self.elsewhere(url, common);
        }
        if let Err(exit) = recover(common) {
            return Ok(exit);
        }
        let lifted = match ask(common) {
            Ok(lifted) => lifted.unwrap_or_default(),
            Err(refusal) => return Ok(refused(&refusal)),
        };
        let text = match common.format {
            Format::Human => human(&lifted),
            Format::Json => serde_json::to_string_pretty(&lifted)? + "\n",
        };
        // A reader that went away early is no failure.
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(if lifted.stuck.is_empty() { Exit::Held } else { Exit::Modified })
    }
}

impl Halt {
    /// Asks a controller. A host that still holds something is exit code 7; one that did not answer reverts by its lease,
    /// and is exit code 4.
    fn elsewhere(&self, url: &str, common: &Common) -> anyhow::Result<Exit> {
        let mut wanted = json!({ "reason": self.reason });
        let path = match &self.run {
            _ if self.lift => "/v1/halt/lift".to_owned(),
            Some(run) => format!("/v1/runs/{}/halt", remote::part(run)),
            None => {
                if !self.hosts.is_empty() {
                    wanted["hosts"] = json!(self.hosts);
                }
                if !self.on.is_empty() {
                    let labels: BTreeMap<_, _> = self.on.iter().cloned().collect();
                    if labels.len() < self.on.len() {
                        eprintln!(
                            "error: `--on` names a label twice; help: no host carries two values of one label"
                        );
                        return Ok(Exit::Usage);
                    }
                    wanted["on"] = json!({ "labels": labels });
                }
                "/v1/halt".to_owned()
            }
        };
        let answer = match remote::ask(&self.shown.remote(url)?, Method::POST, &path, Some(&wanted))? {
            Ok(answer) => answer,
            Err(exit) => return Ok(exit),
        };
        match (common.format, self.lift, &self.run) {
            (Format::Json, ..) => print::json(&answer)?,
            (_, true, _) => print::result("new runs may begin\n")?,
            (_, _, Some(run)) => print::result(&format!("`{run}` ends; `squall watch {run}` shows how\n"))?,
            _ => print::result(&fleet(&answer, self.hosts.is_empty() && self.on.is_empty()))?,
        }
        let hosts = || answer["hosts"].as_object().into_iter().flatten();
        Ok(match () {
            () if hosts().any(|(_, did)| did["stuck"].as_array().is_some_and(|stuck| !stuck.is_empty())) => {
                Exit::Modified
            }
            () if hosts().any(|(_, did)| did["refused"].is_string()) => Exit::Refused,
            () => Exit::Held,
        })
    }
}

/// What a halt did on each host; one of all hosts blocks new runs too.
fn fleet(answer: &Value, all: bool) -> String {
    let mut text = String::new();
    for (name, did) in answer["hosts"].as_object().into_iter().flatten() {
        for (word, lines) in [("undone", &did["undone"]), ("STILL THERE", &did["stuck"])] {
            let lines = lines.as_array().into_iter().flatten().filter_map(Value::as_str);
            lines.for_each(|line| text.push_str(&format!("{name}: {word}: {line}\n")));
        }
        if let Some(why) = did["refused"].as_str() {
            text.push_str(&format!("{name}: not reached, reverts by its lease: {why}\n"));
        }
    }
    match answer["blocked"] == true {
        true => text.push_str("new runs are blocked until `squall halt --lift`\n"),
        false if all => text
            .push_str("new runs are NOT blocked: that was lifted meanwhile, or could not be kept so far\n"),
        false => {}
    }
    remote::plain(&text)
}

/// What was undone; `None` without an agent.
fn ask(common: &Common) -> Result<Option<Lifted>, Refusal> {
    let Some(stream) = join::resident(common.state_dir.as_deref())? else {
        return Ok(None);
    };
    Client::greet(stream)?.halt().map(Some)
}

fn human(lifted: &Lifted) -> String {
    if lifted.undone.is_empty() && lifted.stuck.is_empty() {
        return "nothing was active on this host\n".to_owned();
    }
    let mut text = String::new();
    for (word, lines) in
        [("undone", &lifted.undone), ("STILL THERE", &lifted.stuck), ("changed by others", &lifted.others)]
    {
        lines.iter().for_each(|line| text.push_str(&format!("{word}: {line}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_halt_of_hosts_says_which_were_not_reached() {
        let answer = json!({ "blocked": true, "hosts": {
            "db": { "undone": [], "stuck": [], "refused": "it is away" },
            "web": { "undone": ["the rule is gone"], "stuck": ["nginx is stopped"], "refused": null },
        } });
        assert_eq!(
            fleet(&answer, true),
            "db: not reached, reverts by its lease: it is away\nweb: undone: the rule is gone\n\
             web: STILL THERE: nginx is stopped\nnew runs are blocked until `squall halt --lift`\n"
        );
    }

    #[test]
    fn a_halt_says_what_was_undone_and_what_was_not() {
        assert_eq!(human(&Lifted::default()), "nothing was active on this host\n");
        let lifted = Lifted {
            undone: vec!["r: the rule is gone".to_owned()],
            stuck: vec!["r: nginx (pid 312) is still stopped".to_owned()],
            ..Lifted::default()
        };
        assert_eq!(
            human(&lifted),
            "undone: r: the rule is gone\nSTILL THERE: r: nginx (pid 312) is still stopped\n"
        );
    }
}
