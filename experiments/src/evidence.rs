//! What was measured of a change: a fault counts as injected only by its evidence.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::witness::{Shown, Testimony};

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
    /// What probes show of it, where that was asked for. They are among the packets that are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<Testimony>,
    /// Why it was not in force until its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_short: Option<String>,
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
    /// Connections, from their beginning.
    Connections,
    /// Requests, each with its answer.
    Requests,
    /// Processes.
    Processes,
}

/// What a packet engine did: its own counts, to be compared with the kernel's counter in front of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Engine {
    /// Which: `queue`, or of the kernel's own disciplines `netem` or `htb`.
    pub name: String,
    /// Packets that came to it. The kernel counts the same packets just before, as [`Evidence::matched`].
    pub seen: u64,
    /// How many were held for a while.
    pub delayed: u64,
    /// How many were lost, as was asked for.
    pub lost: u64,
    /// How many were lost, as was asked for, because the line was full.
    #[serde(default)]
    pub crowded: u64,
    /// How many were sent twice.
    pub duplicated: u64,
    /// How many had a bit flipped.
    pub corrupted: u64,
    /// How many were let be overtaken.
    pub reordered: u64,
    /// How many passed unharmed because as many as allowed were held already.
    pub overflowed: u64,
    /// How many passed unharmed because they came faster than the engine took them in: the kernel lets them pass where the
    /// socket is full by which it hands them over.
    #[serde(default)]
    pub overrun: u64,
    /// How many were to be altered or sent twice and passed unharmed, longer than what the kernel hands over of a packet
    /// (65,531 bytes).
    #[serde(default)]
    pub oversized: u64,
    /// How many were lost although nobody asked for it, because as many as allowed were held already: `netem` has no other
    /// way. Where a loss is asked for they are among those that it lost, as the kernel counts all as one.
    #[serde(default)]
    pub spilled: u64,
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

impl Engine {
    /// Together with what another one did; of the times the worse stays.
    pub fn plus(self, other: &Engine) -> Self {
        let worse = |a: Option<Spread>, b: Option<Spread>| match (a, b) {
            (Some(a), Some(b)) => Some(Spread {
                p50_us: a.p50_us.max(b.p50_us),
                p99_us: a.p99_us.max(b.p99_us),
                max_us: a.max_us.max(b.max_us),
            }),
            (a, b) => a.or(b),
        };
        Engine {
            name: other.name.clone(),
            seen: self.seen + other.seen,
            delayed: self.delayed + other.delayed,
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            crowded: self.crowded + other.crowded,
            corrupted: self.corrupted + other.corrupted,
            reordered: self.reordered + other.reordered,
            overflowed: self.overflowed + other.overflowed,
            overrun: self.overrun + other.overrun,
            oversized: self.oversized + other.oversized,
            spilled: self.spilled + other.spilled,
            mislaid: self.mislaid + other.mislaid,
            held: worse(self.held, other.held),
            late: worse(self.late, other.late),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        write!(f, "{:.2} ms (p99 {:.2} ms)", ms(self.p50_us), ms(self.p99_us))
    }
}

/// Fewer impaired packets than this are too thin to say that the fault was felt.
pub const THIN: u64 = 3;

/// The share of matched packets that may pass an engine unseen before nothing can be said, from 0 to 1.
pub const LEAK: f64 = 0.01;

impl Evidence {
    /// Whether the fault counts as injected: something matched and something was impaired, of packets at least
    /// [`THIN`], and no more than [`LEAK`] of them [leaked](Evidence::leaked); what was probed is felt; and it was in force
    /// until its end.
    pub fn measured(&self) -> bool {
        let least = if self.unit == Unit::Packets { THIN } else { 1 };
        let counted =
            self.matched >= 1 && self.impaired >= least && self.leaked() as f64 <= LEAK * self.matched as f64;
        counted && self.unseen().is_none() && self.cut_short.is_none()
    }

    /// Why probes do not show the effect, where they were to show it and do not.
    pub fn unseen(&self) -> Option<&str> {
        self.witness.as_ref().filter(|said| said.shown != Shown::Yes).map(|said| said.why.as_str())
    }

    /// Together with what was measured later of the same change, begun again so many milliseconds after this one.
    pub fn then(mut self, later: &Evidence, after_ms: u64) -> Self {
        self.unit = later.unit;
        self.matched += later.matched;
        self.impaired += later.impaired;
        let later_ones = later.incidents.iter().cloned();
        self.incidents.extend(
            later_ones.map(|incident| Incident { after_ms: incident.after_ms + after_ms, ..incident }),
        );
        self.incidents.sort_by_key(|incident| incident.after_ms);
        for note in &later.notes {
            if !self.notes.contains(note) {
                self.notes.push(note.clone());
            }
        }
        self.cut_short = self.cut_short.or_else(|| later.cut_short.clone());
        // Of a target that has come back only the first stay was probed.
        self.witness = self.witness.or_else(|| later.witness.clone());
        self.engine = match (self.engine, &later.engine) {
            (Some(engine), Some(later)) => Some(engine.plus(later)),
            (engine, later) => engine.or_else(|| later.clone()),
        };
        self
    }

    /// What probes saw and what the packet engine did, a line each; empty without either.
    pub fn deeds(&self) -> Vec<String> {
        let mut lines = self.said();
        let Some(engine) = &self.engine else { return lines };
        let share =
            |count: u64| format!("{count} ({:.1} %)", 100.0 * count as f64 / engine.seen.max(1) as f64);
        let done = [
            (engine.lost, "lost"),
            (engine.crowded, "lost in front of the full line"),
            (engine.duplicated, "sent twice"),
            (engine.corrupted, "corrupted"),
            (engine.reordered, "made late, to be overtaken"),
        ];
        for (count, what) in done.into_iter().filter(|(count, _)| *count > 0) {
            lines.push(format!("{} {what}", share(count)));
        }
        if let Some(held) = engine.held.filter(|_| engine.delayed > 0) {
            let late = engine.late.map_or_else(String::new, |late| format!("; released late by {late}"));
            lines.push(format!("{} held for {held}{late}", engine.delayed));
        } else if engine.delayed > 0 {
            // The kernel's own disciplines do not say for how long.
            lines.push(format!("{} held", engine.delayed));
        }
        let unseen = self.matched.saturating_sub(engine.seen);
        let leaks = [
            (unseen, "passed unharmed and unseen by the engine"),
            (engine.overflowed, "passed unharmed: as many as allowed were held (`limit`)"),
            (
                engine.overrun,
                "passed unharmed: they came faster than the engine took them in (its socket was full)",
            ),
            (
                engine.oversized,
                "passed unharmed: too long to be altered or sent twice (more than 65,531 bytes)",
            ),
            (engine.spilled, "lost although nobody asked for it: as many as allowed were held (`limit`)"),
            (engine.mislaid, "vanished although nobody asked for it"),
        ];
        for (count, what) in leaks.into_iter().filter(|(count, _)| *count > 0) {
            lines.push(format!("{count} {what}"));
        }
        lines
    }

    fn said(&self) -> Vec<String> {
        let Some(said) = &self.witness else { return Vec::new() };
        let connections = said.connections.filter(|_| !said.asked.is_empty());
        [said.why.clone()].into_iter().chain(connections.map(|known| known.to_string())).collect()
    }

    /// Matched packets to which something else happened than was asked for: no engine saw them, or they passed it or were
    /// lost because too many were held, came too fast, or were too long.
    pub fn leaked(&self) -> u64 {
        self.passed() + self.engine.as_ref().map_or(0, |engine| engine.spilled)
    }

    /// Those of them that passed unharmed.
    pub fn passed(&self) -> u64 {
        self.engine.as_ref().map_or(0, |engine| {
            let Engine { seen, overflowed, overrun, oversized, .. } = engine;
            self.matched.saturating_sub(*seen) + overflowed + overrun + oversized
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(matched: u64, engine: Engine) -> Evidence {
        let impaired = engine.lost + engine.delayed;
        Evidence { matched, impaired, engine: Some(engine), ..Evidence::default() }
    }

    #[test]
    fn an_engine_says_only_what_happened() {
        assert_eq!(
            evidence(14, Engine { seen: 14, lost: 3, ..Engine::default() }).deeds(),
            ["3 (21.4 %) lost"]
        );
        let held = Some(Spread { p50_us: 50_040, p99_us: 50_400, max_us: 61_000 });
        let late = Some(Spread { p50_us: 40, p99_us: 400, max_us: 11_000 });
        let engine = Engine { seen: 2000, delayed: 1999, overflowed: 1, held, late, ..Engine::default() };
        assert_eq!(
            evidence(2003, engine).deeds(),
            [
                "1999 held for 50.04 ms (p99 50.40 ms); released late by 0.04 ms (p99 0.40 ms)",
                "3 passed unharmed and unseen by the engine",
                "1 passed unharmed: as many as allowed were held (`limit`)"
            ]
        );
    }

    #[test]
    fn more_than_a_hundredth_that_passed_by_is_no_measurement() {
        let of = |matched, overflowed| {
            evidence(matched, Engine { seen: 1000, delayed: 1000, overflowed, ..Engine::default() })
                .measured()
        };
        assert!(of(1000, 0) && of(1000, 10) && of(1010, 0));
        assert!(!of(1000, 11) && !of(1011, 0) && !of(1006, 6));
    }

    #[test]
    fn what_came_too_fast_or_was_too_long_is_told_apart_and_leaks_like_what_could_not_be_held() {
        let engine = |overflowed, overrun, oversized| Engine {
            seen: 1000,
            delayed: 900,
            overflowed,
            overrun,
            oversized,
            ..Engine::default()
        };
        let all = evidence(1000, engine(3, 4, 5));
        assert_eq!((all.leaked(), all.passed()), (12, 12));
        assert!(!all.measured());
        for (engine, words) in [
            (engine(1, 0, 0), "as many as allowed were held"),
            (engine(0, 1, 0), "faster than the engine took them in"),
            (engine(0, 0, 1), "too long to be altered"),
        ] {
            let deeds = evidence(1000, engine).deeds();
            let told: Vec<_> = deeds.iter().filter(|deed| deed.starts_with("1 passed unharmed")).collect();
            assert!(told.len() == 1 && told[0].contains(words), "{words}: {deeds:?}");
        }
        let twice = engine(3, 4, 5).plus(&engine(1, 1, 1));
        assert_eq!((twice.overflowed, twice.overrun, twice.oversized), (4, 5, 6));
    }

    #[test]
    fn a_delay_that_became_a_loss_is_no_measurement() {
        let of = |spilled| {
            let name = "netem".to_owned();
            evidence(1000, Engine { name, seen: 1000, delayed: 1000 - spilled, spilled, ..Engine::default() })
        };
        assert!(of(0).measured() && of(10).measured());
        assert!(!of(11).measured());
        assert_eq!((of(11).leaked(), of(11).passed()), (11, 0), "they did not pass");
        let deeds = of(11).deeds();
        assert!(
            deeds.iter().any(|deed| deed.starts_with("11 lost although nobody asked for it")),
            "{deeds:?}"
        );
    }
}
