//! `squall hosts`.

use std::collections::BTreeMap;

use axum::http::Method;
use clap::Subcommand;
use serde_json::{Value, json};
use squall_experiments::exit::Exit;

use super::remote::{self, At, table, text, time};
use super::{Common, Format, print};

/// Options of `squall hosts`.
#[derive(Debug, clap::Args)]
pub struct Hosts {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All hosts, which is also what `squall hosts` alone shows.
    List,
    /// One host, with what works there and what it holds.
    Show {
        /// Its name.
        name: String,
    },
    /// Set all labels of a host.
    Label {
        /// Its name.
        name: String,
        /// The labels; without any, all are taken away.
        #[arg(value_name = "NAME=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// Cut a host off at once, and refuse its certificates.
    Revoke {
        /// Its name.
        name: String,
    },
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("write it as `name=value`".to_owned()),
    }
}

impl Hosts {
    /// Runs the verb.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let one = |name: &str| format!("/v1/hosts/{}", remote::part(name));
        let asked = match self.what.as_ref().unwrap_or(&What::List) {
            What::List => self.at.all("/v1/hosts", "hosts")?,
            What::Show { name } => self.at.ask(Method::GET, &one(name), None)?,
            What::Label { name, labels } => {
                let labels: BTreeMap<&String, &String> =
                    labels.iter().map(|(name, value)| (name, value)).collect();
                self.at.ask(Method::PUT, &format!("{}/labels", one(name)), Some(&json!(labels)))?
            }
            What::Revoke { name } => self.at.ask(Method::POST, &format!("{}/revoke", one(name)), None)?,
        };
        let answer = match asked {
            Ok(answer) => answer,
            Err(exit) => return Ok(exit),
        };
        match (common.format, &self.what) {
            (Format::Json, _) | (_, Some(What::Show { .. })) => print::json(&answer)?,
            (_, Some(What::Revoke { name })) => print::result(&format!("`{name}` is revoked and cut off\n"))?,
            _ => print::result(&human(&answer))?,
        }
        Ok(Exit::Held)
    }
}

fn human(answer: &Value) -> String {
    let one = std::slice::from_ref(answer);
    let hosts = answer["hosts"].as_array().map_or(one, Vec::as_slice);
    if hosts.is_empty() {
        return "no host has joined; `squall tokens join` makes a token for one\n".to_owned();
    }
    let row = |host: &Value| {
        let state = match (host["revoked_at"].is_null(), host["connected"] == true) {
            (false, _) => "revoked",
            (true, true) => "connected",
            (true, false) => "away",
        };
        let labels = host["labels"].as_object().into_iter().flatten();
        let labels: Vec<String> =
            labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
        let holds: Vec<&str> =
            host["holds"].as_array().into_iter().flatten().filter_map(|run| run["run"].as_str()).collect();
        vec![
            text(host, "name"),
            state.to_owned(),
            text(host, "zone"),
            text(host, "cell"),
            text(host, "kernel"),
            time(&host["last_contact"]),
            if holds.is_empty() { "-".to_owned() } else { holds.join(" ") },
            if labels.is_empty() { "-".to_owned() } else { labels.join(" ") },
        ]
    };
    let rows: Vec<Vec<String>> = hosts.iter().map(row).collect();
    table(&["name", "state", "zone", "cell", "kernel", "last contact", "holds", "labels"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lines_with_what_they_hold() {
        let answer = json!({ "hosts": [
            { "name": "web", "labels": { "role": "checkout" }, "zone": "a", "cell": null, "revoked_at": null,
              "connected": true, "last_contact": 0, "kernel": "6.1.0", "holds": [{ "run": "r1" }] },
            { "name": "db", "labels": {}, "zone": null, "cell": null, "revoked_at": 5, "connected": false,
              "last_contact": null, "kernel": null, "holds": [] },
        ] });
        assert_eq!(
            human(&answer),
            "NAME  STATE      ZONE  CELL  KERNEL  LAST CONTACT         HOLDS  LABELS\n\
             web   connected  a     -     6.1.0   1970-01-01 00:00:00  r1     role=checkout\n\
             db    revoked    -     -     -       -                    -      -\n"
        );
        assert!(human(&json!({ "hosts": [] })).contains("squall tokens join"));
    }
}
