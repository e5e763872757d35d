//! What people may be told of: every kind of happening, in one place. What is new is one variant here, its names in [`When`],
//! and its words in `story`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use squall_experiments::exit::Exit;

use crate::standing::exit;

/// Something that happened, as the store keeps it until everybody is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Happening {
    /// A run goes on.
    RunBegun {
        /// Its name.
        run: String,
    },
    /// A run is over.
    RunEnded {
        /// Its name.
        run: String,
        /// What became of it, in a word: see [`Exit::meaning`].
        verdict: String,
    },
    /// A fault is on the first of its hosts.
    FaultInjected {
        /// The run's name.
        run: String,
        /// The fault's part of the run.
        part: u32,
        /// What the report calls it.
        name: String,
    },
    /// A fault is on none of its hosts any more.
    FaultReverted {
        /// The run's name.
        run: String,
        /// The fault's part of the run.
        part: u32,
        /// What the report calls it.
        name: String,
        /// When it came: milliseconds since 1970.
        since: u64,
    },
    /// Somebody halted everything, or some hosts.
    Halted {
        /// Why.
        reason: String,
        /// Who.
        by: String,
        /// The hosts; none: everything.
        hosts: Vec<String>,
        /// Those of which it is not known that they have undone everything.
        open: Vec<String>,
    },
    /// New runs may begin again.
    HaltLifted {
        /// Why.
        reason: String,
        /// Who.
        by: String,
    },
    /// An entry of a schedule did not begin its run.
    EntryRefused {
        /// The schedule's name.
        schedule: String,
        /// When it was to run: milliseconds since 1970.
        due: u64,
        /// Its group of hosts; empty: all.
        group: String,
        /// Why.
        why: String,
        /// The run that was refused, where there is one.
        run: Option<String>,
    },
    /// No controller was there at the time of an entry.
    EntryMissed {
        /// The schedule's name.
        schedule: String,
        /// When it was to run: milliseconds since 1970.
        due: u64,
        /// Its group of hosts; empty: all.
        group: String,
        /// Why.
        why: String,
    },
    /// A plan or a schedule waits for somebody's approval.
    ApprovalWanted {
        /// What: the command that approves it.
        how: String,
        /// What the experiment or the schedule is called.
        title: String,
        /// Who submitted it.
        by: String,
    },
    /// A game day begins.
    GameDayBegun {
        /// Its name among all days.
        day: String,
        /// What it is about.
        title: String,
        /// Who began it.
        by: String,
    },
    /// Somebody has to say go or no-go to a step of a game day.
    GameDayAsks {
        /// The day's name.
        day: String,
        /// What it is about.
        title: String,
        /// The step.
        step: String,
        /// Why, where that is not only what its document says.
        why: Option<String>,
    },
    /// A game day is over.
    GameDayEnded {
        /// The day's name.
        day: String,
        /// What it is about.
        title: String,
        /// Why it was stopped; none: every step had its turn.
        stopped: Option<String>,
    },
    /// Somebody looks whether a receiver is reached.
    Trial {
        /// Who.
        by: String,
    },
}

/// Of what somebody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// A run begins.
    RunBegun,
    /// A run is over, whatever became of it.
    RunEnded,
    /// Its hypothesis held.
    RunHeld,
    /// Its hypothesis did not hold, or a guard tripped.
    RunDeviated,
    /// Nothing can be said.
    RunInconclusive,
    /// It did not begin, or a host refused it.
    RunRefused,
    /// A person, a halt or the end of a controller stopped it.
    RunInterrupted,
    /// A host is still modified.
    RunModified,
    /// A fault is on the first of its hosts.
    FaultInjected,
    /// A fault is on none of its hosts any more.
    FaultReverted,
    /// Somebody halted everything, or some hosts.
    Halted,
    /// New runs may begin again.
    HaltLifted,
    /// An entry of a schedule did not begin its run.
    EntryRefused,
    /// No controller was there at the time of an entry.
    EntryMissed,
    /// A plan or a schedule waits for an approval.
    ApprovalWanted,
    /// A game day begins.
    GameDayBegun,
    /// Somebody has to say go or no-go to a step of a game day.
    GameDayAsks,
    /// A game day is over, or was stopped.
    GameDayEnded,
}

/// What somebody is told of who does not say: what wants somebody to look, or to do something.
pub const USUALLY: [When; 8] = [
    When::RunDeviated,
    When::RunInconclusive,
    When::RunModified,
    When::Halted,
    When::HaltLifted,
    When::EntryRefused,
    When::EntryMissed,
    When::ApprovalWanted,
];

impl Happening {
    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Happening::RunBegun { .. } => "run-begun",
            Happening::RunEnded { .. } => "run-ended",
            Happening::FaultInjected { .. } => "fault-injected",
            Happening::FaultReverted { .. } => "fault-reverted",
            Happening::Halted { .. } => "halted",
            Happening::HaltLifted { .. } => "halt-lifted",
            Happening::EntryRefused { .. } => "entry-refused",
            Happening::EntryMissed { .. } => "entry-missed",
            Happening::ApprovalWanted { .. } => "approval-wanted",
            Happening::GameDayBegun { .. } => "game-day-begun",
            Happening::GameDayAsks { .. } => "game-day-asks",
            Happening::GameDayEnded { .. } => "game-day-ended",
            Happening::Trial { .. } => "trial",
        }
    }

    /// The names by which somebody may have asked for it.
    pub fn names(&self) -> Vec<When> {
        match self {
            Happening::RunBegun { .. } => vec![When::RunBegun],
            Happening::RunEnded { verdict, .. } => {
                let more = match exit(verdict) {
                    Exit::Held => When::RunHeld,
                    Exit::Refused | Exit::Invalid | Exit::Usage => When::RunRefused,
                    Exit::Deviated => When::RunDeviated,
                    Exit::Interrupted => When::RunInterrupted,
                    Exit::Modified => When::RunModified,
                    Exit::Bug | Exit::Inconclusive => When::RunInconclusive,
                };
                vec![When::RunEnded, more]
            }
            Happening::FaultInjected { .. } => vec![When::FaultInjected],
            Happening::FaultReverted { .. } => vec![When::FaultReverted],
            Happening::Halted { .. } => vec![When::Halted],
            Happening::HaltLifted { .. } => vec![When::HaltLifted],
            Happening::EntryRefused { .. } => vec![When::EntryRefused],
            Happening::EntryMissed { .. } => vec![When::EntryMissed],
            Happening::ApprovalWanted { .. } => vec![When::ApprovalWanted],
            Happening::GameDayBegun { .. } => vec![When::GameDayBegun],
            Happening::GameDayAsks { .. } => vec![When::GameDayAsks],
            Happening::GameDayEnded { .. } => vec![When::GameDayEnded],
            Happening::Trial { .. } => Vec::new(),
        }
    }

    /// Its name, by which receivers tell a repeat: the same for the same happening, also where it is written down twice.
    pub fn id(&self, at: u64) -> String {
        // A run begins and ends once, an entry is decided once: when that was written down does not matter.
        let once = matches!(
            self,
            Happening::RunBegun { .. }
                | Happening::RunEnded { .. }
                | Happening::EntryRefused { .. }
                | Happening::EntryMissed { .. }
                | Happening::GameDayBegun { .. }
                | Happening::GameDayEnded { .. }
        );
        let mut hasher = blake3::Hasher::new();
        hasher.update(serde_json::to_string(self).unwrap_or_default().as_bytes());
        hasher.update(&(if once { 0 } else { at }).to_le_bytes());
        format!("msg_{}", &hasher.finalize().to_hex()[..32])
    }

    /// The run that it is about.
    pub fn run(&self) -> Option<&str> {
        match self {
            Happening::RunBegun { run }
            | Happening::RunEnded { run, .. }
            | Happening::FaultInjected { run, .. }
            | Happening::FaultReverted { run, .. } => Some(run),
            Happening::EntryRefused { run, .. } => run.as_deref(),
            _ => None,
        }
    }
}
