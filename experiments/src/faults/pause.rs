use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Describe, Wrong, needs_processes};
use crate::change::{Change, Pause as PauseChange};
use crate::quantity::Pick;
use crate::scope::Scope;

/// Processes hang: they keep their sockets, locks and memory, and do nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pause {
    /// How many of the processes in scope, chosen with the run's seed.
    #[serde(default)]
    pub pick: Pick,
}

impl Describe for Pause {
    const NAME: &'static str = "pause";
    const SUMMARY: &'static str = "processes hang: they keep sockets, locks and memory, and do nothing";
    const ENGINE: &'static str = "ptrace (released by the kernel when the agent dies); SIGSTOP with an undo record where ptrace is not allowed";
    const REVERSIBLE: bool = true;
    const EXAMPLE: &'static str =
        "- fault: { pause: {} }\n  in: { process: { listening: 6379 } }\n  for: 10s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        needs_processes(scope, wrong);
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        let change = |scope: &Scope| Change::Pause(PauseChange { scope: scope.clone(), pick: self.pick });
        scope.map(change).into_iter().collect()
    }
}
