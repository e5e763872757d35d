//! What was well again too late for what was claimed of it.

use super::samples::Samples;
use super::{Claim, Reason, again, closing};
use crate::exit::Exit;
use crate::run::Stated;

/// What held again too late for what was claimed, and what may have; what surely did in time is left out.
pub(super) fn too_late(
    stated: &[Stated],
    claims: &[Claim],
    samples: &Samples<'_>,
    ended_ms: u64,
) -> Vec<Reason> {
    let late = |(claim, stated): (&Claim, &Stated)| {
        let limit_ms = stated.recovers_within_ms?;
        if claim.recovered != Some(true) && claim.unshown.is_none() {
            return None;
        }
        let (from_ms, after_ms) = again::moment(claim, samples, ended_ms)?;
        if from_ms <= limit_ms {
            return None;
        }
        let doubt = match claim.findings.iter().any(|found| found.well_again.is_some()) {
            true => None,
            false => doubt(claim, samples, ended_ms, limit_ms),
        };
        let name = &claim.name;
        let (took, limit) = (closing::seconds(after_ms), closing::seconds(limit_ms));
        let (exit, what) = match doubt {
            None => (
                Exit::Deviated,
                format!("`{name}` was well again {took} after the fault ended, not within {limit}"),
            ),
            Some(doubt) => (
                Exit::Inconclusive,
                format!(
                    "`{name}` was seen to be well again {took} after the fault ended, and whether it was so within {limit} is \
                     not known: {doubt}"
                ),
            ),
        };
        Some(Reason { exit, what, help: None })
    };
    claims.iter().zip(stated).filter_map(late).collect()
}

/// Why samples that show a claim to be well again do not show that it was not so already within a time: it takes two bad ones
/// of three, of which the last was begun later than that.
fn doubt(claim: &Claim, samples: &Samples<'_>, ended_ms: u64, limit_ms: u64) -> Option<&'static str> {
    let found = samples.held_again(ended_ms, &claim.name, claim.tolerate)?;
    let later = |moment: Option<u64>| moment.is_some_and(|moment| moment > ended_ms.saturating_add(limit_ms));
    match (later(found.sure_bad_ms), later(found.bad_ms)) {
        (true, _) => None,
        (false, true) => Some("one bad sample says too little"),
        (false, false) => Some("no sample between that time and this moment says so"),
    }
}
