//! What was measured of a change: a fault counts as injected only by its evidence.

use std::fmt;

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
    /// What the packet engine did, where one did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
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

/// What a packet engine did: its own counts, to be compared with the kernel's counter in front of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Engine {
    /// Which: `queue`.
    pub name: String,
    /// Packets that came to it. The kernel counts the same packets just before, as [`Evidence::matched`].
    pub seen: u64,
    /// How many were held for a while.
    pub delayed: u64,
    /// How many were lost, as was asked for.
    pub lost: u64,
    /// How many were sent twice.
    pub duplicated: u64,
    /// How many had a bit flipped.
    pub corrupted: u64,
    /// How many were let be overtaken.
    pub reordered: u64,
    /// How many passed unharmed because as many as allowed were held already.
    pub overflowed: u64,
    /// How many vanished although nobody asked for it: a raw socket that did not take them.
    pub mislaid: u64,
    /// How long packets were held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Spread>,
    /// How much later than intended they were released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Spread>,
}

/// Quantiles of times, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Spread {
    /// The median.
    pub p50_us: u64,
    /// 99 of 100 are not above it.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl fmt::Display for Engine {
    /// What happened at all, in words; times in milliseconds: the median, 99 of 100, the longest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets came to the engine `{}`", self.seen, self.name)?;
        for (count, what) in [
            (self.delayed, "held"),
            (self.lost, "lost"),
            (self.duplicated, "sent twice"),
            (self.corrupted, "corrupted"),
            (self.reordered, "let be overtaken"),
            (self.overflowed, "passed unharmed, as too many were held"),
            (self.mislaid, "could not be sent again"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if let (Some(held), Some(late)) = (self.held, self.late) {
            write!(f, "; held for {held} ms, released late by {late} ms")?;
        }
        Ok(())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [self.p50_us, self.p99_us, self.max_us].map(|us| us as f64 / 1000.0);
        write!(f, "{p50:.2} (p50), {p99:.2} (p99), {max:.2} (max)")
    }
}

/// Fewer impaired packets than this are too thin to say that the fault was felt.
pub const THIN: u64 = 3;

/// The share of matched packets that may pass an engine unseen before nothing can be said, from 0 to 1.
pub const LEAK: f64 = 0.01;

impl Evidence {
    /// Whether the fault counts as injected: something matched and something was impaired, of packets at least
    /// [`THIN`], and no more than [`LEAK`] of them passed by the engine or overflowed.
    pub fn measured(&self) -> bool {
        let least = if self.unit == Unit::Packets { THIN } else { 1 };
        self.matched >= 1 && self.impaired >= least && self.leaked() as f64 <= LEAK * self.matched as f64
    }

    /// Matched packets that no engine saw, or that passed it because too many were held.
    pub fn leaked(&self) -> u64 {
        self.engine.as_ref().map_or(0, |engine| self.matched.saturating_sub(engine.seen) + engine.overflowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_tells_what_happened_and_nothing_else() {
        let spread = |us| Some(Spread { p50_us: us, p99_us: us * 2, max_us: us * 3 });
        let mut engine = Engine { name: "queue".into(), seen: 14, lost: 3, ..Engine::default() };
        assert_eq!(engine.to_string(), "14 packets came to the engine `queue`, 3 lost");
        engine.delayed = 11;
        (engine.held, engine.late) = (spread(50_120), spread(120));
        assert_eq!(
            engine.to_string(),
            "14 packets came to the engine `queue`, 11 held, 3 lost; held for 50.12 (p50), 100.24 (p99), 150.36 (max) ms, \
             released late by 0.12 (p50), 0.24 (p99), 0.36 (max) ms"
        );
    }
}
