use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Describe, Wrong, every_is_sound, needs_processes};
use crate::change::{Change, Signal, SignalName, ThenSignal};
use crate::quantity::{Period, Pick};
use crate::scope::Scope;

/// Processes receive a signal and end. Not undone: what should run again is the business of whoever runs it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Kill {
    /// The signal.
    #[serde(default)]
    pub signal: SignalName,
    /// A second signal for those that still run after a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<ThenSignal>,
    /// How many of the processes in scope, chosen with the run's seed.
    #[serde(default)]
    pub pick: Pick,
    /// Again after this time, while the fault lasts, on what then matches; without it, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Period>,
}

impl Describe for Kill {
    const NAME: &'static str = "kill";
    const SUMMARY: &'static str =
        "processes receive a signal and end; what should run again is not Squall's business";
    const ENGINE: &'static str = "pidfd_send_signal to processes held by pidfd and start time";
    const REVERSIBLE: bool = false;
    const EXAMPLE: &'static str = "- fault: { kill: { signal: TERM, then: { signal: KILL, after: 5s }, pick: 1 } }\n  in: { process: { name: \
         nginx, args: worker } }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        needs_processes(scope, wrong);
        every_is_sound(self.every, wrong);
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        scope.map_or_else(Vec::new, |scope| {
            vec![Change::Signal(Signal {
                scope: scope.clone(),
                pick: self.pick,
                signal: self.signal,
                then: self.then.clone(),
                every: self.every,
            })]
        })
    }
}
