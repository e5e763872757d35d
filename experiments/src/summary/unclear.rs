//! What can be said where some samples say nothing, and where nobody looked while a fault was live.

use super::Figures;
use crate::probe::When;
use crate::run::Stated;
use crate::verdict::{Finding, Judgement, Outcome, Tally, thousands};

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
    let why = format!("{}; {}", silent(figures, ""), known.why);
    let outcome = match best == worst && best == known.outcome {
        true => known.outcome,
        false => Outcome::Inconclusive,
    };
    Judgement { outcome, why }
}

/// `300 of 600 samples say nothing: no data`; `of` says of which samples.
pub(super) fn silent(figures: &Figures, of: &str) -> String {
    let Figures { tally, unclear, unclear_seen, .. } = figures;
    let seen = unclear_seen.first().map_or_else(String::new, |count| format!(": {}", count.seen));
    format!("{unclear} of {} samples{of} say nothing{seen}", tally.total() + unclear)
}

/// Judges the bounds of a rate of which some looks say nothing, in the same way. What was found without those looks stays only
/// where it is found also if all of them were bad (for what held) or good (for what deviated).
pub(super) fn of_rate(found: &mut [Finding], worst: &[Finding], best: &[Finding], figures: &[Figures; 2]) {
    let [during, before] = figures;
    let silent = match during.unclear {
        0 => silent(before, " of the baseline"),
        _ => silent(during, ""),
    };
    for ((found, worst), best) in found.iter_mut().zip(worst).zip(best) {
        let known = &mut found.judgement;
        let sure = match known.outcome {
            Outcome::Held => worst.judgement.outcome == Outcome::Held,
            Outcome::Deviated => best.judgement.outcome == Outcome::Deviated,
            Outcome::Inconclusive | Outcome::NoData | Outcome::NotSteady => true,
        };
        if during.unclear > 0 || !sure {
            known.why = format!("{silent}; {}", known.why);
        }
        if !sure {
            known.outcome = Outcome::Inconclusive;
            (found.outage, found.sure_after_ms) = (false, None);
        }
    }
}

/// Where more than so many of a hundred requests were never sent, those that were show nothing that held.
const NEVER_SENT: u64 = 10;

/// What can be said of a rate whose load was not sent as it should be: that it held is said of nearly all requests that
/// were due, or not at all. What deviated has deviated with those that were sent.
pub(super) fn sent(judgement: &Judgement, figures: &Figures) -> Judgement {
    let (requests, unsent) = figures.load.as_ref().map_or((0, 0), |load| (load.requests, load.unsent));
    let due = requests.saturating_add(unsent);
    if judgement.outcome != Outcome::Held || unsent.saturating_mul(100) <= due.saturating_mul(NEVER_SENT) {
        return judgement.clone();
    }
    let (unsent, due) = (thousands(unsent), thousands(due));
    let why = format!(
        "{unsent} of {due} requests were never sent, because the load generator was late: {}",
        judgement.why
    );
    Judgement { outcome: Outcome::Inconclusive, why }
}

/// Judges a claim that nobody looked at while a fault was live: by the baseline, which held, and by what came after.
pub(super) fn elsewhere(
    stated: &Stated,
    recovered: Option<bool>,
    unshown: Option<&str>,
) -> Option<Judgement> {
    let judged = |outcome, why: &str| Some(Judgement { outcome, why: why.to_owned() });
    match (stated.is_for(When::After), recovered) {
        (false, _) => judged(Outcome::Held, "it held before anything was done; nobody looked later"),
        (true, Some(true)) => judged(Outcome::Held, "it held after everything was undone"),
        (true, Some(false)) => judged(Outcome::Deviated, "it did not hold after everything was undone"),
        (true, None) => {
            let why = |why| format!("it is not shown that it held after everything was undone: {why}");
            unshown.and_then(|unshown| judged(Outcome::Inconclusive, &why(unshown)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Count;
    use crate::summary::LoadFigures;
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
    fn a_load_that_was_not_sent_shows_nothing_that_held() {
        let judged = |outcome, requests, unsent| {
            let load = Some(LoadFigures { requests, unsent, ..LoadFigures::default() });
            let judgement = Judgement { outcome, why: "0 % failed".to_owned() };
            sent(&judgement, &Figures { load, ..Figures::default() })
        };
        assert_eq!(judged(Outcome::Held, 1000, 0).outcome, Outcome::Held);
        assert_eq!(judged(Outcome::Held, 900, 100).outcome, Outcome::Held);
        let missing = judged(Outcome::Held, 899, 101);
        assert_eq!(missing.outcome, Outcome::Inconclusive);
        let why = "101 of 1,000 requests were never sent, because the load generator was late: 0 % failed";
        assert_eq!(missing.why, why);
        assert_eq!(judged(Outcome::Deviated, 100, 900).outcome, Outcome::Deviated);
        assert_eq!(judged(Outcome::NoData, 0, 0).outcome, Outcome::NoData);
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
            |when: &[When], recovered| elsewhere(&stated(when), recovered, None).map(|judged| judged.outcome);
        assert_eq!(outcome(&[When::Before], None), Some(Outcome::Held));
        assert_eq!(outcome(&[When::After], Some(true)), Some(Outcome::Held));
        assert_eq!(outcome(&[When::After], Some(false)), Some(Outcome::Deviated));
        assert_eq!(outcome(&[When::Before, When::After], None), None);
    }
}
