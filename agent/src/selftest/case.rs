//! One fault, one death, and what is seen of them.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use squall_experiments::faults::Fault;
use squall_experiments::protocol::{Refusal, Reply, Request, RunId};
use squall_experiments::scope::{ProcessSelector, Scope};

use super::Trial;
use super::pair::{Pair, Victim};
use super::traffic::{Sufferer, Traffic};
use crate::fingerprint::Fingerprint;
use crate::recover;

/// What survivors or the kernel have not cleaned up by then, they will not.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a fault gets to show an effect.
const EFFECT: Duration = Duration::from_secs(3);
/// How long the kernel gets to let go of what it owns before the journal is replayed.
const KERNEL: Duration = Duration::from_millis(200);
/// Faults that only act again and again: dead agents do not, and that is all.
const IRREVERSIBLE: [&str; 2] = ["disconnect", "kill"];
/// The fault lasts longer than any case, in milliseconds.
const LASTS: u64 = 60_000;

/// One line of the table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    /// Which fault.
    pub fault: String,
    /// Who was killed: `worker`, `guardian`, `both`.
    pub killed: String,
    /// How many packets, sockets or processes it had acted on before.
    pub impaired: u64,
    /// Who cleaned up: `guardian`, `worker`, `kernel`; `kernel, then journal` where something without effect stayed until
    /// the next command replayed the journal, here after a fifth of a second.
    pub layer: String,
    /// From the death until nothing was left, in milliseconds.
    pub clean_ms: f64,
    /// What was left in the end.
    pub residue: Vec<String>,
}

impl Row {
    /// Above the rows.
    pub const HEADER: &'static str =
        "fault               killed      acted on  cleaned up by           after      residue";
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let acted = if self.impaired == 0 { "NOTHING".to_owned() } else { self.impaired.to_string() };
        let after = format!("{:.1} ms", self.clean_ms);
        let residue = if self.residue.is_empty() { "none".to_owned() } else { self.residue.join("; ") };
        let (fault, killed, layer) = (&self.fault, &self.killed, &self.layer);
        write!(f, "{fault:<20}{killed:<12}{acted:<10}{layer:<24}{after:<11}{residue}")
    }
}

/// Where all cases are played.
#[derive(Debug)]
pub struct Stage {
    /// What faults act on.
    pub traffic: Traffic,
    state: PathBuf,
}

impl Stage {
    /// Sets it, with journals in a directory.
    pub fn set(state: PathBuf) -> Result<Self, Refusal> {
        Ok(Stage { traffic: Traffic::start()?, state })
    }

    /// Plays one case.
    pub fn play(&self, shown: &str, trial: &Trial, victim: Victim) -> Result<Row, Refusal> {
        let sufferer = Sufferer::start()?;
        let before = Fingerprint::of_network();
        let mut pair = Pair::start(&self.state)?;
        let run = RunId(format!("self-test-{}-{victim}", trial.name));
        self.inject(trial, &sufferer, &mut pair, &run)?;
        let impaired = self.effect(&mut pair, &run, trial)?;
        let struck = pair.kill(victim)?;
        let residue = || {
            let differences = before.differences(&Fingerprint::of_network());
            let halted = matches!(sufferer.target.state(), Some('T' | 't'));
            let mut left: Vec<String> = differences.iter().map(ToString::to_string).collect();
            left.extend(halted.then(|| format!("{} does not run", sufferer.target)));
            left
        };
        // When both are dead, only what needs an undo is left for the journal: the kernel has let go of the rest by then.
        let mut clean = until(struck, if victim == Victim::Both { KERNEL } else { PATIENCE }, &residue);
        let ended = pair.ended(PATIENCE);
        drop(pair);
        let recovered = recover::at_start(Some(&self.state));
        let by_journal = recovered.as_ref().is_ok_and(|outcome| !outcome.undone.is_empty());
        let needed = clean.is_none();
        if needed {
            clean = until(struck, PATIENCE, &residue);
        }
        let mut left = residue();
        left.extend((!ended).then(|| "the agent lives on".to_owned()));
        left.extend(recovered.err().map(|error| error.to_string()));
        let layer = match victim {
            _ if IRREVERSIBLE.contains(&trial.name) => "(nothing to undo)",
            Victim::Worker if by_journal => "journal",
            Victim::Worker => "guardian",
            Victim::Guardian if by_journal => "journal",
            Victim::Guardian => "worker",
            Victim::Both if needed => "kernel, then journal",
            Victim::Both => "kernel",
        };
        Ok(Row {
            fault: shown.to_owned(),
            killed: victim.to_string(),
            impaired,
            layer: layer.to_owned(),
            clean_ms: clean.unwrap_or(PATIENCE).as_secs_f64() * 1000.0,
            residue: left,
        })
    }

    fn inject(
        &self,
        trial: &Trial,
        sufferer: &Sufferer,
        pair: &mut Pair,
        run: &RunId,
    ) -> Result<(), Refusal> {
        let mut named = serde_json::Map::new();
        named.insert(trial.name.to_owned(), trial.parameters.clone());
        let fault: Fault = serde_json::from_value(Value::Object(named))
            .map_err(|error| Refusal::bare(format!("the self-test does not know its fault: {error}")))?;
        let pid = u32::try_from(sufferer.target.pid).unwrap_or(0);
        let scope = Scope::Process(ProcessSelector { pid: Some(pid), ..ProcessSelector::default() });
        let changes = fault.changes(trial.of_process.then_some(&scope));
        pair.ask(Request::Begin {
            run: run.clone(),
            title: "self-test".to_owned(),
            plan: "none".to_owned(),
            seed: 1,
            lease_ms: LASTS,
            deadline_ms: LASTS,
            guards: Vec::new(),
            mandate: Box::default(),
        })?;
        pair.ask(Request::Apply { run: run.clone(), part: 1, changes, lasts_ms: LASTS, at_ns: None })
            .map(drop)
    }

    /// Makes traffic until the fault has acted on some of it; gives how much.
    fn effect(&self, pair: &mut Pair, run: &RunId, trial: &Trial) -> Result<u64, Refusal> {
        let began = Instant::now();
        loop {
            // The server's own connection, and the process that suffers, are there by themselves.
            if trial.of_process || trial.name == "disconnect" {
                std::thread::sleep(Duration::from_millis(60));
            } else {
                self.traffic.send();
            }
            let measured = pair.ask(Request::Observe { run: run.clone(), part: 1 })?;
            let impaired = match measured {
                Reply::Measured(evidence) => evidence.iter().map(|one| one.impaired).sum(),
                _ => 0,
            };
            if impaired > 0 || began.elapsed() > EFFECT {
                return Ok(impaired);
            }
        }
    }
}

/// How long it took until nothing was left; `None` where something still was after so long.
fn until(since: Instant, within: Duration, residue: &impl Fn() -> Vec<String>) -> Option<Duration> {
    loop {
        let looked = since.elapsed();
        if residue().is_empty() {
            return Some(looked);
        }
        if since.elapsed() > within {
            return None;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}
