//! What a user asks for. One file per fault: parameters, documentation, check, and the pure list of its changes.
//!
//! To add one: a file here, a `mod` line, and a line in the catalogue below. A fault never writes undo, never touches
//! a host, and needs no root to test.

mod bandwidth;
mod corrupt;
mod degrade;
mod disconnect;
mod duplicate;
mod kill;
mod latency;
mod loss;
mod network;
mod outage;
mod parameter;
mod partition;
mod pause;
mod refuse;
mod reorder;
mod shaping;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use bandwidth::Bandwidth;
pub use corrupt::Corrupt;
pub use degrade::Degrade;
pub use disconnect::Disconnect;
pub use duplicate::Duplicate;
pub use kill::Kill;
pub use latency::Latency;
pub use loss::Loss;
pub use outage::{How, Outage};
pub use parameter::{Kind, Parameter};
pub use partition::Partition;
pub use pause::Pause;
pub use refuse::{Refuse, RefuseHow};
pub use reorder::Reorder;

use crate::change::Change;
use crate::quantity::Period;
use crate::scope::Scope;

/// What every fault file provides. The parameters' documentation, types and defaults come from the struct itself,
/// through its JSON Schema.
pub trait Describe: JsonSchema {
    /// The key in the file.
    const NAME: &'static str;
    /// One sentence: what the target experiences.
    const SUMMARY: &'static str;
    /// How it is done on a host, and by which kernel mechanism.
    const ENGINE: &'static str;
    /// Whether the host can be brought back to what it was.
    const REVERSIBLE: bool;
    /// A complete step that shows it.
    const EXAMPLE: &'static str;

    /// What is wrong with the parameters and the scope, beyond their syntax.
    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong);

    /// The changes on each host: same input, same list. Only called when `check` found nothing.
    fn changes(&self, scope: Option<&Scope>) -> Vec<Change>;
}

/// What `check` found: where in the step (`["to"]`, relative to the fault's parameters, or `["in"]` for the scope),
/// what, and what to do.
#[derive(Debug, Default)]
pub struct Wrong(Vec<Finding>);

/// One finding of a fault's own check.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which parameter; `None` is the fault as a whole, `Some("in")` the scope of its step.
    pub parameter: Option<&'static str>,
    /// A lowercase fragment.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl Wrong {
    /// Something is wrong with a parameter.
    pub fn with(&mut self, parameter: &'static str, what: impl Into<String>, help: impl Into<String>) {
        self.0.push(Finding { parameter: Some(parameter), what: what.into(), help: help.into() });
    }

    /// Something is wrong with the fault as a whole.
    pub fn overall(&mut self, what: impl Into<String>, help: impl Into<String>) {
        self.0.push(Finding { parameter: None, what: what.into(), help: help.into() });
    }

    /// All findings, in order.
    pub fn into_findings(self) -> Vec<Finding> {
        self.0
    }
}

/// What the catalogue knows of a fault.
#[derive(Clone, Debug)]
pub struct Entry {
    /// See [`Describe::NAME`].
    pub name: &'static str,
    /// See [`Describe::SUMMARY`].
    pub summary: &'static str,
    /// See [`Describe::ENGINE`].
    pub engine: &'static str,
    /// See [`Describe::REVERSIBLE`].
    pub reversible: bool,
    /// See [`Describe::EXAMPLE`].
    pub example: &'static str,
    /// The JSON Schema of its parameters, with their descriptions and defaults.
    pub schema: schemars::Schema,
}

/// Makes the enum of all faults, its dispatch and the catalogue from one line per fault.
macro_rules! catalogue {
    ($($(#[$doc:meta])* $type:ident),* $(,)?) => {
        /// A fault: one key, its kind, with its parameters.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case")]
        pub enum Fault {
            $($(#[$doc])* $type($type)),*
        }

        impl Fault {
            /// The key in the file.
            pub fn name(&self) -> &'static str {
                match self { $(Fault::$type(_) => $type::NAME),* }
            }

            /// See [`Describe::check`].
            pub fn check(&self, scope: Option<&Scope>) -> Vec<Finding> {
                let mut wrong = Wrong::default();
                match self { $(Fault::$type(fault) => fault.check(scope, &mut wrong)),* }
                wrong.into_findings()
            }

            /// See [`Describe::changes`].
            pub fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
                match self { $(Fault::$type(fault) => fault.changes(scope)),* }
            }
        }

        /// Every fault, in the order of the documentation.
        pub fn catalogue() -> Vec<Entry> {
            vec![$(Entry {
                name: $type::NAME,
                summary: $type::SUMMARY,
                engine: $type::ENGINE,
                reversible: $type::REVERSIBLE,
                example: $type::EXAMPLE,
                schema: schemars::SchemaGenerator::default().into_root_schema_for::<$type>(),
            }),*]
        }
    };
}

catalogue! {
    /// Packets are late, as over a long or a busy line.
    Latency,
    /// Packets are lost, as over a bad line.
    Loss,
    /// Packets arrive twice.
    Duplicate,
    /// Packets arrive with a flipped bit.
    Corrupt,
    /// Packets overtake each other.
    Reorder,
    /// Packets share a line that carries little.
    Bandwidth,
    /// Packets meet several of these at once.
    Degrade,
    /// Packets vanish, as when a cable is cut.
    Partition,
    /// Connections are refused, as when nothing listens.
    Refuse,
    /// A dependency is out, in one of many ways.
    Outage,
    /// Established connections break, as when a load balancer restarts.
    Disconnect,
    /// Processes end.
    Kill,
    /// Processes hang.
    Pause,
}

/// The shortest interval at which a fault acts again: a shorter one would keep the host busy with the fault itself.
const SHORTEST_INTERVAL: Period = Period::from_millis(100);

/// An interval ends, and leaves the host time for other things.
fn every_is_sound(every: Option<Period>, wrong: &mut Wrong) {
    if every.is_some_and(|every| every < SHORTEST_INTERVAL) {
        let what =
            format!("an interval below {SHORTEST_INTERVAL} would keep the host busy with the fault itself");
        wrong.with("every", what, format!("write at least `{SHORTEST_INTERVAL}`"));
    }
}

/// A process fault has processes.
fn needs_processes(scope: Option<&Scope>, wrong: &mut Wrong) {
    let help = "say whose with `in: { process: { name: … } }`, `unit`, `cgroup`, `container` or `user`";
    match scope {
        None => wrong.with("in", "nothing says whose processes are meant", help),
        Some(Scope::Port(_)) => wrong.with(
            "in",
            "`port` chooses traffic, not processes",
            "to choose by a port write `in: { process: { listening: 8080 } }`",
        ),
        Some(Scope::Interface(_) | Scope::Netns(_)) => {
            wrong.with("in", "this chooses traffic, not processes", help);
        }
        Some(Scope::User(user)) if user == "root" || user == "0" => {
            wrong.with("in", "the processes of `root` are the host itself", help);
        }
        Some(_) => {}
    }
}
