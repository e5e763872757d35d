//! How long after the fault the system was well again, in both runs.

use super::{Aspect, Comparison, Summary, Trend, closing};
use crate::run::Stated;
use crate::verdict::WellAgain;

/// Recoveries that differ by less than this are not told apart, in milliseconds.
const SOON_MS: u64 = 1_000;

/// When a claim about a rate was well again after both faults: worse where the intervals lie apart.
pub(super) fn compare(stated: &Stated, runs: [&Summary; 2]) -> Option<Comparison> {
    let well = |summary: &Summary| -> Option<WellAgain> {
        let claim = summary.hypotheses.iter().find(|claim| claim.name == stated.name)?;
        claim.findings.iter().filter_map(|found| found.well_again).max_by_key(|well| well.after_ms)
    };
    let (then, now) = (well(runs[0])?, well(runs[1])?);
    let trend = later(then, now);
    let word = |well: WellAgain| {
        let [after, from, to] = [well.after_ms, well.from_ms, well.to_ms].map(closing::seconds);
        if well.from_ms < well.to_ms { format!("{after} ({from} to {to})") } else { after }
    };
    let (earlier, now) = (word(then), word(now));
    let why = format!("well again after {now}, {earlier} then");
    Some(Comparison {
        claim: stated.name.clone(),
        aspect: Aspect::Recovery,
        trend,
        why,
        earlier,
        now,
        against: None,
    })
}

pub(super) fn later(then: WellAgain, now: WellAgain) -> Trend {
    if now.from_ms > then.to_ms + SOON_MS {
        Trend::Worse
    } else if now.to_ms <= then.from_ms + SOON_MS {
        Trend::NoWorse
    } else {
        Trend::Noise
    }
}
