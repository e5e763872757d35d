//! What was measured of a change: a fault counts as injected only by its evidence.

use serde::{Deserialize, Serialize};

/// What one change did so far, by the kernel's own counters or by looking at its objects.
///
/// Counts only grow while the change is live.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Evidence {
    /// What the counts count.
    pub unit: Unit,
    /// How many things met the selector.
    pub matched: u64,
    /// How many of them the fault acted on.
    pub impaired: u64,
    /// What happened when, for a reader: `nginx (pid 312) ended`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub incidents: Vec<Incident>,
    /// What the reader must know of what was not covered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One thing that happened to the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Milliseconds since the change was performed.
    pub after_ms: u64,
    /// What happened.
    pub what: String,
}

/// What an [`Evidence`] counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Packets.
    #[default]
    Packets,
    /// Sockets.
    Sockets,
    /// Processes.
    Processes,
}

/// Fewer impaired packets than this are too thin to say that the fault was felt.
pub const THIN: u64 = 3;

impl Evidence {
    /// Whether the fault counts as injected: something matched and something was impaired, and of packets at least
    /// [`THIN`].
    pub fn measured(&self) -> bool {
        let least = if self.unit == Unit::Packets { THIN } else { 1 };
        self.matched >= 1 && self.impaired >= least
    }
}
