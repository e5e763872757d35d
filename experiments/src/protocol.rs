//! What a conductor and an agent say to each other: one JSON object per line, each way.
//!
//! A connection is a lease: when it ends, for whatever reason, everything that was begun over it is reverted.
//! Commands are idempotent: a part that was lifted may be lifted again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::evidence::Evidence;
use crate::exit::Exit;
use crate::guard::Stop;
use crate::mandate::Mandate;
use crate::probe::{Hypothesis, Sample};
use crate::verdict::Tally;

/// The version of this protocol.
pub const VERSION: u32 = 1;

/// The longest line that either side accepts, in bytes.
pub const LONGEST_LINE: usize = 1 << 20;

/// How far ahead a step may be ordered.
pub const LONGEST_AHEAD: Duration = Duration::from_secs(10);

/// A run's name: unique, sortable by time, safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub String);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// From conductor to agent. The answer carries the same number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Counts up from 1 on each connection.
    pub number: u64,
    /// What is asked.
    pub request: Request,
}

/// What is asked of an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// The first request of every connection. Answered by [`Reply::Hello`].
    Hello {
        /// The asker's [`VERSION`].
        version: u32,
    },
    /// Open an injection for a run on this host. Answered by [`Reply::Done`], or by [`Reply::Guarding`] where it has guards
    /// and the agent looks at them from now on.
    Begin {
        /// Which run.
        run: RunId,
        /// The experiment's title, for `status`.
        title: String,
        /// Hash of the plan that was shown.
        plan: String,
        /// The seed of every choice.
        seed: u64,
        /// Without a [`Request::Renew`] for this long, in milliseconds, everything is reverted.
        lease_ms: u64,
        /// After this long, in milliseconds, everything is reverted in any case.
        deadline_ms: u64,
        /// What ends the run at once, without a word from the conductor.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        guards: Vec<Guard>,
        /// On whose word; nothing is said of it for a run of this host alone.
        #[serde(default)]
        mandate: Box<Mandate>,
    },
    /// Make changes, all or none. Answered by [`Reply::Applied`].
    Apply {
        /// Which run.
        run: RunId,
        /// The step's number in the run; new for each `Apply`.
        part: u32,
        /// What to do.
        changes: Vec<Change>,
        /// Lifted after this long, in milliseconds, and a grace of half a second in which the conductor does it.
        lasts_ms: u64,
        /// Not before this instant, in nanoseconds on the host's boot clock: everything that can be refused is refused at
        /// once, and the answer comes when the changes are made. [`LONGEST_AHEAD`] from now at most. Only for an agent that
        /// tells its clock (see [`Reply::Hello`]): an older one would begin at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at_ns: Option<u64>,
    },
    /// From now on tell what proxies of a run see of connections and requests, in [`Message::Saw`]: those that are started
    /// after this. Answered by [`Reply::Done`].
    Watch {
        /// Which run.
        run: RunId,
    },
    /// What the host's boot clock says. Answered by [`Reply::Clock`]. Only for an agent that tells it in [`Reply::Hello`].
    Clock,
    /// Continue the lease. Answered by [`Reply::Done`].
    Renew {
        /// Which run.
        run: RunId,
    },
    /// What has been measured so far. Answered by [`Reply::Measured`].
    Observe {
        /// Which run.
        run: RunId,
        /// Which step.
        part: u32,
    },
    /// Undo one step. Answered by [`Reply::Lifted`].
    Lift {
        /// Which run.
        run: RunId,
        /// Which step.
        part: u32,
    },
    /// Undo everything of a run and forget it. Answered by [`Reply::Lifted`].
    End {
        /// Which run.
        run: RunId,
    },
    /// Undo everything of a run, and refuse to begin it in an earlier epoch than this: another controller has taken it
    /// over. Answered by [`Reply::Lifted`].
    Fence {
        /// Which run.
        run: RunId,
        /// The epoch in which it is from now on.
        epoch: u64,
    },
    /// What is active on this host. Answered by [`Reply::Status`].
    Status,
    /// Undo everything of every run, now. Answered by [`Reply::Lifted`].
    Halt,
}

/// A guard that an agent is to look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// What the conductor calls it in this run.
    pub number: u32,
    /// What must hold.
    pub claim: Hypothesis,
    /// What the conductor has seen of it, as far as single looks are counted.
    pub so_far: Tally,
    /// How many bounds of rates all guards of the run have, which share the error; 0 where the conductor does not say.
    #[serde(default)]
    pub bounds: usize,
}

/// What an agent says of a guard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// A sample; the number of its probe is the agent's own.
    Sample(Sample),
    /// It ends the run: [`Message::Ended`] follows.
    Stopped(Stop),
}

/// From agent to conductor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// The answer to a call.
    Answer {
        /// The call's number.
        number: u64,
        /// The answer.
        reply: Reply,
    },
    /// A guard was looked at.
    Guard {
        /// Which run.
        run: RunId,
        /// Which guard.
        guard: u32,
        /// What came of it.
        said: Said,
    },
    /// Proxies have seen connections and requests that are over, in no order between them.
    Saw {
        /// Which run.
        run: RunId,
        /// Each a JSON object, which names its `run` and its `part`.
        seen: Vec<serde_json::Value>,
    },
    /// Something ended without being asked on this connection.
    Ended {
        /// Which run.
        run: RunId,
        /// Which step; `None` is the whole run.
        part: Option<u32>,
        /// Why: `halted`, `the deadline was reached`, `the lease was not renewed`.
        why: String,
        /// What was measured and undone.
        lifted: Lifted,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello {
        /// The agent's [`VERSION`].
        version: u32,
        /// The guardian's pid.
        guardian: u32,
        /// The worker's pid.
        worker: u32,
        /// Where the journal is.
        state: String,
        /// Which policy applies: a short hash of it, or `none`.
        policy: String,
        /// The host's boot clock, in nanoseconds; an agent that cannot begin at an instant does not say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clock_ns: Option<u64>,
    },
    /// To [`Request::Clock`].
    Clock {
        /// The host's boot clock, in nanoseconds.
        now_ns: u64,
    },
    /// Done.
    Done,
    /// Done, and the guards of the run are looked at.
    Guarding,
    /// To [`Request::Apply`]: what was aimed at and what was left out.
    Applied(Applied),
    /// To [`Request::Observe`].
    Measured(Vec<Evidence>),
    /// To [`Request::Lift`], [`Request::End`] and [`Request::Halt`].
    Lifted(Lifted),
    /// To [`Request::Status`].
    Status(Vec<Active>),
    /// Not done, nothing was changed.
    Refused(Refusal),
}

/// What an `Apply` did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// One line per thing that was aimed at: `nginx (pid 312)`, `10.0.0.7 (db.internal)`.
    pub targets: Vec<String>,
    /// Carve-outs and everything else that the reader must know.
    pub notes: Vec<String>,
    /// How long it took, from request to the last change, in microseconds; where an instant was agreed, from there.
    pub took_us: u64,
    /// When the last change was made, in nanoseconds on the host's boot clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_ns: Option<u64>,
    /// How long after the agreed instant the order came, in microseconds: it was too late for it, and was carried out at
    /// once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_us: Option<u64>,
    /// The same moment as `made_ns` on the clock of whoever drives the run; the agent does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Moment>,
}

/// A moment on another machine, as far as its clock is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Microseconds since the run began.
    pub at_us: u64,
    /// It was not more than so many microseconds earlier or later.
    pub within_us: u64,
}

/// What an undo did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lifted {
    /// The last evidence, one per change, in the order of the `Apply`s.
    pub evidence: Vec<Evidence>,
    /// What was undone, and how it was verified, a line each.
    pub undone: Vec<String>,
    /// What could not be undone and is still there, a line each: empty on a clean host.
    pub stuck: Vec<String>,
    /// What others changed meanwhile, a line each.
    pub others: Vec<String>,
    /// The host before and after; only where the whole run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Compared>,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

/// A host before and after a run: its fingerprints, compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// How many things were compared.
    pub things: u32,
    /// In how many network namespaces: the agent's own, and those of targets.
    pub namespaces: u32,
    /// How many are not as they were and were claimed by the run, or bear Squall's mark.
    pub ours: u32,
    /// How many others changed.
    pub others: u32,
    /// The sections of the host before: how many things, and a digest.
    pub before: BTreeMap<String, String>,
    /// The same after.
    pub after: BTreeMap<String, String>,
    /// What could not be looked at, or only as a whole.
    pub notes: Vec<String>,
    /// How long the comparison took, in microseconds.
    pub took_us: u64,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}")]
pub struct Refusal {
    /// A lowercase fragment that names the object.
    pub what: String,
    /// What to do.
    pub help: Option<String>,
    /// The exit code that this leads to, by its number.
    pub exit: u8,
}

impl Refusal {
    /// A refusal that leads to exit code 4.
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Refusal { what: what.into(), help: Some(help.into()), exit: Exit::Refused as u8 }
    }

    /// A refusal without advice.
    pub fn bare(what: impl Into<String>) -> Self {
        Refusal { what: what.into(), help: None, exit: Exit::Refused as u8 }
    }
}

/// A live injection, for `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Active {
    /// Which run.
    pub run: RunId,
    /// The experiment's title.
    pub title: String,
    /// Seconds until everything is reverted in any case.
    pub expires_s: u64,
    /// Whether something could not be undone.
    pub stuck: bool,
    /// Its changes, in words, with what was measured so far.
    pub changes: Vec<(String, Evidence)>,
}
