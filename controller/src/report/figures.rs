//! What a verdict rests on, in lines of plain text for reports that are no terminal.

use squall_experiments::evidence::Evidence;
use squall_experiments::summary::{Claim, Figures, Part, seconds};

/// `14 of 20 good`; `-` where nothing was seen.
pub(super) fn good(figures: &Figures) -> String {
    match (figures.tally.total(), &figures.load) {
        (0, _) => "-".to_owned(),
        (_, Some(load)) => load.to_string(),
        (total, None) => format!("{} of {total} good", figures.tally.good),
    }
}

/// What was seen of a hypothesis, phase by phase, and what was found about each bound.
pub(super) fn of_claim(claim: &Claim) -> Vec<String> {
    let phases = [("before", &claim.before), ("during", &claim.during), ("after", &claim.after)];
    let mut lines: Vec<String> = phases
        .into_iter()
        .filter(|(_, figures)| figures.tally.total() > 0)
        .map(|(phase, figures)| {
            let bad = figures.bad_in_words();
            let bad =
                if bad.is_empty() || figures.load.is_some() { String::new() } else { format!(": {bad}") };
            format!("{phase}: {}{bad}", good(figures))
        })
        .collect();
    lines.extend(claim.findings.iter().map(|found| {
        let again = found.well_again.map_or_else(String::new, |well| {
            format!("; well again after {}", seconds(well.after_ms))
        });
        let share = |share: f64| format!("{:.2}", share * 100.0);
        format!(
            "{} {}: {}; between {} and {} % are bad, evidence against it {:.1}, for it {:.1} (decides at {:.0}){again}",
            found.bound,
            found.judgement.outcome.word(),
            found.judgement.why,
            share(found.low),
            share(found.high),
            found.against,
            found.keeps,
            1.0 / found.alpha,
        )
    }));
    lines.extend(claim.unshown.iter().map(|why| format!("not shown to hold again after the revert: {why}")));
    lines
}

/// What was measured of a fault, and of whom.
pub(super) fn of_part(part: &Part) -> Vec<String> {
    let mut lines = Vec::new();
    if !part.targets.is_empty() {
        lines.push(format!("aimed at {}", part.targets.join(", ")));
    }
    if part.injected_at_ms.is_some() {
        lines.push(part.evidence_in_words());
    }
    lines.extend(part.evidence.iter().flat_map(Evidence::deeds));
    lines.extend(part.undone.iter().map(|what| format!("undone: {what}")));
    lines
}
