//! Whether and when the claims held again after the faults, as reasons of a verdict.

use super::samples::Samples;
use super::{Claim, Reason, rates};
use crate::exit::Exit;
use crate::run::Stated;
use crate::verdict::Outcome;

/// What did not hold again, and what was not shown to. The second is worth a note only where it held even while the fault was
/// live and no more was bad afterwards than may be, unless it was claimed to be well again within a time.
pub(super) fn reasons(
    stated: &[Stated],
    claims: &[Claim],
    samples: &Samples<'_>,
    ended_ms: Option<u64>,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (claim, stated) in claims.iter().zip(stated) {
        let name = &claim.name;
        let mut reason = |exit, what| reasons.push(Reason::new(exit, what).about(name));
        if claim.recovered == Some(false) {
            reason(Exit::Deviated, format!("`{name}` did not hold again in time after the revert"));
        }
        let Some(why) = &claim.unshown else { continue };
        let held = claim.judgement.as_ref().is_some_and(|judged| judged.outcome == Outcome::Held);
        let ended = ended_ms.unwrap_or_default();
        let calm = held && rates::within(&claim.findings, stated, samples, ended);
        if !calm || stated.recovers_within_ms.is_some() {
            reason(
                Exit::Inconclusive,
                format!("`{name}` was not shown to hold again after the revert: {why}"),
            );
        }
    }
    reasons
}

/// How long after the faults ended a claim was well again: a rate by its change points, the first moment that is not
/// excluded and the likeliest one; looks by the first of three good ones in a row after which it did not fail again. `None`
/// where there is none.
pub(super) fn moment(claim: &Claim, samples: &Samples<'_>, ended_ms: u64) -> Option<(u64, u64)> {
    // Of several bounds the last one counts, of both moments.
    let points = || claim.findings.iter().filter_map(|found| found.well_again);
    if let Some(after_ms) = points().map(|well| well.after_ms).max() {
        return Some((points().map(|well| well.from_ms).max().unwrap_or(after_ms), after_ms));
    }
    let since_ms =
        samples.held_again(ended_ms, &claim.name, claim.tolerate)?.since_ms.saturating_sub(ended_ms);
    Some((since_ms, since_ms))
}
