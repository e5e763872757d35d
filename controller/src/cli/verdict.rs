//! `squall verdict`: the report of a run, made again from its events.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use squall_controller::report::{self, Paint};
use squall_experiments::exit::Exit;
use squall_experiments::muster::{FleetEvent, Head, Line, Muster, What};
use squall_experiments::ramp::{Ladder, Ramp, Rung, Step};
use squall_experiments::run::{Event, Record};
use squall_experiments::summary::Summary;

use super::events::{self, Log};
use super::host::refused;
use super::telling::Telling;
use super::{Common, Format, print};

/// Make the report of a run again from its events, and say whether it is the same.
///
/// Every figure is computed anew; nothing else is read, and nothing is touched. The exit code is that of the run; of one that was
/// cut off before its end it is never 0. Of a run over
/// several hosts (`squall show RUN --events`) it is the report of all.
#[derive(Debug, clap::Args)]
pub struct Verdict {
    /// The event file of a run; of a ramp the directory that holds those of its steps.
    file: PathBuf,
    /// Of a run over several hosts: the whole report of this one.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    #[command(flatten)]
    telling: Telling,
}

impl Verdict {
    /// The exit code of the run, or why the file says nothing.
    pub fn run(self, common: &Common) -> anyhow::Result<Exit> {
        if self.file.is_dir() {
            return match ladder(&self.file) {
                Ok((title, ladder)) => {
                    let events = Some(self.file.as_path());
                    print::result(&match common.format {
                        Format::Human => {
                            report::ladder(&title, &ladder, events, Paint::on(&std::io::stdout()))
                        }
                        Format::Json => report::ladder_json(&title, &ladder, events),
                    })?;
                    Ok(ladder.exit)
                }
                Err(error) => {
                    eprintln!("error: {error:#}");
                    Ok(Exit::Usage)
                }
            };
        }
        let log = match events::either(&self.file) {
            Ok(log) => log,
            Err(error) => {
                eprintln!("error: {error:#}");
                return Ok(Exit::Usage);
            }
        };
        match (log, &self.host) {
            (Log::Run(log), None) => self.of_one(&log, None, common),
            (Log::Run(_), Some(_)) => {
                eprintln!("error: `{}` is the log of a run on one host", self.file.display());
                eprintln!("help: leave `--host` out");
                Ok(Exit::Usage)
            }
            (Log::Fleet(log), None) => self.of_all(&log, common),
            (Log::Fleet(log), Some(host)) => {
                let own = of_host(&log, host);
                self.of_one(&own, Muster::of(&log).and_then(|muster| muster.audit), common)
            }
        }
    }

    /// The report of one host, with the end of the audit log of its controller.
    fn of_one(self, log: &[Record], audit: Option<Head>, common: &Common) -> anyhow::Result<Exit> {
        let Some(mut summary) = of_file(log) else {
            match &self.host {
                Some(host) => eprintln!("error: `{}` holds no run on `{host}`", self.file.display()),
                None => eprintln!("error: `{}` does not begin with the begin of a run", self.file.display()),
            }
            return Ok(Exit::Usage);
        };
        summary.audit = audit;
        let mut ready = match self.telling.ready_for(log) {
            Ok(ready) => ready,
            Err(mut refusal) => {
                // Of a run that is over nobody fears that.
                let bare =
                    |help: String| help.strip_prefix("nothing was injected; ").unwrap_or(&help).to_owned();
                refusal.help = refusal.help.map(bare);
                return Ok(refused(&refusal));
            }
        };
        log.iter().for_each(|record| ready.keep(record));
        let summary = ready.tell(summary, Some(&self.file));
        let text = match common.format {
            Format::Human => report::human(&summary, Some(&self.file), Paint::on(&std::io::stdout())),
            Format::Json => report::json(&summary, Some(&self.file), None),
        };
        print::result(&text)?;
        compare(said(log), summary.exit, &summary.sentence);
        Ok(summary.exit)
    }

    /// The report of all hosts.
    fn of_all(self, log: &[Line], common: &Common) -> anyhow::Result<Exit> {
        if self.telling.is_asked_for() {
            eprintln!("error: a page, and a comparison with an earlier run, are of one host");
            eprintln!("help: name it: `--host NAME`");
            return Ok(Exit::Usage);
        }
        let Some(muster) = of_fleet(log) else {
            eprintln!("error: `{}` does not begin with the begin of a run", self.file.display());
            return Ok(Exit::Usage);
        };
        let text = match common.format {
            Format::Human => report::fleet(&muster, Paint::on(&std::io::stdout())),
            Format::Json => report::fleet_json(&muster),
        };
        print::result(&text)?;
        compare(said_of_all(log), muster.exit, &muster.sentence);
        Ok(muster.exit)
    }
}

/// The ramp whose steps have their events in a directory, with its title. Names of runs sort by time, and so do their files.
fn ladder(directory: &Path) -> anyhow::Result<(String, Ladder)> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read `{}`", directory.display()))?;
    let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "ndjson")).collect();
    files.sort();
    let mut found: Option<(String, Ramp)> = None;
    let mut rungs = Vec::new();
    for file in &files {
        let log = events::either(file)?;
        let Some((title, step)) = step(&log) else { continue };
        match &found {
            None => found = Some((title, step.ramp)),
            Some((_, ramp)) => {
                let one = *ramp == step.ramp;
                anyhow::ensure!(one, "`{}` is a step of another ramp than those before", file.display());
            }
        }
        rungs.extend(match &log {
            Log::Run(log) => of_file(log).map(|summary| Rung::of(step.at, &summary)),
            Log::Fleet(log) => of_fleet(log).map(|muster| Rung::of_all(step.at, &muster)),
        });
    }
    let (title, ramp) =
        found.with_context(|| format!("`{}` holds no step of a ramp", directory.display()))?;
    Ok((title, Ladder::of(&ramp, rungs)))
}

/// Which step of a ramp a log is of, with the title of the experiment.
fn step(log: &Log) -> Option<(String, Step)> {
    let of = |record: &Record| match &record.event {
        Event::Started(started) => Some((started.title.clone(), started.origin.clone()?.step?)),
        _ => None,
    };
    match log {
        Log::Run(log) => log.first().and_then(of),
        Log::Fleet(log) => log.iter().find_map(|line| match &line.what {
            What::OnHost { record, .. } => of(record),
            What::Fleet { .. } => None,
        }),
    }
}

/// What the events in a file add up to. Nobody adds to them any more, so that a run without its end was cut off.
fn of_file(log: &[Record]) -> Option<Summary> {
    let summary = Summary::of(log)?;
    Some(if said(log).is_some() { summary } else { summary.cut_off() })
}

/// The same of a run over several hosts.
fn of_fleet(log: &[Line]) -> Option<Muster> {
    let muster = Muster::of(log)?;
    Some(if said_of_all(log).is_some() { muster } else { muster.cut_off() })
}

/// Says whether a run said itself what was found now.
fn compare(said: Option<(Exit, &str)>, exit: Exit, sentence: &str) {
    match said {
        Some(said) if said != (exit, sentence) => {
            eprintln!("note: the run itself said: {} (exit {})", said.1, said.0 as u8);
        }
        Some(_) => eprintln!("note: the run itself said the same"),
        None => eprintln!("note: the run was cut off before its last event"),
    }
}

/// The events of the run on one host.
fn of_host(log: &[Line], name: &str) -> Vec<Record> {
    let own = log.iter().filter_map(|line| match &line.what {
        What::OnHost { host, record } if host == name => Some(record.clone()),
        _ => None,
    });
    own.collect()
}

/// What the run of all hosts said at its end.
fn said_of_all(log: &[Line]) -> Option<(Exit, &str)> {
    match &log.last()?.what {
        What::Fleet { event: FleetEvent::Finished { exit, sentence, .. }, .. } => Some((*exit, sentence)),
        _ => None,
    }
}

/// What the run said at its end.
fn said(log: &[Record]) -> Option<(Exit, &str)> {
    match &log.last()?.event {
        Event::Finished { exit, sentence } => Some((*exit, sentence)),
        Event::Stuck { sentence, .. } => Some((Exit::Modified, sentence)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The events of a run that held, the last one its end.
    fn whole() -> Vec<Value> {
        let claim = json!({ "name": "a", "tolerate": "0%" });
        let sample = |phase: &str| {
            json!({
                "event": "sample", "name": "a", "phase": phase, "good": true, "begun_ms": 1, "took_us": 1, "seen": "200"
            })
        };
        let mut events = vec![
            json!({
                "event": "started", "run": "r", "title": "t", "date": "", "seed": 1, "plan": "p", "faults": 0,
                "version": "0", "agent": null, "guards": [], "hypotheses": [claim]
            }),
            sample("baseline"),
            json!({ "event": "baseline-met" }),
            sample("during"),
            json!({ "event": "method-ended" }),
            json!({ "event": "recovery-began" }),
            sample("recovery"),
            json!({ "event": "well-again", "after_ms": 1 }),
            json!({ "event": "finished", "exit": 0, "sentence": "held: all of it" }),
        ];
        (0..).zip(&mut events).for_each(|(at, event)| event["at_ms"] = json!(at * 100));
        events
    }

    fn read<T: serde::de::DeserializeOwned>(events: &[Value]) -> Vec<T> {
        events.iter().map(|event| serde_json::from_value(event.clone()).unwrap()).collect()
    }

    #[test]
    fn a_file_that_ends_before_its_run_did_is_not_said_to_hold() {
        let log: Vec<Record> = read(&whole());
        assert_eq!(of_file(&log).unwrap().exit, Exit::Held);
        for end in 1..log.len() {
            let summary = of_file(&log[..end]).unwrap();
            assert_eq!(summary.exit, Exit::Inconclusive, "{end}: {}", summary.sentence);
            let begins = "inconclusive: the run was cut off after ";
            assert!(summary.sentence.starts_with(begins), "{end}: {}", summary.sentence);
        }
    }

    #[test]
    fn neither_is_that_of_a_fleet() {
        let mut lines = vec![json!({
            "seq": 1, "at_ms": 0, "fleet": "began", "run": "r", "title": "t", "date": "", "seed": 1, "plan": "p",
            "version": "0", "on_partial": "revert", "hosts": ["web"]
        })];
        lines.extend((2..).zip(whole()).map(|(seq, mut event)| {
            (event["seq"], event["host"]) = (json!(seq), json!("web"));
            event
        }));
        let cut: Vec<Line> = read(&lines);
        let muster = of_fleet(&cut).unwrap();
        assert_eq!((muster.exit, muster.verdict.as_str()), (Exit::Inconclusive, "inconclusive"));
        assert!(muster.sentence.starts_with("inconclusive: the run was cut off"), "{}", muster.sentence);
        lines.push(json!({
            "seq": 99, "at_ms": 900, "fleet": "finished", "exit": 0, "sentence": "held: on its host"
        }));
        assert_eq!(of_fleet(&read::<Line>(&lines)).unwrap().exit, Exit::Held);
    }
}
