//! Budgets: what was spent, and what that says.

use super::samples::Samples;
use super::{Figures, Spent};
use crate::guard::{failures, spends};
use crate::run::Stated;
use crate::verdict::{Judgement, Outcome, thousands};

impl Spent {
    /// What the samples of a hypothesis or guard add up to; `None` without a budget. `known` is what was counted when the
    /// run was stopped for it: samples that were under way then may never have come.
    pub(super) fn of(stated: &Stated, guard: bool, samples: &Samples<'_>, known: u64) -> Option<Spent> {
        let budget = stated.budget?;
        let own = samples.all_of(&stated.name, guard).filter(|seen| spends(seen.phase));
        Some(Spent { failed: own.map(failures).sum::<u64>().max(known), budget })
    }

    /// Whether nothing is left.
    pub fn is_all(&self) -> bool {
        self.failed >= self.budget.0
    }

    /// `203 failed since the method began, at most 200 may`.
    pub(super) fn in_words(&self) -> String {
        format!("{} failed since the method began, at most {} may", self.failed, self.budget.0)
    }

    /// What is to be said of a claim with this budget, of which `otherwise` is known without it; `alone`: nothing else was
    /// claimed of how much may fail. `silent` looks said nothing, and may have failed.
    pub(super) fn judge(
        &self,
        otherwise: Judgement,
        during: &Figures,
        silent: u64,
        alone: bool,
    ) -> Judgement {
        let seen = during.load.as_ref().map_or(during.tally.total(), |load| load.requests);
        let open = self.failed.saturating_add(silent) >= self.budget.0;
        let outcome = match (self.is_all(), alone) {
            (true, _) => Outcome::Deviated,
            (false, false) if !open || otherwise.outcome != Outcome::Held => return otherwise,
            (false, false) => Outcome::Inconclusive,
            (false, true) if seen == 0 && silent == 0 => Outcome::NoData,
            (false, true) if open || seen == 0 => Outcome::Inconclusive,
            (false, true) => Outcome::Held,
        };
        let why = match otherwise.outcome {
            Outcome::Deviated if !alone => format!("{}; {}", otherwise.why, self.in_words()),
            _ if outcome != Outcome::Deviated && silent > 0 => {
                format!("{}, and {} samples say nothing", self.in_words(), thousands(silent))
            }
            _ => self.in_words(),
        };
        Judgement { outcome, why }
    }

    /// How many looks that count for a budget said nothing.
    pub(super) fn silent(name: &str, samples: &Samples<'_>) -> u64 {
        samples.of(name).filter(|seen| spends(seen.phase) && seen.unclear).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Summary;
    use crate::exit::Exit;
    use crate::run::Record;

    /// A run in which a claim with a budget of three saw so many failures in each phase; `stopped` is the event of its end.
    fn run(guard: bool, during: u32, recovery: u32, stopped: Option<u64>) -> Summary {
        let stated = json!([{ "name": "a", "tolerate": "0%", "budget": "3 failed",
            "rate": { "bounds": [], "mode": "robust", "confidence": "95%" } }]);
        let (hypotheses, guards) = if guard { (json!([]), stated) } else { (stated, json!([])) };
        let mut events = vec![
            json!({ "event": "started", "run": "r", "title": "t", "date": "", "seed": 1, "plan": "p", "faults": 0,
                "version": "0", "agent": null, "hypotheses": hypotheses, "guards": guards }),
        ];
        let sample = |events: &mut Vec<serde_json::Value>, phase: &str, bad: u32| {
            let load = json!({ "requests": 50, "errors": [{ "seen": "503", "times": bad }],
                "latency": [[1_000_000, 50 - bad]], "late": [] });
            events.push(
                json!({ "event": "sample", "name": "a", "guard": guard, "phase": phase, "good": bad == 0,
                "begun_ms": 1, "took_us": 1, "seen": "", "load": load }),
            );
        };
        sample(&mut events, "baseline", 2);
        events.push(json!({ "event": "baseline-met" }));
        sample(&mut events, "during", during);
        match stopped {
            Some(failed) => events.push(
                json!({ "event": "budget-spent", "name": "a", "failed": failed, "budget": "3 failed" }),
            ),
            None => events.push(json!({ "event": "method-ended" })),
        }
        events.push(json!({ "event": "recovery-began" }));
        sample(&mut events, "recovery", recovery);
        events.push(json!({ "event": "well-again", "after_ms": 1 }));
        let log: Vec<Record> = (0..)
            .zip(events)
            .map(|(at, mut event)| {
                event["at_ms"] = json!(at * 100);
                serde_json::from_value(event).unwrap()
            })
            .collect();
        Summary::of(&log).unwrap()
    }

    #[test]
    fn a_budget_is_judged_by_its_own_count() {
        let kept = run(false, 2, 50, None);
        assert_eq!(kept.exit, Exit::Held, "{}", kept.sentence);
        assert_eq!(kept.sentence, "held: `a`: 2 failed since the method began, at most 3 may");
        let spent = run(false, 2, 0, Some(4));
        assert_eq!(spent.exit, Exit::Deviated);
        assert!(
            spent.sentence.starts_with("deviated: `a`: 4 failed since the method began, at most 3 may"),
            "{}",
            spent.sentence
        );
        assert_eq!(spent.hypotheses[0].budget.unwrap().failed, 4, "what was under way is not lost");
        assert_eq!(
            run(false, 3, 0, None).exit,
            Exit::Deviated,
            "also where it came out too late to stop anything"
        );
    }

    #[test]
    fn a_guards_budget_is_told_as_its_reason() {
        let spent = run(true, 5, 0, Some(3));
        assert_eq!(spent.exit, Exit::Deviated);
        let expected = "deviated: `a` has spent its budget: 5 failed since the method began, at most 3 may";
        assert!(spent.sentence.starts_with(expected), "{}", spent.sentence);
        assert!(
            spent.timeline.iter().any(|moment| moment.what == "`a` has spent its budget: 3 failed, 3 may")
        );
        assert_eq!(run(true, 2, 0, None).exit, Exit::Held);
    }
}
