//! `squall-agent self-test`: faults are injected on this very host, in namespaces of the test's own, and the agent is
//! killed in the middle of each. A table says which layer cleaned up, how long that took, and what was left.
//!
//! Nothing of the host is touched: the process leaves its network and mount namespaces first (and its user namespace,
//! where it is not root). They have no names, so that they are gone with the last process inside, however it ends: the
//! agents of the test end with their connection to it, and what it lets suffer ends with its standard input.
//!
//! | file | what it holds |
//! |---|---|
//! | `confine` | the namespaces |
//! | `case` | one fault, one death, and what is seen of them |
//! | `pair` | an agent's two processes, spoken to and killed |
//! | `traffic` | what the faults act on |

mod case;
mod confine;
mod pair;
mod traffic;

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use squall_experiments::exit::Exit;
use squall_experiments::protocol::Refusal;

use crate::cli::Format;
use crate::policy::Policy;
use crate::preflight;
use crate::say;
use case::{Row, Stage};
use pair::Victim;
pub use traffic::{Role, be};

/// So long no new case is begun any more: the rest is said to be left out.
const BUDGET: Duration = Duration::from_secs(60);

/// A fault of the test: what the table calls it, the engine that it asks for, and its parameters.
struct Trial {
    name: &'static str,
    engine: Option<&'static str>,
    parameters: Value,
    /// It concerns the process that is there to suffer, not traffic.
    of_process: bool,
}

/// One trial for each way in which something is done to a host.
fn trials(peer: &str) -> Vec<Trial> {
    let trial = |name, engine, parameters, of_process| Trial { name, engine, parameters, of_process };
    vec![
        trial("partition", None, json!({ "to": [peer] }), false),
        trial("refuse", None, json!({ "to": [peer] }), false),
        trial("latency", Some("queue"), json!({ "delay": "20ms", "to": [peer], "engine": "queue" }), false),
        trial(
            "latency",
            Some("netem"),
            json!({ "delay": "20ms", "to": [peer], "engine": "netem", "direction": "egress" }),
            false,
        ),
        trial("loss", Some("queue"), json!({ "percent": "50%", "to": [peer], "engine": "queue" }), false),
        trial(
            "bandwidth",
            Some("netem"),
            json!({ "rate": "1Mbit/s", "to": [peer], "engine": "netem", "direction": "egress" }),
            false,
        ),
        trial("outage", None, json!({ "of": peer, "how": "reset" }), false),
        trial("disconnect", None, json!({ "to": [peer], "every": "100ms" }), false),
        trial("pause", None, json!({}), true),
        trial("kill", None, json!({ "signal": "USR1", "every": "100ms" }), true),
    ]
}

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    /// Whether it ran as root of the machine; else it was root in a user namespace.
    root: bool,
    rows: Vec<Row>,
    /// What does not work on this host, or was not tried.
    left_out: Vec<String>,
    took_ms: u64,
}

/// Runs the verb, in a process that must still be single-threaded.
pub fn run(format: Format) -> Result<Exit, Refusal> {
    let began = Instant::now();
    let policy = Policy::of_this_host()?;
    let root = nix::unistd::geteuid().is_root();
    let directory = confine::enter()?;
    let abilities = preflight::Report::of(&policy);
    let stage = Stage::set(directory)?;
    let mut report = Report { root, rows: Vec::new(), left_out: Vec::new(), took_ms: 0 };
    let json = format == Format::Json;
    if !json {
        say::line(Row::HEADER);
    }
    for trial in trials(&stage.traffic.peer()) {
        let shown = trial.engine.map_or(trial.name.to_owned(), |engine| format!("{} ({engine})", trial.name));
        if let Some(why) = missing(&abilities, &trial) {
            report.left_out.push(format!("{shown}: {why}"));
            continue;
        }
        let mut refused = Vec::new();
        for victim in Victim::ALL {
            if began.elapsed() > BUDGET {
                report.left_out.push(format!("{shown}, {victim}: there was no time left"));
                continue;
            }
            match stage.play(&shown, &trial, victim) {
                Ok(row) => {
                    if !json {
                        say::line(&row);
                    }
                    report.rows.push(row);
                }
                Err(refusal) => refused.push((victim, refusal.to_string())),
            }
        }
        // What every death of it was refused for, such as a policy, is said once.
        let alike = refused.len() == Victim::ALL.len() && refused.windows(2).all(|two| two[0].1 == two[1].1);
        if alike {
            report.left_out.extend(refused.first().map(|(_, why)| format!("{shown}: {why}")));
        } else {
            let each = refused.into_iter().map(|(victim, why)| format!("{shown}, {victim}: {why}"));
            report.left_out.extend(each);
        }
    }
    report.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if json {
        say::json(&report);
    } else {
        say::line(report.to_string().trim_end());
    }
    Ok(report.exit())
}

/// Why a trial cannot be made here.
fn missing(abilities: &preflight::Report, trial: &Trial) -> Option<String> {
    let ability = abilities.faults.iter().find(|ability| ability.name == trial.name)?;
    let way = ability.ways.iter().find(|way| trial.engine.is_none_or(|engine| way.by == engine))?;
    let lacks: Vec<&str> = way.missing.iter().map(|lack| lack.what.as_str()).collect();
    (!way.works).then(|| format!("not on this host, which lacks {}", lacks.join(", ")))
}

impl Report {
    fn exit(&self) -> Exit {
        let residue = self.rows.iter().any(|row| !row.residue.is_empty());
        let unmeasured = self.rows.iter().any(|row| row.impaired == 0);
        match (residue, self.rows.is_empty()) {
            (true, _) => Exit::Modified,
            (false, true) => Exit::Refused,
            (false, false) if unmeasured => Exit::Inconclusive,
            (false, false) => Exit::Held,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.left_out.iter().try_for_each(|what| writeln!(f, "left out: {what}"))?;
        let residues = self.rows.iter().filter(|row| !row.residue.is_empty()).count();
        let whom = if self.root { "as root" } else { "without root, in a user namespace" };
        writeln!(
            f,
            "{} deaths {whom} in {:.1} s: {residues} left something",
            self.rows.len(),
            self.took_ms as f64 / 1000.0
        )
    }
}
