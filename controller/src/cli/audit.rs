//! `squall audit`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use axum::http::Method;
use clap::Subcommand;
use serde_json::{Value, json};
use squall_controller::store::NOTHING;
use squall_experiments::exit::Exit;
use squall_experiments::muster::{Head, Muster, Published};

use super::events::{self, Log};
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
    /// Compute every hash again, and say whether the end that a report has published is in the log.
    Verify {
        /// That end, as a report or `squall audit head` says it: the number of the entry and its hash. The hash alone does, too.
        #[arg(long, value_name = "SEQ:HASH", conflicts_with = "report")]
        head: Option<Published>,
        /// The report that has published it: the events of a run (`squall show RUN --events`), or the JSON report that `squall
        /// verdict` makes of them.
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
    },
    /// How long the log is, and the hash of its last entry.
    Head,
}

impl Audit {
    /// Runs the verb. A log that was altered, or that a published end is not in, is exit code 4.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let published = match &self.what {
            Some(What::Verify { report: Some(report), .. }) => match published(report) {
                Ok(head) => Some(head.into()),
                Err(error) => {
                    eprintln!("error: {error:#}");
                    return Ok(Exit::Usage);
                }
            },
            Some(What::Verify { head, .. }) => head.clone(),
            _ => None,
        };
        let path = match self.what.as_ref().unwrap_or(&What::List { from: 1, limit: 100 }) {
            What::List { from, limit } => format!("/v1/audit?from={from}&limit={limit}"),
            What::Verify { .. } => "/v1/audit/verify".to_owned(),
            What::Head => "/v1/audit/head".to_owned(),
        };
        let mut answer = match self.at.ask(Method::GET, &path, None)? {
            Ok(answer) => answer,
            Err(exit) => return Ok(exit),
        };
        if let Some(published) = &published {
            let entry = match self.entry(published)? {
                Ok(entry) => entry,
                Err(exit) => return Ok(exit),
            };
            let (seq, hash) = (published.seq.or(entry["seq"].as_u64()), &published.hash);
            // What somebody has altered bears the hash that it had: the chain must hold up to there, too.
            let whole =
                answer["broken"]["seq"].as_u64().is_none_or(|broken| seq.is_none_or(|seq| seq < broken));
            let in_chain = whole && entry["hash"] == *hash;
            answer["published"] =
                json!({ "seq": seq, "hash": hash, "in-chain": in_chain, "found": entry["hash"] });
        }
        match common.format {
            Format::Json => print::json(&answer)?,
            Format::Human => print::result(&human(&answer))?,
        }
        match answer["broken"].is_null() && answer["published"]["in-chain"] != false {
            true => Ok(Exit::Held),
            false => Ok(Exit::Refused),
        }
    }

    /// The entry of the log that a published end is of: that of its number, else that of its hash; null where there is none.
    fn entry(&self, published: &Published) -> anyhow::Result<Result<Value, Exit>> {
        if published.seq == Some(0) {
            return Ok(Ok(json!({ "seq": 0, "hash": NOTHING })));
        }
        let (mut from, limit) = published.seq.map_or((1, 1000), |seq| (seq, 1));
        loop {
            let page =
                match self.at.ask(Method::GET, &format!("/v1/audit?from={from}&limit={limit}"), None)? {
                    Ok(page) => page,
                    Err(exit) => return Ok(Err(exit)),
                };
            let entries = page["entries"].as_array().map_or(&[][..], Vec::as_slice);
            let meant = |entry: &&Value| match published.seq {
                Some(seq) => entry["seq"] == seq,
                None => entry["hash"] == published.hash,
            };
            let found = entries.iter().find(meant);
            if found.is_some() || entries.is_empty() || published.seq.is_some() {
                return Ok(Ok(found.cloned().unwrap_or_default()));
            }
            from = page["next"].as_u64().unwrap_or_default();
        }
    }
}

/// The end of the audit log that a report says.
fn published(report: &Path) -> anyhow::Result<Head> {
    let said = || format!("`{}` says no end of an audit log", report.display());
    let text = fs::read(report).with_context(|| format!("cannot read `{}`", report.display()))?;
    if let Ok(document) = serde_json::from_slice::<Value>(&text)
        && !document["audit"].is_null()
    {
        return serde_json::from_value(document["audit"].clone()).with_context(said);
    }
    let log = events::either(report).with_context(said)?;
    let Log::Fleet(log) = log else { anyhow::bail!("{}: it is of a run without a controller", said()) };
    let head = Muster::of(&log).and_then(|muster| muster.audit);
    head.with_context(|| format!("{}: the run was cut off, or its controller does not say it", said()))
}

/// What an entry says, in one line: what was done, and then everything else, such as the run and the reason. The digest of a
/// request is for programs.
fn told(what: &Value) -> String {
    let Some(members) = what.as_object() else { return what.to_string() };
    let said = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let did = members.get("did").map(said);
    let rest = members.iter().filter(|(name, _)| !matches!(name.as_str(), "did" | "body"));
    let rest = rest.map(|(name, value)| match value.as_array() {
        Some(several) => format!("{name} {}", several.iter().map(said).collect::<Vec<_>>().join("; ")),
        None => format!("{name} {}", said(value)),
    });
    did.into_iter().chain(rest).collect::<Vec<_>>().join(", ").replace('\n', " ")
}

fn human(answer: &Value) -> String {
    if let Some(entries) = answer["entries"].as_array() {
        let row = |entry: &Value| {
            vec![text(entry, "seq"), time(&entry["at"]), text(entry, "who"), told(&entry["what"])]
        };
        return table(&["number", "at", "who", "what"], &entries.iter().map(row).collect::<Vec<_>>());
    }
    let mut out = match &answer["broken"] {
        Value::Null => {
            let head = if answer["whole"].is_object() { &answer["whole"] } else { answer };
            let word = if answer["whole"].is_object() { "whole: " } else { "" };
            format!(
                "{word}{} entries, head {}:{}\n",
                text(head, "seq"),
                text(head, "seq"),
                text(head, "hash")
            )
        }
        broken => format!("BROKEN at entry {}: {}\n", text(broken, "seq"), text(broken, "why")),
    };
    let published = &answer["published"];
    if !published.is_null() {
        let seq = published["seq"].as_u64().map(|seq| format!("{seq}:")).unwrap_or_default();
        let said = format!("{seq}{}", text(published, "hash"));
        out.push_str(&match (published["in-chain"] == true, published["found"].as_str()) {
            (true, _) => format!("the published head {said} is in the log\n"),
            (false, None) => {
                format!("NOT IN THE LOG: no entry is the published head {said}: the log was written anew or cut off since\n")
            }
            (false, Some(found)) if published["hash"] == found => {
                format!("NOT CERTAIN: the published head {said} stands behind the break\n")
            }
            (false, Some(found)) => {
                format!("NOT IN THE LOG: the published head {said} has the hash {found} there: the log was written anew since\n")
            }
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_line_with_its_run_and_its_reasons() {
        let entry = |seq: u64, what: Value| json!({ "seq": seq, "at": 0, "who": "ada (1)", "what": what });
        let why = ["budget: full", "freezes: a change freeze goes on"];
        let entries = json!({ "entries": [
            entry(1, json!({ "did": "POST /v1/schedules/night/pause", "body": "ffc9" })),
            entry(2, json!({ "paused": "night", "because": "we\nmove" })),
            entry(3, json!({ "because": why, "did": "was refused a run", "run": "r1" })),
            entry(4, json!({ "lifted": null, "because": "all is well" })),
        ] });
        let lines: Vec<String> = human(&entries).lines().map(|line| line.to_owned()).collect();
        let what: Vec<&str> =
            lines.iter().filter_map(|line| line.split_once("ada (1)  ")).map(|(_, what)| what).collect();
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert_eq!(what[0], "POST /v1/schedules/night/pause");
        for word in ["paused night", "because we move"] {
            assert!(what[1].contains(word), "{what:?}");
        }
        assert!(what[2].starts_with("was refused a run, "), "{what:?}");
        for word in ["run r1", "because budget: full; freezes: a change freeze goes on"] {
            assert!(what[2].contains(word), "{what:?}");
        }
        assert!(what[3].contains("lifted null"), "{what:?}");
    }
}
