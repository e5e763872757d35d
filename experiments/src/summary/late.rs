//! What was well again too late for what was claimed of it.

use super::samples::Samples;
use super::{Claim, Reason, Silence, again, closing, rates};
use crate::exit::Exit;
use crate::run::Stated;
use crate::verdict::{Bound, Counts, Fast, Finding, Starts};

/// What held again too late for what was claimed, and what may have; what surely did in time is left out.
pub(super) fn too_late(
    stated: &[Stated],
    claims: &[Claim],
    samples: &Samples<'_>,
    ended_ms: u64,
) -> Vec<Reason> {
    let within = stated.iter().filter(|stated| stated.recovers_within_ms.is_some());
    let among = within.filter_map(|stated| stated.rate.as_ref()).map(|terms| terms.bounds.len()).sum();
    let late = |(claim, stated): (&Claim, &Stated)| {
        let limit_ms = stated.recovers_within_ms?;
        if claim.recovered != Some(true) && claim.unshown.is_none() {
            return None;
        }
        let Some((from_ms, after_ms)) = again::moment(claim, samples, ended_ms) else {
            // Of looks; a rate that is bad now and then has no moment, and keeps its bound all the same.
            let relapsed = claim.recovered == Some(true) && stated.rate.is_none();
            let what = format!(
                "`{}` held again after the fault, and then failed until the end of the watch",
                claim.name
            );
            return relapsed.then(|| Reason::new(Exit::Deviated, what).about(&claim.name));
        };
        if from_ms <= limit_ms {
            return None;
        }
        let doubt = match sure(&claim.findings, stated, samples, ended_ms, limit_ms, among) {
            Some(true) => None,
            Some(false) => Some("too few requests failed after that time to be sure"),
            None => doubt(claim, samples, ended_ms, limit_ms),
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
        Some(Reason::new(exit, what).about(name))
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

/// Whether a rate was well again later than so long after the faults ended: `None` where nothing says so, else whether it is sure.
///
/// Sure is what the requests say that began later than that: if the bound was kept from then on, the chance that their evidence against
/// it ever reaches what decides is at most α, which `among` bounds share. The likeliest moment has no such rate: an error that is
/// usual can look like the end of what was there before.
fn sure(
    found: &[Finding],
    stated: &Stated,
    samples: &Samples<'_>,
    ended_ms: u64,
    limit_ms: u64,
    among: usize,
) -> Option<bool> {
    let terms = stated.rate.as_ref()?;
    let later = |finding: &Finding| finding.well_again.is_some_and(|well| well.from_ms > limit_ms);
    let by = |(finding, bound): (&Finding, &Bound)| {
        let mut counts = Counts::default();
        let own = samples.of(&stated.name);
        own.for_each(|seen| rates::count_with(Silence::Good, *bound, seen, &mut counts));
        let after = counts.since(ended_ms.saturating_add(limit_ms));
        let tolerated = rates::tolerated_after(finding, *bound, stated, samples, ended_ms)?;
        let (_, bad) = after.total();
        if tolerated <= 0.0 {
            return Some(bad >= 2);
        }
        // Half of the error of what is compared is spent on what it is compared with.
        let halves = if bound.tolerated().is_some() { 1.0 } else { 2.0 };
        let enough = halves * among.max(1) as f64 / terms.alpha();
        let mut against = Fast::new(tolerated, Starts::AtOnce);
        let reached = after.grouped(1000).iter().any(|(_, all, bad)| against.step(all, bad) >= enough);
        Some(reached && bad >= 2)
    };
    let late = found.iter().zip(&terms.bounds).filter(|(finding, _)| later(finding));
    late.map(|one| by(one).unwrap_or(false)).reduce(|one, other| one || other)
}
