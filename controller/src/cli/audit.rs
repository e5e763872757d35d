//! `squall audit`.

use axum::http::Method;
use clap::Subcommand;
use serde_json::Value;
use squall_experiments::exit::Exit;

use super::remote::{At, table, text, time};
use super::{Common, Format, print};

/// Options of `squall audit`.
#[derive(Debug, clap::Args)]
pub struct Audit {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The log, oldest first, which is also what `squall audit` alone shows.
    List {
        /// The number of the first entry.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Compute every hash again, and compare the end with one that was published.
    Verify {
        /// The hash that an entry of the log must have, as a report or an earlier `squall audit head` said it.
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
    /// How long the log is, and the hash of its last entry.
    Head,
}

impl Audit {
    /// Runs the verb. A log that was altered is exit code 4.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let path = match self.what.as_ref().unwrap_or(&What::List { from: 1, limit: 100 }) {
            What::List { from, limit } => format!("/v1/audit?from={from}&limit={limit}"),
            What::Verify { .. } => "/v1/audit/verify".to_owned(),
            What::Head => "/v1/audit/head".to_owned(),
        };
        let answer = match self.at.ask(Method::GET, &path, None)? {
            Ok(answer) => answer,
            Err(exit) => return Ok(exit),
        };
        if common.format == Format::Json {
            print::json(&answer)?;
        } else {
            print::result(&human(&answer))?;
        }
        if !answer["broken"].is_null() {
            return Ok(Exit::Refused);
        }
        match &self.what {
            Some(What::Verify { head: Some(head) }) => self.holds(head),
            _ => Ok(Exit::Held),
        }
    }

    /// Whether some entry has a hash: then the log up to it is what it was when that was published.
    fn holds(&self, head: &str) -> anyhow::Result<Exit> {
        let mut from = 1;
        loop {
            let path = format!("/v1/audit?from={from}&limit=1000");
            let page = match self.at.ask(Method::GET, &path, None)? {
                Ok(page) => page,
                Err(exit) => return Ok(exit),
            };
            let entries = page["entries"].as_array().map_or(&[][..], Vec::as_slice);
            if entries.iter().any(|entry| entry["hash"] == head) {
                eprintln!("the published hash is in the log");
                return Ok(Exit::Held);
            }
            if entries.is_empty() {
                eprintln!("error: no entry has the hash `{head}`: the log was written anew or cut off since");
                return Ok(Exit::Refused);
            }
            from = page["next"].as_u64().unwrap_or_default();
        }
    }
}

fn human(answer: &Value) -> String {
    if let Some(entries) = answer["entries"].as_array() {
        let row = |entry: &Value| {
            let what = entry["what"]["did"].as_str().map_or_else(|| entry["what"].to_string(), str::to_owned);
            vec![text(entry, "seq"), time(&entry["at"]), text(entry, "who"), what]
        };
        return table(&["number", "at", "who", "what"], &entries.iter().map(row).collect::<Vec<_>>());
    }
    if answer["broken"].is_object() {
        let broken = &answer["broken"];
        return format!("BROKEN at entry {}: {}\n", text(broken, "seq"), text(broken, "why"));
    }
    let head = if answer["whole"].is_object() { &answer["whole"] } else { answer };
    let word = if answer["whole"].is_object() { "whole: " } else { "" };
    format!("{word}{} entries, head {}\n", text(head, "seq"), text(head, "hash"))
}
