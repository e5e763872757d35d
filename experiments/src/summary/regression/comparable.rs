//! Whether two runs may be compared at all.

use super::samples;
use crate::run::{Event, Record, Started, Stated};
use crate::verdict::Phase;

/// Why two runs cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incomparable {
    /// The file does not begin with the first event of a run.
    #[error("it does not begin with the begin of a run")]
    NoRun,
    /// The run is one of another experiment.
    #[error("it is a run of another experiment: {0}")]
    Another(String),
    /// The run never got as far as a fault, or nobody looked while it was live.
    #[error("nothing was looked at in it while a fault was live")]
    Nothing,
}

/// Whether an earlier run can be compared with one that begins, or began, like this: of the same content where both know
/// it, else of the same title and claims; and with something to compare.
pub fn comparable(
    earlier: &[Record],
    title: &str,
    content: Option<&str>,
    claims: &[Stated],
) -> Result<(), Incomparable> {
    let then = started(earlier).ok_or(Incomparable::NoRun)?;
    let another = |what: String| Err(Incomparable::Another(what));
    let before = then.origin.as_ref().and_then(|origin| origin.content.as_deref());
    let same = before.zip(content).map(|(before, now)| before == now);
    if same != Some(true) && then.title != title {
        return another(format!("`{}`, and not `{title}`", then.title));
    }
    if same == Some(false) {
        return another(format!("`{title}` was changed since, or had other variables"));
    }
    if same.is_none() && then.hypotheses != claims {
        return another(format!("`{title}` claimed something else then"));
    }
    let samples = samples(earlier);
    let seen = |stated: &Stated| samples.of_phase(&stated.name, Phase::During).next().is_some();
    if then.hypotheses.iter().any(seen) { Ok(()) } else { Err(Incomparable::Nothing) }
}

pub(super) fn started(log: &[Record]) -> Option<&Started> {
    match &log.first()?.event {
        Event::Started(started) => Some(started),
        _ => None,
    }
}
