//! One run in a test: a directory that probes look at, an agent, and what came out.

use std::fs::{self, File};
use std::future::ready;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use squall_experiments::experiment::Experiment;
use squall_experiments::plan::Plan;
use squall_experiments::protocol::Refusal;
use squall_experiments::run::{Event, Record, State, fold};
use squall_experiments::summary::Summary;
use tokio::sync::mpsc;

use crate::stream::Stream;

use super::super::{Answer, Host, Order, Outlet, Probing, Tell, conduct, run_id};
use super::agent::{Manners, Seen, serve};

/// What the host of a lost agent says.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Afterwards {
    /// Nobody is there, and nothing is left.
    #[default]
    Clean,
    /// Another connection to the same agent works.
    Resident,
    /// Nobody can say.
    Unknown,
}

/// Whether an event is the one.
pub(super) type When = fn(&Event) -> bool;

pub(super) struct World {
    directory: PathBuf,
    pub(super) manners: Manners,
    pub(super) seen: Seen,
    pub(super) afterwards: Afterwards,
    /// Interrupt before the run begins.
    pub(super) early: bool,
    /// Interrupt when an event makes this true.
    pub(super) interrupt: Option<When>,
    /// Change a file when an event makes this true.
    pub(super) change: Option<(When, &'static str, &'static str)>,
}

pub(super) struct Outcome {
    pub(super) summary: Summary,
    pub(super) log: Vec<Event>,
    pub(super) text: String,
    pub(super) notes: Vec<String>,
    pub(super) took: Duration,
}

struct TestHost<'w> {
    world: &'w World,
}

impl Host for TestHost<'_> {
    fn prober(&self, _user: Option<&str>) -> Answer<Probing> {
        let mut command = Command::new("bash");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/conductor/tests/prober.sh");
        command.arg(script).arg(&self.world.directory);
        Box::pin(ready(Ok(Probing::Here(command))))
    }

    fn resident(&mut self) -> Answer<Option<Stream>> {
        Box::pin(ready(match self.world.afterwards {
            Afterwards::Clean => Ok(None),
            Afterwards::Resident => Ok(Some(serve(Manners::default(), self.world.seen.clone()).into())),
            Afterwards::Unknown => Err(Refusal::bare("the socket is gone")),
        }))
    }

    fn recover(&mut self) -> Result<Vec<String>, Refusal> {
        Ok(vec!["the journal was replayed".to_owned()])
    }
}

impl World {
    pub(super) fn new() -> World {
        let directory = std::env::temp_dir().join(format!("squall-conductor-{}", run_id()));
        fs::create_dir(&directory).unwrap();
        let world = World {
            manners: Manners { impaired: 9, ..Manners::default() },
            directory,
            seen: Seen::default(),
            afterwards: Afterwards::default(),
            early: false,
            interrupt: None,
            change: None,
        };
        for name in ["h", "g", "act", "undo", "act2", "undo2"] {
            world.set(name, "good");
        }
        world
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn set(&self, name: &str, what: &str) {
        fs::write(self.path(name), what).unwrap();
    }

    /// What was sampled so far, in order.
    pub(super) fn samples(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("samples")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Runs a document whose hypothesis is `h`, unless it says otherwise.
    pub(super) fn run(&self, document: serde_json::Value) -> Outcome {
        let mut whole = json!({
            "squall": 1,
            "title": "test",
            "hypothesis": [claim("h")],
            "recovery": "2s",
        });
        for (key, value) in document.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let experiment: Experiment = serde_json::from_value(whole).unwrap();
        let plan = Plan::of(&experiment, 7, &["here".to_owned()], "none");
        let events = self.path("events");
        let (interrupt, interruptions) = mpsc::unbounded_channel();
        if self.early {
            interrupt.send("SIGTERM".to_owned()).unwrap();
        }
        let mut notes = Vec::new();
        let agent = plan.has_changes().then(|| Ok(serve(self.manners.clone(), self.seen.clone()).into()));
        let order = Order {
            origin: None,
            run: run_id(),
            experiment: &experiment,
            plan: &plan,
            version: "test".to_owned(),
            lease: Duration::from_millis(400),
            since_ns: None,
            mandate: Arc::default(),
            agent,
        };
        let outlet = Outlet {
            file: Some(File::create(&events).unwrap()),
            sights: None,
            redact: Some(Box::new(|text| text.replace("hunter2", "‹secret›"))),
            watcher: Box::new(|tell| match tell {
                Tell::Note(note) => notes.push(note.to_owned()),
                Tell::Event(record, _) => {
                    if let Some((when, name, what)) = self.change
                        && when(&record.event)
                    {
                        self.set(name, what);
                    }
                    if self.interrupt.is_some_and(|when| when(&record.event)) {
                        interrupt.send("SIGINT".to_owned()).unwrap();
                    }
                }
            }),
        };
        let began = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let summary = runtime.block_on(conduct(order, &mut TestHost { world: self }, interruptions, outlet));
        let took = began.elapsed();
        drop(runtime);
        let text = fs::read_to_string(&events).unwrap();
        Outcome { log: events_of(&events), summary, text, notes, took }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Outcome {
    pub(super) fn has(&self, wanted: When) -> bool {
        self.log.iter().any(wanted)
    }

    /// The milliseconds from the first event of one kind to the first of another.
    pub(super) fn between(&self, from: &str, to: &str) -> u64 {
        let at = |kind: &str| {
            let line =
                self.text.lines().find(|line| line.contains(&format!("\"event\":\"{kind}\""))).unwrap();
            serde_json::from_str::<serde_json::Value>(line).unwrap()["at_ms"].as_u64().unwrap()
        };
        at(to) - at(from)
    }
}

/// The events of a file, which must fold to the end of a run.
fn events_of(path: &Path) -> Vec<Event> {
    let text = fs::read_to_string(path).unwrap();
    let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(records.is_sorted_by_key(|record| record.at_ms));
    let events: Vec<Event> = records.into_iter().map(|record| record.event).collect();
    let state = fold(&events).unwrap();
    assert!(matches!(state, State::Finished { .. } | State::Stuck { .. }), "{state:?}");
    events
}

/// How often a claim is sampled, in milliseconds.
pub(super) const EVERY: u64 = 40;

/// A hypothesis or guard that looks at a file.
pub(super) fn claim(name: &str) -> serde_json::Value {
    json!({ "name": name, "process": { "argv": [name], "timeout": "1s" }, "every": format!("{EVERY}ms") })
}

pub(super) fn fault(lasts: &str) -> serde_json::Value {
    json!({ "name": "payments is silent", "fault": { "partition": { "to": ["127.0.0.1:7003"] } }, "for": lasts })
}

pub(super) fn action(name: &str) -> serde_json::Value {
    json!({ "process": { "argv": [name], "timeout": "1s" } })
}
