//! Two controllers on one database, and schedules that both of them know: each entry has one run, whoever of them dies.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use squall_controller::conductor::date_of;
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, holds, until};

use crate::twins::Twins;

const DOCUMENT: &str = "squall: 1
title: A page of a host
on: { labels: { role: web }, pick: 1 }
hypothesis:
  - name: the page is there
    http: { url: \"http://127.0.0.1:8080/\", timeout: 2s }
    every: 100ms
method:
  - wait: 1s
";

impl Twins {
    /// Adds schedules with an entry each, one a second; their names and the time of the first. None where the machine was too slow
    /// for the time of one of them.
    fn adds(&self, name: &str, later: u64) -> Option<(Vec<String>, u64)> {
        let first = now() / 1000 + later;
        let experiment = self.world.file("once.yaml", DOCUMENT);
        let mut names = Vec::new();
        for (number, at) in (first..first + 4).enumerate() {
            let name = format!("{name}-{later}-{number}");
            let moment = date_of(at * 1000)[..19].replace('T', " ");
            let text = format!("schedule: 1\nname: {name}\nwhen: {{ at: \"{moment}\" }}\n");
            let file = self.world.file(&format!("{name}.yaml"), text);
            let added = self.asks(1, &["schedule", "add", &file, "--experiment", &experiment]).run();
            if added.stderr.contains("is over") {
                return None;
            }
            added.expect_exit(0);
            names.push(name);
        }
        Some((names, first * 1000))
    }

    /// What became of the one entry of a schedule; none as long as that is not known.
    fn became(&self, schedule: &str, since: u64) -> Option<Value> {
        let since = date_of(since);
        let asked = ["calendar", "--from", &since, "--schedule", schedule, "--json"];
        let calendar = self.asks(1, &asked).run().expect_exit(0).json();
        let [entry] = &calendar["entries"].as_array().expect("entries")[..] else {
            panic!("{schedule}: {calendar}")
        };
        (!["planned", "claimed"].iter().any(|state| entry["state"] == *state)).then(|| entry.clone())
    }

    /// The runs that a schedule has begun.
    fn runs(&self, schedule: &str) -> Vec<Value> {
        let runs = self.asks(1, &["runs", "--format", "json"]).run().expect_exit(0).json();
        let runs = runs["runs"].as_array().expect("runs").clone();
        runs.into_iter().filter(|run| run["by"] == format!("schedule:{schedule}")).collect()
    }

    /// Each entry has begun one run, which its host has seen the end of.
    fn each_has_one_run(&self, schedules: &[String], since: u64) {
        for schedule in schedules {
            let entry = until("an entry to be decided", PATIENCE * 3, || self.became(schedule, since));
            assert_eq!(entry["state"], "fired", "{entry}");
            let run = until("its run to end", PATIENCE * 3, || {
                let runs = self.runs(schedule);
                assert_eq!(runs.len(), 1, "{schedule}: {runs:#?}");
                (runs[0]["state"] != "submitted" && runs[0]["state"] != "running").then(|| runs[0].clone())
            });
            assert_eq!(run["id"], entry["run"]);
            assert_ne!(run["state"], "refused", "{run}");
        }
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(now.as_millis()).expect("it is before the year 9999")
}

#[test]
fn of_two_controllers_one_begins_each_entry_and_the_other_goes_on_alone() {
    needs!(Root, Nftables, Nginx, Postgres);
    let mut twins = Twins::new();
    let since = now();
    let mut later = 0;
    let (both, _) = until("schedules that are added in time", PATIENCE * 6, || {
        later += 5;
        twins.adds("both", later)
    });
    twins.each_has_one_run(&both, since);

    // One of them dies before the time of entries that it knew of. Where the machine was too slow for that it comes back, and it
    // is tried again.
    let mut later = 5;
    let alone = until("a death between two entries", PATIENCE * 12, || {
        later += 5;
        if twins.controllers[0].is_none() {
            twins.serves(0);
        }
        let (alone, first) = twins.adds("alone", later)?;
        twins.dies(0);
        (now() < first).then_some(alone)
    });
    twins.each_has_one_run(&alone, since);
    // What it began before still has one run.
    twins.each_has_one_run(&both, since);

    // It dies whenever it will while entries are being begun: none has two runs, whoever takes over what.
    twins.serves(0);
    let mut later = 0;
    let (torn, first) = until("schedules that are added in time", PATIENCE * 6, || {
        later += 5;
        twins.adds("torn", later)
    });
    holds("the first of them to be due", PATIENCE * 3, || now() >= first + 1000);
    twins.dies(0);
    for schedule in &torn {
        let entry = until("an entry that is over", PATIENCE * 3, || {
            let entry = twins.became(schedule, since);
            // What it had claimed and not begun stays so: nobody begins it a second time.
            entry.or_else(|| (now() > first + 30_000).then_some(Value::Null))
        });
        let runs = twins.runs(schedule);
        let least = usize::from(entry["state"] == "fired");
        assert!((least..=1).contains(&runs.len()), "{entry}: {runs:#?}");
    }
    twins.asks(1, &["audit", "verify"]).run().expect_exit(0);

    twins.end();
}
