//! When each fault of a run is there: from the first host that has it to the last that has not.

use std::collections::{BTreeMap, BTreeSet};

use squall_experiments::muster::{Line, What};
use squall_experiments::run::Event;

use crate::notify::Happening;

/// The faults of one run, as its log tells them.
pub(super) struct Windows {
    run: String,
    names: BTreeMap<u32, String>,
    live: BTreeMap<u32, Live>,
}

/// A fault that is there.
struct Live {
    since: u64,
    hosts: BTreeSet<String>,
}

impl Windows {
    /// Nothing is there yet.
    pub(super) fn of(run: &str) -> Self {
        Windows { run: run.to_owned(), names: BTreeMap::new(), live: BTreeMap::new() }
    }

    /// Hears a line at a time (milliseconds since 1970); gives what came or went by it.
    pub(super) fn hear(&mut self, line: &Line, now: u64) -> Vec<Happening> {
        let What::OnHost { host, record } = &line.what else { return Vec::new() };
        match &record.event {
            Event::Injecting { part, name, .. } => {
                self.names.entry(*part).or_insert_with(|| name.clone());
                Vec::new()
            }
            Event::Injected { part, .. } => {
                let (run, name) = (self.run.clone(), self.name(*part));
                let mut came = Vec::new();
                let live = self.live.entry(*part).or_insert_with(|| {
                    came.push(Happening::FaultInjected { run, part: *part, name });
                    Live { since: now, hosts: BTreeSet::new() }
                });
                live.hosts.insert(host.clone());
                came
            }
            Event::Lifted { part, lifted, .. } if lifted.stuck.is_empty() => {
                let parts: Vec<u32> = match part {
                    Some(part) => vec![*part],
                    None => self.live.keys().copied().collect(),
                };
                parts.into_iter().filter_map(|part| self.lifted(part, host)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn lifted(&mut self, part: u32, host: &str) -> Option<Happening> {
        let live = self.live.get_mut(&part)?;
        if !live.hosts.remove(host) || !live.hosts.is_empty() {
            return None;
        }
        let since = self.live.remove(&part)?.since;
        Some(Happening::FaultReverted { run: self.run.clone(), part, name: self.name(part), since })
    }

    fn name(&self, part: u32) -> String {
        self.names.get(&part).cloned().unwrap_or_else(|| format!("part {part}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn line(host: &str, mut event: Value) -> Line {
        event["seq"] = 1.into();
        event["host"] = host.into();
        event["at_ms"] = 0.into();
        serde_json::from_value(event).expect("a line of a log")
    }

    fn injecting(host: &str) -> Line {
        line(
            host,
            json!({ "event": "injecting", "part": 1, "name": "slow", "changes": [], "lasts_ms": 1000 }),
        )
    }

    fn injected(host: &str) -> Line {
        let applied = json!({ "targets": [], "notes": [], "took_us": 1 });
        line(host, json!({ "event": "injected", "part": 1, "applied": applied }))
    }

    fn lifted(host: &str, part: Option<u32>, stuck: &[&str]) -> Line {
        let lifted = json!({ "evidence": [], "undone": [], "stuck": stuck, "others": [], "took_us": 1 });
        line(host, json!({ "event": "lifted", "part": part, "lifted": lifted, "why": null }))
    }

    #[test]
    fn a_fault_is_there_from_its_first_host_to_its_last() {
        let mut windows = Windows::of("r1");
        let (run, name) = ("r1".to_owned(), "slow".to_owned());
        let came = || [Happening::FaultInjected { run: run.clone(), part: 1, name: name.clone() }];
        let went = |since| Happening::FaultReverted { run: run.clone(), part: 1, name: name.clone(), since };
        assert_eq!(windows.hear(&injecting("a"), 1), []);
        assert_eq!(windows.hear(&injected("a"), 5), came());
        assert_eq!(windows.hear(&injected("b"), 6), []);
        assert_eq!(windows.hear(&lifted("a", Some(1), &[]), 7), []);
        assert_eq!(windows.hear(&lifted("a", None, &[]), 8), [], "what it has not it does not lose");
        assert_eq!(windows.hear(&lifted("b", None, &["a rule"]), 8), [], "what is stuck is there");
        assert_eq!(windows.hear(&lifted("b", None, &[]), 9), [went(5)]);
        assert_eq!(windows.hear(&lifted("b", Some(1), &[]), 9), []);
        // A further stage brings it again.
        assert_eq!(windows.hear(&injected("a"), 20), came());
        assert_eq!(windows.hear(&lifted("a", Some(1), &[]), 21), [went(20)]);
    }
}
