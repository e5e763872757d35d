//! What can be said where some samples say nothing, and where nobody looked while a fault was live.

use super::Figures;
use crate::probe::When;
use crate::run::Stated;
use crate::verdict::{Judgement, Outcome, Tally};

/// Judges samples of which some say nothing: only what is so whatever those would have said. They may all have been
/// good, and all have been bad; where that makes a difference, nothing is known.
pub(super) fn judge(figures: &Figures, judge: impl Fn(Tally) -> Judgement) -> Judgement {
    let Figures { tally, unclear, .. } = figures;
    let known = judge(*tally);
    if *unclear == 0 {
        return known;
    }
    let best = judge(Tally { good: tally.good + unclear, ..*tally }).outcome;
    let worst = judge(Tally { bad: tally.bad + unclear, ..*tally }).outcome;
    let seen = figures.unclear_seen.first().map_or_else(String::new, |count| format!(": {}", count.seen));
    let why = format!("{unclear} of {} samples say nothing{seen}; {}", tally.total() + unclear, known.why);
    let outcome = match best == worst && best == known.outcome {
        true => known.outcome,
        false => Outcome::Inconclusive,
    };
    Judgement { outcome, why }
}

/// Judges a claim that nobody looked at while a fault was live: by the baseline, which held, and by what came after.
pub(super) fn elsewhere(stated: &Stated, recovered: Option<bool>) -> Option<Judgement> {
    let judged = |outcome, why: &str| Some(Judgement { outcome, why: why.to_owned() });
    match (stated.is_for(When::After), recovered) {
        (false, _) => judged(Outcome::Held, "it held before anything was done; nobody looked later"),
        (true, Some(true)) => judged(Outcome::Held, "it held after everything was undone"),
        (true, Some(false)) => judged(Outcome::Deviated, "it did not hold after everything was undone"),
        (true, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Count;
    use crate::verdict::during;

    fn judged(good: u64, bad: u64, unclear: u64) -> Judgement {
        let seen = vec![Count { seen: "no data".to_owned(), times: unclear }];
        let tally = Tally { good, bad };
        let figures = Figures { tally, unclear, unclear_seen: seen, ..Figures::default() };
        judge(&figures, |tally| during(tally, "10%".parse().unwrap(), true))
    }

    #[test]
    fn samples_that_say_nothing_never_decide() {
        for (good, bad, unclear, outcome) in [
            (20, 0, 0, Outcome::Held),
            (20, 0, 1, Outcome::Held),
            (20, 0, 5, Outcome::Inconclusive),
            (0, 20, 5, Outcome::Deviated),
            (10, 2, 9, Outcome::Inconclusive),
            (0, 0, 20, Outcome::Inconclusive),
            (2, 0, 20, Outcome::Inconclusive),
        ] {
            let judged = judged(good, bad, unclear);
            assert_eq!(judged.outcome, outcome, "{good} good, {bad} bad, {unclear} unclear: {}", judged.why);
        }
        let why = "5 of 25 samples say nothing: no data; 0 of 20 samples bad, 10% bad tolerated";
        assert_eq!(judged(20, 0, 5).why, why);
    }

    #[test]
    fn who_is_not_looked_at_during_the_fault_is_judged_by_what_came_after() {
        let stated = |when: &[When]| Stated {
            name: "a".to_owned(),
            tolerate: "0%".parse().unwrap(),
            when: when.to_vec(),
            rate: None,
            recovers_within_ms: None,
            budget: None,
        };
        let outcome =
            |when: &[When], recovered| elsewhere(&stated(when), recovered).map(|judged| judged.outcome);
        assert_eq!(outcome(&[When::Before], None), Some(Outcome::Held));
        assert_eq!(outcome(&[When::After], Some(true)), Some(Outcome::Held));
        assert_eq!(outcome(&[When::After], Some(false)), Some(Outcome::Deviated));
        assert_eq!(outcome(&[When::Before, When::After], None), None);
    }
}
